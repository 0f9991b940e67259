"""DAgger: clone, act, ask the expert what would have been right wherever that led, and clone all of it.

    drivetrain train dagger --dataset data/cartpole --frame-stack 4 --output-dir runs/dagger

Ross et al. 2011. Round 0 learns from the expert's own episodes: the data set, or where none is named as many as any other
round has. Before each later round `--episodes` more are played: in round r the expert takes a share beta^r of the steps,
drawn step by step, the policy the others, and the expert says of every step what it would have done. What the rounds
brought lies in RUN/rounds as data sets of our format, and training goes on with the same weights on everything so far.

Of the given episodes a share is held out, as in `bc.py`. Those of a round are all learned from: they were an examination
when they were played, which `visited/same` (or `visited/error`) tells of. The policy takes its likeliest action. The
learning rate falls along a cosine in every round, so that it is a settled policy that acts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from drivetrain.checkpoint import Randomness
from drivetrain.data.card import refuse_thinned
from drivetrain.data.episodes import Episodes, together
from drivetrain.data.lerobot import Writer, open_lerobot
from drivetrain.envs.rollout import Actor, rollout
from drivetrain.envs.words import newest, spec_of, with_options
from drivetrain.errors import BadConfig
from drivetrain.experts.choosing import find_expert, words_of
from drivetrain.models.driver import Driver, Network
from drivetrain.run import Run
from drivetrain.sample import ACTION, EXPERT_ACTED, EXPERT_ACTION, EXPERT_WORDS, REWARD, Feature, Memory, Sample
from drivetrain.training.il import bc
from drivetrain.training.start import finished


@dataclass(frozen=True)
class Config:
    dataset: str = (
        "data/cartpole"  # the expert's own episodes, a folder or a catalog name; empty lets round 0 play them
    )
    env: str = ""  # where to act; empty is where the data came from
    expert: str = ""  # an expert of `drivetrain list experts`; empty takes the one that knows the env
    policy: str = ""  # a run or checkpoint to start from; empty starts anew
    steps: int = 3_000  # gradient steps of all rounds together
    round_steps: int = 500  # gradient steps of a round
    episodes: int = 5  # played before a round
    beta: float = 0.5  # share of the expert's steps in round 1; its square in round 2, and so on
    batch_size: int = 64
    length: int = 16  # steps of a sequence, where the policy has memory
    lr: float = 1e-3  # learning rate, falling to 0 along a cosine in every round
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0  # gradients are scaled down to this
    smoothing: float = 0.0  # share of a label's weight that is spread over all choices
    words: float = 0.0  # weight of the loss on the expert's own words, which a backbone learns to say
    held_out: float = 0.1  # share of the given episodes that is not trained on; 0 trains on all, and looks at none
    check_every: int = 100  # steps between looks at the held-out episodes
    frame_stack: int = 1  # so many observations in one
    head: str = "auto"  # categorical for choices; deterministic, gaussian, squashed or beta for numbers
    network: Network = field(default_factory=lambda: Network(hidden=(256,), activation="relu"))
    seed: int = 0


DEBUG = Config(
    dataset="fake", env="cartpole", steps=16, round_steps=5, episodes=2, batch_size=4, check_every=4, held_out=0.25
)
CHECKPOINT_EVERY = 500


def losses(policy: Driver, batch: Sample, smoothing: float = 0.0, words: float = 0.0) -> dict[str, Tensor]:
    """Those of behaviour cloning: the labels are what the expert would have done."""
    return bc.losses(policy, batch, smoothing, words)


class Mixture:
    """At each step the expert acts with a chance of `beta` and the policy otherwise; what the expert would do is kept."""

    privileged = True

    def __init__(self, expert: Actor, policy: Actor, beta: float):
        self.expert, self.policy, self.beta = expert, policy, beta

    def initial(self, batch_size: int) -> Memory:
        return joined(self.expert.initial(batch_size), self.policy.initial(batch_size))

    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: Generator | None
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        expert, policy = (part(memory, who) for who in ("expert.", "policy."))
        meant, expert, said = self.expert.act(observation, expert, greedy=greedy, generator=generator)
        done, policy, _ = self.policy.act(observation, policy, greedy=greedy, generator=generator)
        acted = torch.rand(len(meant), generator=generator).numpy() < self.beta  # [B]
        action = np.where(acted.reshape(-1, *[1] * (meant.ndim - 1)), meant, done)
        words = {EXPERT_WORDS: said[EXPERT_WORDS]} if EXPERT_WORDS in said else {}
        return action, joined(expert, policy), {EXPERT_ACTION: meant, EXPERT_ACTED: acted, **words}


def joined(expert: Memory, policy: Memory) -> Memory:
    return {f"expert.{key}": value for key, value in expert.items()} | {f"policy.{k}": v for k, v in policy.items()}


def part(memory: Memory, who: str) -> Memory:
    return {key.removeprefix(who): value for key, value in memory.items() if key.startswith(who)}


class Rounds:
    """What was played in each round; a data set in a folder of its own, which an interrupt leaves without its last episode."""

    def __init__(self, config: Config, env: str, folder: Path):
        self.config, self.env, self.folder = config, with_options(env, stack=config.frame_stack), folder
        self.expert: Actor = find_expert(config.expert, spec_of(self.env))
        spec = spec_of(with_options(env, stack=1))
        told = {EXPERT_ACTION: spec.action, EXPERT_ACTED: Feature((), "bool"), **words_of(self.expert)}
        self.spec = replace(spec, features={**spec.features, **told})

    def place(self, number: int) -> Path:
        return self.folder / f"{number:03d}"

    def beta(self, number: int) -> float:
        return float(self.config.beta**number)

    def play(self, number: int, policy: Actor) -> None:
        """The episodes of a round that are not there yet. Each is a function of the policy, the seed, and its number."""
        writer = Writer(self.place(number), self.spec, resume=True)
        mixture = Mixture(self.expert, policy, self.beta(number))
        for index in range(writer.episodes, self.config.episodes):
            seed, chance = np.random.SeedSequence((self.config.seed, number, index)).generate_state(2).tolist()
            generator = torch.Generator().manual_seed(chance)
            (episode,) = rollout(mixture, self.env, [seed], generator=generator, keep=True)
            for sample in episode.samples:
                writer.add(newest(sample, self.spec))
            writer.end_episode()
        writer.finish()

    def open(self, number: int) -> Episodes:
        return open_lerobot(self.place(number))


def summary(played: Episodes) -> dict[str, float]:
    """What a round was like: its mean return, the share of the expert's steps, and how right the policy's own were."""
    by_policy = ~played.values(EXPERT_ACTED)
    said = {"return": float(played.values(REWARD).sum()) / played.episodes, "expert/share": 1 - by_policy.mean()}
    done, meant = (played.values(key)[by_policy] for key in (ACTION, EXPERT_ACTION))
    if not len(done):
        return said
    if played.spec.discrete:
        return said | {"visited/same": (done == meant).mean()}
    low, high = played.spec.action.bounds()
    return said | {"visited/error": (2 * np.abs(done - meant) / (high - low)).mean()}  # in parts of half the range


def cloning(config: Config) -> bc.Config:
    """The settings that behaviour cloning knows too."""
    return bc.Config(**{f.name: getattr(config, f.name) for f in fields(bc.Config) if f.name != "as_done"})


def prepared(config: Config, run: Run) -> tuple[Episodes, Episodes | None, Rounds]:
    """The expert's own episodes, those to learn from and those held out, not stacked yet; and the rounds to come."""
    if config.steps <= config.round_steps:
        got = f"{config.steps} and {config.round_steps}"
        raise BadConfig(f"BadConfig: dagger needs --steps above --round-steps, got {got}; one round alone is bc")
    folder, given = run.folder / "rounds", config.dataset
    if not given:
        if not config.env:
            raise BadConfig("BadConfig: dagger needs a data set or a world, got neither; add --dataset or --env")
        rounds = Rounds(config, config.env, folder)
        rounds.play(0, rounds.expert)
        given = str(rounds.place(0))
    if config.frame_stack > 1 or config.network.memory != "none":
        refuse_thinned(given)
    learn, held_out = bc.open_data(replace(cloning(config), dataset=given, frame_stack=1))
    env = config.env or learn.spec.env
    if not env:
        raise BadConfig(f"BadConfig: {given} does not say which world it is from; add --env NAME")
    return learn, held_out, Rounds(config, env, folder)


def train(config: Config, run: Run) -> Driver:
    random = Randomness(config.seed)
    given, held_out, rounds = prepared(config, run)
    learn, held_out = given.stack(config.frame_stack), held_out and held_out.stack(config.frame_stack)
    policy = bc.begin(cloning(config), learn)
    length = config.length if policy.recurrent else 1
    settings = cloning(config)
    optimizer = bc.optimiser(policy, settings)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, config.round_steps)
    parts: dict[str, Any] = {"policy": policy, "optimizer": optimizer, "schedule": schedule, "random": random}
    played: list[Episodes] = []
    for step in run.steps(config.steps, **parts):
        number, into = divmod(step, config.round_steps)
        if len(played) < number:
            if not into:
                rounds.play(number, policy.eval())
                policy.train()
                run.log(step, {"beta": rounds.beta(number), **summary(rounds.open(number))})
            played += [rounds.open(i).as_meant() for i in range(len(played) + 1, number + 1)]
            learn = together([given, *played]).stack(config.frame_stack)
        batch = bc.tensors(learn.batch(config.batch_size, at=step, seed=config.seed, length=length))
        run.log(step, bc.improve(policy, optimizer, schedule, batch, settings))
        if held_out is not None and (step + 1) % config.check_every == 0:
            run.log(step, bc.check(policy, held_out, settings, length))
    return finished(policy, run)
