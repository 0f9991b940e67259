"""The ladders that ship, climbed: every algorithm that applies, three trainings of each.

    python bench/ladder.py                        all of them; hours
    python bench/ladder.py cartpole --workers 2   one, two trainings at a time on one core each
    python bench/ladder.py pendulum-sac-0         one training; `--list` names them, and which are done

Each is a training and an evaluation of `drivetrain ladder NAME`, with three seeds and what else is its default; runs go to
runs/ladder/, what was found to bench/results/ladder/parts/, and what a ladder's parts come to together to
bench/results/ladder/NAME.json. What is finished is not made twice, and what was interrupted goes on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parts import GUARDS, Log, main

from drivetrain import catalog, ladder

RESULTS = Path(__file__).resolve().parent / "results" / "ladder"
PARTS_OF_IT = RESULTS / "parts"
SETTINGS = ladder.Config()
FLOORS = "floors"


def place(name: str) -> Path:
    return Path("runs/ladder") / name


def data(said: ladder.Ladder) -> dict[str, Any]:
    folder = place(said.name)
    with GUARDS[folder]:
        return ladder.collected(said, folder)


def trained(name: str, algorithm: str, seed: int) -> Callable[[Log], dict[str, Any]]:
    def part(log: Log) -> dict[str, Any]:
        said, folder = ladder.read_ladder(name), place(name)
        words = ladder.command(said, algorithm, folder / "data", seed)
        ladder.refuse_wrong_flags(words)
        ladder.once(folder, f"{algorithm}-{seed}", [*words, *said.eval])
        by = data(said)
        return {"data": by, **ladder.rung(said, folder, algorithm, seed, words, SETTINGS)._asdict()}

    return part


def floors(name: str) -> Callable[[Log], dict[str, Any]]:
    def part(log: Log) -> dict[str, Any]:
        said, folder = ladder.read_ladder(name), place(name)
        return {who: ladder.untrained(said, folder, who, SETTINGS) for who in ladder.floor(said)}

    return part


def parts_of(name: str) -> dict[str, Callable[[Log], dict[str, Any]]]:
    each = {
        f"{name}-{algorithm}-{seed}": trained(name, algorithm, seed)
        for algorithm in catalog.ALGORITHMS
        for seed in range(SETTINGS.seeds)
    }
    return {f"{name}-{FLOORS}": floors(name), **each}


def gather(name: str) -> None:
    """All that is there of a ladder, as `drivetrain ladder` would tell it: of each algorithm every training, or none."""
    shipped = ladder.read_ladder(name)
    found = {
        one: json.loads(path.read_text()) for one in parts_of(name) if (path := PARTS_OF_IT / f"{one}.json").exists()
    }
    untrained = found.pop(f"{name}-{FLOORS}", {})
    rungs = [ladder.Rung(**{key: one[key] for key in ladder.Rung._fields}) for one in found.values()]
    for rung in rungs:
        words = ["drivetrain", *ladder.command(shipped, rung.algorithm, place(name) / "data", rung.seed)]
        if rung.said and rung.said["command"] != " ".join(words):
            old = f"{PARTS_OF_IT.name}/{name}-{rung.algorithm}-{rung.seed}.json"
            raise SystemExit(
                f"{old} is of other flags than {name}.toml has now; remove it and its run, and make it anew"
            )
    whole = {
        who for who in catalog.ALGORITHMS if sum(rung.algorithm == who for rung in rungs) == SETTINGS.seeds
    }  # who refuses does so once per seed here
    rungs = [rung for rung in rungs if rung.algorithm in whole]
    if not any(rung.said for rung in rungs):
        return
    below = {who: said for who, said in untrained.items() if "returns" in said}
    said = ladder.told(shipped, SETTINGS, next(iter(found.values()))["data"], rungs, below)
    said["pending"] = [who for who in catalog.ALGORITHMS if who not in whole]
    (RESULTS / f"{name}.json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    names = ladder.shipped()
    parts = {name: part for each in names for name, part in parts_of(each).items()}
    sys.argv[1:] = [one for word in sys.argv[1:] for one in (parts_of(word) if word in names else [word])]
    status = main(__doc__ or "", parts, PARTS_OF_IT)
    for each in names:
        gather(each)
    sys.exit(status)
