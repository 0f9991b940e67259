"""Collecting: somebody acts, and what they saw and did is written as a data set.

    drivetrain collect --env cartpole-pixels --by cartpole --episodes 20 --output-dir data/cartpole

`--by` is an expert of the catalog, `random`, or a run. Data sets hold single pictures: whoever learns from them stacks.
An interrupt loses at most the episode in progress; the same command with --resume goes on after the last whole one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from drivetrain import catalog
from drivetrain.checkpoint import load_policy
from drivetrain.data.lerobot import Writer
from drivetrain.envs.rollout import Actor, Episode, RandomActor, rollout
from drivetrain.envs.words import make_env, split_name, with_options
from drivetrain.errors import BadConfig, UnknownName
from drivetrain.sample import Sample, Spec


@dataclass(frozen=True)
class Config:
    env: str = "cartpole-pixels"  # where to act; a name of `drivetrain list envs`, with options
    by: str = "cartpole"  # an expert of `drivetrain list experts`, `random`, or a run folder
    episodes: int = 20
    seed: int = 1_000_000  # the first episode's; the others count on from it
    greedy: bool = True  # a run takes its likeliest action; --no-greedy draws
    video: bool = False  # pictures as mp4, small and nearly the same, instead of lossless
    output_dir: str = "data/cartpole"
    resume: bool = False  # go on where an interrupted collection stopped


def find_actor(by: str, spec: Spec, seed: int) -> Actor:
    if by == "random":
        return RandomActor(spec, seed)
    if by in catalog.EXPERTS:
        _know_each_other(by, spec.env)
        expert: Actor = catalog.find("experts", by)()
        return expert
    if Path(by).exists():
        policy = load_policy(by)
        policy.spec.require(spec)
        return policy
    raise UnknownName("expert", by, [*catalog.EXPERTS, "random"])


def _know_each_other(expert: str, env: str) -> None:
    """An expert bears the name of its envs up to the first dash: what it reads, others do not have."""
    family = expert.split("-")[0]
    if split_name(env)[0].split("-")[0] != family:
        fits = ", ".join(name for name in catalog.ENVS if name.split("-")[0] == family)
        raise BadConfig(f"BadConfig: the expert {expert} cannot act in {env}; use it in {fits}, or take --by random")


def collect(config: Config) -> Iterator[Episode]:
    """The episodes, each written before it is handed on."""
    if config.episodes < 1:
        raise BadConfig(f"BadConfig: episodes must be 1 or more, got {config.episodes}")
    if config.seed < 0:
        raise BadConfig(f"BadConfig: seed must be 0 or more, got {config.seed}")
    actor = find_actor(config.by, spec_of(config.env), config.seed)
    spec = spec_of(with_options(config.env, stack=1))
    writer = Writer(Path(config.output_dir), spec, video=config.video, resume=config.resume)
    seeds = range(config.seed + writer.episodes, config.seed + config.episodes)
    generator = torch.Generator().manual_seed(config.seed + writer.episodes)
    for episode in rollout(actor, config.env, seeds, greedy=config.greedy, generator=generator, lanes=1, keep=True):
        for sample in episode.samples:
            writer.add(newest(sample, spec))
        writer.end_episode()
        episode.samples = []
        yield episode
    writer.finish()


def spec_of(env: str) -> Spec:
    world = make_env(env)
    world.close()
    spec: Spec = world.sample_spec  # type: ignore[attr-defined]
    return spec


def newest(sample: Sample, spec: Spec) -> Sample:
    """Of stacked observations the last one alone."""
    return sample | {key: sample[key][..., -f.shape[-1] :] for key, f in spec.observations.items()}
