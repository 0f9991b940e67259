"""A vision-language model that acts by what it says, without any head: the baseline that a policy must beat.

    drivetrain train caption --backbone tiny-git --dataset data/carracing-captions --output-dir runs/caption
    drivetrain eval runs/caption --env carracing:repeat=2                       the answer it holds most likely
    drivetrain eval runs/caption --env carracing:repeat=2 --answers parse       the answer it gives

An answer means the last action that it names: "The road bends left ahead and the car is fast: brake." means brake. Scoring
asks for the probabilities of all known answers in one pass, and adds up those that mean the same. An answer that is
given and names no action means the first action of the environment's list; these are counted in `unread`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator

from drivetrain.errors import BadConfig
from drivetrain.models.vlm import VLM, load_vlm
from drivetrain.sample import Memory, Sample, Spec, is_image

ANSWERS = ("score", "parse")
MANUAL = "answers.json"  # beside a caption model: its prompt, and what it learned to answer


class Speaker:
    def __init__(self, vlm: VLM, spec: Spec, prompt: str, answers: Sequence[str], how: str = "score"):
        if how not in ANSWERS:
            raise BadConfig(f"BadConfig: answers are found by {' or '.join(ANSWERS)}, got {how!r}")
        pictures = [key for key in spec.observations if is_image(key)]
        if not spec.action.names or len(pictures) != 1 or spec.observations[pictures[0]].shape[-1] != 3:
            raise BadConfig(
                f"BadConfig: a model that speaks drives by named choices from one colour picture, and {spec.env} is not "
                "so; use carracing"
            )
        self.vlm, self.spec, self.prompt, self.key, self.how = vlm.eval(), spec, prompt, pictures[0], how
        self.meaning = [(answer, meant) for answer in answers if (meant := meant_by(answer, spec.action.names)) >= 0]
        if how == "score" and not self.meaning:
            names = ", ".join(spec.action.names)
            raise BadConfig(f"BadConfig: no known answer of {vlm.name} names an action ({names}); use --answers parse")
        self.asked = self.unread = 0

    def initial(self, batch_size: int) -> Memory:
        return {}

    @torch.no_grad()
    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: Generator | None
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        pictures = np.asarray(observation[self.key])
        self.asked += len(pictures)
        if self.how == "parse":
            said = self.vlm.generate(pictures, self.prompt, most=32)
            meant = np.array([meant_by(text, self.spec.action.names) for text in said])
            self.unread += int((meant < 0).sum())
            return meant.clip(0), memory, {"said": said}
        log_chances = self.vlm.score(pictures, self.prompt, [answer for answer, _ in self.meaning])  # [B, A]
        chances = torch.zeros(len(pictures), self.spec.action.choices)
        chances.index_add_(1, torch.tensor([meant for _, meant in self.meaning]), log_chances.softmax(-1).float().cpu())
        drawn = chances.argmax(-1) if greedy else torch.multinomial(chances, 1, generator=generator)[:, 0]
        return drawn.numpy(), memory, {"weights": chances.numpy()}


def is_speaker(run: str | Path) -> bool:
    return (Path(run) / "model" / MANUAL).is_file()


def open_speaker(run: str | Path, spec: Spec, *, prompt: str = "", how: str = "score") -> Speaker:
    """The model of a caption run."""
    said = json.loads((Path(run) / "model" / MANUAL).read_text())
    return Speaker(load_vlm(str(Path(run) / "model")), spec, prompt or said["prompt"], said["answers"], how)


def meant_by(answer: str, names: Sequence[str]) -> int:
    """The number of the last action that an answer names; -1 where it names none."""
    found = [
        (match.start(), i) for i, name in enumerate(names) for match in re.finditer(rf"\b{name}\b", answer.lower())
    ]
    return max(found)[1] if found else -1
