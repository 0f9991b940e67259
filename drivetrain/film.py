"""Pictures in a row to an mp4 that every player opens."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from drivetrain.errors import BadConfig


def write_film(path: Path, frames: Sequence[np.ndarray], fps: float) -> Path:
    """rgb frames [H, W, 3] at `fps`; odd sizes lose their last row or column, as the format wants."""
    if path.suffix != ".mp4":
        raise BadConfig(f"BadConfig: a film is an .mp4 file, got {path}; rename it")
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "20"}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path
