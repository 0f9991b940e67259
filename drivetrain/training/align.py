"""Stage 1a, alignment: a projector learns to put what a vision tower sees into words that a language model knows.

    drivetrain train align --vision-model google/siglip-base-patch16-224 --llm-model Qwen/Qwen2-1.5B-Instruct \\
        --alignment-dataset LLaVA-Pretrain/blip_laion_cc_sbu_558k.json --images LLaVA-Pretrain
    drivetrain train align --backbone tiny-llava --new-projector --alignment-dataset data/cartpole-questions

Liu et al. 2023. Nothing but the projector is trained; tower and language model are those that were there before.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from drivetrain.checkpoint import Randomness
from drivetrain.models.vlm import VLM, load_vlm
from drivetrain.run import Run
from drivetrain.training import together
from drivetrain.training.conversations import open_talks, questions
from drivetrain.training.examination import examine, finish
from drivetrain.training.language import Rows, fit
from drivetrain.training.selfchecks import check

LEARNING = ("projector",)


@dataclass(frozen=True)
class Config(Rows):
    alignment_dataset: str = "data/cartpole-questions"  # in LLaVA's JSON, or collected; several with commas between
    images: str = ""  # the folder of its images; empty is beside the file
    backbone: str = "tiny-llava"  # a name of `drivetrain list backbones`, a folder or a hub id
    vision_model: str = ""  # instead of a backbone: a vision tower,
    llm_model: str = ""  # and a language model
    new_projector: bool = False  # forget the projector that is there


CHECKPOINT_EVERY = 250
DEBUG = Config(steps=4, batch_size=4, questions=8, check_every=2)


def train(config: Config, run: Run) -> VLM:
    random = Randomness(config.seed)
    learn, held_out = open_talks(config.alignment_dataset, config.images, config.held_out, blind=config.blind)
    vlm = begin(config)
    check(vlm, learn[: config.portion], LEARNING)
    learner = fit(config, run, vlm, learn, held_out, random=random)
    asked = questions(config.alignment_dataset, held_out, config.questions)
    finish(learner, run, held_out, config.portion, lambda vlm: examine(vlm, asked))
    return vlm


def begin(config: Config) -> VLM:
    vlm = load_vlm(
        "" if config.vision_model else config.backbone,
        vision_model=config.vision_model,
        llm_model=config.llm_model,
        dtype=config.dtype,
        device=together.place(config.device),
    )
    if config.new_projector:
        for layer in (layer for module in vlm.part("projector") for layer in module.modules()):
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    vlm.train_parts(*LEARNING)
    return vlm.train()
