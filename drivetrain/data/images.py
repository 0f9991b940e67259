"""Image files as data sets of words and pictures name them: found, looked at, loaded, and passed over where broken."""

from __future__ import annotations

import hashlib
import io
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from drivetrain.errors import BadData

Source = Path | bytes  # a file, or what would be in it
NAMED = 5  # of what was skipped, so many are named
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)  # PIL's


class Skipped:
    """What of a data set could not be used, by name, and why; said in one line."""

    def __init__(self, where: str):
        self.where = where
        self.reasons: dict[str, str] = {}

    def add(self, name: str, reason: str) -> None:
        self.reasons[name] = reason

    def __len__(self) -> int:
        return len(self.reasons)

    def __str__(self) -> str:
        named = [f"{name} ({reason})" for name, reason in list(self.reasons.items())[:NAMED]]
        more = [f"and {len(self) - NAMED} more"] if len(self) > NAMED else []
        return f"{self.where}: skipped {len(self)}: {', '.join(named + more)}"

    def report(self) -> None:
        if self.reasons:
            print(self, file=sys.stderr)


def find(name: str, folders: Sequence[Path]) -> Path:
    """The file of that name in the first folder that has it; in the first where none has."""
    return next((path for folder in folders if (path := folder / name).is_file()), folders[0] / name)


def trouble(path: Path) -> str:
    """What is wrong with an image as far as its first bytes tell; empty where nothing is."""
    try:
        with Image.open(path):
            return ""
    except FileNotFoundError:
        return "missing"
    except UnidentifiedImageError:
        return "no image"
    except BROKEN:
        return "cannot be read"


def load(source: Source) -> np.ndarray:
    """uint8 RGB [H, W, 3]."""
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        return np.array(image.convert("RGB"))


def first_whole(
    sources: Sequence[Source | None], start: int, names: Sequence[str], skipped: Skipped
) -> tuple[int, np.ndarray | None]:
    """The row `start` and its picture; where that breaks off half-way, the next whole one, and the break is said once."""
    for step in range(len(sources)):
        row = (start + step) % len(sources)
        try:
            source = sources[row]
            return row, None if source is None else load(source)
        except BROKEN as error:
            if names[row] not in skipped.reasons:
                skipped.add(names[row], "missing" if isinstance(error, FileNotFoundError) else "broken")
                why = skipped.reasons[names[row]]
                print(f"{skipped.where}: {names[row]} is {why}, the next one takes its place", file=sys.stderr)
    raise BadData(f"BadData: {skipped.where}: got no image that can be decoded, expected at least one; restore them")


def share_of(picture: np.ndarray) -> float:
    """A number from 0 up to 1 that depends on the pixels alone.

    Pictures below 0.1 are a tenth of all, and no other picture equals one of them: that is how sets are split.
    """
    content = str(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()
    return int.from_bytes(hashlib.sha256(content).digest()[:6], "big") / 2**48
