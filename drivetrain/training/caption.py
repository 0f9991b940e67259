"""Captions by LoRA: GIT learns to answer one fixed prompt about a picture.

    drivetrain collect --as captions --env carracing --scenes 5000 --output-dir data/carracing-captions
    drivetrain train caption --backbone tiny-git --dataset data/carracing-captions
    drivetrain train caption --backbone microsoft/git-base --dataset data/carracing-captions --device cuda

Nothing but LoRA's small matrices is trained (Hu et al. 2021), or with `--lora-rank 0` all of the model. The adapter is saved
apart, as a folder that peft opens. Beside it lies `answers.json`: the prompt, and the captions it learned, where they are few;
with these the model can act (`models/speaker.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from drivetrain import stats
from drivetrain.checkpoint import Randomness
from drivetrain.data.captions import Captions
from drivetrain.models.speaker import MANUAL
from drivetrain.models.vlm import PARTS, VLM, load_vlm
from drivetrain.run import Run
from drivetrain.training import together
from drivetrain.training.conversations import PROMPT, Talks, open_talks
from drivetrain.training.examination import finish
from drivetrain.training.language import Rows, Talk, fit
from drivetrain.training.selfchecks import check


@dataclass(frozen=True)
class Config(Rows):
    dataset: str = "data/carracing-captions"  # CSV, JSONL, a folder, or a name of Hugging Face `datasets`; or several
    images: str = ""  # the folder of its images; empty is beside the file
    backbone: str = "tiny-git"  # a name of `drivetrain list backbones`, a folder or a hub id
    prompt: str = PROMPT  # asked about every picture
    lora_rank: int = 8  # of LoRA in the language model; 0 trains all of the model
    lora_targets: str = ""  # projections it goes beside, with commas between; empty takes queries and values


CHECKPOINT_EVERY = 250
FEW = 100  # different captions
DEBUG = Config(steps=4, batch_size=4, questions=8, check_every=2)


def train(config: Config, run: Run) -> VLM:
    random = Randomness(config.seed)
    learn, held_out = open_talks(config.dataset, config.images, config.held_out, captions=True, blind=config.blind)
    learn.prompt = held_out.prompt = config.prompt
    vlm, learning = begin(config)
    check(vlm, learn[: config.portion], learning)
    learner = fit(config, run, vlm, learn, held_out, random=random)
    finish(learner, run, held_out, config.portion, lambda vlm: captioned(vlm, held_out[: config.questions]))
    if run.first:
        said = {"prompt": config.prompt, "answers": answers(learn)}
        (run.folder / "model" / MANUAL).write_text(json.dumps(said, indent=1) + "\n")
    return vlm


def answers(learn: Talks) -> list[str]:
    """The different captions, where they are few."""
    found = sorted({data.captions[row] for data, row in learn.rows if isinstance(data, Captions)})
    return found if len(found) <= FEW else []


def begin(config: Config) -> tuple[VLM, tuple[str, ...]]:
    """The model, and the names of the parts that learn."""
    vlm = load_vlm(config.backbone, dtype=config.dtype, device=together.place(config.device))
    if not config.lora_rank:
        vlm.train_parts(*PARTS)
        return vlm.train(), PARTS
    vlm.add_lora(config.lora_rank, targets=[t.strip() for t in config.lora_targets.split(",") if t.strip()])
    return vlm.train(), ("language",)


def captioned(vlm: VLM, talks: Sequence[Talk], size: int = 32) -> dict[str, Any]:
    """How many captions are word for word right, of the pictures as they are and dealt to other rows."""
    dealt = np.random.default_rng(0).permutation(len(talks))
    pictures = [talk.picture for talk in talks]
    return {
        "seen": {"captions": right(vlm, talks, pictures, size)},
        "shuffled": {"captions": right(vlm, talks, [pictures[i] for i in dealt], size)},
    }


@torch.no_grad()
def right(vlm: VLM, talks: Sequence[Talk], pictures: Sequence[Any], size: int) -> dict[str, Any]:
    said: list[str] = []
    for i in range(0, len(talks), size):
        said += vlm.generate(pictures[i : i + size], [talk.turns[0][0] for talk in talks[i : i + size]], most=32)
    found = sum(text == talk.turns[0][1] for text, talk in zip(said, talks, strict=True))
    return {"right": stats.wilson(found, len(talks)).to_json(), "asked": len(talks)}
