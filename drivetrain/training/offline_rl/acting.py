"""What an offline algorithm learned goes on learning by acting: the second half of its run.

    drivetrain train iql --dataset data/hopper-replay --steps 50000 --acting 20000 --output-dir runs/iql
    drivetrain train iql --dataset data/hopper-replay --policy runs/iql --steps 0 --acting 20000 --output-dir runs/more

The same losses, critics and optimizers. For each step in the world comes one gradient step, from a batch of which one half
is of the data set and the other of what was lived since (Ball et al. 2023): new steps count at once, and nothing of the old
is forgotten.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drivetrain.checkpoint import Randomness
from drivetrain.data.replay import REWARD, TERMINATED, Replay
from drivetrain.data.transitions import NEXT, Transitions
from drivetrain.envs.worlds import make_worlds
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Driver
from drivetrain.run import Run
from drivetrain.sample import ACTION
from drivetrain.training.offline_rl.given import NEAREST, Scale


def falling(step: int, config: Any) -> float:
    """From 1 to 0 along a cosine over the steps by data alone, and once more over those of acting."""
    begun, length = (0, config.steps) if step < config.steps else (config.steps, config.acting)
    return 0.5 * (1 + math.cos(math.pi * (step - begun) / length))


class Experience:
    """Batches of a data set for `config.steps` steps, and then for `config.acting` ones of that and of what is lived."""

    def __init__(self, config: Any, policy: Driver, data: Transitions, run: Run, random: Randomness):
        if config.acting and not policy.spec.env:
            raise BadConfig(f"BadConfig: {config.dataset} does not say what world it is of; say it by --env")
        self.config, self.policy, self.data, self.run, self.random = config, policy, data, run, random
        self.total = config.steps + config.acting
        self.replay = None
        if config.acting:
            self.worlds = make_worlds(policy.spec.env, 1)
            policy.spec.require(self.worlds.sample_spec)
            spec, slots = self.worlds.sample_spec, 2 * config.acting + 4  # an end has a slot of its own
            self.replay = Replay(spec, slots, 1, run.folder / "replay", gamma=config.gamma, keep=run.keep + 1)

    def parts(self) -> dict[str, Any]:
        kept = {"random": self.random, "reward_scale": Scale(self.data.reward_scale)}
        return {**kept, **({"replay": self.replay} if self.replay is not None else {})}

    def batch(self, step: int) -> dict[str, Tensor]:
        """What to learn from at that step; beyond the first `steps` ones, after a step in the world."""
        size, seed = self.config.batch_size, self.config.seed
        if self.replay is None or step < self.config.steps:
            return self.data.batch(size, at=step, seed=seed)
        self.act(self.replay, step)
        if len(self.replay) <= size:
            return self.data.batch(size, at=step, seed=seed)
        old = self.data.batch(size - size // 2, at=step, seed=seed)
        new = self.lived(self.replay, size // 2)
        return {key: torch.cat([values, new[key]]) for key, values in old.items()}

    def act(self, replay: Replay, step: int) -> None:
        if self.run.fresh or step == self.config.steps:
            self.observation = self.worlds.rebuild(self.config.seed, step)
        _, _, info = self.policy.act(self.observation, {}, greedy=False, generator=self.random.torch)
        raw = self.tried(info["raw"])
        went = self.worlds.step(self.policy.to_world(raw))
        replay.add(self.observation, raw.numpy(), went.reward, went.terminated, went.truncated, went.final)
        self.observation = went.observation
        self.run.log_episodes(step, self.worlds.finished())

    def tried(self, raw: Tensor) -> Tensor:
        """An action as heads give it, once it has been strayed from where the policy itself never strays."""
        spec, generator = self.policy.spec, self.random.torch
        if self.policy.head_name == "deterministic":
            noise = torch.empty_like(raw).normal_(generator=generator)
            return (raw + self.config.stray * noise).clamp(-1, 1)
        if self.policy.head_name == "q" and torch.rand((), generator=generator) < self.config.stray:
            return torch.randint(spec.action.choices, raw.shape, generator=generator)
        return raw if spec.discrete else raw.clamp(-1, 1)

    def lived(self, replay: Replay, size: int) -> dict[str, Tensor]:
        """As `Transitions` gives its batches."""
        drawn = {key: torch.from_numpy(value) for key, value in replay.batch(size, self.random.numpy).items()}
        action = drawn[ACTION][:, 0]
        found = {
            ACTION: action if self.policy.spec.discrete else action.clamp(-NEAREST, NEAREST),
            REWARD: drawn[REWARD][:, 0] * float(np.float32(self.data.reward_scale)),
            TERMINATED: drawn[TERMINATED][:, 0],
        }
        for key in self.data.keys:
            found[key], found[NEXT + key] = drawn[key][:, :1], drawn[key][:, 1:]
        return found

    def close(self) -> None:
        if self.replay is not None:
            self.worlds.close()
