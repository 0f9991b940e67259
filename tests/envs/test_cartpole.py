"""Our CartPole against Gymnasium's: the same bits, the same pixels."""

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from drivetrain.envs.cartpole import CartPolePixels, averaged, pixels, state
from drivetrain.sample import FRONT, STATE


def test_every_bit_of_an_episode_is_gymnasiums():
    random = np.random.default_rng(0)
    theirs, ours = gym.make("CartPole-v1"), state()
    for seed in range(20):
        numbers, _ = theirs.reset(seed=seed)
        seen, info = ours.reset(seed=seed)
        over = False
        while not over:
            np.testing.assert_array_equal(numbers, seen[STATE])
            np.testing.assert_array_equal(numbers, info["privileged.state"])
            steady = random.random() < 0.95
            action = int(numbers[2] + 0.5 * numbers[3] > 0) if steady else int(random.integers(2))
            numbers, *their_end, _ = theirs.step(action)
            seen, *our_end, info = ours.step(action)
            assert our_end == their_end
            over = any(our_end[1:])


def shrunk(frame):
    squares = frame[160:320].reshape(40, 4, 150, 4, 3).astype(int)
    return ((squares.sum(axis=(1, 3)) + 8) // 16).astype(np.uint8)


def test_every_pixel_is_gymnasiums_frame_shrunk():
    theirs, ours = CartPoleEnv(render_mode="rgb_array"), CartPolePixels()
    theirs.reset(seed=0)
    random = np.random.default_rng(0)
    for place, tilt in [(0, 0), (2.5, 0.3), (-2.5, -0.3), *random.uniform((-3, -0.4), (3, 0.4), (60, 2))]:
        theirs.state = np.array([place, 0.0, tilt, 0.0])
        np.testing.assert_array_equal(ours.picture(place, tilt), shrunk(theirs.render()), err_msg=f"{place}, {tilt}")


def test_a_mean_is_rounded_to_the_nearest():
    packed = np.zeros((4, 8), dtype=np.uint32)
    packed[0, 0] = 8 << 16 | 7 << 8 | 255  # means of 8/16, 7/16 and 255/16
    np.testing.assert_array_equal(averaged(packed), [[[1, 0, 16], [0, 0, 0]]])


def test_the_pictures_are_stacked_oldest_first():
    env, alone = pixels(stack=3), CartPolePixels()
    env.reset(seed=4)
    frames = [alone.reset(seed=4)[0][FRONT]]
    for _ in range(3):
        stacked = env.step(1)[0][FRONT]
        frames.append(alone.step(1)[0][FRONT])
    np.testing.assert_array_equal(stacked, np.concatenate(frames[-3:], axis=-1))
    assert not np.array_equal(frames[0], frames[-1])


def test_the_pictures_do_not_give_the_numbers_away():
    observation, info = pixels().reset(seed=0)
    assert set(observation) == {FRONT}
    assert info["privileged.state"].shape == (4,)


def test_what_is_filmed_is_the_whole_frame_of_now():
    theirs, ours = gym.make("CartPole-v1", render_mode="rgb_array"), state()
    for env in (theirs, ours):
        env.reset(seed=2)
        env.step(1)
    np.testing.assert_array_equal(theirs.render(), ours.render())
