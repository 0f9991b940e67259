"""Results that take hours, made part by part: each of a few `drivetrain` commands, kept as a file, and not made twice.

A part is a function that is handed a Log and returns what is to be kept. Runs that several parts stand on are made once, also
where parts are made side by side; what was interrupted goes on. A run that is there already must have been made by the same
settings. Everything is done by one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from drivetrain import catalog, config
from drivetrain.run import describe_environment

PROGRAM = [sys.executable, "-m", "drivetrain"]
HERE = Path(__file__).resolve().parent
GUARDS: dict[Path, threading.Lock] = defaultdict(threading.Lock)


@dataclass
class Log:
    """The commands of a part, and how many seconds each took by the clock and of a processor's work, which suffers less
    from what else is running."""

    commands: list[dict[str, Any]] = field(default_factory=list)

    def run(self, *words: str, allowed: tuple[int, ...] = (0,)) -> str:
        """The standard output of `drivetrain ...`."""
        return self.call([*PROGRAM, *words], " ".join(["drivetrain", *words]), allowed)

    def script(self, *words: str) -> str:
        """The standard output of another script of this folder."""
        return self.call(
            [sys.executable, str(HERE / words[0]), *words[1:]], " ".join(["python", f"bench/{words[0]}", *words[1:]])
        )

    def call(self, command: list[str], said: str, allowed: tuple[int, ...] = (0,)) -> str:
        start = time.perf_counter()
        alone = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            process = subprocess.Popen(command, stdout=out, stderr=err, env=alone)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            for file in (out, err):
                file.seek(0)
            if process.returncode not in allowed:
                raise RuntimeError(f"{said}\n{err.read()}")
            found = out.read()
        seconds = round(time.perf_counter() - start, 1)
        busy = round(used.ru_utime + used.ru_stime, 1)
        self.commands.append({"command": said, "seconds": seconds, "cpu_seconds": busy})
        print(f"{seconds:8.1f} s, {busy:8.1f} s of processor  {said}", flush=True)
        return found

    def train(self, run: Path, *words: str) -> Path:
        """A finished run: as it is, gone on with, or made from nothing."""
        with GUARDS[run]:
            begun = (run / "config.json").exists()
            if begun:
                same_settings(run, words)
            if not (run / "report.md").exists():
                self.run("train", *words, "--output-dir", str(run), "--quiet", *(["--resume"] if begun else []))
            else:
                said = " ".join(["drivetrain train", *words, "--output-dir", str(run), "--quiet"])
                self.commands.append({"command": said, "seconds": round(60 * minutes(run), 1)})
        return run

    def collect(self, folder: Path, *words: str) -> Path:
        """A finished data set."""
        with GUARDS[folder]:
            if not (folder / "meta" / "info.json").exists() and not (folder / "train.csv").exists():
                more = ["--resume"] if folder.exists() and "--as" not in words else []
                self.run("collect", *words, "--output-dir", str(folder), *more)
        return folder


def same_settings(run: Path, words: Sequence[str]) -> None:
    """Refuse a run that other settings made: its name would promise what it is not."""
    algorithm, flags = words[0], words[1:]
    had = json.loads((run / "config.json").read_text())
    table = "stages" if algorithm in catalog.STAGES else "algorithms"
    _, theirs = config.split_flags(flags, config.RunOptions())
    asked = config.to_json(config.parse(catalog.find(table, algorithm).Config(), theirs, "bench"))
    kept = {**asked, **had["config"]}  # a setting that is newer than the run is at its default
    if had["algorithm"] != algorithm or json.loads(json.dumps(asked)) != json.loads(
        json.dumps({k: kept[k] for k in asked})
    ):
        raise RuntimeError(f"{run} was made by other settings; move it away, and it is made anew")


Part = Callable[[Log], dict[str, Any]]


def minutes(run: Path) -> float:
    """Of training, those before an interrupt too."""
    rows = (run / "metrics.jsonl").read_text().splitlines()
    return float(json.loads(rows[-1])["wall_s"]) / 60


def main(about: str, parts: Mapping[str, Part], results: Path) -> int:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--list", action="store_true", help="name the parts, and which are done")
    parser.add_argument("--workers", type=int, default=1, help="parts at a time")
    options = parser.parse_args()
    results.mkdir(parents=True, exist_ok=True)
    if unknown := [name for name in options.parts if name not in parts]:
        print(f"there is no part {unknown[0]}; there are {', '.join(parts)}", file=sys.stderr)
        return 2
    if options.list:
        for name in parts:
            print(f"{name:<20} {'done' if (results / f'{name}.json').exists() else ''}")
        return 0
    with ThreadPoolExecutor(options.workers) as pool:
        failed = [
            name for name in pool.map(lambda name: do(name, parts[name], results), options.parts or parts) if name
        ]
    return 1 if failed else 0


def do(name: str, part: Part, results: Path) -> str:
    """Its own name where it failed."""
    path = results / f"{name}.json"
    if path.exists():
        return ""
    log = Log()
    try:
        found = part(log)
    except Exception as error:  # noqa: BLE001  one part's trouble is not the others'
        print(f"{name}: failed: {error}", file=sys.stderr, flush=True)
        return name
    made = {"commands": log.commands, "environment": describe_environment(0)}
    path.write_text(json.dumps({**found, **made}, indent=1) + "\n")
    print(f"{name}: done", flush=True)
    return ""
