"""Stage 0: a vision-language model from nothing learns to see and to speak, on scenes of our own worlds.

    drivetrain train pretrain --architecture llava --output-dir runs/pretrain

Alignment and instruction tuning suppose a vision tower that sees. A small model trained plainly on hard scenes learns the
language and answers one constant number, whatever the picture shows. So the scenes begin easy, with the questions that
only seeing can answer, and widen as the probability it gives to the right first word passes a gate; one difficulty for each
world. All parts learn. Scenes are drawn as they are needed; pictures of the held-out share are never trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drivetrain import catalog
from drivetrain.checkpoint import Randomness
from drivetrain.data.images import share_of
from drivetrain.data.questions import KINDS, Question, ask, kinds_of
from drivetrain.errors import BadConfig
from drivetrain.models.chat import IGNORED
from drivetrain.models.fresh import Shape, fresh_vlm
from drivetrain.models.vlm import PARTS, VLM, Batch
from drivetrain.run import Run
from drivetrain.training.language import Learner, Schedule, Talk, check, collate, examine, finish, held_out_loss

FIRST = {"cartpole": ("tilt",), "carracing": ("bend", "heading")}  # what only seeing can answer


@dataclass(frozen=True)
class Config:
    architecture: str = "llava"  # llava or git
    worlds: str = "cartpole,carracing"  # names of `drivetrain list scenes`, with commas between
    steps: int = 5_000  # gradient steps
    batch_size: int = 32  # pictures
    turns: int = 2  # questions about each picture, at most
    gate: float = 0.6  # probability of the right first word from which scenes become harder
    widen: float = 0.05  # by how much, of 1
    patience: int = 20  # steps between two widenings of a world
    still_patches: bool = True  # leave the tower's random projection of patches as it is
    held_out: float = 0.1  # share of the pictures, by their pixels, that is not trained on
    questions: int = 1_000  # asked in the examination at the end, about held-out pictures
    check_every: int = 250  # steps between looks at the held-out loss
    shape: Shape = field(default_factory=Shape)
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0


DEBUG = Config(
    steps=4,
    batch_size=4,
    questions=12,
    check_every=2,
    shape=Shape(width=32, heads=2, vision_layers=1, language_layers=1, picture=48, patch=24),
)
CHECKPOINT_EVERY = 500


class Curriculum:
    """How hard each world's scenes are, by how sure of the right first words the model is."""

    def __init__(self, worlds: list[str], config: Config):
        self.config = config
        self.difficulty = dict.fromkeys(worlds, 0.0)
        self.sure = dict.fromkeys(worlds, 0.0)
        self.begun = dict.fromkeys(worlds, False)  # whether all kinds of question are asked
        self.last = dict.fromkeys(worlds, 0)

    def kinds(self, world: str) -> tuple[str, ...]:
        return tuple(kinds_of(world)) if self.begun[world] or world not in FIRST else FIRST[world]

    def take(self, world: str, sure: float, step: int) -> None:
        self.sure[world] = 0.95 * self.sure[world] + 0.05 * sure
        if self.sure[world] < self.config.gate or step < self.last[world] + self.config.patience:
            return
        if self.begun[world]:
            self.difficulty[world] = min(self.difficulty[world] + self.config.widen, 1.0)
        self.begun[world], self.last[world] = True, step

    def state_dict(self) -> dict[str, Any]:
        return {name: dict(getattr(self, name)) for name in ("difficulty", "sure", "begun", "last")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


class Scenes:
    """Talks about scenes, each a function of a seed; those of held-out pictures apart."""

    def __init__(self, config: Config):
        self.worlds = [name.strip() for name in config.worlds.split(",") if name.strip()]
        for world in self.worlds:
            catalog.entry("scenes", world)
        if not self.worlds:
            raise BadConfig(f"BadConfig: worlds must name one of {', '.join(catalog.SCENES)}, got {config.worlds!r}")
        self.config = config
        self.of = {world: catalog.find("scenes", world)() for world in self.worlds}

    def talk(
        self, world: str, seed: tuple[int, ...], difficulty: float, kinds: tuple[str, ...], held_out: bool
    ) -> Talk:
        """About one picture, of the share that is wanted and about which there is something to say."""
        random = np.random.default_rng(seed)
        turns = 1 if held_out else self.config.turns
        while True:
            picture, facts = self.of[world].draw(random, difficulty)
            if (share_of(picture) < self.config.held_out) != held_out:
                continue
            if asked := ask(world, facts, random, kinds):
                chosen = [asked[i] for i in random.permutation(len(asked))[:turns]]
                return talk_of(world, picture, chosen)

    def batch(self, step: int, curriculum: Curriculum) -> tuple[list[Talk], list[str]]:
        names = [self.worlds[i % len(self.worlds)] for i in range(self.config.batch_size)]
        talks = [
            self.talk(world, (self.config.seed, step, i), curriculum.difficulty[world], curriculum.kinds(world), False)
            for i, world in enumerate(names)
        ]
        return talks, names

    def held_out(self, count: int) -> list[Talk]:
        """The same for every run: as many of each kind."""
        kinds = [(world, kind) for world in self.worlds for kind in kinds_of(world)]
        pairs = [kinds[i % len(kinds)] for i in range(max(count, len(kinds)))]
        return [self.talk(world, (1 << 40, i), 1.0, (kind,), True) for i, (world, kind) in enumerate(pairs)]


def talk_of(world: str, picture: np.ndarray, asked: list[Question]) -> Talk:
    turns = tuple((question.text, question.answer) for question in asked)
    return Talk(turns, picture, f"{world}/{asked[0].kind}", asked[0].choices)


def hold_patches(vlm: VLM) -> None:
    """Chen et al. 2021 hold it for stability. Here it decides whether anything is seen: a white ground pushes all inputs of a
    patch the same way, and Adam's first steps then drown what stands on it."""
    for module in vlm.part("vision"):
        for layer in module.modules():
            if hasattr(layer, "patch_embedding"):
                layer.patch_embedding.requires_grad_(False)


def words(config: Config) -> list[str]:
    """Everything that can be said, and the digits."""
    texts = [str(n) for n in range(-99, 100)]
    for world in KINDS:
        for kind in kinds_of(world).values():
            texts += [*kind.texts, *kind.choices]
    return texts


def losses(vlm: VLM, batch: Batch) -> dict[str, Tensor]:
    """The negative log-likelihood of the answers; beside it how probable the first word of each was."""
    each = vlm.losses(batch)
    return {"loss/answers": each.mean(), "first": (-each.detach()[first_words(batch)]).exp()}


def first_words(batch: Batch) -> Tensor:
    """Which of the answer tokens begin an answer."""
    labels = batch["labels"]
    taught = labels[:, 1:] != IGNORED
    return (taught & (labels[:, :-1] == IGNORED))[taught]


def train(config: Config, run: Run) -> VLM:
    random = Randomness(config.seed)
    scenes = Scenes(config)
    vlm = fresh_vlm(config.architecture, config.shape, words(config))
    vlm.train_parts(*PARTS)
    if config.still_patches:
        hold_patches(vlm)
    curriculum = Curriculum(scenes.worlds, config)
    learner = Learner(vlm, config.schedule, config.steps)
    held_out = scenes.held_out(config.questions)
    check(vlm, scenes.batch(0, curriculum)[0], PARTS)
    parts: dict[str, Any] = {"learner": learner, "curriculum": curriculum, "random": random}
    vlm.train()
    for step in run.steps(config.steps, **parts):
        talks, worlds = scenes.batch(step, curriculum)
        batch = collate(vlm, talks)
        found = learner.step(step, lambda batch=batch: losses(vlm, batch))  # type: ignore[misc]
        loss, first = found["loss/answers"], found["first"]
        owner = np.repeat(worlds, [len(talk.turns) for talk in talks])
        for world in scenes.worlds:
            curriculum.take(world, float(first[torch.from_numpy(owner == world)].mean()), step)
            run.log(
                step, {f"difficulty/{world}": curriculum.difficulty[world], f"sure/{world}": curriculum.sure[world]}
            )
        run.log(step, {"loss": loss, "loss/answers": loss})
        if (step + 1) % config.check_every == 0:
            run.log(step, {"held_out/loss": held_out_loss(vlm, held_out[:200], config.batch_size)})
    finish(vlm, run, held_out, examine(vlm, held_out))
    return vlm
