"""Stage 1b, visual instruction tuning: the language model learns to answer about pictures.

    drivetrain train instruct --backbone runs/align/model --instruction-dataset LLaVA-Instruct-150K/llava_instruct_150k.json \\
        --images coco/train2017 --lora-rank 64

Liu et al. 2023. Projector and language model learn, the latter whole or by LoRA; the vision tower stays as it is. The answers
of every turn are learned.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from drivetrain.checkpoint import Randomness
from drivetrain.models.vlm import VLM, load_vlm
from drivetrain.run import Run
from drivetrain.training import together
from drivetrain.training.conversations import open_talks, questions
from drivetrain.training.examination import examine, finish
from drivetrain.training.language import Rows, Schedule, fit
from drivetrain.training.selfchecks import check


@dataclass(frozen=True)
class Config(Rows):
    instruction_dataset: str = "data/cartpole-questions"  # in LLaVA's JSON, or collected; several with commas between
    images: str = ""  # the folder of its images; empty is beside the file
    backbone: str = "tiny-llava"  # a name of `drivetrain list backbones`, a folder (RUN/model), or a hub id
    lora_rank: int = 0  # of LoRA in the language model; 0 trains all of it
    lora_targets: str = ""  # projections it goes beside, with commas between; empty takes queries and values
    schedule: Schedule = field(default_factory=lambda: Schedule(lr=3e-4))


CHECKPOINT_EVERY = 250
DEBUG = Config(steps=4, batch_size=4, questions=8, check_every=2)


def train(config: Config, run: Run) -> VLM:
    random = Randomness(config.seed)
    learn, held_out = open_talks(config.instruction_dataset, config.images, config.held_out, blind=config.blind)
    vlm, learning = begin(config)
    check(vlm, learn[: config.portion], learning)
    learner = fit(config, run, vlm, learn, held_out, random=random)
    asked = questions(config.instruction_dataset, held_out, config.questions)
    finish(learner, run, held_out, config.portion, lambda vlm: examine(vlm, asked))
    return vlm


def begin(config: Config) -> tuple[VLM, tuple[str, ...]]:
    """The model, and the names of the parts that learn."""
    vlm = load_vlm(config.backbone, dtype=config.dtype, device=together.place(config.device))
    if not config.lora_rank:
        learning = ("projector", "language", "head")
        vlm.train_parts(*learning)
        return vlm.train(), learning
    targets = [name.strip() for name in config.lora_targets.split(",") if name.strip()]
    vlm.add_lora(config.lora_rank, targets=targets, whole=("projector",))
    return vlm.train(), ("projector", "language")
