"""mp4 files of a camera: written in H.264, joined without coding them anew, read frame by frame. PyAV does the work.

Colour is halved in both directions (yuv420p, which every player shows) and quantised (crf), so what comes back is close
to what went in, not equal to it. A key frame every second frame keeps random access cheap, as LeRobot does.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from drivetrain.errors import BadData

OPTIONS = {"g": "2", "crf": "18", "bf": "0", "preset": "veryfast"}


def rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)


def encode(path: Path, frames: np.ndarray, fps: float) -> None:
    """uint8 [T, H, W, 3] or [T, H, W, 1], height and width even."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate(fps), options=OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = 1 / rate(fps)
        stream.codec_context.thread_count = 1  # bytes that do not depend on the machine
        for number, pixels in enumerate(frames):
            colour = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(colour), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def join(sources: Sequence[Path], lengths: Sequence[int], path: Path, fps: float) -> None:
    """Files that `encode` wrote, end to end; each begins exactly where its frame number says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream: Any = None
        before = 0
        for source, length in zip(sources, lengths, strict=True):
            with av.open(str(source)) as given:
                stream = stream or container.add_stream_from_template(given.streams.video[0])
                for packet in given.demux(given.streams.video[0]):
                    if packet.pts is None or packet.dts is None or packet.time_base is None:
                        continue  # the empty packet that ends a file
                    shift = round(before / rate(fps) / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    container.mux(packet)
            before += length


def decode(path: Path, times_s: np.ndarray, fps: float, out: np.ndarray, where: Sequence[str]) -> None:
    """Into `out` [T, H, W, C], the frames shown at these ascending times; `where` names each in an error."""
    depth, found = out.shape[-1], np.zeros(len(times_s), dtype=bool)
    reason = "there is no such frame"
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            for frame in container.decode(stream):
                first, last = np.searchsorted(times_s, [frame.time - 0.5 / fps, frame.time + 0.5 / fps])
                if first < last:
                    out[first:last] = frame.to_ndarray(format="rgb24")[..., :depth]
                    found[first:last] = True
    except (FFmpegError, IndexError, ValueError) as error:
        reason = str(error).splitlines()[0]
    if not found.all():
        lost = where[int(np.argmin(found))]
        raise BadData(
            f"BadData: {path}: {lost}: got {found.sum()} of {len(found)} frames ({reason}); "
            "the video is cut short or corrupt: restore it or collect again"
        )
