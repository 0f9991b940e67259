"""Stage 1a, alignment: a projector learns to put what a vision tower sees into words that a language model knows.

    drivetrain train align --vision-model google/siglip-base-patch16-224 --llm-model Qwen/Qwen2-1.5B-Instruct \\
        --alignment-dataset LLaVA-Pretrain/blip_laion_cc_sbu_558k.json --images LLaVA-Pretrain
    drivetrain train align --backbone tiny-llava --new-projector --alignment-dataset data/cartpole-questions

Liu et al. 2023. Nothing but the projector is trained; tower and language model are those that were there before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from drivetrain.checkpoint import Randomness
from drivetrain.models.vlm import VLM, Batch, load_vlm
from drivetrain.run import Run
from drivetrain.training.conversations import open_talks, questions
from drivetrain.training.language import Learner, Schedule, batches, check, collate, examine, finish, held_out_loss

PARTS = ("projector",)


@dataclass(frozen=True)
class Config:
    alignment_dataset: str = (
        "data/cartpole-questions"  # LLaVA's JSON, or a folder of `drivetrain collect --as instructions`
    )
    images: str = ""  # the folder of its images; empty is beside the file
    backbone: str = "tiny-llava"  # a name of `drivetrain list backbones`, a folder or a hub id
    vision_model: str = ""  # instead of a backbone: a vision tower,
    llm_model: str = ""  # and a language model
    new_projector: bool = False  # forget the projector that is there
    steps: int = 1_000  # gradient steps
    batch_size: int = 32
    dtype: str = "float32"  # of the weights: float32, bfloat16 or float16
    device: str = "cpu"
    held_out: float = 0.05  # share of the rows to judge by, where the set has no split of its own
    questions: int = 500  # asked in the examination at the end
    check_every: int = 100  # steps between looks at the held-out loss
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0


CHECKPOINT_EVERY = 250
DEBUG = Config(steps=4, batch_size=4, questions=8, check_every=2)


def losses(vlm: VLM, batch: Batch) -> dict[str, Tensor]:
    """The negative log-likelihood of the answers."""
    return {"loss/answers": vlm.losses(batch).mean()}


def train(config: Config, run: Run) -> VLM:
    random = Randomness(config.seed)
    learn, held_out = open_talks(config.alignment_dataset, config.images, config.held_out)
    vlm = begin(config)
    learner = Learner(vlm, config.schedule, config.steps)
    check(vlm, learn[: config.batch_size], PARTS)
    parts: dict[str, Any] = {"learner": learner, "random": random}
    for step in run.steps(config.steps, **parts):
        if step % config.check_every == 0:
            run.log(step, {"held_out/loss": held_out_loss(vlm, held_out[:200], config.batch_size)})
        rows = batches(learn, config.batch_size, config.seed, step, learn.length)
        batch = collate(vlm, [learn[int(row)] for row in rows])
        found = learner.step(step, lambda batch=batch: losses(vlm, batch))  # type: ignore[misc]
        run.log(step, {"loss": found["loss/answers"], **found})
    asked = questions(config.alignment_dataset, held_out, config.questions)
    finish(vlm, run, held_out, examine(vlm, asked) | {"loss": held_out_loss(vlm, held_out[:200], config.batch_size)})
    return vlm


def begin(config: Config) -> VLM:
    vlm = load_vlm(
        "" if config.vision_model else config.backbone,
        vision_model=config.vision_model,
        llm_model=config.llm_model,
        dtype=config.dtype,
        device=config.device,
    )
    if config.new_projector:
        for layer in (layer for module in vlm.part("projector") for layer in module.modules()):
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    vlm.train_parts(*PARTS)
    return vlm.train()
