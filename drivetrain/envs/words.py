"""Gymnasium environments that speak the words of `sample.py`, and the five wrappers any of them takes.

`make_env("carracing:drawing=official,repeat=2,stack=4")` is a name of the catalog, then options: those of the
environment's own file, and for every environment `repeat` (each action is held for so many steps), `absorb` (an end of the
world's own becomes a place where one stays for so many steps), `aim` (the return that is wanted, and then what is still wanted
of it, is seen), `shrink` (pictures are so many times smaller each way) and `stack` (the last so many pictures lie along the
channels, states end to end).
"""

from __future__ import annotations

import inspect
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from drivetrain import catalog
from drivetrain.errors import BadConfig
from drivetrain.sample import AIM, OVER, Feature, Sample, Spec, is_image

# Options that every environment takes, unless it has its own of that name.
OURS = ("repeat", "absorb", "aim", "shrink", "stack")


def space_of(feature: Feature) -> gym.Space[Any]:
    if feature.choices:
        return gym.spaces.Discrete(feature.choices)
    low, high = feature.bounds()
    dtype = np.dtype(feature.dtype)
    if dtype == np.uint8:
        return gym.spaces.Box(0, 255, feature.shape, np.uint8)
    return gym.spaces.Box(low.astype(dtype), high.astype(dtype), feature.shape, dtype.type)


class InWords(gym.Env[Sample, Any]):
    """A Gymnasium environment whose observations, spec and instruction are in our words.

    `observe(raw, env)` turns the inner observation into `observation.*` arrays; `reveal(env)` gives what only experts
    may see, to be put into `info` under `privileged.`.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        sample_spec: Spec,
        observe: Callable[[Any, gym.Env[Any, Any]], Sample],
        *,
        reveal: Callable[[gym.Env[Any, Any]], dict[str, Any]] | None = None,
        command: Callable[[Any], Any] | None = None,
    ):
        self.env = env
        self.sample_spec = sample_spec
        self.observation_space = gym.spaces.Dict({k: space_of(f) for k, f in sample_spec.observations.items()})
        self.action_space = space_of(sample_spec.action)
        self.metadata = {**env.metadata, "render_fps": sample_spec.fps}
        self.render_mode = env.render_mode
        self.spec = env.spec
        self._observe, self._reveal, self._command = observe, reveal, command

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Sample, dict[str, Any]]:
        super().reset(seed=seed)
        raw, info = self.env.reset(seed=seed, options=options)
        return self._observe(raw, self.env), self._told(info)

    def step(self, action: Any) -> tuple[Sample, float, bool, bool, dict[str, Any]]:
        raw, reward, terminated, truncated, info = self.env.step(self._command(action) if self._command else action)
        return self._observe(raw, self.env), float(reward), bool(terminated), bool(truncated), self._told(info)

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        if self._reveal:
            return {**info, **{f"privileged.{key}": value for key, value in self._reveal(self.env).items()}}
        return info

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()


class Repeat(gym.Wrapper[Sample, Any, Sample, Any]):
    """Each action is held for `times` steps and their rewards are summed.

    An environment that can go on without being looked at (`advance(action)` -> reward, terminated, truncated, info, and
    `observe()`) is looked at once.
    """

    def __init__(self, env: gym.Env[Sample, Any], times: int):
        super().__init__(env)
        self.times = times
        inner = env.sample_spec  # type: ignore[attr-defined]
        self.sample_spec = replace(inner, fps=inner.fps / times)
        self.metadata = {**env.metadata, "render_fps": self.sample_spec.fps}

    def step(self, action: Any) -> tuple[Sample, float, bool, bool, dict[str, Any]]:
        blind = getattr(self.env, "advance", None)
        total = 0.0
        for _ in range(self.times):
            if blind:
                reward, terminated, truncated, info = blind(action)
            else:
                seen, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return self.env.observe() if blind else seen, total, terminated, truncated, info  # type: ignore[attr-defined]


class Aim(gym.Wrapper[Sample, Any, Sample, Any]):
    """What is wanted of the episode is seen at its start, and what is still wanted of it after each step."""

    def __init__(self, env: gym.Env[Sample, Any], wanted: float):
        super().__init__(env)
        inner: Spec = env.sample_spec  # type: ignore[attr-defined]
        self.wanted = self.left = wanted
        self.sample_spec = aimed(inner)
        self.observation_space = gym.spaces.Dict({k: space_of(f) for k, f in self.sample_spec.observations.items()})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Sample, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.left = self.wanted
        return self._with_aim(observation), info

    def step(self, action: Any) -> tuple[Sample, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.left -= float(reward)
        return self._with_aim(observation), float(reward), terminated, truncated, info

    def _with_aim(self, observation: Sample) -> Sample:
        return {**observation, AIM: np.array([self.left], dtype=np.float32)}


def aimed(spec: Spec) -> Spec:
    """The same with an aim to be seen."""
    return replace(spec, features={**spec.features, AIM: Feature((1,), names=("return",))})


class Absorb(gym.Wrapper[Sample, Any, Sample, Any]):
    """An end of the world's own becomes a place where one stays (Kostrikov et al. 2019): nothing is seen there but that it is
    over, nothing is earned, and after `steps` more a time limit cuts the episode. So no end can be sought or shunned."""

    def __init__(self, env: gym.Env[Sample, Any], steps: int):
        super().__init__(env)
        self.steps, self.left = steps, 0
        self.info: dict[str, Any] = {}
        self.sample_spec = absorbing(env.sample_spec)  # type: ignore[attr-defined]
        self.observation_space = gym.spaces.Dict({k: space_of(f) for k, f in self.sample_spec.observations.items()})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Sample, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.left = 0
        return {**observation, OVER: np.zeros(1, np.float32)}, info

    def step(self, action: Any) -> tuple[Sample, float, bool, bool, dict[str, Any]]:
        if self.left:
            self.left -= 1
            return self.nothing(), 0.0, False, not self.left, self.info
        observation, reward, terminated, truncated, self.info = self.env.step(action)
        if terminated:
            self.left = self.steps
            return self.nothing(), float(reward), False, False, self.info
        return {**observation, OVER: np.zeros(1, np.float32)}, float(reward), False, truncated, self.info

    def nothing(self) -> Sample:
        blank = {key: np.zeros(f.shape, f.dtype) for key, f in self.sample_spec.observations.items()}
        return blank | {OVER: np.ones(1, np.float32)}


def absorbing(spec: Spec) -> Spec:
    """The same, where it can be seen that all is over."""
    return replace(spec, features={**spec.features, OVER: Feature((1,), low=0.0, high=1.0, names=("is_over",))})


class Shrink(gym.Wrapper[Sample, Any, Sample, Any]):
    """Pictures `times` smaller each way: each point is the mean of a square, and what fills no square at the right and below is
    left out."""

    def __init__(self, env: gym.Env[Sample, Any], times: int):
        super().__init__(env)
        inner: Spec = env.sample_spec  # type: ignore[attr-defined]
        self.times = times
        self.pictures = {key: smaller(f, times) for key, f in inner.observations.items() if is_image(key)}
        self.sample_spec = replace(inner, features={**inner.features, **self.pictures})
        self.observation_space = gym.spaces.Dict({k: space_of(f) for k, f in self.sample_spec.observations.items()})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Sample, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._shrunk(observation), info

    def step(self, action: Any) -> tuple[Sample, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._shrunk(observation), float(reward), terminated, truncated, info

    def _shrunk(self, observation: Sample) -> Sample:
        return observation | {key: shrunk(observation[key], self.times) for key in self.pictures}


def smaller(feature: Feature, times: int) -> Feature:
    height, width, channels = feature.shape
    if min(height, width) < times:
        raise BadConfig(f"BadConfig: shrink={times} would leave nothing of pictures of {height} x {width}")
    return replace(feature, shape=(height // times, width // times, channels))


def shrunk(pictures: np.ndarray, times: int) -> np.ndarray:
    """uint8 [..., H, W, C] -> [..., H // times, W // times, C], rounded."""
    if times == 1:
        return pictures
    height, width = (side // times * times for side in pictures.shape[-3:-1])
    whole = pictures[..., :height, :width, :].astype(np.uint32)
    rows = sum((whole[..., i::times, :, :] for i in range(1, times)), start=whole[..., ::times, :, :])
    total = sum((rows[..., i::times, :] for i in range(1, times)), start=rows[..., ::times, :])
    mean: np.ndarray = ((total + times**2 // 2) // times**2).astype(np.uint8)
    return mean


class Stack(gym.Wrapper[Sample, Any, Sample, Any]):
    """The last `count` observations in one: pictures along the channels, other arrays end to end; oldest first."""

    def __init__(self, env: gym.Env[Sample, Any], count: int):
        super().__init__(env)
        self.sample_spec: Spec = env.sample_spec.stacked(count)  # type: ignore[attr-defined]
        self.observation_space = gym.spaces.Dict({k: space_of(f) for k, f in self.sample_spec.observations.items()})
        self.seen: deque[Sample] = deque(maxlen=count)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Sample, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.seen.extend([observation] * (self.seen.maxlen or 1))
        return self._joined(), info

    def step(self, action: Any) -> tuple[Sample, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.seen.append(observation)
        return self._joined(), float(reward), terminated, truncated, info

    def _joined(self) -> Sample:
        stackable = self.sample_spec.stackable
        return {key: joined([o[key] for o in self.seen]) if key in stackable else v for key, v in self.seen[-1].items()}


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays end to end along their last axis."""
    if arrays[0].ndim < 3:
        return np.concatenate(arrays, axis=-1)
    height, width, channels = arrays[0].shape
    out = np.empty((height, width, channels * len(arrays)), dtype=arrays[0].dtype)
    for i, array in enumerate(arrays):
        for channel in range(channels):  # numpy copies one long plane five times faster than many runs of three bytes
            out[..., i * channels + channel] = array[..., channel]
    return out


def split_name(name: str) -> tuple[str, dict[str, Any]]:
    """`"cartpole-pixels:stack=2"` -> the catalog's name and the options."""
    name, _, rest = name.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise BadConfig(f"BadConfig: env option {part!r} has no value; write {name}:{part}=VALUE")
        options[key.strip()] = int(value) if value.strip().lstrip("-").isdigit() else value.strip()
    return name, options


def stack_of(name: str) -> int:
    """How many observations that env joins into one."""
    base, options = split_name(name)
    own = inspect.signature(catalog.find("envs", base)).parameters.get("stack")
    return int(options.get("stack", own.default if own is not None else 1))


def with_options(name: str, **options: Any) -> str:
    """The same env with more options; those given here win."""
    base, had = split_name(name)
    merged = {**had, **options}
    return base + (":" + ",".join(f"{k}={v}" for k, v in merged.items()) if merged else "")


def make_env(name: str) -> gym.Env[Sample, Any]:
    """The environment of that name; see the top of this file for the options."""
    base, options = split_name(name)
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pictures become arrays: no screen is looked for
    build = catalog.find("envs", base)
    takes = list(inspect.signature(build).parameters)
    ours = {option: options.pop(option) for option in OURS if option in options and option not in takes}
    for option in options:
        if option not in takes:
            known = ", ".join(dict.fromkeys([*takes, *OURS]))
            raise BadConfig(f"BadConfig: the env {base} has no option {option!r}; it takes {known}")
    for option, value in ours.items():
        if option != "aim" and (not isinstance(value, int) or value < 1):
            raise BadConfig(f"BadConfig: {option} must be a whole number from 1 up, got {value!r} in {name!r}")
    env = build(**options)
    if ours.get("repeat", 1) > 1:
        env = Repeat(env, ours["repeat"])
    if "aim" in ours:
        env = Aim(env, _number(ours["aim"], name))
    if ours.get("shrink", 1) > 1:
        env = Shrink(env, ours["shrink"])
    if ours.get("stack", 1) > 1:
        env = Stack(env, ours["stack"])
    if "absorb" in ours:  # outermost: where all is over nothing of before is seen
        env = Absorb(env, ours["absorb"])
    env.sample_spec = replace(env.sample_spec, env=name)
    return env


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise BadConfig(
            f"BadConfig: aim must be a number, the return that is wanted, got {value!r} in {name!r}"
        ) from None


def spec_of(name: str) -> Spec:
    """What the environment of that name gives and takes."""
    world = make_env(name)
    world.close()
    spec: Spec = world.sample_spec  # type: ignore[attr-defined]
    return spec


def newest(sample: Sample, spec: Spec) -> Sample:
    """Of stacked observations the last one alone, which is what `spec` describes."""
    return sample | {key: sample[key][..., -f.shape[-1] :] for key, f in spec.stackable.items()}
