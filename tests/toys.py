"""Worlds so small that what can be learned in them is known in advance.

identity               reward 1 for naming the number shown; 8 steps, then a time limit
identity-continuous    minus the squared distance from twice the number shown; the action's range is lopsided on purpose
shuffled               identity, whose rewards are drawn by lot in the same proportion: nothing can be learned
constant[-continuous]  reward 1 whatever is done; `length` steps, and then `ends=limit` or `ends=death`
recall                 a sign is shown once; after `wait` blank steps the action must name it
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np

from drivetrain import catalog
from drivetrain.data.episodes import Episodes
from drivetrain.envs.words import make_env, space_of
from drivetrain.sample import ACTION, REWARD, STATE, TERMINATED, TRUNCATED, Feature, Sample, Spec

CHOICES = 3
STEPS = 8
LOW, HIGH = -2.0, 4.0  # of the continuous action


class Toy(gym.Env[Sample, Any]):
    """`length` steps; what is seen and what is earned are left to each toy."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  as gymnasium declares it

    def __init__(self, seen: Feature, action: Feature, length: int = STEPS, ends: str = "limit"):
        self.sample_spec = Spec({STATE: seen, ACTION: action}, "Do as you are shown.", 10.0)
        self.observation_space = gym.spaces.Dict({STATE: space_of(seen)})
        self.action_space = space_of(action)
        self.length, self.ends = length, ends

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Sample, dict[str, Any]]:
        super().reset(seed=seed)
        self.now = 0
        return {STATE: self.show().astype(np.float32)}, {}

    def step(self, action: Any) -> tuple[Sample, float, bool, bool, dict[str, Any]]:
        reward = self.judge(action)
        self.now += 1
        over = self.now >= self.length
        dies = over and self.ends == "death"
        return {STATE: self.show().astype(np.float32)}, float(reward), dies, over and not dies, {}

    def show(self) -> np.ndarray:
        raise NotImplementedError

    def judge(self, action: Any) -> float:
        raise NotImplementedError


class Identity(Toy):
    def __init__(self) -> None:
        super().__init__(Feature((CHOICES,), low=0.0, high=1.0), Feature((), "int64", choices=CHOICES))

    def show(self) -> np.ndarray:
        self.shown = int(self.np_random.integers(CHOICES))
        return np.eye(CHOICES)[self.shown]

    def judge(self, action: Any) -> float:
        return float(action == self.shown)


class Shuffled(Identity):
    def judge(self, action: Any) -> float:
        return float(self.np_random.random() < 1 / CHOICES)


class IdentityContinuous(Toy):
    def __init__(self, shuffled: int = 0) -> None:
        super().__init__(Feature((1,), low=-1.0, high=1.0), Feature((1,), low=LOW, high=HIGH))
        self.shuffled = shuffled

    def show(self) -> np.ndarray:
        self.shown = self.np_random.uniform(-1, 1)
        return np.array([self.shown])

    def judge(self, action: Any) -> float:
        assert LOW <= float(action[0]) <= HIGH, f"the action {action} is out of bounds"
        wanted = 2 * (self.np_random.uniform(-1, 1) if self.shuffled else self.shown)
        return -((float(action[0]) - wanted) ** 2)


class Constant(Toy):
    def show(self) -> np.ndarray:
        return np.ones(1)

    def judge(self, action: Any) -> float:
        return 1.0


def constant(length: int = STEPS, ends: str = "limit") -> Constant:
    return Constant(Feature((1,)), Feature((), "int64", choices=2), length, ends)


def constant_continuous(length: int = STEPS, ends: str = "limit") -> Constant:
    return Constant(Feature((1,)), Feature((1,), low=-1.0, high=1.0), length, ends)


class Recall(Toy):
    def __init__(self, wait: int = 2) -> None:
        super().__init__(Feature((2,), low=-1.0, high=1.0), Feature((), "int64", choices=2), wait + 2, "death")
        self.wait = wait

    def show(self) -> np.ndarray:
        if self.now == 0:
            self.sign = int(self.np_random.integers(2))
            return np.array([2 * self.sign - 1, 0])
        return np.array([0, self.now == self.wait + 1])

    def judge(self, action: Any) -> float:
        return float(self.now == self.wait + 1 and action == self.sign)


TOYS = {
    "identity": "toys:Identity",
    "identity-continuous": "toys:IdentityContinuous",
    "shuffled": "toys:Shuffled",
    "constant": "toys:constant",
    "constant-continuous": "toys:constant_continuous",
    "recall": "toys:Recall",
}
EXPERTS = {"identity": "toys:Shown"}
DATA = {
    "shown": "toys:open_shown",
    "shown-continuous": "toys:open_shown_continuous",
    "tried": "toys:open_tried",
    "tried-continuous": "toys:open_tried_continuous",
}


@contextlib.contextmanager
def in_catalog() -> Iterator[None]:
    tables = ((catalog.ENVS, TOYS), (catalog.EXPERTS, EXPERTS), (catalog.DATASETS, DATA))
    for table, things in tables:
        table.update({name: catalog.Entry(target, "a toy") for name, target in things.items()})
    try:
        yield
    finally:
        for table, things in tables:
            for name in things:
                table.pop(name, None)


class Shown:
    """An expert in both kinds of `identity`."""

    privileged = True

    def __init__(self, spec: Spec):
        self.discrete = spec.discrete

    def initial(self, batch_size: int) -> dict[str, Any]:
        return {}

    def act(self, observation: Sample, memory: Any, *, greedy: bool, generator: Any) -> tuple[np.ndarray, Any, Any]:
        seen = observation[STATE]
        return (seen.argmax(-1) if self.discrete else 2 * seen), memory, {}


def open_shown(spec: Spec, episodes: int = 40) -> Episodes:
    """Episodes of somebody who does the right thing in `identity`."""
    return shown("identity", lambda seen: np.int64(seen.argmax()), episodes)


def open_shown_continuous(spec: Spec, episodes: int = 40) -> Episodes:
    return shown("identity-continuous", lambda seen: 2 * seen, episodes)


def shown(env: str, right: Any, episodes: int) -> Episodes:
    world = make_env(env)
    seen, done = [], []
    for episode in range(episodes):
        observation, over = world.reset(seed=episode)[0], False
        while not over:
            seen.append(observation[STATE])
            done.append(right(observation[STATE]))
            observation, _, terminated, truncated, _ = world.step(done[-1])
            over = terminated or truncated
    ends = np.arange(1, len(seen) + 1) % STEPS == 0
    arrays = {
        STATE: np.stack(seen),
        ACTION: np.stack(done).astype(world.sample_spec.action.dtype),
        REWARD: np.zeros(len(seen), np.float32),
        TERMINATED: np.zeros(len(seen), bool),
        TRUNCATED: ends,
    }
    return Episodes(world.sample_spec, arrays, [STEPS] * episodes)


def open_tried(spec: Spec, episodes: int = 150, env: str = "identity", seed: int = 0) -> Episodes:
    """What somebody did who tries anything, and what it earned."""
    world, random = make_env(env), np.random.default_rng(seed)
    arrays: dict[str, list[Any]] = {key: [] for key in (STATE, ACTION, REWARD, TERMINATED, TRUNCATED)}
    for episode in range(episodes):
        seen, _ = world.reset(seed=seed * 10_000 + episode)
        over = False
        while not over:
            action = random.integers(CHOICES) if env == "identity" else random.uniform(LOW, HIGH, 1).astype(np.float32)
            after, reward, terminated, truncated, _ = world.step(action)
            for key, value in ((STATE, seen[STATE]), (ACTION, action), (REWARD, np.float32(reward))):
                arrays[key].append(value)
            arrays[TERMINATED].append(terminated)
            arrays[TRUNCATED].append(truncated)
            seen, over = after, terminated or truncated
    made = {key: np.stack(values) for key, values in arrays.items()}
    spec = world.sample_spec
    return Episodes(spec, made, [STEPS] * episodes)


def open_tried_continuous(spec: Spec) -> Episodes:
    return open_tried(spec, env="identity-continuous")
