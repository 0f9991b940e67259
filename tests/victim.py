"""A training run in a process of its own, which may be told when to die.

    outcome(algorithm, config, folder, Fate(at_step=40))    exit status; -9 where it was killed

Children are forked from a server that has imported torch once and has done nothing else, so each costs little.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRELOAD = ["drivetrain.cli", "drivetrain.report", "drivetrain.models.driver", "drivetrain.envs.worlds"]
PRELOAD += ["drivetrain.run", "drivetrain.data.replay", "drivetrain.data.open", "torch._dynamo", "matplotlib.pyplot"]
CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.symlink", "shutil.rmtree")


@dataclass(frozen=True)
class Fate:
    """When the process is killed; with nothing said it lives."""

    at_step: int = -1  # SIGKILL when something is logged at this training step, or before the next
    at_change: int = 0  # SIGKILL just before the so manieth change to the folder's files
    after_step: int = 0  # the first to be counted is made at this training step or later
    file_bytes: int = 0  # no file may grow beyond this
    kill_at_limit: bool = True  # SIGKILL in the middle of such a write; otherwise the write fails, as on a full disk
    mapped: bool = False  # replay memory in memory-mapped files, however small


def outcome(algorithm: str, config: Any, folder: Path, fate: Fate | None = None, **options: Any) -> int:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    child = context.Process(target=live, args=(algorithm, config, folder, fate or Fate(), options))
    child.start()
    child.join(120)
    assert child.exitcode is not None, "the child hangs"
    return child.exitcode


def said(folder: Path) -> str:
    """What the latest child that trained in this folder wrote to stderr."""
    return _words(folder).read_text()


def _words(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-stderr.txt")


def live(algorithm: str, config: Any, folder: Path, fate: Fate, options: dict[str, Any]) -> None:
    import toys

    sys.stderr = open(_words(folder), "w", buffering=1)  # noqa: SIM115  closed with the process
    with toys.in_catalog():
        _doom(fate, folder)
        sys.exit(train(algorithm, config, folder, mapped=fate.mapped, **options))


def train(algorithm: str, config: Any, folder: Path, *, mapped: bool = False, **options: Any) -> int:
    """As `drivetrain train` does it; exit status."""
    from drivetrain import catalog, report
    from drivetrain.cli import run_training
    from drivetrain.config import RunOptions
    from drivetrain.errors import UserError

    report.write_report = lambda folder, opening="": folder  # curves take longer to draw than these runs to train
    if mapped:
        map_replay()
    try:
        module = catalog.find("algorithms", algorithm)
        return run_training(module, algorithm, config, RunOptions(output_dir=str(folder), quiet=True, **options))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def map_replay() -> None:
    from drivetrain.data.replay import Replay

    defaults: dict[str, Any] = Replay.__init__.__kwdefaults__
    assert "in_memory_bytes" in defaults
    defaults["in_memory_bytes"] = 0


def _doom(fate: Fate, folder: Path) -> None:
    from drivetrain.run import Run

    reached = [0]  # the step under way
    steps, log = Run.steps, Run.log

    def counted(run: Run, total: int, **rest: Any) -> Any:
        for step in steps(run, total, **rest):
            if 0 <= fate.at_step < step:
                os.kill(os.getpid(), signal.SIGKILL)
            reached[0] = step
            yield step

    def logged(run: Run, step: int, values: dict[str, Any]) -> None:
        log(run, step, values)
        if 0 <= fate.at_step <= step:
            os.kill(os.getpid(), signal.SIGKILL)

    Run.steps, Run.log = counted, logged  # type: ignore[method-assign]
    if fate.at_change:
        _kill_at_change(fate, str(folder), reached)
    if fate.file_bytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fate.kill_at_limit else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (fate.file_bytes, fate.file_bytes))


def _kill_at_change(fate: Fate, folder: str, reached: list[int]) -> None:
    """Python tells an audit hook of every change to the file system before it is made."""
    seen = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or reached[0] < fate.after_step:
            return
        if not any(str(argument).startswith(folder) for argument in arguments[:2]):
            return
        if event == "open" and not set(str(arguments[1])) & set("wax+"):
            return
        seen[0] += 1
        if seen[0] == fate.at_change:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
