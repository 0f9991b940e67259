"""Several worlds side by side, for training: one batch of actions in, one batch of what came of them out.

An episode that ends starts anew in the same step (what Gymnasium calls SAME_STEP); the true last observation is kept
in `final`, because learners bootstrap through a truncation from there. Worlds cannot be saved, so `rebuild` makes them
from nothing as a function of a seed: that is what a resumed run and an uninterrupted one both do at every checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from drivetrain.envs.words import make_env, split_name
from drivetrain.sample import Sample, Spec

Info = dict[str, Any]


class Step(NamedTuple):
    observation: Sample  # [N, ...] what to act on next: of a new episode wherever one ended
    reward: np.ndarray  # [N] float32
    terminated: np.ndarray  # [N] bool
    truncated: np.ndarray  # [N] bool; never true where terminated is
    final: Sample  # [N, ...] what the action led to: the last observation of an episode wherever one ended
    infos: Sequence[Info]  # of the step just taken
    frames: Sequence[np.ndarray] = ()  # what a camera saw of it, where one is set up

    @property
    def ended(self) -> np.ndarray:
        return self.terminated | self.truncated


class Finished(NamedTuple):
    """An episode that came to its own end."""

    total: float  # the sum of its rewards
    length: int


class Worlds:
    """`count` environments of one name."""

    def __init__(self, name: str, count: int):
        self.name, self.count = name, count
        self.envs: list[gym.Env[Sample, Any]] = [make_env(name)]
        self.sample_spec: Spec = self.envs[0].sample_spec  # type: ignore[attr-defined]
        self.infos: list[Info] = []  # of the observations to act on next
        self.camera: Callable[[gym.Env[Sample, Any], Sample], np.ndarray] | None = (
            None  # looks at a world after each step
        )
        self._finished: list[Finished] = []
        waits = count > 1 and getattr(
            self.envs[0].unwrapped, "waits", False
        )  # for a server: the others go on meanwhile
        self._each: Any = ThreadPoolExecutor(count, thread_name_prefix="world").map if waits else map

    def rebuild(self, *seed: int) -> Sample:
        """New worlds, at the start of new episodes; a function of the seed alone."""
        self.close()
        self.envs = [make_env(self.name) for _ in range(self.count)]
        seeds = np.random.SeedSequence(seed).generate_state(self.count)
        begun = list(self._each(lambda env, s: env.reset(seed=int(s)), self.envs, seeds))
        self.infos = [info for _, info in begun]
        self._totals, self._lengths = np.zeros(self.count), np.zeros(self.count, dtype=int)
        return stack([observation for observation, _ in begun])

    def step(self, actions: np.ndarray) -> Step:
        went = list(self._each(lambda env, action: env.step(action), self.envs, actions))
        final = stack([w[0] for w in went])
        reward = np.array([w[1] for w in went], dtype=np.float32)
        terminated = np.array([w[2] for w in went], dtype=bool)
        truncated = np.array([w[3] for w in went], dtype=bool) & ~terminated
        infos = [w[4] for w in went]
        frames = [self.camera(env, w[0]) for env, w in zip(self.envs, went, strict=True)] if self.camera else ()
        self.infos, ended = list(infos), terminated | truncated
        self._totals += reward
        self._lengths += 1
        observation = final
        if ended.any():
            observation = {key: value.copy() for key, value in final.items()}
            for i in np.flatnonzero(ended):
                self.begin_again(int(i), observation)
        return Step(observation, reward, terminated, truncated, final, infos, frames)

    def begin_again(self, i: int, observation: Sample) -> None:
        """A new episode in world `i`; its first observation is put into the batch."""
        self._finished.append(Finished(float(self._totals[i]), int(self._lengths[i])))
        self._totals[i] = self._lengths[i] = 0
        begun, self.infos[i] = self.envs[i].reset()
        for key, value in begun.items():
            observation[key][i] = value

    def finished(self) -> list[Finished]:
        """The episodes that ended since this was last asked."""
        done, self._finished = self._finished, []
        return done

    def close(self) -> None:
        for env in self.envs:
            env.close()


def make_worlds(name: str, count: int) -> Worlds:
    """Worlds in this process, or EnvPool's where the name says `drawing=envpool`."""
    if split_name(name)[1].get("drawing") == "envpool":
        from drivetrain.envs.pool import PoolWorlds

        return PoolWorlds(name, count)
    return Worlds(name, count)


def stack(samples: Sequence[Sample]) -> Sample:
    """Samples of one shape into one batch of arrays, [N, ...]."""
    return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
