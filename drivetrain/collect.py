"""Collecting: somebody acts, and what they saw and did is written as a data set.

    drivetrain collect --env cartpole-pixels --by cartpole --episodes 20 --output-dir data/cartpole

`--by` is an expert of the catalog, `random`, a run or `autopilot`, CARLA's TrafficManager. Data sets hold single
pictures: whoever learns from them stacks. `--reveal` also writes what experts and auditors see.
An interrupt loses at most the episode in progress; the same command with --resume goes on after the last whole one.
`meta/card.json` then says who acted, what the episodes returned, and a hash of all of it.
`--as captions` and `--as instructions` write pictures with words about them instead: see `describe.py`. `--as replay`, `d4rl`
and `minari` write what was played already: see `transcribe.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drivetrain import catalog
from drivetrain.checkpoint import load_policy
from drivetrain.data.card import write_card
from drivetrain.data.lerobot import Writer
from drivetrain.envs.rollout import Actor, Episode, RandomActor, rollout
from drivetrain.envs.words import make_env, newest, spec_of, with_options
from drivetrain.errors import BadConfig, BadData, UnknownName
from drivetrain.experts.choosing import family, find_expert, words_of
from drivetrain.sample import EXPERT_ACTION, EXPERT_WORDS, Feature, Memory, Sample, Spec

AUTOPILOT = "autopilot"
TRIES = 3  # for an episode whose world breaks down


@dataclass(frozen=True)
class Config:
    env: str = "cartpole-pixels"  # where to act; a name of `drivetrain list envs`, with options
    by: str = "cartpole"  # an expert of `drivetrain list experts`, `random`, `autopilot` (in CARLA), or a run folder
    episodes: int = 20
    seed: int = 1_000_000  # the first episode's; the others count on from it
    noise: float = 0.0  # share of the steps at which any action is taken: it shows how to recover
    greedy: bool = True  # a run takes its likeliest action; --no-greedy draws
    reveal: bool = False  # also write what experts and auditors see: privileged.*
    video: bool = False  # pictures as mp4, small and nearly the same, instead of lossless
    output_dir: str = "data/cartpole"
    resume: bool = False  # go on where an interrupted collection stopped


def find_actor(by: str, spec: Spec) -> Actor:
    if by in ("random", AUTOPILOT):
        return RandomActor(spec)  # nobody listens to what an autopilot's passenger does
    if by in catalog.EXPERTS:
        expert: Actor = find_expert(by, spec)
        return expert
    if Path(by).exists() or by in catalog.POLICIES:
        policy = load_policy(by)
        policy.spec.require(spec)
        return policy
    raise UnknownName("expert", by, [*catalog.EXPERTS, *catalog.POLICIES, "random"])


class Noisy:
    """Somebody whose hand slips at times; what they meant to do is written beside what was done (Laskey et al. 2017)."""

    def __init__(self, actor: Actor, spec: Spec, share: float):
        self.actor, self.share, self.slips = actor, share, RandomActor(spec)
        self.privileged = getattr(actor, "privileged", False)

    def initial(self, batch_size: int) -> Memory:
        return self.actor.initial(batch_size)

    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: torch.Generator | None
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        meant, memory, info = self.actor.act(observation, memory, greedy=greedy, generator=generator)
        slip = torch.rand(len(meant), generator=generator).numpy() < self.share
        drawn, _, _ = self.slips.act(observation, memory, greedy=greedy, generator=generator)
        return np.where(slip.reshape(-1, *[1] * (meant.ndim - 1)), drawn, meant), memory, {**info, EXPERT_ACTION: meant}


def explainer(actor: Any, spec: Spec) -> Any:
    """Who says in words what is done there: the expert of that world, where it has words."""
    if hasattr(actor, "sentences"):
        return actor
    name = family(spec.env)
    build = (
        catalog.find("experts", name) if name in catalog.EXPERTS and catalog.present(catalog.EXPERTS[name]) else None
    )
    return find_expert(name, spec) if hasattr(build, "sentences") else None


class Explained:
    """Somebody who acts, and an expert who says beside what is seen and done."""

    privileged = True

    def __init__(self, actor: Actor, expert: Any):
        self.actor, self.expert, self.told = actor, expert, getattr(actor, "privileged", False)

    def initial(self, batch_size: int) -> Memory:
        return self.actor.initial(batch_size)

    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: torch.Generator | None
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        shown = observation if self.told else {k: v for k, v in observation.items() if not k.startswith("privileged.")}
        action, memory, info = self.actor.act(shown, memory, greedy=greedy, generator=generator)
        meant = info.get(EXPERT_ACTION, action)
        return action, memory, {**info, EXPERT_WORDS: self.expert.explain(observation, meant)}


def play(actor: Actor, env: str, seed: int, config: Config) -> Episode:
    """One episode; again, where its world broke down on the way."""
    for _ in range(TRIES):
        chance = torch.Generator().manual_seed(seed)
        (episode,) = rollout(
            actor, env, [seed], greedy=config.greedy, generator=chance, keep=True, reveal=config.reveal
        )
        if not episode.info.get("lost"):
            return episode
    raise BadData(f"BadData: the world of episode seed {seed} broke down {TRIES} times; what was finished is kept")


def revealed(env: str, seed: int) -> dict[str, Feature]:
    """What the world shows to experts, as features."""
    world = make_env(env)
    _, info = world.reset(seed=seed)
    world.close()
    shown = {key: np.asarray(value) for key, value in info.items() if key.startswith("privileged.")}
    return {key: Feature(value.shape, str(value.dtype)) for key, value in shown.items()}


def collect(config: Config) -> Iterator[Episode]:
    """The episodes, each written before it is handed on."""
    if config.episodes < 1:
        raise BadConfig(f"BadConfig: episodes must be 1 or more, got {config.episodes}")
    if config.seed < 0:
        raise BadConfig(f"BadConfig: seed must be 0 or more, got {config.seed}")
    if config.noise and config.by == AUTOPILOT:
        raise BadConfig("BadConfig: an autopilot's hand cannot slip: nobody can say what it meant; leave --noise out")
    env = with_options(config.env, autopilot=1) if config.by == AUTOPILOT else config.env
    actor = find_actor(config.by, spec_of(env))
    spec = replace(spec_of(with_options(env, stack=1)), env=config.env)
    if config.reveal:
        spec = replace(spec, features={**spec.features, **revealed(env, config.seed)})
    if config.noise:
        actor = Noisy(actor, spec, config.noise)
        spec = replace(spec, features={**spec.features, EXPERT_ACTION: spec.action})
    if config.by != AUTOPILOT and (expert := explainer(actor, spec)):
        actor = actor if actor is expert else Explained(actor, expert)
        spec = replace(spec, features={**spec.features, **words_of(expert)})
    writer = Writer(Path(config.output_dir), spec, video=config.video, resume=config.resume)
    seeds = range(config.seed + writer.episodes, config.seed + config.episodes)
    for seed in seeds:  # each its own rollout, so that an episode is the same after an interrupt as without one
        episode = play(actor, env, seed, config)
        for sample in episode.samples:
            writer.add(newest(sample, spec))
        writer.end_episode()
        episode.samples = []
        yield episode
    writer.finish()
    if not config.video:  # of films every frame would have to be decoded for its hash
        made = {key: getattr(config, key) for key in ("by", "seed", "noise", "greedy")}
        write_card(Path(config.output_dir), made)
