"""The mistakes a user can make, each with one line that says: got, expected, do this.

`cli.py` prints the line and exits with status 2. What is our mistake is an `assert` instead, and shows its traceback.
"""

import difflib
from collections.abc import Iterable

LISTED = (
    "env",
    "algorithm",
    "expert",
    "data set",
    "env with scenes",
    "encoder",
    "run or policy",
)  # what the catalog holds


class UserError(Exception):
    """A mistake the user can mend; its text is the one line they see."""


class UnknownName(UserError):
    """A name that the catalog does not hold."""

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known))}"
        more = " (`drivetrain list` shows all)" if kind in LISTED else ""
        super().__init__(f"UnknownName: there is no {kind} called {name!r}; {hint}{more}")


class SpecMismatch(UserError):
    """Two sides that do not speak of the same features."""


class BadConfig(UserError):
    """A setting that cannot work."""


class BadCheckpoint(UserError):
    """A checkpoint or run folder that is missing, cut short or corrupt."""


class BadData(UserError):
    """A data set that is missing or broken."""


class NotANumber(UserError):
    """A loss that became NaN or infinite."""


class DiskTrouble(UserError):
    """The disk refused a write."""


class SelfCheckFailed(UserError):
    """A training that would go wrong in silence."""


class MissingExtra(UserError):
    """An optional package that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(
            f"MissingExtra: {purpose} needs the package {package!r}, which is not installed; "
            f"do: pip install 'drivetrain[{extra}]'"
        )
