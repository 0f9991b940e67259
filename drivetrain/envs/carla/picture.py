"""A frame to look at: the road, with speed, command, controls and score written into it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from drivetrain.envs.carla.score import Score

Array = np.ndarray
SIZE = (640, 360)
WHITE, GREY, GREEN, RED, BLUE = (255, 255, 255), (70, 70, 70), (90, 210, 110), (230, 90, 80), (90, 160, 250)


def drawn(pixels: Array, front: Array, speed_mps: float, command: str, controls: Array, score: Score) -> Array:
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize(SIZE, Image.Resampling.BICUBIC)
    if pixels is not front:
        picture.paste(Image.fromarray(np.ascontiguousarray(front)).resize((192, 108)), (SIZE[0] - 200, 8))
    draw = ImageDraw.Draw(picture, "RGBA")
    draw.rectangle((8, 8, 214, 112), fill=(0, 0, 0, 150))
    broken = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in score.counts.items() if n)
    lines = (
        f"{speed_mps * 3.6:5.1f} km/h   {command}",
        f"route {100 * score.completion:5.1f}%   score {100 * score.driving:5.1f}",
        broken or "no infraction",
    )
    for row, line in enumerate(lines):
        draw.text((14, 12 + 15 * row), line, fill=WHITE)
    steer, throttle, brake = (float(v) for v in controls)
    for row, (name, value, colour) in enumerate((("throttle", throttle, GREEN), ("brake", brake, RED))):
        top = 62 + 14 * row
        draw.text((14, top - 3), name, fill=WHITE)
        draw.rectangle((80, top, 206, top + 8), outline=GREY)
        draw.rectangle((80, top, 80 + 126 * value, top + 8), fill=colour)
    draw.text((14, 88), "steer", fill=WHITE)
    draw.rectangle((80, 91, 206, 99), outline=GREY)
    draw.rectangle((min(143, 143 + 63 * steer), 91, max(143, 143 + 63 * steer), 99), fill=BLUE)
    return np.asarray(picture)
