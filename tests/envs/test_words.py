"""Names with options, and the wrappers any environment takes."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain.envs import pusht
from drivetrain.envs.words import Repeat, joined, make_env, shrunk, space_of, split_name, with_options
from drivetrain.errors import BadConfig, MissingExtra, UnknownName
from drivetrain.sample import FRONT, STATE, Feature

words = st.text("abcdefgh-", min_size=1, max_size=8)


@given(words, st.dictionaries(words, st.integers(-9, 9) | words.filter(lambda w: not w.lstrip("-").isdigit())))
def test_a_name_with_options_splits_into_what_it_was_made_of(name, options):
    assert split_name(with_options(name, **options)) == (name, options)


def test_later_options_win():
    assert with_options("carracing:repeat=2,stack=4", repeat=8) == "carracing:repeat=8,stack=4"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean cartpole"):
        make_env("cartpol")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cartpole:repeat", "has no value; write cartpole:repeat=VALUE"),
        ("cartpole:colour=red", "no option 'colour'; it takes endless, repeat, absorb, aim, shrink, stack"),
        ("cartpole:repeat=0", "repeat must be a whole number from 1 up, got 0"),
        ("cartpole:stack=two", "stack must be a whole number from 1 up, got 'two'"),
        ("cartpole-pixels:stack=0", "stack must be a whole number from 1 up, got 0"),
        ("cartpole-pixels:colour=red", "it takes stack, endless, repeat"),
    ],
)
def test_an_option_that_cannot_be_is_refused(name, says):
    with pytest.raises(BadConfig) as refused:
        make_env(name)
    assert says in str(refused.value)


def test_the_spec_remembers_the_name_with_its_options():
    assert make_env("cartpole:repeat=2").sample_spec.env == "cartpole:repeat=2"


def test_pusht_says_how_it_is_installed(monkeypatch):
    monkeypatch.setattr(pusht.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as refused:
        make_env("pusht")
    assert "pip install 'drivetrain[pusht]' && pip install --no-deps gym-pusht" in str(refused.value)


def test_repeating_sums_rewards_and_shows_the_last():
    one, four = make_env("pendulum"), make_env("pendulum:repeat=4")
    one.reset(seed=0)
    four.reset(seed=0)
    push = np.array([1.5], dtype=np.float32)
    singles = [one.step(push) for _ in range(4)]
    observation, reward, *_ = four.step(push)
    np.testing.assert_array_equal(observation[STATE], singles[-1][0][STATE])
    assert reward == sum(single[1] for single in singles)
    assert four.sample_spec.fps == 5.0


def test_repeating_stops_where_the_episode_ends():
    env = make_env("cartpole:repeat=100")
    env.reset(seed=0)
    _, reward, terminated, truncated, _ = env.step(1)
    assert (terminated, truncated) == (True, False)
    assert reward < 15


class Unlooked(gym.Env):
    """Goes on by itself, and counts how often it is looked at."""

    looked = went = 0

    def __init__(self):
        self.sample_spec = make_env("cartpole").sample_spec

    def advance(self, action):
        self.went += 1
        return 1.0, self.went == 6, False, {"went": self.went}

    def observe(self):
        self.looked += 1
        return {STATE: np.full(4, self.went, dtype=np.float32)}


def test_what_can_go_on_blind_is_looked_at_once():
    inner = Unlooked()
    env = Repeat(inner, 4)
    observation, reward, terminated, _, info = env.step(0)
    assert (inner.looked, reward, terminated, info) == (1, 4.0, False, {"went": 4})
    assert observation[STATE][0] == 4
    observation, reward, terminated, *_ = env.step(0)
    assert (inner.looked, reward, terminated) == (2, 2.0, True)
    assert observation[STATE][0] == 6


def test_a_stack_begins_full_of_the_first_and_ends_with_the_last():
    env, alone = make_env("cartpole:stack=3"), make_env("cartpole")
    first = alone.reset(seed=1)[0][STATE]
    np.testing.assert_array_equal(env.reset(seed=1)[0][STATE], np.tile(first, 3))
    second = alone.step(1)[0][STATE]
    np.testing.assert_array_equal(env.step(1)[0][STATE], [*first, *first, *second])
    again = alone.reset()[0][STATE]
    np.testing.assert_array_equal(env.reset()[0][STATE], np.tile(again, 3))


def test_stacking_pictures_that_are_stacked_already():
    env = make_env("cartpole-pixels:stack=4,repeat=2")
    assert env.reset(seed=0)[0][FRONT].shape == env.sample_spec.features[FRONT].shape == (40, 150, 12)


@given(st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_pictures_are_joined_as_numpy_joins_them(count, channels, wide):
    shape = (2, 3, channels) if wide else (channels,)
    arrays = [np.random.default_rng(i).integers(0, 255, shape).astype(np.uint8) for i in range(count)]
    np.testing.assert_array_equal(joined(arrays), np.concatenate(arrays, axis=-1))


def test_spaces_have_the_bounds_of_their_features():
    assert space_of(Feature((), "int64", choices=3)) == gym.spaces.Discrete(3)
    assert space_of(Feature((4, 4, 3), "uint8")) == gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)
    torque = space_of(Feature((2,), low=(-1.0, -2.0), high=3.0))
    np.testing.assert_array_equal(torque.low, [-1, -2])
    np.testing.assert_array_equal(torque.high, [3, 3])
    assert not space_of(Feature((2,))).is_bounded()


def test_a_shrunk_picture_is_the_mean_of_squares_rounded():
    picture = np.zeros((5, 4, 3), np.uint8)
    picture[:2, :2, 0] = [[255, 255], [255, 254]]
    picture[2:4, 2:, 1] = [[1, 0], [1, 0]]
    picture[4] = 99
    small = shrunk(picture, 2)
    assert small.shape == (2, 2, 3)
    assert small.dtype == np.uint8
    assert small[..., 0].tolist() == [[255, 0], [0, 0]]
    assert small[..., 1].tolist() == [[0, 0], [0, 1]]
    np.testing.assert_array_equal(shrunk(np.stack([picture, picture]), 2), np.stack([small, small]))


def test_shrunk_worlds_show_the_same_smaller():
    plain, small = make_env("cartpole-pixels:stack=2"), make_env("cartpole-pixels:stack=2,shrink=4")
    for seen, other in ((plain.reset(seed=1)[0], small.reset(seed=1)[0]), (plain.step(1)[0], small.step(1)[0])):
        for key, picture in seen.items():
            np.testing.assert_array_equal(other[key], shrunk(picture, 4))
            assert other[key].shape == small.get_wrapper_attr("sample_spec").features[key].shape
    one, other = (make_env(f"pendulum{option}").reset(seed=1)[0] for option in ("", ":shrink=2"))
    assert all(np.array_equal(one[key], other[key]) for key in one), "there are no pictures to be shrunk"
    with pytest.raises(BadConfig, match="would leave nothing of pictures of 96 x 96"):
        make_env("carracing:shrink=97")
