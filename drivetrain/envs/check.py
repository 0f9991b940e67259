"""Our examiner for any environment: Gymnasium's own, then everything this project relies on.

    python -c "from drivetrain.envs.check import check; print(check('cartpole'))"

Each exam is a function of the environment's name that raises an AssertionError with the values that broke it.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env

from drivetrain import catalog
from drivetrain.envs.words import make_env, newest, spec_of, split_name, with_options
from drivetrain.envs.worlds import Worlds
from drivetrain.sample import Feature, Sample, Spec

STEPS = 40  # played where an exam needs no end
PATIENCE = 1000  # played at most where it waits for one


class Moment(NamedTuple):
    observation: Sample
    reward: float
    terminated: bool
    truncated: bool
    begun: Sample | None  # the first observation of the next episode, where this one ended


def check(name: str) -> list[str]:
    """The exams that the environment called `name` has passed; the first that it fails raises."""
    for exam in EXAMS:
        exam(name)
    return [exam.__name__ for exam in EXAMS]


def gymnasium_is_content(name: str) -> None:
    env = make_env(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its warnings are advice: on wrappers, on bounds that are infinite
        check_env(env, skip_render_check=True, skip_close_check=True)
    env.close()


def the_spec_is_whole(name: str) -> None:
    env = make_env(name)
    spec: Spec = env.get_wrapper_attr("sample_spec")
    assert spec.env == name, f"the spec says it is of {spec.env!r}, not {name!r}"
    assert spec.task, "the spec has no instruction"
    assert spec.fps > 0, f"fps is {spec.fps}"
    for key, feature in spec.features.items():
        feature_is_whole(key, feature)
    again = Spec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False)))
    assert again == spec, f"through JSON the spec became {again}, was {spec}"
    assert isinstance(env.observation_space, gym.spaces.Dict), f"observations are a {env.observation_space}"
    spaces, named = set(env.observation_space), set(spec.observations)
    assert spaces == named, f"the space has {sorted(spaces)}, the spec {sorted(named)}"
    low, high = spec.action.bounds()
    assert spec.discrete or np.isfinite([low, high]).all(), f"an action without bounds: {low} to {high}"
    env.close()


def feature_is_whole(key: str, feature: Feature) -> None:
    assert not key.startswith("privileged."), f"{key} is in the spec; it belongs in info"
    entries = feature.choices or (feature.shape[-1] if len(feature.shape) == 1 else 0)
    assert len(feature.names) == entries, f"{key} has {entries} entries and the names {feature.names}"
    assert not feature.colour or feature.dtype == "uint8", f"{key} is a picture of {feature.dtype}"
    for bound in (feature.low, feature.high):
        assert bound is None or np.isfinite(bound).all(), f"{key} has the bound {bound}; None stands for no bound"
    low, high = feature.bounds()
    assert (low <= high).all(), f"{key} is between {low} and {high}"


def what_comes_is_what_the_spec_says(name: str) -> None:
    env = make_env(name)
    spec: Spec = env.get_wrapper_attr("sample_spec")
    kept, info = env.reset(seed=1)
    copied = {key: np.copy(value) for key, value in kept.items()}
    revealed = privileged(info)
    is_in_words(kept, spec)
    for action in some_actions(spec, STEPS):
        observation, reward, terminated, truncated, info = env.step(action)
        is_in_words(observation, spec)
        assert isinstance(reward, float), f"the reward is a {type(reward)}"
        assert math.isfinite(reward), f"the reward is {reward}"
        assert type(terminated) is bool, f"terminated is a {type(terminated)}"
        assert type(truncated) is bool, f"truncated is a {type(truncated)}"
        assert privileged(info) == revealed, f"reset reveals {revealed}, step {privileged(info)}"
        if terminated or truncated:
            env.reset()
    assert same(kept, copied), "an observation changed after it was given: the environment writes into it again"
    env.close()


def privileged(info: dict[str, Any]) -> list[str]:
    return sorted(key for key in info if key.startswith("privileged."))


def is_in_words(observation: Sample, spec: Spec) -> None:
    counts = {f"{key}.count" for key, feature in spec.observations.items() if feature.ragged}
    wanted = set(spec.observations) | counts
    assert set(observation) == wanted, f"observed {sorted(observation)}, the spec has {sorted(wanted)}"
    for key, feature in spec.observations.items():
        value = observation[key]
        assert isinstance(value, np.ndarray), f"{key} is a {type(value)}"
        assert value.dtype == feature.dtype, f"{key} is {value.dtype}, the spec says {feature.dtype}"
        assert value.shape == feature.shape, f"{key} is {value.shape}, the spec says {feature.shape}"
        assert np.isfinite(value).all(), f"{key} is not finite: {value}"
        low, high = feature.bounds()
        outside = (value < low) | (value > high)
        assert not outside.any(), f"{key} has {value[outside]} outside {low[outside]} to {high[outside]}"


def it_can_be_filmed(name: str) -> None:
    env = make_env(name)
    env.reset(seed=1)
    frame: Any = env.render()
    assert isinstance(frame, np.ndarray), f"render gives a {type(frame)}"
    assert frame.dtype == np.uint8, f"render gives {frame.dtype}"
    assert frame.ndim == 3, f"render gives {frame.shape}"
    assert frame.shape[-1] == 3, f"render gives {frame.shape}, not [H, W, 3]"
    env.close()


def it_is_a_function_of_seed_and_actions(name: str) -> None:
    first, again, other = (trace(name, seed=seed, steps=STEPS) for seed in (3, 3, 4))
    for step, (a, b) in enumerate(zip(first, again, strict=True)):
        assert a[1:4] == b[1:4], f"step {step}: {a[1:4]}, then with the same seed and actions {b[1:4]}"
        assert same(a.observation, b.observation), f"step {step}: same seed and actions, other observations"
        assert same(a.begun or {}, b.begun or {}), f"step {step}: same seed and actions, another next episode"
    assert any(not same(a.observation, b.observation) for a, b in zip(first, other, strict=True)), (
        "the seed does nothing"
    )


def trace(name: str, *, seed: int, steps: int) -> list[Moment]:
    """What a new environment answers to the same actions whatever the seed."""
    env = make_env(name)
    observation, _ = env.reset(seed=seed)
    moments = [Moment(observation, 0.0, False, False, None)]
    for action in some_actions(env.get_wrapper_attr("sample_spec"), steps):
        moments.append(moment_of(env, action))
    env.close()
    return moments


def moment_of(env: gym.Env[Sample, Any], action: Any) -> Moment:
    observation, reward, terminated, truncated, _ = env.step(action)
    begun = env.reset()[0] if terminated or truncated else None
    return Moment(observation, float(reward), terminated, truncated, begun)


def some_actions(spec: Spec, count: int) -> np.ndarray:
    random, action = np.random.default_rng(0), spec.action
    if action.choices:
        return random.integers(action.choices, size=count)
    low, high = action.bounds()
    return random.uniform(low, high, (count, *action.shape)).astype(np.float32)


def same(a: Sample, b: Sample) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def its_time_limit_is_a_truncation(name: str) -> None:
    """Reached by chance, or by an expert where chance ends too soon."""
    base, _ = split_name(name)
    if is_cut_short(name) and base in catalog.EXPERTS:
        is_cut_short(name, catalog.find("experts", base)(spec_of(name)))


def is_cut_short(name: str, expert: Any = None) -> bool:
    """Whether an episode ends before its limit; where it does not, that must be by truncation."""
    env = make_env(name)
    allowed = env.unwrapped.spec.max_episode_steps if env.unwrapped.spec else None
    limit = math.ceil(allowed / split_name(name)[1].get("repeat", 1)) if allowed else None
    observation, info = env.reset(seed=5)
    for step, random_action in enumerate(some_actions(env.get_wrapper_attr("sample_spec"), limit or PATIENCE), start=1):
        action = shown(expert, observation, info) if expert else random_action
        observation, _, terminated, truncated, info = env.step(action)
        assert not (truncated and step == 1), "truncated on the first step"
        assert truncated or step != limit, f"the limit of {limit} steps is reached and truncated is {truncated}"
        if terminated or truncated:
            break
    env.close()
    return bool(terminated)


def shown(expert: Any, observation: Sample, info: dict[str, Any]) -> Any:
    seen = {**observation, **{key: info[key] for key in privileged(info)}}
    one = {key: np.asarray(value)[None] for key, value in seen.items()}
    return expert.act(one, expert.initial(1), greedy=True, generator=None)[0][0]


def worlds_side_by_side_equal_lone_ones(name: str) -> None:
    """Two worlds and two lone environments with the same seeds and actions, until an episode has ended.

    At first both worlds get the same actions, so that only their seeds can tell them apart.
    """
    worlds = Worlds(name, 2)
    begun = worlds.rebuild(11, 2)
    lone = [make_env(name), make_env(name)]
    seeds = np.random.SeedSequence((11, 2)).generate_state(2)
    for i, env in enumerate(lone):
        first, _ = env.reset(seed=int(seeds[i]))
        assert same(first, row(begun, i)), f"world {i} begins unlike a lone environment of its seed"
    differ, ended = not same(row(begun, 0), row(begun, 1)), 0
    actions = some_actions(worlds.sample_spec, 2 * PATIENCE)
    for step in range(PATIENCE):
        pair = actions[[step, step]] if step < STEPS else actions[[step, -step]]
        came = worlds.step(pair)
        for i, moment in enumerate([moment_of(env, action) for env, action in zip(lone, pair, strict=True)]):
            answers_alike(came, moment, i, f"step {step} of world {i}")
        differ |= step < STEPS and not same(row(came.final, 0), row(came.final, 1))
        ended += int(came.ended.any())
        if ended and step >= STEPS:
            break
    assert differ, "two worlds of different seeds are the same"
    assert len(worlds.finished()) >= ended, f"{ended} steps ended an episode, fewer episodes were counted"
    assert same(worlds.rebuild(11, 2), begun), "rebuilt from the same seed, the worlds begin otherwise"
    worlds.close()
    for env in lone:
        env.close()


def answers_alike(came: Any, moment: Moment, i: int, where: str) -> None:
    flags = bool(came.terminated[i]), bool(came.truncated[i])
    assert not all(flags), f"{where} is terminated and truncated together"
    assert flags == (moment.terminated, moment.truncated and not moment.terminated), f"{where} has the flags {flags}"
    assert came.reward[i] == np.float32(moment.reward), f"{where} gives {came.reward[i]}, alone {moment.reward}"
    assert same(row(came.final, i), moment.observation), f"{where}: `final` is not what the action led to"
    following = moment.begun or moment.observation
    assert same(row(came.observation, i), following), f"{where}: `observation` is not what to act on next"


def row(batch: Sample, i: int) -> Sample:
    return {key: value[i] for key, value in batch.items()}


def it_can_be_repeated_and_stacked(name: str) -> None:
    plain, doubled = (make_env(with_options(name, repeat=r, stack=s)) for r, s in ((1, 1), (2, 3)))
    spec: Spec = plain.get_wrapper_attr("sample_spec")
    wide: Spec = doubled.get_wrapper_attr("sample_spec")
    assert wide.fps == spec.fps / 2, f"repeat=2 made {wide.fps} of {spec.fps} steps a second"
    last, seen = plain.reset(seed=9)[0], doubled.reset(seed=9)[0]
    for action in some_actions(spec, STEPS // 2):
        is_in_words(seen, wide)
        assert same(newest(seen, spec), last), "the newest of a stack is not the last observation"
        total, over = 0.0, False
        for _ in range(2):
            if not over:
                last, reward, terminated, truncated, _ = plain.step(action)
                total, over = total + float(reward), terminated or truncated
        seen, summed, *flags, _ = doubled.step(action)
        assert (summed, *flags) == (total, terminated, truncated), (
            f"repeated: {summed, *flags}, one by one: {total, over}"
        )
        if over:
            last, seen = plain.reset()[0], doubled.reset()[0]
    plain.close()
    doubled.close()


EXAMS: tuple[Callable[[str], None], ...] = (
    gymnasium_is_content,
    the_spec_is_whole,
    what_comes_is_what_the_spec_says,
    it_can_be_filmed,
    it_is_a_function_of_seed_and_actions,
    its_time_limit_is_a_truncation,
    worlds_side_by_side_equal_lone_ones,
    it_can_be_repeated_and_stacked,
)
