"""Collecting: somebody acts, and what they saw and did is written as a data set.

    drivetrain collect --env cartpole-pixels --by cartpole --episodes 20 --output-dir data/cartpole

`--by` is an expert of the catalog, `random`, or a run. Data sets hold single pictures: whoever learns from them stacks.
An interrupt loses at most the episode in progress; the same command with --resume goes on after the last whole one.
`--as captions` and `--as instructions` write pictures with words about them instead: see `describe.py`.
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
from drivetrain.data.lerobot import Writer
from drivetrain.envs.rollout import Actor, Episode, RandomActor, rollout
from drivetrain.envs.words import newest, spec_of, with_options
from drivetrain.errors import BadConfig, UnknownName
from drivetrain.experts.choosing import find_expert
from drivetrain.sample import EXPERT_ACTION, Memory, Sample, Spec


@dataclass(frozen=True)
class Config:
    env: str = "cartpole-pixels"  # where to act; a name of `drivetrain list envs`, with options
    by: str = "cartpole"  # an expert of `drivetrain list experts`, `random`, or a run folder
    episodes: int = 20
    seed: int = 1_000_000  # the first episode's; the others count on from it
    noise: float = 0.0  # share of the steps at which any action is taken: it shows how to recover
    greedy: bool = True  # a run takes its likeliest action; --no-greedy draws
    video: bool = False  # pictures as mp4, small and nearly the same, instead of lossless
    output_dir: str = "data/cartpole"
    resume: bool = False  # go on where an interrupted collection stopped


def find_actor(by: str, spec: Spec) -> Actor:
    if by == "random":
        return RandomActor(spec)
    if by in catalog.EXPERTS:
        expert: Actor = find_expert(by, spec)
        return expert
    if Path(by).exists():
        policy = load_policy(by)
        policy.spec.require(spec)
        return policy
    raise UnknownName("expert", by, [*catalog.EXPERTS, "random"])


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


def collect(config: Config) -> Iterator[Episode]:
    """The episodes, each written before it is handed on."""
    if config.episodes < 1:
        raise BadConfig(f"BadConfig: episodes must be 1 or more, got {config.episodes}")
    if config.seed < 0:
        raise BadConfig(f"BadConfig: seed must be 0 or more, got {config.seed}")
    actor = find_actor(config.by, spec_of(config.env))
    spec = spec_of(with_options(config.env, stack=1))
    if config.noise:
        actor = Noisy(actor, spec, config.noise)
        spec = replace(spec, features={**spec.features, EXPERT_ACTION: spec.action})
    writer = Writer(Path(config.output_dir), spec, video=config.video, resume=config.resume)
    seeds = range(config.seed + writer.episodes, config.seed + config.episodes)
    for seed in seeds:  # each its own rollout, so that an episode is the same after an interrupt as without one
        chance = torch.Generator().manual_seed(seed)
        (episode,) = rollout(actor, config.env, [seed], greedy=config.greedy, generator=chance, keep=True)
        for sample in episode.samples:
            writer.add(newest(sample, spec))
        writer.end_episode()
        episode.samples = []
        yield episode
    writer.finish()
