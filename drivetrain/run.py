"""The run folder: training writes it, everything else reads it.

    config.json         the algorithm and its settings        checkpoints/    see checkpoint.py
    environment.json    commit, packages, hardware, seed      videos/         episodes, filmed
    metrics.jsonl       one row of numbers per log interval   report.md       the story, with curves.png

`Run.steps` is the heart of every training loop: it restores, counts, saves and shows progress. A checkpoint is a meeting
point: right after one (and at the start) `run.fresh` is true, and the loop begins again with worlds rebuilt from the seed
and the step. Uninterrupted runs do the same, so a run that was killed and resumed ends bit-equal to one that was not.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from drivetrain.errors import BadCheckpoint, BadConfig, NotANumber

PACKAGES = (
    "drivetrain",
    "torch",
    "numpy",
    "gymnasium",
    "safetensors",
    "pyarrow",
    "av",
    "transformers",
    "mujoco",
    "box2d",
)
WALL = "wall_s"  # the one column that differs between equal runs


def processes() -> tuple[int, int]:
    """The number of this process and how many there are, as torchrun tells them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class Run:
    """One training run on disk. Of several processes the first writes; the others read and count along."""

    def __init__(
        self,
        folder: str | Path,
        *,
        checkpoint_every: int = 10_000,
        log_every: int = 1,
        resume: bool = False,
        quiet: bool = False,
        tensorboard: bool = False,
        on_save: Any = None,
        keep: int = 2,
    ):
        self.folder, self.keep = Path(folder), keep
        self.checkpoint_every, self.log_every = checkpoint_every, log_every
        self.first = processes()[0] == 0
        self._took = 0
        self.made: list[Path] = []  # folders that were not there before
        self.fresh = True  # the loop is at a meeting point: rebuild the worlds
        self._resume, self._quiet = resume, quiet
        self._window: dict[str, list[Any]] = defaultdict(list)
        self._wall, self._since = 0.0, time.monotonic()
        self._bar: Any = None
        self._rows: Any = None
        self._events: Any = None
        self._tensorboard, self._on_save = tensorboard, on_save
        self._latest: dict[str, float] = {}

    def begin(self, algorithm: str, config: dict[str, Any]) -> None:
        """Make the folder, or check that it is the run to be resumed; meeting points are a setting like any other."""
        every = {"checkpoint_every": self.checkpoint_every, "log_every": self.log_every}
        said = {"algorithm": algorithm, "config": config, **every}
        if not self.first:
            return
        path = self.folder / "config.json"
        if path.exists():
            self._check_same(said)
        else:
            if self._resume:
                raise BadCheckpoint(
                    f"BadCheckpoint: {self.folder} holds no run to resume; leave --resume away to start it"
                )
            if (self.folder / "meta" / "info.json").exists():
                raise BadConfig(f"BadConfig: {self.folder} holds a data set; name another --output-dir")
            self.made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / "environment.json", describe_environment(config.get("seed", 0)))
            _write(path, said)

    def _check_same(self, said: dict[str, Any]) -> None:
        if not self._resume:
            raise BadConfig(
                f"BadConfig: {self.folder} holds a run already; add --resume to go on with it, or choose another --output-dir"
            )
        had = read_config(self.folder)
        before, now = (_settings(each) for each in (had, json.loads(json.dumps(said))))
        for name, value in now.items():
            if before.get(name) != value:
                raise BadConfig(
                    f"BadConfig: this run was started with {name}={before.get(name)!r}, got {value!r}; "
                    "a resumed run keeps its settings: leave the flag away"
                )

    def steps(self, total: int, *, by: int = 1, **parts: Any) -> Iterator[int]:
        """Count from where the last checkpoint left off up to `total`, saving `parts` at every meeting point. One turn of the
        loop counts for `by` steps, or for as many as `took` was told in it, which may be more than were left."""
        step = self._restore(parts)
        self._begin_metrics(step)
        self._begin_bar(step, total)
        try:
            while step < total:
                yield step
                self.fresh = False
                before, step = step, step + self._took if self._took else min(step + by, total)
                self._took = 0
                self._advance_bar(step - before)
                if step // self.log_every > before // self.log_every:
                    self._flush(step)
                if step // self.checkpoint_every > before // self.checkpoint_every or step >= total:
                    self._flush(step)
                    self._save(step, parts)
                    self.fresh = True
                    if self._on_save:
                        self._on_save(step)
        finally:
            self._end()

    def took(self, steps: int) -> None:
        """So many steps this turn of the loop was."""
        self._took = steps

    def _save(self, step: int, parts: dict[str, Any]) -> None:
        from drivetrain import checkpoint

        if self.first:
            checkpoint.save(self.folder, step, {"progress": self._progress(), **parts}, keep=self.keep)
        else:
            for part in parts.values():
                part.state_dict()  # one that is spread over processes is put together by all of them

    def _restore(self, parts: dict[str, Any]) -> int:
        from drivetrain import checkpoint

        done = checkpoint.steps_in(self.folder)
        if not done:
            return 0
        newest = self.folder / "checkpoints" / f"{done[-1]:09d}"
        step = checkpoint.load(newest, parts)
        if self.first:
            checkpoint.name_last(newest)
        self._wall = checkpoint.read(newest, "progress")["wall_s"]
        return step

    def _progress(self) -> Any:
        return _Constant({"wall_s": self._wall + time.monotonic() - self._since})

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Numbers of this step (floats, or tensors of one entry); the mean over a log interval is written."""
        for name, value in values.items():
            self._window[name].append(value)

    def log_totals(self, step: int, values: dict[str, float]) -> None:
        """Numbers that have been added up since the run began: the last of a log interval is written, not their mean."""
        for name, value in values.items():
            self._window[name] = [value]

    def log_episodes(self, step: int, episodes: Sequence[Any]) -> None:
        """The returns and lengths of episodes that ended in training."""
        for episode in episodes:
            self.log(step, {"return": episode.total, "length": episode.length})

    def _flush(self, step: int) -> None:
        if not self._window:
            return
        row = {name: math.fsum(map(float, values)) / len(values) for name, values in sorted(self._window.items())}
        self._window.clear()
        if not self.first:
            return
        for name, value in row.items():
            if not math.isfinite(value):
                raise NotANumber(
                    f"NotANumber: {name} became {value} by step {step}; the last checkpoint is kept. "
                    "Lower the learning rate or clip rewards, and start anew"
                )
        wall = round(self._wall + time.monotonic() - self._since, 3)
        self._rows.write(json.dumps({"step": step, **row, WALL: wall}) + "\n")
        self._rows.flush()
        self._latest.update(row)
        if self._events:
            for name, value in row.items():
                self._events.add_scalar(name, value, step)

    def _begin_metrics(self, step: int) -> None:
        """Open the metrics, without the rows of steps that a kill took back."""
        self._since = time.monotonic()
        if not self.first:
            return
        path = self.folder / "metrics.jsonl"
        kept = [row for row in read_metrics(self.folder) if row["step"] <= step] if path.exists() else []
        fresh = path.with_suffix(".fresh")
        fresh.write_text("".join(json.dumps(row) + "\n" for row in kept))
        fresh.replace(path)
        self._rows = open(path, "a")  # noqa: SIM115  closed in _end
        if self._tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)

    def _begin_bar(self, step: int, total: int) -> None:
        if self._quiet or not self.first or not sys.stderr.isatty():
            return
        from tqdm import tqdm

        self._bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True, file=sys.stderr)

    def _advance_bar(self, by: int) -> None:
        if self._bar is None:
            return
        self._bar.update(by)
        shown = {k: f"{v:.3g}" for k, v in self._latest.items() if k in ("loss", "return")}
        self._bar.set_postfix(shown, refresh=False)

    def _end(self) -> None:
        if self._rows:
            self._rows.close()
        if self._bar is not None:
            self._bar.close()
        if self._events:
            self._events.close()


def _settings(said: dict[str, Any]) -> dict[str, Any]:
    return {**said["config"], **{name: said.get(name) for name in ("algorithm", "checkpoint_every", "log_every")}}


class _Constant:
    def __init__(self, state: dict[str, Any]):
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise BadCheckpoint(f"BadCheckpoint: {folder} is no run folder (it has no config.json); give one") from None
    except ValueError:
        raise BadCheckpoint(f"BadCheckpoint: {folder}/config.json is not JSON; restore it or train anew") from None
    return config


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run; a last line cut short by a kill is left out."""
    rows = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def describe_environment(seed: int) -> dict[str, Any]:
    """What a reader needs to run the same again."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": versions,
        "seed": seed,
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _commit() -> str:
    """The commit of this source tree, with a mark where it has changes; empty outside a checkout."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""


def _write(path: Path, data: Any) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps(data, indent=1) + "\n")
    fresh.replace(path)
