"""A film in two halves: what came, and what a model held it to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

DARK, GREY, WHITE, BLUE = (24, 26, 30), (140, 145, 155), (240, 240, 240), (90, 160, 250)
SIDE, BANNER, LINES = 400, 24, 6  # pixels of each half, and of the words above; numbers drawn at most
WINDOW = 100  # steps that a chart shows


def beside(came: np.ndarray, told: np.ndarray, shut: bool) -> np.ndarray:
    """rgb frames of any size, with what the eyes were."""
    canvas = Image.new("RGB", (2 * SIDE, SIDE + BANNER), DARK)
    canvas.paste(fitted(came), (0, BANNER))
    canvas.paste(fitted(told), (SIDE, BANNER))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    pen.text((8, 4), "what came", WHITE, font)
    pen.text((SIDE + 8, 4), "dreamed, eyes shut" if shut else "eyes open", BLUE if shut else WHITE, font)
    return np.asarray(canvas)


def fitted(frame: np.ndarray) -> Image.Image:
    found = Image.new("RGB", (SIDE, SIDE), DARK)
    scale = SIDE / max(frame.shape[:2])
    width, height = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
    large = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
    found.paste(large, ((SIDE - width) // 2, (SIDE - height) // 2))
    return found


class Chart:
    """Numbers along an episode, [T] each: grey as they came, blue where they were dreamed."""

    def __init__(self, came: Mapping[str, np.ndarray], told: Mapping[str, np.ndarray], shut: Sequence[bool]):
        names = list(came)
        self.names = names if len(names) <= LINES else [*names[: LINES - 1], names[-1]]
        self.came, self.told, self.shut = came, told, shut

    def __call__(self, until: int) -> np.ndarray:
        found = Image.new("RGB", (SIDE, SIDE), DARK)
        pen, font = ImageDraw.Draw(found), ImageFont.load_default(12)
        height, since = SIDE // len(self.names), max(until - WINDOW + 1, 0)
        for row, name in enumerate(self.names):
            came, told = self.came[name], self.told[name]
            low, span = float(came.min()), max(float(np.ptp(came)), 1e-6)
            across = 8 + (np.arange(len(came)) - since) * (SIDE - 16) / WINDOW
            top = row * height + 18

            def down(values: np.ndarray, low: float = low, span: float = span, top: int = top) -> np.ndarray:
                return top + (1 - ((values - low) / span).clip(-0.1, 1.1)) * (height - 24)

            pen.text((8, row * height + 2), name, GREY, font)
            for colour, heights in ((GREY, down(came)), (BLUE, down(told))):
                for t in range(since + 1, until + 1):
                    if colour == GREY or self.shut[t]:
                        pen.line((across[t - 1], heights[t - 1], across[t], heights[t]), colour, 2)
        return np.asarray(found)
