"""The ladder: one world, one data set, one encoder, and every algorithm that applies, in one table and one picture.

    drivetrain ladder cartpole --seeds 3 --output-dir runs/ladder/cartpole
    drivetrain ladder mine.toml --only bc,iql,ppo

A ladder is a TOML file; those that ship are named without their ending:

    about = "Balance a pole; 475 is called solved."
    env = "cartpole"
    collect = "--by cartpole --noise 0.3 --episodes 25"     # flags of `drivetrain collect`, which make the data set
    eval = ""                                                # flags of `drivetrain eval`, by which everybody is judged
    flags = "--network.state-layers 64 64"                   # what every algorithm is told that has such a flag

    [ppo]
    flags = "--steps 100000"                                 # what this one is told besides

An algorithm that has no part there is trained as it comes. One that refuses, because the world's actions are not of its kind
or no expert knows it, is named with its reason. Every rung is `drivetrain train` and `drivetrain eval` with one thread, judged
at the last checkpoint on seeds that no training draws. What is finished is not made twice, and what was interrupted goes on.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from drivetrain import catalog, config, evaluate, stats
from drivetrain.errors import BadConfig, BadData, UnknownName, UserError
from drivetrain.run import read_config, read_metrics
from drivetrain.rungs import picture, table

LADDERS = Path(__file__).resolve().parent / "ladders"
PROGRAM = [sys.executable, "-m", "drivetrain"]
INTERRUPTED = (130, -2)  # statuses
UNSUITED = ("BadConfig", "UnknownName", "SpecMismatch")  # a world that is not for the algorithm; all else is a failure
FLOOR = "random"  # everybody should be above it


@dataclass(frozen=True)
class Config:
    seeds: int = 3  # trainings of each algorithm
    first_seed: int = 0  # of the first training; the others count on from it
    episodes: int = 20  # of each training's evaluation
    seed: int = 90_000  # the first episode's of each
    only: str = ""  # these algorithms alone, with commas between
    workers: int = 1  # trainings side by side
    output_dir: str = ""  # data, runs, ladder.json, ladder.md and ladder.svg; runs/ladder/NAME where none is named
    json: bool = False  # one JSON object on stdout at the end, and nothing else


@dataclass(frozen=True)
class Ladder:
    name: str
    env: str
    about: str
    collect: tuple[str, ...]
    eval: tuple[str, ...]
    flags: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]


class Rung(NamedTuple):
    """One training of one algorithm, and what came of it."""

    algorithm: str
    seed: int
    said: dict[str, Any]  # its evaluation; nothing where it refused or was lost
    refused: str = ""  # why nobody can train it here
    lost: str = ""  # why this training alone came to nothing


def shipped() -> list[str]:
    return sorted(path.stem for path in LADDERS.glob("*.toml"))


def read_ladder(name: str) -> Ladder:
    """One that ships, or a file."""
    path = Path(name) if name.endswith(".toml") or Path(name).is_file() else LADDERS / f"{name}.toml"
    if not path.is_file():
        raise UnknownName("ladder", name, shipped())
    try:
        said = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"BadConfig: {path} is no TOML: {error}") from None
    parts = {key: value for key, value in said.items() if isinstance(value, dict)}
    if unknown := [key for key in said if key not in {"about", "env", "collect", "eval", "flags", *parts}]:
        raise BadConfig(
            f"BadConfig: {path} says {unknown[0]}; a ladder has about, env, collect, eval, flags and algorithms"
        )
    if missing := [key for key in ("env", "collect") if key not in said]:
        raise BadConfig(f"BadConfig: {path} does not say {missing[0]}; see `drivetrain ladder --help`")
    for algorithm, part in parts.items():
        if algorithm not in catalog.ALGORITHMS:
            raise UnknownName("algorithm", algorithm, catalog.ALGORITHMS)
        if set(part) - {"flags"}:
            raise BadConfig(f"BadConfig: {path} tells {algorithm} {min(set(part) - {'flags'})}; it takes flags alone")
    text = {key: _text(said.get(key, ""), f"{key} of {path}") for key in ("about", "env", "collect", "eval", "flags")}
    words = {key: _words(text[key], f"{key} of {path}") for key in ("collect", "eval", "flags")}
    told = {key: _words(part.get("flags", ""), f"flags of {key} in {path}") for key, part in parts.items()}
    return Ladder(path.stem, text["env"], text["about"], words["collect"], words["eval"], words["flags"], told)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise BadConfig(f"BadConfig: {what} must be text in quotation marks, got {value!r}")
    return value


def _words(value: Any, what: str) -> tuple[str, ...]:
    text = _text(value, what)
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise BadConfig(f"BadConfig: {what} is {text!r}: {str(error).lower()}; close it") from None


def climb(name: str, settings: Config) -> dict[str, Any]:
    """Everything `drivetrain ladder` makes, as one object."""
    ladder = read_ladder(name)
    if min(settings.seeds, settings.episodes, settings.workers) < 1:
        raise BadConfig(
            "BadConfig: seeds, episodes and workers must be 1 or more, "
            f"got {settings.seeds}, {settings.episodes} and {settings.workers}"
        )
    asked = [word.strip() for word in settings.only.split(",") if word.strip()] or list(catalog.ALGORITHMS)
    for algorithm in asked:
        if algorithm not in catalog.ALGORITHMS:
            raise UnknownName("algorithm", algorithm, catalog.ALGORITHMS)
    folder = Path(settings.output_dir or f"runs/ladder/{ladder.name}")
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    wanted = {(name, seed): command(ladder, name, folder / "data", seed) for name in asked for seed in seeds}
    for words in wanted.values():
        refuse_wrong_flags(words)
    config.parse(evaluate.Config(), list(ladder.eval), "drivetrain eval")
    for (algorithm, seed), words in wanted.items():
        once(folder, f"{algorithm}-{seed}", [*words, *ladder.eval])
    data = collected(ladder, folder)
    tell(f"the data set: {data['episodes']} episodes, {data['frames']:,} steps", settings)
    floors = {name: untrained(ladder, folder, name, settings) for name in floor(ladder)}
    refused: dict[str, Rung] = {}

    def climbed(one: tuple[tuple[str, int], list[str]]) -> Rung:
        (algorithm, seed), words = one
        if algorithm in refused:  # it would say the same to every seed
            return refused[algorithm]
        found = rung(ladder, folder, algorithm, seed, words, settings)
        if found.refused:
            refused[algorithm] = found
            tell(f"{algorithm}: {found.refused}", settings)
        return found

    with ThreadPoolExecutor(settings.workers) as pool:
        rungs = list(pool.map(climbed, wanted.items()))
    said = told(ladder, settings, data, rungs, floors)
    (folder / "ladder.json").write_text(json.dumps(said, indent=1) + "\n")
    (folder / "ladder.svg").write_text(picture(said))
    (folder / "ladder.md").write_text(page(said))
    return said


def refuse_wrong_flags(words: Sequence[str]) -> None:
    """A flag that its algorithm does not know is a mistake of the ladder's, not a world that does not suit the algorithm."""
    _, algorithm, *flags = words
    _, theirs = config.split_flags(flags, config.RunOptions())
    config.parse(catalog.find("algorithms", algorithm).Config(), theirs, f"drivetrain train {algorithm}")


def floor(ladder: Ladder) -> Iterator[str]:
    """Who needs no training: chance, and the demonstrator where it is an expert."""
    yield FLOOR
    words = [half for word in ladder.collect for half in word.split("=", 1)]
    by = words[words.index("--by") + 1] if "--by" in words[:-1] else ""
    if by in catalog.EXPERTS:
        yield by


def untrained(ladder: Ladder, folder: Path, name: str, settings: Config) -> dict[str, Any]:
    return judged(folder / f"{name}.json", [name, "--env", ladder.env, *ladder.eval], settings)


def collected(ladder: Ladder, folder: Path) -> dict[str, Any]:
    """The data set, made once, in a few words."""
    place, words = folder / "data", ["collect", "--env", ladder.env, *ladder.collect]
    once(folder, "data", words)
    if not (place / "meta" / "info.json").exists():
        more = ["--resume"] if place.exists() else []
        run([*words, "--output-dir", str(place), *more], "the data set")
    info = json.loads((place / "meta" / "info.json").read_text())
    return {"episodes": info["total_episodes"], "frames": info["total_frames"], "command": " ".join(words)}


def command(ladder: Ladder, algorithm: str, data: Path, seed: int) -> list[str]:
    """Of one training: `train` and all that follows, but for where it goes."""
    default = catalog.find("algorithms", algorithm).Config()
    known = config.flags(default)
    words = ["--dataset", str(data)] if "--dataset" in known else []
    told = ladder.parts.get(algorithm, ())
    if getattr(default, "env", "") and "--env" not in told:  # whoever learns from data alone takes its world from there
        words += ["--env", ladder.env]
    shared: list[str] = []
    mine = False
    for word in ladder.flags:
        if word.startswith("--"):
            mine = config.renamed(word.split("=")[0], known) in known
        shared += [word] if mine else []
    return ["train", algorithm, *words, *shared, *told, "--seed", str(seed)]


def rung(ladder: Ladder, folder: Path, algorithm: str, seed: int, words: Sequence[str], settings: Config) -> Rung:
    """One training, as far as it is not done yet, and its evaluation."""
    name = f"{algorithm}-{seed}"
    place = folder / name
    if not (place / "report.md").exists():
        more = ["--resume"] if (place / "config.json").exists() else []
        done = call([*words, "--output-dir", str(place), "--quiet", *more])
        why = done.stderr.strip().rpartition("\n")[2] or f"ended with status {done.returncode}"
        if done.returncode == 2 and why.startswith(UNSUITED) and not (place / "metrics.jsonl").exists():
            return Rung(algorithm, seed, {}, refused=why)
        if done.returncode not in (0, 2, *INTERRUPTED) or (done.returncode == 2 and why.startswith("NotANumber")):
            tell(f"{name}: lost: {why}", settings)  # the others' trouble it is not; the next climb tries it again
            return Rung(algorithm, seed, {}, lost=why)
        refuse_failure(done, name)
    said = judged(place / "eval.json", [str(place), *ladder.eval], settings)
    rows = read_metrics(place)
    found = {
        "returns": said["returns"],
        "summary": said["summary"],
        "minutes": round(rows[-1]["wall_s"] / 60, 2),
        "acted": acted(algorithm, place, rows[-1]["step"]),
        "steps": rows[-1]["step"],
        "command": " ".join(["drivetrain", *words]),
    }
    tell(f"{name}: {found['summary']['mean']:.1f} after {found['minutes']:.1f} minutes", settings)
    return Rung(algorithm, seed, found)


def acted(algorithm: str, place: Path, steps: int) -> int:
    """Steps that it took in the world while it learned."""
    if (place / "rounds").is_dir():
        infos = sorted((place / "rounds").glob("*/meta/info.json"))
        return sum(json.loads(info.read_text())["total_frames"] for info in infos)
    settings = catalog.find("algorithms", algorithm).Config()
    if hasattr(settings, "acting"):  # a data set first, and then perhaps the world
        return int(read_config(place)["config"]["acting"])
    return steps if getattr(settings, "env", "") else 0


def judged(kept: Path, who: list[str], settings: Config) -> dict[str, Any]:
    """An evaluation, made once."""
    asked = ["--episodes", str(settings.episodes), "--seed", str(settings.seed)]
    if kept.exists():
        said = json.loads(kept.read_text())["result"]
        if said["seeds"] == list(range(settings.seed, settings.seed + settings.episodes)):
            return dict(said)
    kept.parent.mkdir(parents=True, exist_ok=True)
    run(["eval", *who, *asked, "--save", str(kept), "--json"], who[0])
    return dict(json.loads(kept.read_text())["result"])


def once(folder: Path, name: str, words: Sequence[str]) -> None:
    """Refuse what is there already and was made by another command; wherever the folder lies."""
    path = folder / "commands" / f"{name}.json"
    words = [word.replace(f"{folder}{os.sep}", "", 1) for word in words]
    if path.exists():
        if json.loads(path.read_text()) == words:
            return
        if (folder / name).exists():  # what was refused left no folder, and may be mended
            raise BadConfig(
                f"BadConfig: {folder / name} was made by other settings; move {folder} away, or name another folder"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(words) + "\n")


def run(words: Sequence[str], what: str) -> str:
    done = call(words)
    refuse_failure(done, what)
    return done.stdout


def refuse_failure(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode in INTERRUPTED:
        raise KeyboardInterrupt
    if done.returncode == 2:
        raise UserError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise BadData(f"BadData: {what} ended with status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")


def call(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=False, env=alone)


def tell(text: str, settings: Config) -> None:
    print(text, file=sys.stderr if settings.json else sys.stdout, flush=True)


def told(
    ladder: Ladder, settings: Config, data: dict[str, Any], rungs: Sequence[Rung], floors: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    for algorithm in dict.fromkeys(one.algorithm for one in rungs):
        mine = [one for one in rungs if one.algorithm == algorithm]
        runs = [{"seed": one.seed, **one.said} for one in mine if one.said]
        if not runs:
            refused[algorithm] = next(one.refused or one.lost for one in mine)
            continue
        family = catalog.ALGORITHMS[algorithm].target.split(".")[-2]
        centre = stats.nested([one["returns"] for one in runs])
        summary = {"n": len(runs), "mean": centre.value, "low": centre.low, "high": centre.high}
        lost = {str(one.seed): one.lost for one in mine if one.lost}
        found.append({"algorithm": algorithm, "family": family, "summary": summary, "runs": runs, "lost": lost})
    found.sort(key=lambda row: -row["summary"]["mean"])
    return {
        "ladder": ladder.name,
        "env": ladder.env,
        "about": ladder.about,
        "data": data,
        "episodes": settings.episodes,
        "first_episode": settings.seed,
        "rungs": found,
        "refused": refused,
        "floors": {name: said["summary"] for name, said in floors.items()},
    }


def page(said: dict[str, Any]) -> str:
    return f"# {said['ladder']}\n\n{said['about']}\n\n![the ladder](ladder.svg)\n\n{table(said)}"


def in_words(said: dict[str, Any]) -> str:
    return table(said).rstrip()
