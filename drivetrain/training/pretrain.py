"""Stage 0: a vision-language model from nothing learns to see and to speak, on scenes of our own worlds.

    drivetrain train pretrain --architecture llava --output-dir runs/pretrain

Alignment and instruction tuning suppose a vision tower that sees. A small model trained plainly on hard scenes learns the
language and answers one constant number, whatever the picture shows. So the scenes begin easy, with the questions that
only seeing can answer, and widen as the probability it gives to the right answers passes a gate; one difficulty for each
world. What it is not sure of is asked most. All parts learn. Scenes are drawn as they are needed; pictures of the held-out
share are never trained on.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drivetrain import catalog
from drivetrain.checkpoint import Randomness
from drivetrain.data.images import share_of
from drivetrain.data.questions import KINDS, Kind, Question, ask, kinds_of
from drivetrain.errors import BadConfig
from drivetrain.models.chat import IGNORED
from drivetrain.models.fresh import OF_CLIP, Colours, Shape, fresh_vlm
from drivetrain.models.vlm import PARTS, VLM, Batch
from drivetrain.run import Run, processes
from drivetrain.training.examination import examine, finish
from drivetrain.training.language import LOOKED_AT, Learner, Schedule, Talk, collate, without_sight
from drivetrain.training.selfchecks import check

SAMPLE = 64  # scenes of a world, from which its colours are known
MEMORY = 0.01  # weight of one answer in the running mean of how sure the model is
FIRST = {
    "cartpole": ("lean",),
    "pendulum": ("quarter",),
    "carracing": ("bend", "speed"),
}  # what only seeing can answer, in the easiest scenes too

UNSEEN: dict[str, dict[str, Any]] = {"carracing": {"tracks": range(1000, 1032)}}  # of examinations alone


@dataclass(frozen=True)
class Config:
    architecture: str = "llava"  # llava or git
    worlds: str = "cartpole,carracing"  # names of `drivetrain list scenes`, with commas between
    kinds: str = ""  # of question, with commas between; empty asks all but the extra ones
    steps: int = 5_000  # gradient steps
    batch_size: int = 32  # pictures
    turns: int = 2  # questions about each picture, at most
    gate: float = 0.75  # probability of the right answer from which scenes become harder
    widen: float = 0.05  # by how much, of 1
    patience: int = 20  # steps between two widenings of a world
    due: float = 0.6  # share of the run by whose end scenes are as hard as they get; they widen from half of it on
    difficulty: float = 0.0  # of the first scenes; 1 begins with all scenes and all questions
    own_colours: bool = True  # centre pictures on the scenes' own colours; else normalise them by CLIP's
    patches: float = 0.1  # share of the learning rate for the tower's projection of patches; 0 leaves it as it is
    blind: bool = False  # learn from pictures of other scenes: what can be known without seeing
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


def asked_of(world: str, config: Config) -> Mapping[str, Kind]:
    """The kinds of question about a world; of those named the ones it has."""
    named = [name.strip() for name in config.kinds.split(",") if name.strip()]
    strange = [name for name in named if not any(name in kinds for kinds in KINDS.values())]
    return kinds_of(world, strange or [name for name in named if name in KINDS[world]])


class Curriculum:
    """How hard each world's scenes are, and what is asked most, by how sure of the right answers the model is.

    A world's scenes widen when its FIRST questions pass their gate. The mean over all questions would not do: those that are
    easily guessed hide the one that is not seen at all. No world goes beyond those before all worlds have passed once: what one
    teaches drowns the small beginnings of sight in another.
    """

    def __init__(self, worlds: list[str], config: Config):
        self.config = config
        self.difficulty = dict.fromkeys(worlds, config.difficulty)
        self.sure = {world: dict.fromkeys(asked_of(world, config), 0.0) for world in worlds}
        self.first = {world: tuple(k for k in FIRST.get(world, ()) if k in self.sure[world]) for world in worlds}
        self.seen = {world: not self.first[world] or config.difficulty == 1.0 for world in worlds}  # it has passed once
        self.last = dict.fromkeys(worlds, 0)

    def kinds(self, world: str) -> tuple[str, ...]:
        return tuple(self.sure[world]) if all(self.seen.values()) else self.first[world] or tuple(self.sure[world])

    def weight(self, world: str, kind: str) -> float:
        sure = self.sure[world][kind]
        return 1.1 - sure if kind not in self.first[world] or sure >= self.config.gate else 3.0

    def take(self, world: str, answers: Sequence[tuple[str, float]], step: int) -> None:
        """How probable the right answers to this step's questions were."""
        sure = self.sure[world]
        for kind, chance in answers:
            sure[kind] += MEMORY * (chance - sure[kind])
        through = all(sure[kind] >= self.config.gate for kind in self.first[world] or sure)
        if through and step >= self.last[world] + self.config.patience:
            if all(self.seen.values()):
                self.difficulty[world] = min(self.difficulty[world] + self.config.widen, 1.0)
            self.seen[world], self.last[world] = True, step
        due = min(2 * step / max(self.config.due * self.config.steps, 1) - 1, 1.0)
        if due > 0:
            self.seen[world] = True
            self.difficulty[world] = max(self.difficulty[world], due)

    def state_dict(self) -> dict[str, Any]:
        return {name: copy.deepcopy(getattr(self, name)) for name in ("difficulty", "sure", "seen", "last")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


class Scenes:
    """Talks about scenes, each a function of a seed; those of held-out pictures apart. `unseen` ones are in places besides
    that no training draws."""

    def __init__(self, config: Config, *, unseen: bool = False):
        self.worlds = [name.strip() for name in config.worlds.split(",") if name.strip()]
        for world in self.worlds:
            catalog.entry("scenes", world)
        if not self.worlds:
            raise BadConfig(f"BadConfig: worlds must name one of {', '.join(catalog.SCENES)}, got {config.worlds!r}")
        self.config = config
        places = UNSEEN if unseen else {}
        self.of = {world: catalog.find("scenes", world)(**places.get(world, {})) for world in self.worlds}

    def draw(
        self, world: str, random: np.random.Generator, difficulty: float, kinds: Sequence[str], *, held_out: bool
    ) -> tuple[np.ndarray, list[Question]]:
        """A picture of the share that is wanted, about which there is something to say, and what can be asked."""
        while True:
            picture, facts = self.of[world].draw(random, difficulty)
            if (share_of(picture) < self.config.held_out) != held_out:
                continue
            if asked := ask(world, facts, random, kinds):
                return picture, asked

    def batch(self, step: int, curriculum: Curriculum) -> tuple[list[Talk], list[tuple[str, str]]]:
        """Conversations, and of every question in them its world and kind; no kind where an answer before it may tell."""
        talks, kinds = [], []
        for i in range(self.config.batch_size):
            world = self.worlds[i % len(self.worlds)]
            random = np.random.default_rng((self.config.seed, step, i))
            wanted, difficulty = curriculum.kinds(world), curriculum.difficulty[world]
            picture, asked = self.draw(world, random, difficulty, wanted, held_out=False)
            late = random.exponential(size=len(asked)) / [curriculum.weight(world, q.kind) for q in asked]
            chosen = [asked[int(j)] for j in late.argsort()[: self.config.turns]]
            talks.append(talk_of(world, picture, chosen))
            kinds += [(world, chosen[0].kind), *((world, "") for _ in chosen[1:])]
        return (without_sight(talks, len(self.worlds)) if self.config.blind else talks), kinds

    def held_out(self, count: int) -> list[Talk]:
        """The same for every run: as many of each kind."""
        kinds = [(world, kind) for world in self.worlds for kind in asked_of(world, self.config)]
        pairs = [kinds[i % len(kinds)] for i in range(max(count, len(kinds)))]
        return [self.exam(world, kind, i) for i, (world, kind) in enumerate(pairs)]

    def exam(self, world: str, kind: str, number: int) -> Talk:
        random = np.random.default_rng((1 << 40, number))
        return talk_of(world, *self.draw(world, random, 1.0, (kind,), held_out=True))


def talk_of(world: str, picture: np.ndarray, asked: list[Question]) -> Talk:
    turns = tuple((question.text, question.answer) for question in asked)
    return Talk(turns, picture, f"{world}/{asked[0].kind}", asked[0].choices)


def colours_of(scenes: Scenes) -> Colours:
    """The scenes' mean colour, every world counting as much, and half of what a channel can be for the deviation.

    Held-out scenes are among them. It decides how soon anything is seen. By the colours of photographs a white ground is far
    from 0 and the same in every place: it pushes all inputs of a patch one way, and Adam's first steps drown what stands on it.
    """
    means = []
    for world in scenes.worlds:
        random = np.random.default_rng((1 << 41, 0))
        means.append(np.mean([scenes.of[world].draw(random, 1.0)[0].mean((0, 1)) / 255 for _ in range(SAMPLE)], 0))
    return Colours(tuple(np.mean(means, 0).round(4).tolist()), (0.5, 0.5, 0.5))


def projections(vlm: VLM) -> list[Tensor]:
    """Of patches, in the tower. Their inputs are many and alike, so that together Adam's steps are long here; Chen et al. 2021
    leave these weights as they are, for stability."""
    layers: list[Any] = [layer for module in vlm.part("vision") for layer in module.modules()]
    return [layer.patch_embedding.weight for layer in layers if hasattr(layer, "patch_embedding")]


def words(config: Config) -> list[str]:
    """Everything that can be said, and the digits."""
    texts = [str(n) for n in range(-99, 100)]
    for world in KINDS:
        for kind in KINDS[world].values():
            texts += [*kind.texts, *kind.choices]
    return texts


def chances(vlm: VLM, batch: Batch, each: Tensor) -> list[float]:
    """How probable the right answer to each question was: of numbers by the first token, else by the least probable one."""
    labels = batch["labels"][:, 1:]
    taught = labels != IGNORED
    begins = (taught & (batch["labels"][:, :-1] == IGNORED))[taught]
    firsts = labels[taught][begins].tolist()
    answers = (-each).exp().split(torch.diff(begins.nonzero()[:, 0], append=torch.tensor([len(each)])).tolist())
    numeric = {vlm.tokenizer.convert_tokens_to_ids(text) for text in "-0123456789"}
    return [float(p[0] if first in numeric else p.min()) for first, p in zip(firsts, answers, strict=True)]


def train(config: Config, run: Run) -> VLM:
    if processes()[1] > 1:
        raise BadConfig("BadConfig: stage 0 is for small models and trains in one process; start it without torchrun")
    random = Randomness(config.seed)
    scenes = Scenes(config)
    colours = colours_of(scenes) if config.own_colours else OF_CLIP
    vlm = fresh_vlm(config.architecture, config.shape, words(config), colours)
    vlm.train_parts(*PARTS)
    slow = projections(vlm)
    for weight in slow:
        weight.requires_grad_(config.patches > 0)
    curriculum = Curriculum(scenes.worlds, config)
    held_out = Scenes(config, unseen=True).held_out(config.questions)
    check(vlm, scenes.batch(0, curriculum)[0], PARTS)
    learner = Learner(vlm, config.schedule, config.steps, slow if config.patches else (), config.patches)
    vlm.train()
    for step in run.steps(config.steps, learner=learner, curriculum=curriculum, random=random):
        talks, kinds = scenes.batch(step, curriculum)
        batch = collate(vlm, talks)
        loss, each = learner.step(step, [batch])
        found = list(zip(kinds, chances(vlm, batch, each), strict=True))
        for world in scenes.worlds:
            curriculum.take(world, [(kind, chance) for (of, kind), chance in found if of == world and kind], step)
            run.log(step, {f"difficulty/{world}": curriculum.difficulty[world]})
            run.log(step, {f"sure/{world}/{kind}": sure for kind, sure in curriculum.sure[world].items()})
        run.log(step, {"loss": loss})
        if (step + 1) % config.check_every == 0:
            run.log(step, {"held_out/loss": learner.held_out_loss(held_out[:LOOKED_AT], config.batch_size)})
    finish(learner, run, held_out, config.batch_size, lambda vlm: examine(vlm, held_out))
    return vlm
