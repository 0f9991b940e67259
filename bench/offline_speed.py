"""Updates a second of offline learning, beside d3rlpy: the same sizes, one thread each, one after the other in turns.

    sh bench/peers/d3rlpy.sh && python bench/offline_speed.py        about five minutes, alone on the machine

A turn's rate is that of its middle update, which a machine's stalls do not move; what a turn takes as a whole is kept too.
`cql-bfloat16` is ours with `--precision bfloat16`, beside d3rlpy's CQL, which has no such thing; it is left out where the
processor has no units for it. Writes bench/results/offline_speed.json: the turns, and by algorithm the ratio of their rates.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from drivetrain import catalog, processor
from drivetrain.cli import main as drivetrain
from drivetrain.run import describe_environment

HERE = Path(__file__).resolve().parent
PEER = [str(HERE.parent / ".venv-d3rlpy" / "bin" / "python"), str(HERE / "peers" / "d3rlpy_run.py")]
STEPS = {"iql": 400, "td3bc": 400, "cql": 40, "cql-bfloat16": 40}
TURNS, FIRST = 3, 10


def ours(name: str, data: Path, steps: int, folder: Path) -> list[float]:
    """Seconds of each of so many updates, drawing the batches too; as `train` does it."""
    from drivetrain.run import Run

    algorithm, _, precision = name.partition("-")
    module = catalog.find("algorithms", algorithm)
    marks: list[float] = []

    class Timed(Run):
        def steps(self, total: int, **parts: Any) -> Iterator[int]:
            for step in super().steps(total, **parts):
                marks.append(time.perf_counter())
                yield step

    run = Timed(folder, checkpoint_every=10**9, log_every=10**9, quiet=True)
    more = {"precision": precision} if precision else {}
    settings = replace(module.Config(), dataset=str(data), steps=FIRST + steps + 1, **more)
    run.begin(algorithm, {})
    module.train(settings, run)
    return [after - before for before, after in pairwise(marks)][FIRST:]


def theirs(name: str, data: Path, steps: int) -> list[float]:
    command = [*PEER, name.partition("-")[0], str(data), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"d3rlpy: {done.stderr[-2000:]}")
    found: list[float] = json.loads(done.stdout.splitlines()[-1])["each_s"]
    return found


def rates(side: str, seconds: list[float]) -> dict[str, float]:
    """Of the middle one, two by two: td3bc's policy learns at every second update."""
    both = [first + second for first, second in zip(seconds[::2], seconds[1::2], strict=False)]
    return {f"{side}_per_s": 2 / statistics.median(both), f"{side}_whole_per_s": len(seconds) / sum(seconds)}


def main() -> int:
    if not Path(PEER[0]).exists():
        print("there is no d3rlpy; make it: sh bench/peers/d3rlpy.sh", file=sys.stderr)
        return 2
    processor.use(1)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data, file = folder / "random", folder / "hopper_random.hdf5"
        drivetrain(["collect", "--env", "hopper", "--by", "random", "--episodes", "500", "--output-dir", str(data)])
        drivetrain(["collect", "--as", "d4rl", "--dataset", str(data), "--output-dir", str(file)])
        for name, steps in STEPS.items():
            if name.endswith("bfloat16") and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
                print(f"{name}: left out; this processor has no units for it")
                continue
            turns = []
            for turn in range(TURNS):
                mine = rates("ours", ours(name, data, steps, folder / f"{name}-{turn}"))
                turns.append({**mine, **rates("theirs", theirs(name, file, steps))})
            ratios = [turn["ours_per_s"] / turn["theirs_per_s"] for turn in turns]
            found[name] = {
                "turns": turns,
                "times_as_fast": statistics.median(ratios),
                "from": min(ratios),
                "to": max(ratios),
            }
            print(f"{name}: {found[name]['times_as_fast']:.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")
    where = HERE / "results" / "offline_speed.json"
    where.write_text(
        json.dumps({"against": "d3rlpy 2.8.1", **found, "environment": describe_environment(0)}, indent=1) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
