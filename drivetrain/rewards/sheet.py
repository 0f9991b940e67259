"""A judge's sheet: what is asked about a frame, and what reward comes of the answers. A TOML file that users edit.

    env = "cartpole"                     # whose frames
    sees = "render"                      # what is shown: `render`, or the name of an observation
    rows = [160, 320]                    # of it, these rows alone (all without)
    reward = "1 - 0.5 * abs(tilt) / 12 - 0.5 * abs(position) / 240"
    ends = "abs(tilt) > 12"              # when the episode is over; never, where this is left out
    patience = 1                         # so many frames in a row must say so before it is
    grace = 0                            # so many frames from an episode's beginning end nothing
    unread = -1.0                        # the reward where an answer cannot be read; such a frame never ends an episode
    bad = "abs(tilt) > 8"                # states that must not be rewarded above `good_reward`: what an audit counts
    good_reward = 0.5

    [ask.tilt]
    prompt = "By how many degrees does the pole lean? Right is positive."
    way = "number"                       # how an answer becomes a number, see WAYS
    truth = "tilt_deg"                   # what an audit compares with: a formula of the world's facts
    reworded = ["What is the tilt of the pole in degrees, positive to the right?"]

The names under `ask` are those that `reward`, `ends` and `bad` speak of; `bad` is of the truth, the others of the answers.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from drivetrain.errors import BadConfig, UnknownName
from drivetrain.rewards.formula import FUNCTIONS, Formula, formula

SHEETS = Path(__file__).resolve().parent / "sheets"
WAYS = {
    "number": "the number in the text that it generates",
    "expected": "the expected number, by the probability of each of `numbers`",
    "yes": "the probability of yes against no",
    "log_yes": "the logarithm of that",
    "rating": "the expected rating from 1 to 10",
    "choice": "which of `choices`, by their probabilities: 0 is the first, 1 the last",
    "preference": "the probability that the second of two pictures, the reference first, is the better one",
    "similarity": "how much nearer the picture is to `goal` than to `baseline`, for CLIP-style models",
}


@dataclass(frozen=True)
class Ask:
    """One question about a frame."""

    prompt: str
    way: str = "number"
    truth: str = ""
    reworded: tuple[str, ...] = ()
    numbers: tuple[int, int] = (-30, 30)  # of `expected`, and of a judge that guesses
    choices: tuple[str, ...] = ()  # of `choice`, in their order
    reference: str = ""  # of `preference`: a picture file
    goal: str = ""  # of `similarity`
    baseline: str = ""


@dataclass(frozen=True)
class Sheet:
    env: str
    ask: dict[str, Ask]
    reward: str
    ends: str = ""
    patience: int = 1
    grace: int = 0
    bad: str = ""
    good_reward: float = 0.5
    unread: float = 0.0
    sees: str = "render"
    rows: tuple[int, int] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.ask)

    def formula(self, which: str) -> Formula | None:
        text = getattr(self, which)
        return formula(text, self.names) if text else None

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def asking(self, prompt: str) -> Sheet:
        """The same with another wording of its one question."""
        if len(self.ask) != 1:
            raise BadConfig(
                f"BadConfig: --prompt rewords a sheet of one question, this has {', '.join(self.ask)}; edit it"
            )
        ((name, ask),) = self.ask.items()
        if ask.way == "similarity":
            raise BadConfig(
                "BadConfig: --prompt rewords a question, and similarity has goal and baseline; edit the sheet"
            )
        return replace(self, ask={name: replace(ask, prompt=prompt)})


def open_sheet(name_or_path: str) -> Sheet:
    """One that comes with the package, by name, or a file."""
    path = SHEETS / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        if path.suffix == ".toml":
            raise BadConfig(
                f"BadConfig: there is no judge's sheet {path}; give a .toml file, or {', '.join(shipped())}"
            )
        raise UnknownName("judge's sheet", name_or_path, shipped())
    try:
        said = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"BadConfig: {path} is no TOML ({error}); mend it") from None
    return sheet_of(said, str(path))


def shipped() -> list[str]:
    return sorted(path.stem for path in SHEETS.glob("*.toml"))


def sheet_of(said: dict[str, Any], where: str) -> Sheet:
    asks = said.pop("ask", {})
    if not isinstance(asks, dict) or not asks:
        raise BadConfig(f"BadConfig: {where} asks nothing; add a section [ask.NAME] with a prompt")
    found = Sheet(
        ask={name: made(Ask, ask, f"{where}: [ask.{name}]") for name, ask in asks.items()}, **checked(said, where)
    )
    for name, ask in found.ask.items():
        if name in FUNCTIONS or not name.isidentifier():
            raise BadConfig(f"BadConfig: {where}: a question cannot be called {name!r}; formulas could not speak of it")
        if ask.way not in WAYS:
            raise UnknownName("way to read an answer", ask.way, WAYS)
        if ask.way == "similarity" and not (ask.goal and ask.baseline):
            raise BadConfig(f"BadConfig: {where}: [ask.{name}] needs a goal and a baseline, two texts")
        if ask.way == "choice" and len(ask.choices) < 2:
            raise BadConfig(f"BadConfig: {where}: [ask.{name}] needs choices, two or more texts in their order")
        if ask.way == "preference" and not Path(ask.reference).is_file():
            raise BadConfig(
                f"BadConfig: {where}: [ask.{name}] needs a reference, a picture file; got {ask.reference!r}"
            )
    for which in ("reward", "ends", "bad"):
        found.formula(which)
    return found


def checked(said: dict[str, Any], where: str) -> dict[str, Any]:
    known: dict[str, type] = {"env": str, "reward": str, "ends": str, "patience": int, "grace": int, "bad": str}
    known |= {"sees": str, "good_reward": float, "unread": float}
    for name in ("env", "reward"):
        if name not in said:
            raise BadConfig(f"BadConfig: {where} has no {name}; add it")
    for name, value in said.items():
        if name != "rows" and name not in known:
            raise BadConfig(f"BadConfig: {where} has no setting {name!r}; it has {', '.join([*known, 'rows', 'ask'])}")
        if name in known and not isinstance(value, (int, float) if known[name] is float else known[name]):
            raise BadConfig(f"BadConfig: {where}: {name} is {value!r}, expected a {known[name].__name__}")
    if said.get("patience", 1) < 1:
        raise BadConfig(f"BadConfig: {where}: patience is {said['patience']}, expected 1 or more frames")
    if "rows" in said:
        rows = tuple(said["rows"]) if isinstance(said["rows"], list) else ()
        if len(rows) != 2 or not all(isinstance(row, int) for row in rows) or not 0 <= rows[0] < rows[1]:
            raise BadConfig(f"BadConfig: {where}: rows is {said['rows']!r}, expected [first, last]")
        said = {**said, "rows": rows}
    return said


def made(kind: type[Any], said: Any, where: str) -> Any:
    fields = kind.__dataclass_fields__
    if not isinstance(said, dict) or "prompt" not in said:
        raise BadConfig(f"BadConfig: {where} has no prompt; add one")
    if unknown := [name for name in said if name not in fields]:
        raise BadConfig(f"BadConfig: {where} has no setting {unknown[0]!r}; it has {', '.join(fields)}")
    for name, value in said.items():
        if name == "numbers":
            pair = isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) for v in value)
            fits, wanted = pair and value[0] < value[1], "[least, most]"
        elif name in ("reworded", "choices"):
            fits, wanted = isinstance(value, list) and all(isinstance(v, str) for v in value), "a list of texts"
        else:
            fits, wanted = isinstance(value, str), "a text"
        if not fits:
            raise BadConfig(f"BadConfig: {where}: {name} is {value!r}, expected {wanted}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in said.items()})
