"""Captions by LoRA: GIT learns to answer one fixed prompt about a picture.

    drivetrain collect --as captions --env carracing --scenes 5000 --output-dir data/carracing-captions
    drivetrain train caption --backbone tiny-git --dataset data/carracing-captions
    drivetrain train caption --backbone microsoft/git-base --dataset data/carracing-captions --device cuda

Nothing but LoRA's small matrices is trained (Hu et al. 2021), or with `--lora-rank 0` all of the model. The adapter is saved
apart, as a folder that peft opens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from drivetrain.checkpoint import Randomness
from drivetrain.models.vlm import PARTS, VLM, Batch, load_vlm
from drivetrain.run import Run
from drivetrain.training.conversations import PROMPT, Talks, open_talks
from drivetrain.training.language import Learner, Schedule, batches, check, collate, finish, held_out_loss


@dataclass(frozen=True)
class Config:
    dataset: str = "data/carracing-captions"  # CSV, JSONL, a folder of them, or a name of Hugging Face `datasets`
    images: str = ""  # the folder of its images; empty is beside the file
    backbone: str = "tiny-git"  # a name of `drivetrain list backbones`, a folder or a hub id
    prompt: str = PROMPT  # asked about every picture
    lora_rank: int = 8  # of LoRA in the language model; 0 trains all of the model
    lora_targets: str = (
        ""  # names of the projections it goes beside, with commas between; empty takes queries and values
    )
    steps: int = 1_000  # gradient steps
    batch_size: int = 32
    dtype: str = "float32"  # of the weights: float32, bfloat16 or float16
    device: str = "cpu"
    held_out: float = 0.1  # share of the rows to judge by, where the set has no split of its own
    questions: int = 500  # held-out pictures captioned at the end
    check_every: int = 100  # steps between looks at the held-out loss
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0


CHECKPOINT_EVERY = 250
DEBUG = Config(steps=4, batch_size=4, questions=8, check_every=2)


def losses(vlm: VLM, batch: Batch) -> dict[str, Tensor]:
    """The negative log-likelihood of the captions."""
    return {"loss/answers": vlm.losses(batch).mean()}


def train(config: Config, run: Run) -> VLM:
    random = Randomness(config.seed)
    learn, held_out = open_talks(config.dataset, config.images, config.held_out, captions=True)
    learn.prompt = held_out.prompt = config.prompt
    vlm, learning = begin(config)
    learner = Learner(vlm, config.schedule, config.steps)
    check(vlm, learn[: config.batch_size], learning)
    parts: dict[str, Any] = {"learner": learner, "random": random}
    for step in run.steps(config.steps, **parts):
        if step % config.check_every == 0:
            run.log(step, {"held_out/loss": held_out_loss(vlm, held_out[:200], config.batch_size)})
        rows = batches(learn, config.batch_size, config.seed, step, learn.length)
        batch = collate(vlm, [learn[int(row)] for row in rows])
        found = learner.step(step, lambda batch=batch: losses(vlm, batch))  # type: ignore[misc]
        run.log(step, {"loss": found["loss/answers"], **found})
    finish(vlm, run, held_out, captioned(vlm, held_out, config))
    return vlm


def begin(config: Config) -> tuple[VLM, tuple[str, ...]]:
    """The model, and the names of the parts that learn."""
    vlm = load_vlm(config.backbone, dtype=config.dtype, device=config.device)
    if not config.lora_rank:
        vlm.train_parts(*PARTS)
        return vlm.train(), PARTS
    vlm.add_lora(config.lora_rank, targets=[t.strip() for t in config.lora_targets.split(",") if t.strip()])
    return vlm.train(), ("language",)


@torch.no_grad()
def captioned(vlm: VLM, held_out: Talks, config: Config) -> dict[str, Any]:
    """How many held-out captions are word for word right."""
    vlm.eval()
    right = total = 0
    for start in range(0, min(len(held_out), config.questions), config.batch_size):
        talks = held_out[start : min(start + config.batch_size, config.questions)]
        said = vlm.generate([talk.picture for talk in talks], config.prompt, most=32)
        right += sum(text == talk.turns[0][1] for text, talk in zip(said, talks, strict=True))
        total += len(talks)
    return {"captions": {"right": right / total, "asked": total}}
