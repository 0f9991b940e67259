"""What a film shows beside the picture: what the policy was told, what it says, how likely it held each action, and its return.

    drivetrain eval runs/carracing --video drive.mp4

The panel is drawn for whoever has something to show: a policy with a vision-language model its prompt and its words, any
policy with choices the probability of each, one with numbers the numbers.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from drivetrain.sample import Sample

PANEL_PX, MARGIN_PX, LINE_PX = 300, 14, 17
SPEAKS_EVERY = 10  # frames; it takes longer to speak than to drive
DARK, GREY, WHITE, BLUE = (24, 26, 30), (140, 145, 155), (240, 240, 240), (90, 160, 250)


class Narration:
    def __init__(self, actor: Any, spec: Any):
        self.actor, self.spec = actor, spec
        self.words, self.frames = "", 0
        self.font, self.small = ImageFont.load_default(14), ImageFont.load_default(12)

    def __call__(
        self, frame: np.ndarray, observation: Sample, action: Any, info: dict[str, Any], row: int, total: float
    ) -> np.ndarray:
        """The frame with its panel; `row` is this world's in the batch that `info` is of, `total` its return so far."""
        height = max(frame.shape[0], 400)
        canvas = Image.new("RGB", (frame.shape[1] + PANEL_PX, height), DARK)
        canvas.paste(Image.fromarray(frame), (0, (height - frame.shape[0]) // 2))
        self.pen, self.x, self.y = ImageDraw.Draw(canvas), frame.shape[1] + MARGIN_PX, MARGIN_PX
        prompt = self.prompt(observation)
        if prompt:
            self.write("prompt", prompt)
        if words := self.said(observation, info, row):
            self.write("it says", words)
        self.bars(action, info, row)
        self.write("return", f"{total:.1f}")
        self.frames += 1
        return np.asarray(canvas)

    def prompt(self, observation: Sample) -> str:
        reader = getattr(self.actor, "reader", None)
        if reader is None:
            return str(getattr(self.actor, "prompt", ""))
        return str(reader.texts[int(self.look(observation)[1][0])])

    def look(self, observation: Sample) -> Any:
        return self.actor.looked_at({key: torch.as_tensor(np.asarray(v))[None] for key, v in observation.items()})

    def said(self, observation: Sample, info: dict[str, Any], row: int) -> str:
        if "said" in info:
            return str(info["said"][row])
        reader = getattr(self.actor, "reader", None)
        if reader is not None and reader.sentences and self.frames % SPEAKS_EVERY == 0:
            self.words = reader.say(*self.look(observation))[0]
        return self.words

    def bars(self, action: Any, info: dict[str, Any], row: int) -> None:
        choices = getattr(info.get("chances"), "logits", None)
        weights = info["weights"][row] if "weights" in info else None if choices is None else choices[row].exp().numpy()
        feature = self.spec.action
        if weights is not None:
            names = feature.names or tuple(map(str, range(len(weights))))
            for i, (name, weight) in enumerate(zip(names, weights, strict=True)):
                self.bar(name, float(weight), f"{weight:.2f}", int(action) == i)
        elif not feature.choices:
            low, high = (bound.reshape(-1) for bound in feature.bounds())
            for i, value in enumerate(np.reshape(action, -1)):
                name = feature.names[i] if feature.names else str(i)
                self.bar(name, float((value - low[i]) / (high[i] - low[i])), f"{value:+.2f}", True)
        self.y += LINE_PX // 2

    def bar(self, name: str, share: float, number: str, taken: bool) -> None:
        left, width = self.x + 90, PANEL_PX - 2 * MARGIN_PX - 140
        self.pen.text((self.x, self.y), name, WHITE if taken else GREY, self.small)
        self.pen.rectangle((left, self.y + 2, left + width, self.y + 12), (48, 52, 60))
        self.pen.rectangle(
            (left, self.y + 2, left + round(width * min(max(share, 0), 1)), self.y + 12), BLUE if taken else GREY
        )
        self.pen.text((left + width + 8, self.y), number, WHITE if taken else GREY, self.small)
        self.y += LINE_PX

    def write(self, what: str, text: str) -> None:
        self.pen.text((self.x, self.y), what, GREY, self.small)
        self.y += LINE_PX
        for line in textwrap.wrap(text, 38):
            self.pen.text((self.x, self.y), line, WHITE, self.font)
            self.y += LINE_PX
        self.y += LINE_PX // 2
