"""Deep Q-learning: learn what each choice is worth, and take the best.

    drivetrain train dqn --env cartpole --output-dir runs/dqn

Mnih et al. 2015, with double Q-learning (van Hasselt et al. 2016) and prioritised replay (Schaul et al. 2016) by flag. The
target network is renewed by steps in the world, not by updates. A policy with memory learns from short sequences that
begin with an empty memory. Defaults are those that solve CartPole in 50,000 steps.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from drivetrain.checkpoint import Randomness
from drivetrain.data.replay import Priority, Replay
from drivetrain.envs.worlds import Worlds
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Driver, Network, build_policy
from drivetrain.run import Run
from drivetrain.sample import restart
from drivetrain.training.flat import Adam, Flat
from drivetrain.training.judged import Judging, log_judge, taught_by, worlds_for
from drivetrain.training.start import finished, start_from, undropped, unfed


@dataclass(frozen=True)
class Config:
    env: str = "cartpole"  # a name of `drivetrain list envs`; its actions must be choices
    reward: str = "world"  # who rewards: world, or vlm, a judge that looks at the frames
    judge: Judging = field(default_factory=Judging)  # that judge
    policy: str = ""  # a run or checkpoint to start from; empty starts anew
    steps: int = 50_000  # steps in the worlds, all together
    worlds: int = 1  # worlds side by side
    capacity: int = 100_000  # observations the replay memory holds
    warmup: int = 1_000  # steps before learning begins
    train_every: int = 256  # steps between rounds of learning
    updates: int = 128  # gradient steps in a round
    batch_size: int = 64
    lr: float = 1e-3  # learning rate
    anneal: bool = True  # learning rate falls to 0 over the run, so that the last policy is a settled one
    gamma: float = 0.99  # how much the next step counts
    target_every: int = 256  # steps after which the target network is renewed
    double: bool = False  # the online network picks the next choice, the target network values it
    n_step: int = 3  # rewards summed before bootstrapping
    length: int = 8  # steps of a sequence, where the policy has memory
    prioritised: bool = False  # replay steps with a large error more often
    priority: Priority = field(default_factory=Priority)
    explore_fraction: float = 0.16  # of the run, over which exploration falls to its end
    explore_end: float = 0.04  # share of random choices from then on
    max_grad_norm: float = 10.0  # gradients are scaled down to this
    network: Network = field(default_factory=lambda: Network(hidden=(256, 256), activation="relu"))
    seed: int = 0


DEBUG = Config(steps=256, worlds=2, capacity=400, warmup=32, train_every=32, updates=2, batch_size=8, target_every=64)
CHECKPOINT_EVERY = 10_240
AT_ONCE_BYTES = 32 << 20  # of replay memory drawn at once


def losses(policy: Driver, batch: dict[str, Tensor], brought: Tensor) -> dict[str, Tensor]:
    """The Huber loss between what a choice was thought to be worth and what it brought; `error` [B * T] beside it."""
    thought = values(policy, batch, slice(0, -1)).gather(-1, batch["action"].reshape(-1, 1)).squeeze(-1)
    loss = F.smooth_l1_loss(thought, brought, reduction="none")
    return {"loss/value": loss.dot(batch["share"].flatten()), "error": (thought - brought).detach()}


@torch.no_grad()
def worth(policy: Driver, target: Driver, batch: dict[str, Tensor], config: Config) -> Tensor:
    """What each choice brought [B * T]: its rewards, and what the target network says of where it led."""
    after = values(target, batch, slice(1, None))
    if config.double:
        onward = after.gather(-1, values(policy, batch, slice(1, None)).argmax(-1, keepdim=True)).squeeze(-1)
    else:
        onward = after.amax(-1)
    reward, discount, terminated = (batch[key].flatten() for key in ("reward", "discount", "terminated"))
    return reward + discount * onward * ~terminated


def values(policy: Driver, batch: dict[str, Tensor], steps: slice) -> Tensor:
    """[B * T, K]. Without memory only the wanted steps are looked at; with memory all of them, from an empty one."""
    look = slice(None) if policy.recurrent else steps
    seen = {key: batch[key][:, look] for key in policy.keys}
    features, _ = policy.features(seen, policy.initial(len(batch["reward"])), batch["is_first"][:, look])
    found: Tensor = policy.head((features[:, steps] if policy.recurrent else features).flatten(0, 1)).values
    return found


class Explorer:
    """Acts in the worlds, at random with a probability that falls over the run, and remembers."""

    def __init__(self, worlds: Worlds, replay: Replay, config: Config, random: Randomness):
        self.worlds, self.replay, self.config, self.random = worlds, replay, config, random

    def rebuild(self, policy: Driver, step: int) -> None:
        self.observation = self.worlds.rebuild(self.config.seed, step)
        self.is_first = np.ones(self.worlds.count, dtype=bool)
        self.memory = self.start = policy.initial(self.worlds.count)

    def epsilon(self, step: int) -> float:
        done = step / (self.config.explore_fraction * self.config.steps)
        return max(1 - done * (1 - self.config.explore_end), self.config.explore_end)

    def walk(self, policy: Driver, step: int, count: int) -> None:
        for i in range(count):
            action = self._choose(policy, step + i * self.worlds.count)
            went = self.worlds.step(action)
            self.replay.add(self.observation, action, went.reward, went.terminated, went.truncated, went.final)
            self.observation, self.is_first = went.observation, went.ended

    def _choose(self, policy: Driver, step: int) -> np.ndarray:
        draw = self.random.numpy.random(self.worlds.count) < self.epsilon(step)
        at_random = self.random.numpy.integers(policy.spec.action.choices, size=self.worlds.count)
        if draw.all() and not policy.recurrent:
            return at_random
        self.memory = restart(self.memory, self.start, self.is_first)
        action, self.memory, _ = policy.act(self.observation, self.memory, greedy=True, generator=None)
        return np.where(draw, at_random, action)


def train(config: Config, run: Run) -> Driver:
    random = Randomness(config.seed)
    worlds = worlds_for(config.env, config.worlds, config, run.folder)
    if not worlds.sample_spec.discrete:
        raise BadConfig(f"BadConfig: dqn needs actions that are choices, {config.env} has numbers; use sac or ppo")
    policy = begin(config, worlds)
    target = copy.deepcopy(policy).requires_grad_(False)
    flat = Flat(policy.parameters())
    optimizer = Adam(flat, config.lr)
    replay = Replay(
        worlds.sample_spec,
        config.capacity,
        config.worlds,
        run.folder / "replay",
        gamma=config.gamma,
        keep=run.keep + 1,
        n_step=config.n_step,
        length=config.length if policy.recurrent else 1,
        priority=config.priority if config.prioritised else None,
    )
    explorer = Explorer(worlds, replay, config, random)
    parts = {"policy": policy, "target": target, "optimizer": optimizer, "replay": replay, "random": random}
    parts |= taught_by(worlds)
    for step in run.steps(config.steps, by=config.train_every, **parts):
        if run.fresh:
            explorer.rebuild(policy, step)
        explorer.walk(policy, step, config.train_every // config.worlds)
        run.log_episodes(step, worlds.finished())
        log_judge(worlds, run, step)
        after = step + config.train_every
        if after // config.target_every > step // config.target_every:
            target.load_state_dict(policy.state_dict())
        if after >= config.warmup:
            optimizer.lr = config.lr * (1 - step / config.steps if config.anneal else 1.0)
            loss = learn(policy, target, flat, optimizer, replay, config, random)
            run.log(step, {"loss": loss, "explore": explorer.epsilon(step)})
    worlds.close()
    return finished(policy, run)


def begin(config: Config, worlds: Worlds) -> Driver:
    unfed(config.network)
    undropped(config.network, "dqn", "its targets would be of other networks")
    if config.train_every % config.worlds:
        got = f"{config.train_every} and {config.worlds}"
        raise BadConfig(f"BadConfig: --train-every must be a multiple of --worlds, got {got}")
    if not config.policy:
        return build_policy(worlds.sample_spec, config.network, "q")
    policy = start_from(config.policy, worlds.sample_spec, config.network)
    if policy.head_name != "q":
        raise BadConfig(
            f"BadConfig: dqn needs a policy with the head 'q', {config.policy} has {policy.head_name!r}; "
            "start from a run of dqn"
        )
    return policy


def learn(
    policy: Driver,
    target: Driver,
    flat: Flat,
    optimizer: Adam,
    replay: Replay,
    config: Config,
    random: Randomness,
) -> Tensor:
    """A round of gradient steps; returns the mean loss.

    Neither what is remembered nor the target network changes within a round, so many batches are drawn and valued at once.
    With priorities or double Q-learning each step changes what the next one sees, and they go one by one.
    """
    total, left = torch.zeros(()), config.updates
    one_by_one = config.double or config.prioritised
    most = 1 if one_by_one else max(AT_ONCE_BYTES // (config.batch_size * replay.window_bytes), 1)
    while left:
        count = min(left, most)
        left -= count
        drawn = replay.batch(config.batch_size * count, random.numpy)
        together = {key: torch.from_numpy(value) for key, value in drawn.items()}
        brought = worth(policy, target, together, config).split(config.batch_size * replay.length)
        batches = {key: value.split(config.batch_size) for key, value in together.items()}
        for i in range(count):
            batch = {key: parts[i] for key, parts in batches.items()}
            batch["share"] = batch["valid"] * (batch["weight"].unsqueeze(-1) / batch["valid"].sum())
            found = losses(policy, batch, brought[i])
            flat.backward(found["loss/value"])
            flat.clip(config.max_grad_norm)
            optimizer.step()
            total += found["loss/value"].detach()
        if config.prioritised:
            errors = (found["error"].view(config.batch_size, -1) * batch["valid"]).abs().amax(1)
            replay.reprioritise(drawn["index"], errors.numpy())
    return total / config.updates
