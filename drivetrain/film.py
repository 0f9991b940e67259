"""Pictures in a row to an mp4 that every player opens."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from drivetrain.errors import BadConfig


class Film:
    """An .mp4 that grows frame by frame; odd sizes lose their last row or column, as the format wants."""

    def __init__(self, path: Path, fps: float):
        if path.suffix != ".mp4":
            raise BadConfig(f"BadConfig: a film is an .mp4 file, got {path}; rename it")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.rate = path, Fraction(fps).limit_denominator(1000)
        self.container: Any = None

    def add(self, frame: np.ndarray) -> None:
        """rgb [H, W, 3]."""
        height, width = (side // 2 * 2 for side in frame.shape[:2])
        if self.container is None:
            self.container = av.open(str(self.path), "w")
            self.stream = self.container.add_stream("libx264", rate=self.rate)
            self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
            self.stream.options = {"crf": "20"}
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
        self.container.mux(self.stream.encode(picture))

    def close(self) -> None:
        if self.container is not None:
            self.container.mux(self.stream.encode())
            self.container.close()


def write_film(path: Path, frames: Sequence[np.ndarray], fps: float) -> Path:
    """rgb frames [H, W, 3] at `fps`."""
    film = Film(path, fps)
    for frame in frames:
        film.add(frame)
    film.close()
    return path
