"""Every environment of the catalog passes the examiner, and the examiner refuses those that are broken."""

import ctypes.util
import dataclasses
import math
import os
import re
import sys
import types

import gymnasium as gym
import numpy as np
import pytest

from drivetrain import catalog
from drivetrain.catalog import Entry
from drivetrain.envs import check as examiner
from drivetrain.envs.words import space_of
from drivetrain.sample import ACTION, STATE, Feature, Spec

LONG = {(name, "worlds_side_by_side_equal_lone_ones") for name in ("carracing", "carracing-continuous")}
LONG |= {(name, "its_time_limit_is_a_truncation") for name in ("carracing", "carracing-continuous")}
LONG |= {("carla", exam.__name__) for exam in examiner.EXAMS}
CASES = [
    pytest.param(name, exam, id=f"{name}-{exam.__name__}", marks=[pytest.mark.slow] * ((name, exam.__name__) in LONG))
    for name in catalog.ENVS
    for exam in examiner.EXAMS
]


@pytest.mark.parametrize(("name", "exam"), CASES)
def test_every_environment_passes(name, exam):
    row = catalog.entry("envs", name)
    if not catalog.present(row):
        pytest.skip(f"{row.package} is not installed")
    screen = os.environ.get("DISPLAY") or ctypes.util.find_library("EGL")
    if row.extra == "mujoco" and exam is examiner.it_can_be_filmed and not screen:
        pytest.skip("nothing here can draw with OpenGL")
    exam(name)


def test_check_names_the_exams_that_were_passed():
    assert examiner.check("cartpole") == [exam.__name__ for exam in examiner.EXAMS]


@pytest.mark.parametrize(
    "name",
    [
        "cartpole:repeat=3",
        "cartpole:stack=2",
        "cartpole-pixels:stack=1",
        "pendulum:repeat=2",
        "cartpole-pixels:shrink=2",
    ],
)
def test_options_keep_an_environment_valid(name):
    examiner.check(name)


class Walk(gym.Env):
    """A sound toy: a walk on a line, 50 steps long."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"
    numbers = Feature((1,), low=-60.0, high=60.0, names=("place_m",))

    def __init__(self):
        action = Feature((), "int64", names=("back", "forth"), choices=2)
        self.sample_spec = Spec({STATE: self.numbers, ACTION: action}, "Walk.", 10.0)
        self.observation_space = gym.spaces.Dict({STATE: space_of(self.numbers)})
        self.action_space = gym.spaces.Discrete(2)
        self.spec = dataclasses.replace(gym.spec("CartPole-v1"), max_episode_steps=50)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(-1, 1), 0
        return self.seen(), {}

    def step(self, action):
        self.place += 2 * action - 1
        self.steps += 1
        return self.seen(), 1.0, False, self.steps >= 50, {}

    def seen(self):
        return {STATE: np.array([self.place], dtype=np.float32)}

    def render(self):
        return np.zeros((4, 4, 3), dtype=np.uint8)


@pytest.fixture
def in_catalog(monkeypatch):
    """Puts a toy into the catalog, as `toy`."""

    def put(toy):
        monkeypatch.setitem(sys.modules, "toys", types.SimpleNamespace(toy=lambda: toy()))
        monkeypatch.setitem(catalog.ENVS, "toy", Entry("toys:toy", "a toy"))

    return put


def test_a_sound_toy_passes(in_catalog):
    in_catalog(Walk)
    assert len(examiner.check("toy")) == len(examiner.EXAMS)


class NoTask(Walk):
    def __init__(self):
        super().__init__()
        self.sample_spec = dataclasses.replace(self.sample_spec, task="")


class NoNames(Walk):
    numbers = Feature((1,), low=-60.0, high=60.0)


class Infinite(Walk):
    numbers = Feature((1,), low=-math.inf, high=math.inf, names=("place_m",))


class ActsOnPrivileged(Walk):
    def __init__(self):
        super().__init__()
        shown = {**self.sample_spec.features, "privileged.place": self.numbers}
        self.sample_spec = dataclasses.replace(self.sample_spec, features=shown)


class SaysMoreThanItsSpec(Walk):
    def seen(self):
        return {**super().seen(), "privileged.place": np.zeros(1, dtype=np.float32)}


class Doubles(Walk):
    def seen(self):
        return {STATE: np.array([self.place])}


class OutOfBounds(Walk):
    def seen(self):
        return {STATE: np.array([self.place + 80 * (self.steps == 3)], dtype=np.float32)}


class NotANumber(Walk):
    def seen(self):
        return {STATE: np.array([np.nan if self.steps == 3 else self.place], dtype=np.float32)}


class Reuses(Walk):
    def seen(self):
        self.buffer = getattr(self, "buffer", np.zeros(1, dtype=np.float32))
        self.buffer[0] = self.place
        return {STATE: self.buffer}


class RevealsOnlyAtReset(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"privileged.place": self.place}


class IgnoresItsSeed(Walk):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = 0.25, 0
        return self.seen(), {}


class RollsDice(Walk):
    def step(self, action):
        answer = super().step(action)
        self.place += 1e-3 * np.random.random() * (self.steps > 3)
        return answer


class EndsByLimitAsFailure(Walk):
    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, truncated, False, info


class CutAtOnce(Walk):
    def step(self, action):
        return (*super().step(action)[:3], True, {})


class NumpyFlags(Walk):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, np.bool_(terminated), truncated, info


class Blind(Walk):
    def render(self):
        return None


REFUSED = [
    (NoTask, examiner.the_spec_is_whole, "no instruction"),
    (NoNames, examiner.the_spec_is_whole, "has 1 entries and the names ()"),
    (Infinite, examiner.the_spec_is_whole, "stands for no bound"),
    (ActsOnPrivileged, examiner.the_spec_is_whole, "belongs in info"),
    (SaysMoreThanItsSpec, examiner.what_comes_is_what_the_spec_says, "privileged.place"),
    (Doubles, examiner.what_comes_is_what_the_spec_says, "is float64, the spec says float32"),
    (OutOfBounds, examiner.what_comes_is_what_the_spec_says, "outside"),
    (NotANumber, examiner.what_comes_is_what_the_spec_says, "not finite"),
    (Reuses, examiner.what_comes_is_what_the_spec_says, "changed after it was given"),
    (RevealsOnlyAtReset, examiner.what_comes_is_what_the_spec_says, "reset reveals"),
    (NumpyFlags, examiner.what_comes_is_what_the_spec_says, "terminated is a"),
    (Blind, examiner.it_can_be_filmed, "render gives a"),
    (IgnoresItsSeed, examiner.it_is_a_function_of_seed_and_actions, "the seed does nothing"),
    (RollsDice, examiner.it_is_a_function_of_seed_and_actions, "same seed and actions"),
    (EndsByLimitAsFailure, examiner.its_time_limit_is_a_truncation, "truncated is False"),
    (CutAtOnce, examiner.its_time_limit_is_a_truncation, "first step"),
    (IgnoresItsSeed, examiner.worlds_side_by_side_equal_lone_ones, "are the same"),
    (RollsDice, examiner.it_can_be_repeated_and_stacked, "newest of a stack"),
    (CutAtOnce, examiner.gymnasium_is_content, "truncates after 1 step"),
]


@pytest.mark.parametrize(("toy", "exam", "says"), REFUSED, ids=[f"{t.__name__}-{e.__name__}" for t, e, _ in REFUSED])
def test_a_broken_toy_is_refused(toy, exam, says, in_catalog):
    in_catalog(toy)
    with pytest.raises(AssertionError, match=re.escape(says)):
        exam("toy")


def test_worlds_that_lose_the_last_observation_are_refused(monkeypatch, in_catalog):
    in_catalog(Walk)
    honest = examiner.Worlds.step
    monkeypatch.setattr(examiner.Worlds, "step", lambda *a: (s := honest(*a))._replace(final=s.observation))
    with pytest.raises(AssertionError, match="not what the action led to"):
        examiner.worlds_side_by_side_equal_lone_ones("toy")
