"""Stage 1b, visual instruction tuning: the language model learns to answer about pictures.

    drivetrain train instruct --backbone runs/align/model --instruction-dataset LLaVA-Instruct-150K/llava_instruct_150k.json \\
        --images coco/train2017 --lora-rank 64

Liu et al. 2023. Projector and language model learn, the latter whole or by LoRA; the vision tower stays as it is. The answers
of every turn are learned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from drivetrain.checkpoint import Randomness
from drivetrain.models.vlm import VLM, Batch, load_vlm
from drivetrain.run import Run
from drivetrain.training.conversations import open_talks, questions
from drivetrain.training.language import Learner, Schedule, batches, check, collate, examine, finish, held_out_loss


@dataclass(frozen=True)
class Config:
    instruction_dataset: str = (
        "data/cartpole-questions"  # LLaVA's JSON, or a folder of `drivetrain collect --as instructions`
    )
    images: str = ""  # the folder of its images; empty is beside the file
    backbone: str = "tiny-llava"  # a name of `drivetrain list backbones`, a folder (RUN/model), or a hub id
    lora_rank: int = 0  # of LoRA in the language model; 0 trains all of it
    lora_targets: str = (
        ""  # names of the projections it goes beside, with commas between; empty takes queries and values
    )
    steps: int = 1_000  # gradient steps
    batch_size: int = 32
    dtype: str = "float32"  # of the weights: float32, bfloat16 or float16
    device: str = "cpu"
    held_out: float = 0.05  # share of the rows to judge by, where the set has no split of its own
    questions: int = 500  # asked in the examination at the end
    check_every: int = 100  # steps between looks at the held-out loss
    schedule: Schedule = field(default_factory=lambda: Schedule(lr=3e-4))
    seed: int = 0


CHECKPOINT_EVERY = 250
DEBUG = Config(steps=4, batch_size=4, questions=8, check_every=2)


def losses(vlm: VLM, batch: Batch) -> dict[str, Tensor]:
    """The negative log-likelihood of the answers."""
    return {"loss/answers": vlm.losses(batch).mean()}


def train(config: Config, run: Run) -> VLM:
    random = Randomness(config.seed)
    learn, held_out = open_talks(config.instruction_dataset, config.images, config.held_out)
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
    asked = questions(config.instruction_dataset, held_out, config.questions)
    finish(vlm, run, held_out, examine(vlm, asked) | {"loss": held_out_loss(vlm, held_out[:200], config.batch_size)})
    return vlm


def begin(config: Config) -> tuple[VLM, tuple[str, ...]]:
    """The model, and the names of the parts that learn."""
    vlm = load_vlm(config.backbone, dtype=config.dtype, device=config.device)
    if not config.lora_rank:
        learning = ("projector", "language", "head")
        vlm.train_parts(*learning)
        return vlm.train(), learning
    targets = [name.strip() for name in config.lora_targets.split(",") if name.strip()]
    vlm.add_lora(config.lora_rank, targets=targets, whole=("projector",))
    return vlm.train(), ("projector", "language")
