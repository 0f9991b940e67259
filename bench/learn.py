"""Does it learn? Every algorithm on the task its page names, three seeds each, judged at the last checkpoint.

    python bench/learn.py                    what is missing or was made by other code or settings; hours
    python bench/learn.py --only ppo dqn     some of it
    python bench/learn.py --list             what there is, and what of it is up to date

One JSON file per case under bench/results/learn/: the settings, every return, a 95% interval, and a hash of the modules that
made it. Training and evaluation are the commands `drivetrain train` and `drivetrain eval`, on seeds that training never saw.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drivetrain import stats

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "learn"
SEEDS = (30, 31, 32)  # of training; no setting was chosen by these,
PLAYED = 90_000  # nor by the episodes from this seed on
PROGRAM = [sys.executable, "-m", "drivetrain"]


@dataclass(frozen=True)
class Case:
    algorithm: str
    env: str
    steps: int
    wanted: float  # the mean return of every seed must reach this
    flags: tuple[str, ...] = ()
    episodes: int = 20
    modules: tuple[str, ...] = field(default=())  # whose code makes the result, besides the algorithm's and the env's

    @property
    def name(self) -> str:
        return f"{self.algorithm}-{self.env.split(':')[0]}"


CASES = (
    Case("ppo", "cartpole", 100_000, 500),
    Case("dqn", "cartpole", 50_000, 500),
    Case("sac", "pendulum", 20_000, -200),
    Case("grpo", "cartpole", 300_000, 475),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases whose name begins so")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    chosen = [case for case in CASES if not options.only or any(case.name.startswith(o) for o in options.only)]
    failed = 0
    for case in chosen:
        made = code_of(case)
        kept = read(case)
        fresh = bool(kept) and kept["code"] == made and kept["case"] == described(case)
        if options.list:
            print(f"{case.name:<20} {'up to date' if fresh else 'stale' if kept else 'missing'}")
            continue
        result = kept if fresh else learn(case, made)
        failed += not result["passed"]
        print(in_words(case, result), flush=True)
    return 3 if failed else 0


def described(case: Case) -> dict[str, Any]:
    return {"algorithm": case.algorithm, "env": case.env, "steps": case.steps, "flags": list(case.flags)}


def read(case: Case) -> dict[str, Any]:
    path = RESULTS / f"{case.name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def code_of(case: Case) -> str:
    """A hash of our modules that training and judging this case load."""
    script = (
        "import sys, importlib, hashlib; from drivetrain import catalog, evaluate; from drivetrain.envs.words import make_env;"
        "catalog.find('algorithms', sys.argv[1]); make_env(sys.argv[2]).close();"
        "paths = sorted(m.__file__ for n, m in sys.modules.items() if n.startswith('drivetrain') and m.__file__);"
        "print(hashlib.sha256(b''.join(open(p, 'rb').read() for p in paths)).hexdigest()[:16])"
    )
    return run([sys.executable, "-c", script, case.algorithm, case.env]).strip()


def learn(case: Case, made: str) -> dict[str, Any]:
    runs = [one(case, seed) for seed in SEEDS]
    passed = all(r["mean"] >= case.wanted for r in runs)
    everything = stats.summary([x for r in runs for x in r["returns"]]).to_json()
    result = {
        "case": described(case),
        "code": made,
        "wanted": case.wanted,
        "passed": passed,
        "all": everything,
        "runs": runs,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{case.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def one(case: Case, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(Path(scratch) / "run")
        flags = [
            "--env",
            case.env,
            "--steps",
            str(case.steps),
            "--seed",
            str(seed),
            "--output-dir",
            folder,
            *case.flags,
        ]
        print(f"{case.name}, seed {seed} ...", file=sys.stderr, flush=True)
        trained = json.loads(run([*PROGRAM, "train", case.algorithm, *flags, "--json"]))
        asked = ["--episodes", str(case.episodes), "--seed", str(PLAYED), "--json"]
        said = json.loads(run([*PROGRAM, "eval", folder, *asked]))["result"]
    summary = said["summary"]
    seconds = trained["last"]["wall_s"]
    return {
        "seed": seed,
        **{key: summary[key] for key in ("mean", "low", "high", "iqm")},
        "returns": said["returns"],
        "evaluated_on": [said["seeds"][0], said["seeds"][-1]],
        "seconds": seconds,
    }


def run(command: list[str]) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def in_words(case: Case, result: dict[str, Any]) -> str:
    means = ", ".join(f"{r['mean']:.1f}" for r in result["runs"])
    word = "reached" if result["passed"] else "NOT reached"
    return f"{case.name}: {means} after {case.steps} steps; {case.wanted:g} {word}"


if __name__ == "__main__":
    sys.exit(main())
