"""Sets of pictures and words from our own environments, with true facts in them: captions, or questions and answers.

    drivetrain collect --as captions --env carracing --scenes 2000 --output-dir data/carracing-captions
    drivetrain collect --as instructions --env cartpole --scenes 2000 --output-dir data/cartpole-questions
    drivetrain collect --as captions --dataset data/carracing --style plain --output-dir data/carracing-labels

Scenes are drawn at random rather than played to; or they are the frames of a data set that somebody drove, whose captions then
say what was meant to be done, and with `--style why` in the driver's own sentence. The folder holds

    images/000000.png ...
    train.csv, train.jsonl       captions
    train.json                   instructions, in LLaVA's layout
    facts.jsonl                  per picture split, world and facts, and for instructions the kind and choices of each question

and the same as train for held_out. A picture's own pixels say which split it is in, so that no held-out picture equals
one to train on: neither here nor in another set of the same share. Of frames that were driven whole episodes are held out, for
neighbours are almost copies of each other. Scene number i depends on the seed and i alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from drivetrain import catalog
from drivetrain.data.captions import write_captions
from drivetrain.data.images import share_of
from drivetrain.data.instructions import IMAGE, Conversation, write_instructions
from drivetrain.data.open import open_dataset
from drivetrain.data.questions import STYLES, Question, ask, caption, kinds_of
from drivetrain.envs.words import split_name
from drivetrain.errors import BadConfig, BadData
from drivetrain.sample import ACTION, EXPERT_WORDS, is_image

FORMS = ("captions", "instructions")
SPLITS = ("train", "held_out")
TRIES = 1000  # at most so many scenes are drawn for one about which there is something to say


@dataclass(frozen=True)
class Config:
    env: str = "cartpole"  # whose pictures; a name of `drivetrain list scenes`
    scenes: int = 1000  # how many, each with a picture; of a data set at most so many
    difficulty: float = 1.0  # 0 draws easy states alone, 1 any
    held_out: float = 0.1  # the share of pictures kept apart, for evaluation
    style: str = "why"  # of captions: plain (what to do), why (with the reason), seen (what there is)
    turns: int = 3  # of instructions: the most questions about a picture, each of another kind
    kinds: str = ""  # of instructions: these kinds of question alone, with commas between; all where empty
    seed: int = 0  # scene number i depends on it and on i
    output_dir: str = "data/described"
    dataset: str = ""  # of captions: frames of this data set instead of scenes; it says of which env it is


@dataclass(frozen=True)
class Scene:
    """What is written about a picture."""

    number: int
    env: str
    held_out: bool
    facts: dict[str, float]
    caption: str = ""
    questions: tuple[Question, ...] = ()

    @property
    def image(self) -> str:
        return f"images/{self.number:06d}.png"

    @property
    def row(self) -> dict[str, Any]:
        """What an evaluation wants to know."""
        asked = [{"kind": q.kind, "answer": q.answer, "choices": q.choices} for q in self.questions]
        said = {"caption": self.caption} if self.caption else {"questions": asked}
        split = SPLITS[self.held_out]
        return {"image": self.image, "split": split, "env": self.env, "facts": self.facts, **said}

    @property
    def conversation(self) -> Conversation:
        (first, answer), *more = [(q.text, q.answer) for q in self.questions]
        return Conversation(f"{self.number:06d}", ((f"{IMAGE}\n{first}", answer), *more), self.image)


def describe(form: str, config: Config) -> dict[str, int]:
    """Writes the set; how many scenes each split has."""
    _refuse(form, config)
    folder = Path(config.output_dir).absolute()
    new = folder.with_name(f".{folder.name}.new")  # becomes the folder once it is whole
    shutil.rmtree(new, ignore_errors=True)
    try:
        counts = _fill(new, form, config)
        if folder.is_dir():
            folder.rmdir()  # empty, or it would have been refused
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return counts


def _fill(folder: Path, form: str, config: Config) -> dict[str, int]:
    (folder / "images").mkdir(parents=True)
    splits: dict[str, list[Scene]] = {split: [] for split in SPLITS}
    with (folder / "facts.jsonl").open("w") as facts:
        drawn = tqdm(scenes(form, config), total=config.scenes, unit="scene", dynamic_ncols=True, disable=None)
        for picture, scene in drawn:
            Image.fromarray(picture).save(folder / scene.image, compress_level=1)
            facts.write(json.dumps(scene.row) + "\n")
            splits[SPLITS[scene.held_out]].append(scene)
    for split, members in splits.items():
        if members:
            _write(form, folder / split, members)
    return {split: len(members) for split, members in splits.items()}


def _write(form: str, name: Path, scenes: list[Scene]) -> None:
    if form == "instructions":
        write_instructions(name.with_suffix(".json"), [scene.conversation for scene in scenes])
        return
    for suffix in (".csv", ".jsonl"):
        write_captions(name.with_suffix(suffix), [(scene.image, scene.caption) for scene in scenes])


def scenes(form: str, config: Config) -> Iterator[tuple[np.ndarray, Scene]]:
    if config.dataset:
        yield from frames(config)
        return
    world = catalog.find("scenes", config.env)()
    for number in range(config.scenes):
        yield _scene(form, config, world, number)


def _scene(form: str, config: Config, world: Any, number: int) -> tuple[np.ndarray, Scene]:
    """The first about which there is something to say, of those that come of the seed and the number."""
    random = np.random.default_rng((config.seed, number))
    for _ in range(TRIES):
        picture, facts = world.draw(random, config.difficulty)
        scene = Scene(number, config.env, share_of(picture) < config.held_out, facts)
        if form == "captions" and (said := caption(config.env, facts, config.style)):
            return picture, replace(scene, caption=said)
        if form == "instructions" and (asked := ask(config.env, facts, random, _kinds(config))):
            return picture, replace(scene, questions=_some(asked, config.turns, random))
    what = f"style {config.style}" if form == "captions" else f"kinds {config.kinds}"
    raise BadConfig(
        f"BadConfig: of {TRIES} scenes none had an answer for {what} at difficulty {config.difficulty}; use another"
    )


def frames(config: Config) -> Iterator[tuple[np.ndarray, Scene]]:
    """Of a data set with choices that have names, in a random order, with what was meant to be done in words."""
    data = open_dataset(config.dataset, None).as_meant()
    action, words = data.spec.action, data.spec.features.get(EXPERT_WORDS)
    pictures = [key for key in data.spec.observations if is_image(key)]
    if len(pictures) != 1 or not (words or action.choices):
        raise BadData(
            f"BadData: {config.dataset} has {len(pictures)} pictures in a frame, and {EXPERT_WORDS} it has "
            f"{'' if words else 'not'}; captions need one picture, and a driver's words or choices that have names"
        )
    if config.style == "why" and words is None:
        raise BadData(
            f"BadData: {config.dataset} has no {EXPERT_WORDS}; use --style plain, or collect anew by an expert"
        )
    order = np.random.default_rng(config.seed).permutation(len(data))[: config.scenes]
    env = split_name(data.spec.env)[0]
    count = min(max(round(config.held_out * data.episodes), 1), data.episodes - 1) if config.held_out else 0
    apart = set(np.random.default_rng(0).permutation(data.episodes)[:count].tolist())  # neighbours are almost copies
    for number, frame in enumerate(order.tolist()):
        row = data.windows(np.array([frame]))
        picture = row[pictures[0]][0, 0]
        sentence = words.names[int(row[EXPERT_WORDS][0, 0])] if words else ""
        facts = {"episode": float(data.episode_of[frame])}
        if action.choices:
            facts["choice"] = float(row[ACTION][0, 0])
        said = in_style(config.style, sentence, action.names[int(row[ACTION][0, 0])] if action.choices else "")
        held_out = data.episode_of[frame] in apart if apart else share_of(picture) < config.held_out
        yield picture, Scene(number, env, held_out, facts, said)


def in_style(style: str, sentence: str, label: str) -> str:
    """Of a sentence "what is seen: what is done." the whole (why), the end (plain) or the beginning (seen); of a bare label
    itself."""
    if not sentence:
        return f"{label.capitalize()}."
    seen, _, done = sentence.partition(": ")
    return {"why": sentence, "plain": done.capitalize(), "seen": f"{seen}."}[style]


def _some(questions: list[Question], most: int, random: np.random.Generator) -> tuple[Question, ...]:
    return tuple(questions[i] for i in random.permutation(len(questions))[:most])


def _kinds(config: Config) -> list[str]:
    return [kind.strip() for kind in config.kinds.split(",") if kind.strip()]


def _refuse(form: str, config: Config) -> None:
    if form not in FORMS:
        raise BadConfig(f"BadConfig: sets of pictures and words are {' or '.join(FORMS)}, got {form!r}")
    if not config.dataset:
        catalog.entry("scenes", config.env)
    elif form != "captions":
        raise BadConfig("BadConfig: questions are asked about scenes, not about frames; leave --dataset out")
    elif not Path(config.dataset).exists():
        open_dataset(config.dataset)  # says what is wrong with it, before any folder is made
    kinds_of(config.env, _kinds(config))
    if config.style not in STYLES:
        raise BadConfig(f"BadConfig: captions have no style {config.style!r}; use {', '.join(STYLES)}")
    for name in ("scenes", "turns"):
        if getattr(config, name) < 1:
            raise BadConfig(f"BadConfig: --{name} must be 1 or more, got {getattr(config, name)}")
    for name in ("difficulty", "held_out"):
        if not 0 <= getattr(config, name) <= 1:
            flag = name.replace("_", "-")
            raise BadConfig(f"BadConfig: --{flag} must be between 0 and 1, got {getattr(config, name)}")
    folder = Path(config.output_dir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadData(f"BadData: {folder} holds something already; name another --output-dir, or remove it first")
