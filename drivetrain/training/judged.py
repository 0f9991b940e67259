"""Worlds whose reward comes from a judge that looks at them: what a learner gets, and what stays hidden from it.

    drivetrain train dqn --env cartpole --reward vlm --judge.backbone tiny-git --output-dir runs/judged

The judge looks at every frame, of all worlds at once, by its sheet (`rewards/sheet.py`). Its reward is the learner's, and where
its sheet says when an episode is over, so is that: the world's own reward is hidden, and so is its own end where the world
can go on without it (`endless=1`). Both are used for nothing but the `return` in the metrics. A judge must have been audited,
and found fit, on the same sheet and with the same weights (`drivetrain audit`); `--judge.anyway` lets another one teach.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from drivetrain import catalog
from drivetrain.envs.words import split_name, with_options
from drivetrain.envs.worlds import Step, Worlds, make_worlds
from drivetrain.errors import BadConfig
from drivetrain.rewards.formula import formula
from drivetrain.rewards.sheet import Sheet, open_sheet
from drivetrain.rewards.vlm import Answerer, Judge, open_answerer
from drivetrain.run import Run
from drivetrain.sample import Sample, is_image

SOURCES = ("world", "vlm")
HELD_OUT = 0.1  # the share of all pictures that no stage here trains on, unless told otherwise


@dataclass(frozen=True)
class Judging:
    """Who judges, where the reward is a judge's."""

    sheet: str = ""  # what it is asked: a .toml file, or one that ships; empty is named after the env
    dtype: str = "float32"  # of its weights: float32, bfloat16 or float16
    device: str = "cpu"  # cpu or cuda
    backbone: str = "tiny-git"  # who answers: a name, folder or hub id; or constant:45, random, truth, shuffled:NAME
    prompt: str = ""  # another wording of the sheet's one question
    audits: str = "runs/audits"  # where `drivetrain audit` left its verdicts
    anyway: bool = False  # let a judge teach that was not audited, or found unfit
    visible_ends: bool = False  # the world's own ends are seen as well
    samples: int = 10  # of the frames judged first are saved, with all answers, to RUN/judged
    answers: str = "runs/answers"  # where answers are kept, by picture, question and model; empty keeps none


def sheet_for(config: Judging, env: str) -> Sheet:
    sheet = open_sheet(config.sheet or split_name(env)[0].partition("-")[0])
    return sheet.asking(config.prompt) if config.prompt else sheet


def worlds_for(env: str, count: int, config: Any, folder: Path) -> Worlds:
    """As many worlds as asked for, by their own reward or judged; `config` is a learner's."""
    if config.reward not in SOURCES:
        raise BadConfig(f"BadConfig: a reward comes from {' or '.join(SOURCES)}, got {config.reward!r}")
    if config.reward == "world":
        if config.judge != Judging():
            raise BadConfig("BadConfig: there is a judge, and the reward is the world's own; add --reward vlm")
        return make_worlds(env, count)
    judging: Judging = config.judge
    sheet = sheet_for(judging, env)
    if split_name(env)[0].partition("-")[0] != sheet.env:
        raise BadConfig(f"BadConfig: the sheet judges {sheet.env}, the env is {env}; give another --judge.sheet")
    if told := {"aim", "absorb"} & set(split_name(env)[1]):
        raise BadConfig(
            f"BadConfig: {min(told)} in {env} shows the learner what the world rewards or ends, which must stay hidden where a "
            "judge rewards; leave it out"
        )
    answerer = open_answerer(judging.backbone, dtype=judging.dtype, device=judging.device)
    if not judging.anyway:
        refuse_unfit(sheet, answerer, judging)
    cache = Path(judging.answers) if judging.answers else None
    judge = Judge(sheet, answerer, cache=cache, samples=folder / "judged", first=judging.samples)
    worlds = JudgedWorlds(hidden(env, judging.visible_ends), count, judge)
    worlds.sample_spec = replace(worlds.sample_spec, env=env)
    return worlds


def taught_by(worlds: Worlds) -> dict[str, Any]:
    """The judge, as a part of what a checkpoint holds."""
    return {"judge": worlds.judge} if isinstance(worlds, JudgedWorlds) else {}


def log_judge(worlds: Worlds, run: Run, step: int) -> None:
    """What the judge made of the worlds, and what it has done so far."""
    if isinstance(worlds, JudgedWorlds):
        run.log(step, worlds.watched())
        run.log_totals(step, worlds.judge.counts())


def hidden(env: str, visible: bool) -> str:
    """The world without its own ends, where it can go on."""
    if visible or "endless" not in inspect.signature(catalog.find("envs", split_name(env)[0])).parameters:
        return env
    return with_options(env, endless=1)


def record_of(sheet: Sheet, answerer: Answerer, audits: str | Path) -> Path:
    """Where the audit of that judge lies: by what it is asked and what it is made of."""
    return Path(audits) / f"{sheet.env}-{sheet.fingerprint()[:8]}-{answerer.fingerprint()[:16].replace(':', '-')}"


def refuse_unfit(sheet: Sheet, answerer: Answerer, config: Judging) -> None:
    path = record_of(sheet, answerer, config.audits) / "audit.json"
    more = f" --sheet {config.sheet}" if config.sheet else ""
    more += f" --prompt {config.prompt!r}" if config.prompt else ""
    more += f" --dtype {config.dtype}" if config.dtype != "float32" else ""
    more += f" --device {config.device}" if config.device != "cpu" else ""
    if not path.is_file():
        raise BadConfig(
            f"BadConfig: nobody knows whether {answerer.name} can judge {sheet.env}; audit it first: drivetrain audit "
            f"--backbone {config.backbone} --env {sheet.env}{more} (or say --judge.anyway)"
        )
    record = json.loads(path.read_text())
    if record["settings"]["held_out"] > HELD_OUT:
        share = f"{record['settings']['held_out']:.0%}"
        raise BadConfig(
            f"BadConfig: {answerer.name} was audited on {share} of all pictures, of which it may have been trained on all but "
            f"{HELD_OUT:.0%}; audit it anew without --held-out"
        )
    said = record["verdict"]
    if not said["fit"]:
        raise BadConfig(
            f"BadConfig: {answerer.name} was found unfit to judge {sheet.env}: {said['why'][0]}; see {path.parent}, take "
            "another judge, or say --judge.anyway"
        )


class JudgedWorlds(Worlds):
    def __init__(self, name: str, count: int, judge: Judge):
        super().__init__(name, count)
        self.judge, self.camera = judge, self.look
        world = split_name(name)[0].partition("-")[0]
        scenes = catalog.find("scenes", world) if world in catalog.SCENES else None
        self.facts = getattr(scenes, "facts", None)
        self.truths = {name: formula(ask.truth) for name, ask in judge.sheet.ask.items() if ask.truth}
        self.judged = np.zeros(count)
        self.waited, self.age = np.zeros((2, count), dtype=int)
        self.told: list[float] = []

    def rebuild(self, *seed: int) -> Sample:
        self.judged[:], self.waited[:], self.age[:] = 0.0, 0, 0
        return super().rebuild(*seed)

    def look(self, env: Any, observation: Sample) -> np.ndarray:
        return picture_of(self.judge.sheet, env, observation)

    def step(self, actions: np.ndarray) -> Step:
        went = super().step(actions)
        judged = self.judge(np.stack(went.frames), self.truth(went.infos))
        self.age += 1
        self.waited = np.where(judged.ends & (self.age > self.judge.sheet.grace), self.waited + 1, 0)
        ends = self.waited >= self.judge.sheet.patience
        over = ends & ~went.ended
        observation = went.observation
        if over.any():
            observation = {key: value.copy() for key, value in observation.items()}
            for i in np.flatnonzero(over):
                self.begin_again(int(i), observation)
        self.judged += judged.reward
        for i in np.flatnonzero(went.ended | over):
            self.told.append(float(self.judged[i]))
            self.judged[i], self.waited[i], self.age[i] = 0.0, 0, 0
        return went._replace(
            observation=observation,
            reward=judged.reward,
            terminated=went.terminated | ends,
            truncated=went.truncated & ~ends,
        )

    def truth(self, infos: Any) -> dict[str, np.ndarray] | None:
        """What a perfect judge would answer: for the saved samples, and for the judge that knows it."""
        if self.facts is None or not self.truths:
            return None
        facts = [self.facts(info) for info in infos]
        together = {key: np.array([fact[key] for fact in facts]) for key in facts[0]}
        known = {name: found for name, found in self.truths.items() if set(found.names) <= set(together)}
        return {name: np.broadcast_to(found(**together), len(facts)) for name, found in known.items()}

    def watched(self) -> dict[str, float]:
        """The return by the judge's own measure, of episodes that ended since it was asked last."""
        told, self.told = self.told, []
        return {"judged/return": float(np.mean(told))} if told else {}


def picture_of(sheet: Sheet, env: Any, observation: Sample) -> np.ndarray:
    """What the judge is shown of a world."""
    if sheet.sees == "render":
        frame = np.asarray(env.render())
    elif is_image(sheet.sees) and sheet.sees in observation:
        frame = np.asarray(observation[sheet.sees])[..., -3:]
    else:
        raise BadConfig(
            f"BadConfig: the sheet sees {sheet.sees}, the env gives {', '.join(observation)}; use render, or one of these"
        )
    return frame if sheet.rows is None else frame[sheet.rows[0] : sheet.rows[1]]
