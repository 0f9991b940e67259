"""A vision-language model that drives CarRacing: every number about it, from nothing to the table.

    python bench/carracing_policy.py                   all of it, some six hours of one core; finished parts are left alone
    python bench/carracing_policy.py discrete-0        one part, with what it stands on; `--list` names them
    python bench/carracing_policy.py --workers 2       two parts at a time, on one core each

Every part is a handful of `drivetrain` commands with one thread. Returns are those of Gymnasium's own environment on tracks
from seed 90,000 on, which no training draws and nothing was chosen on, at the last checkpoint. Runs go to runs/carracing/,
and each part to bench/results/carracing_policy/PART.json with its commands and the seconds each took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "carracing_policy"
RUNS, DATA = Path("runs/carracing"), Path("data")
PROGRAM = [sys.executable, "-m", "drivetrain"]
TRACKS, MANY, SOME = 90_000, 100, 30
PROMPT = "What should the vehicle do in this scenario?"
NOISE = "Banana trousers under the quiet tax of seven umbrellas."

ENVS = {"discrete": "carracing:repeat=2", "continuous": "carracing-continuous:repeat=2"}
HEADS = {"discrete": ["--smoothing", "0.02"], "continuous": ["--head", "gaussian"]}
EYES = ["--backbone", "tiny-git", "--prompt", PROMPT, "--words", "0.3"]
ROUNDS, ROUND_STEPS = 5, 600
DAGGER = ["--episodes", "16", "--round-steps", str(ROUND_STEPS), "--steps", str(ROUNDS * ROUND_STEPS), "--lr", "6e-4",
          "--beta", "0.2", "--checkpoint-every", str(ROUND_STEPS), "--keep", str(ROUNDS)]  # fmt: skip
PPO = ["--env", ENVS["discrete"], "--worlds", "8", "--rollout", "128", "--minibatch", "256", "--epochs", "5", "--gamma", "0.99",
       "--gae-lambda", "0.95", "--clip", "0.1", "--lr", "1e-4", "--normalise-returns", "--clip-reward", "5",
       "--value-warmup", "20480", "--anchor", "0.02", "--freeze", "--no-anneal"]  # fmt: skip


@dataclass
class Log:
    """The commands of a part, and how long each took."""

    commands: list[dict[str, Any]] = field(default_factory=list)

    def run(self, *words: str, unless: Path | None = None) -> str:
        """Its standard output; what is finished already is not done again, and its time is in the run's metrics."""
        if unless is not None and unless.exists():
            return ""
        start = time.perf_counter()
        done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"drivetrain {' '.join(words)}\n{done.stderr}")
        seconds = round(time.perf_counter() - start, 1)
        self.commands.append({"command": " ".join(["drivetrain", *words]), "seconds": seconds})
        print(f"{seconds:8.1f} s  drivetrain {' '.join(words)}", flush=True)
        return done.stdout

    def measure(self, what: str, run: Path) -> dict[str, Any]:
        """By bench/carracing_words.py."""
        done = subprocess.run(
            [sys.executable, str(HERE / "carracing_words.py"), what, str(run)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"carracing_words.py {what} {run}\n{done.stderr}")
        self.commands.append({"command": f"python bench/carracing_words.py {what} {run}"})
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def judge(self, who: Path | str, tracks: int, *flags: str, against: Path | str = "") -> dict[str, Any]:
        more = ["--against", str(against)] if against else []
        said = json.loads(
            self.run("eval", str(who), "--episodes", str(tracks), "--seed", str(TRACKS), "--json", *more, *flags)
        )
        kept = ("env", "step", "summary", "solved", "laps_finished", "returns", "unread", "asked")
        brief = {
            side: {k: v for k, v in said[side].items() if k in kept} for side in ("result", "against") if side in said
        }
        return {**brief, **({"paired": said["paired"]} if "paired" in said else {})}


def collected(log: Log, kind: str, *flags: str) -> Path:
    """The expert's own episodes, its hand slipping at one step in ten."""
    folder = DATA / f"carracing-{kind}"
    wanted = ["--env", ENVS[kind], "--by", "carracing", "--noise", "0.1", "--episodes", "30"]
    log.run("collect", *wanted, "--output-dir", str(folder), *flags, unless=folder / "meta" / "info.json")
    return folder


def trained(log: Log, name: str, *words: str) -> Path:
    """A run, gone on with where it was interrupted."""
    run, more = RUNS / name, []
    if (run / "config.json").exists():
        more = ["--resume"]
    if not (run / "report.md").exists():
        log.run("train", *words, "--output-dir", str(run), "--quiet", *more)
    return run


def minutes(run: Path) -> float:
    rows = (run / "metrics.jsonl").read_text().splitlines()
    return float(json.loads(rows[-1])["wall_s"]) / 60


def imitated(log: Log, kind: str, seed: int, *eyes: str, name: str = "") -> Path:
    data = collected(log, kind)
    flags = [*(eyes or EYES), *HEADS[kind], *DAGGER, "--seed", str(seed)]
    return trained(log, name or f"{kind}-{seed}", "dagger", "--dataset", str(data), *flags)


def main_result(kind: str, seed: int) -> Callable[[Log], dict[str, Any]]:
    def part(log: Log) -> dict[str, Any]:
        run = imitated(log, kind, seed)
        tracks = MANY if seed == 0 else 40
        return {"minutes": minutes(run), **log.judge(run, tracks)}

    return part


def rounds(kind: str) -> Callable[[Log], dict[str, Any]]:
    """What each round made of seed 0, cloning first."""

    def part(log: Log) -> dict[str, Any]:
        run = imitated(log, kind, 0)
        steps = range(ROUND_STEPS, ROUNDS * ROUND_STEPS + 1, ROUND_STEPS)
        return {str(i): log.judge(run / "checkpoints" / f"{step:09d}", SOME) for i, step in enumerate(steps)}

    return part


def variant(name: str, kind: str, *eyes: str) -> Callable[[Log], dict[str, Any]]:
    def part(log: Log) -> dict[str, Any]:
        run = imitated(log, kind, 0, *eyes, name=name)
        return {"minutes": minutes(run), **log.judge(run, SOME)}

    return part


def untrained(log: Log) -> dict[str, Any]:
    return log.judge(imitated(log, "discrete", 0), SOME, against="untrained")["against"]


def experts(log: Log) -> dict[str, Any]:
    return {kind: log.judge("carracing", MANY, "--env", env) for kind, env in ENVS.items()}


def captions(log: Log) -> dict[str, Any]:
    """LoRA on the frames that the expert drove, and the model that results at the wheel."""
    data, folder, found = collected(log, "discrete"), DATA / "carracing-labels", {}
    log.run("collect", "--as", "captions", "--dataset", str(data), "--style", "plain", "--scenes", "10000",
            "--output-dir", str(folder), unless=folder)  # fmt: skip
    run = trained(log, "captions", "caption", "--backbone", "tiny-git", "--dataset", str(folder), "--steps", "2000")
    for how in ("score", "parse"):
        found[how] = log.judge(run, SOME, "--env", ENVS["discrete"], "--answers", how)
    right = json.loads((run / "examination.json").read_text())
    return {"minutes": minutes(run), "right": right, **found}


def noise(log: Log) -> dict[str, Any]:
    """The same policy, its prompt replaced by words that mean nothing here."""
    return log.judge(imitated(log, "discrete", 0), 40, "--prompt", NOISE)


def obedient(log: Log) -> dict[str, Any]:
    """A policy that learned where orders are given, and what it does on each."""
    data = DATA / "carracing-orders"
    env = f"{ENVS['discrete']},order=any"
    log.run("collect", "--env", env, "--by", "carracing", "--noise", "0.1", "--episodes", "40",
            "--output-dir", str(data), unless=data / "meta" / "info.json")  # fmt: skip
    run = trained(log, "orders", "dagger", "--dataset", str(data), *EYES, *HEADS["discrete"], *DAGGER)
    return {"minutes": minutes(run), **log.measure("orders", run)}


def commentary(log: Log) -> dict[str, Any]:
    return {kind: log.measure("commentary", imitated(log, kind, 0)) for kind in ENVS}


def speed(log: Log) -> dict[str, Any]:
    return log.measure("speed", imitated(log, "discrete", 0))


def improved(log: Log) -> dict[str, Any]:
    """PPO from the finished imitation, on the same tracks."""
    start = imitated(log, "discrete", 0)
    run = trained(log, "ppo", "ppo", "--policy", str(start), *PPO, "--steps", "204800")
    return {"minutes": minutes(run), **moved(run), **log.judge(run, MANY, against=start)}


def rescued(log: Log) -> dict[str, Any]:
    """PPO from a clone that was stopped early."""
    data = collected(log, "discrete")
    start = trained(
        log, "early", "bc", "--dataset", str(data), *EYES, *HEADS["discrete"], "--steps", "900", "--lr", "6e-4"
    )
    run = trained(log, "ppo-early", "ppo", "--policy", str(start), *PPO, "--steps", "307200")
    return {"minutes": minutes(run), **moved(run), **log.judge(run, 40, against=start)}


def moved(run: Path) -> dict[str, Any]:
    """The divergence from where it started, over the last tenth of the run."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    anchored = [row["loss/anchor"] for row in rows if "loss/anchor" in row]
    weight = json.loads((run / "config.json").read_text())["config"]["anchor"]
    last = anchored[-max(len(anchored) // 10, 1) :]
    return {"divergence": sum(last) / len(last) / weight, "steps": rows[-1]["step"]}


def from_scratch(log: Log) -> dict[str, Any]:
    """PPO alone, a small CNN, as many decisions as imitation and PPO saw together."""
    flags = [
        *PPO[: PPO.index("--value-warmup")],
        "--network.hidden",
        "256",
        "--network.activation",
        "relu",
        "--lr",
        "3e-4",
    ]
    run = trained(log, "ppo-scratch", "ppo", *flags, "--steps", "256000")
    return {"minutes": minutes(run), **log.judge(run, SOME)}


PARTS: dict[str, Callable[[Log], dict[str, Any]]] = {
    **{f"{kind}-{seed}": main_result(kind, seed) for seed in range(3) for kind in ENVS},
    "rounds-discrete": rounds("discrete"),
    "rounds-continuous": rounds("continuous"),
    "experts": experts,
    "untrained": untrained,
    "captions": captions,
    "noise": noise,
    "orders": obedient,
    "commentary": commentary,
    "speed": speed,
    "ppo": improved,
    "ppo-early": rescued,
    "ppo-scratch": from_scratch,
    "frozen": variant("frozen", "discrete", *EYES, "--tune", "frozen", "--words", "0"),
    "lora": variant("lora", "discrete", *EYES, "--tune", "lora"),
    "pooled": variant("pooled", "discrete", *EYES, "--look", "pooled"),
    "cnn": variant("cnn", "discrete", "--network.camera", "cnn"),
    "llava": variant("llava", "discrete", "--backbone", "tiny-llava", *EYES[2:]),
}


def do(name: str) -> None:
    path = RESULTS / f"{name}.json"
    if path.exists():
        return
    log = Log()
    found = PARTS[name](log)
    path.write_text(json.dumps({**found, "commands": log.commands}, indent=1) + "\n")
    print(f"{name}: done", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--list", action="store_true", help="name the parts, and which are done")
    parser.add_argument("--workers", type=int, default=1, help="parts at a time")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if unknown := [name for name in options.parts if name not in PARTS]:
        print(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if options.list:
        for name in PARTS:
            print(f"{name:<20} {'done' if (RESULTS / f'{name}.json').exists() else ''}")
        return 0
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(do, options.parts or PARTS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
