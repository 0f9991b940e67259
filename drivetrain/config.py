"""Settings: a frozen dataclass, the same thing as JSON, the same thing as flags.

A config is declared at the top of the file that uses it, one comment per field; the comment is its `--help`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import math
import re
import types
import typing
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

from drivetrain.errors import BadConfig

C = TypeVar("C")

# What a setting can be, by name: a name means the same in every config. Other whole numbers start at 0.
FROM_ONE = {
    "accumulate",
    "action_repeat",
    "batch_size",
    "camera_width",
    "capacity",
    "check_every",
    "episodes",
    "epochs",
    "keep",
    "look_width",
}
FROM_ONE |= {"frame_stack", "lanes", "length", "memory_width", "minibatch", "n_step", "rollout", "round_steps", "steps"}
FROM_ONE |= {"target_every", "train_every", "updates", "worlds"}
FROM_ONE |= {"context", "heads", "language_layers", "patch", "picture", "questions", "scenes", "turns"}
FROM_ONE |= {"vision_layers", "vocabulary", "width"}
FROM_ONE |= {"demonstrations", "every", "groups", "judge_batch", "judge_every", "laps", "members", "rounds"}
UP_TO_ONE = {"beta", "dropout", "explore_end", "explore_fraction", "gae_lambda", "gamma", "held_out", "noise", "tau"}
UP_TO_ONE |= {"clip_low", "expectile", "difficulty", "due", "floor", "gate", "smoothing", "widen"}
ABOVE_ZERO = {"actor_lr", "lr", "max_grad_norm"}

OF_PART = {  # flags that may stand without the part they belong to
    "network": {"backbone", "prompt", "look", "tune", "lora_rank", "bundle"},
    "judge": {"backbone", "prompt", "sheet"},
}
OTHER_NAMES = {"--model-path": "--backbone"}  # what others call our flags


def to_json(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)


def from_json(kind: type[C], data: dict[str, Any]) -> C:
    """The config of that kind; a field it does not know, or a value of another type, is an error."""
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in data:
        if name not in known:
            raise BadConfig(f"BadConfig: {kind.__module__} has no setting {name!r}; it has {', '.join(sorted(known))}")
    return kind(**{name: _revived(hints[name], value, name) for name, value in data.items()})


def _revived(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(type, hint), value)
    if typing.get_origin(hint) is tuple:
        return tuple(value)
    allowed = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = [a for a in allowed if isinstance(a, type)]
    if plain and type(value) not in plain:
        raise BadConfig(f"BadConfig: {name} is {value!r}, expected {' or '.join(a.__name__ for a in plain)}")
    return value


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a run is kept; the same for every algorithm."""

    output_dir: str = ""  # the run folder; runs/ALGORITHM where none is named
    resume: bool = False  # go on exactly where this run folder's last checkpoint left off
    checkpoint_every: int = 0  # steps between checkpoints; 0 takes the algorithm's own
    keep: int = 2  # so many of the newest checkpoints stay
    log_every: int = 0  # steps per row of metrics; 0 takes about a thousand rows
    tensorboard: bool = False  # write event files for TensorBoard as well
    threads: int = 1  # processor threads for torch; 0 takes all
    quiet: bool = False  # no progress bar
    json: bool = False  # one JSON object on stdout at the end, and nothing else


def parse(default: C, arguments: Sequence[str], program: str) -> C:
    """`default` with what the flags say; a wrong flag, or a number that cannot be, is one line."""
    import tyro

    known, part = flags(default), "judge" if judged(arguments) else "network"
    arguments = [renamed(argument, known, part) for argument in arguments]
    if {"-h", "--help"} & set(arguments):
        return tyro.cli(type(default), args=list(arguments), default=default, prog=program)
    _refuse_unknown(default, arguments, program)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            config = tyro.cli(type(default), args=list(arguments), default=default, prog=program)
    except SystemExit:
        raise BadConfig(f"BadConfig: {_in_a_line(said.getvalue())}; see `{program} --help`") from None
    _refuse_impossible(config)
    return config


def judged(arguments: Sequence[str]) -> bool:
    """Whether a judge gives the reward; then `--backbone` and `--prompt` are about it."""
    return "--reward=vlm" in arguments or any(pair == ("--reward", "vlm") for pair in pairwise(arguments))


def renamed(argument: str, known: Sequence[str] = (), part: str = "network") -> str:
    """A flag by its own name; those about a backbone may stand without `network.` or `judge.` before them."""
    flag, equals, value = argument.partition("=")
    if not flag.startswith("--"):
        return argument
    flag = OTHER_NAMES.get(flag.replace("_", "-"), flag)
    inner = flag.replace("--", f"--{part}.", 1).replace("_", "-")
    if flag not in known and inner in known and flag[2:].replace("-", "_") in OF_PART[part]:
        flag = inner
    return flag + equals + value


def _in_a_line(box: str) -> str:
    """What tyro draws as a box of several rows: a title, the trouble, and what the flag takes."""
    rows = [re.sub(r"[\s│╭╮╰╯]+", " ", row).strip() for row in re.split(r"[-─]{5,}", box)]
    said = [row for row in rows[1:] if row and not row.startswith("For full helptext")]
    return "; ".join(said or rows).replace("Argument helptext:", "expected")


def flags(config: Any, prefix: str = "--") -> list[str]:
    """Every flag of a config, nested ones with dots."""
    found: list[str] = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        name = prefix + f.name.replace("_", "-")
        found += flags(value, name + ".") if dataclasses.is_dataclass(value) else [name]
    return found


def _refuse_unknown(default: Any, arguments: Sequence[str], program: str) -> None:
    known = flags(default)
    negated = [re.sub(r"^(--(?:.*\.)?)", r"\1no-", flag) for flag in known]
    for argument in arguments:
        flag = argument.split("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in known and flag not in negated:
            near = difflib.get_close_matches(flag, known, n=2, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"see `{program} --help`"
            raise BadConfig(f"BadConfig: there is no flag {flag}; {hint}")


def _refuse_impossible(config: Any, prefix: str = "--") -> None:
    for f in dataclasses.fields(config):
        value, flag = getattr(config, f.name), prefix + f.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            _refuse_impossible(value, flag + ".")
        elif isinstance(value, int | float) and not isinstance(value, bool) and (wanted := _wanted(f.name, value)):
            raise BadConfig(f"BadConfig: {flag} must be {wanted}, got {value}")


def _wanted(name: str, value: float) -> str:
    """What a number of that name must be; empty where this one is."""
    if name in FROM_ONE:
        return "" if value >= 1 else "1 or more"
    if name in UP_TO_ONE:
        return "" if 0 <= value <= 1 else "between 0 and 1"
    if name in ABOVE_ZERO:
        return "" if 0 < value < math.inf else "above 0"
    if isinstance(value, int):
        return "" if value >= 0 else "0 or more"
    return "" if math.isfinite(value) else "a finite number"


def split_flags(arguments: Sequence[str], options: Any) -> tuple[list[str], list[str]]:
    """The flags that belong to `options`, with their values, and the others."""
    known = flags(options)
    known += [flag.replace("--", "--no-", 1) for flag in known]
    mine: list[str] = []
    others: list[str] = []
    into = others
    for argument in arguments:
        if argument.startswith("--"):
            into = mine if argument.split("=")[0].replace("_", "-") in known else others
        into.append(argument)
    return mine, others
