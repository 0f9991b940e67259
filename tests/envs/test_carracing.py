"""Our CarRacing against Gymnasium's, pixel by pixel; and EnvPool's worlds against the rules that ours keep."""

import math
import sys
from itertools import groupby

import gymnasium as gym
import numpy as np
import pygame
import pytest
from gymnasium.envs.box2d.car_racing import FPS, PLAYFIELD, CarRacing

from drivetrain.envs import pool
from drivetrain.envs.carracing import (
    GYMNASIUM_NUMBER,
    LABELS,
    ORDER_S,
    ORDERS,
    TIME_LIMIT,
    TRACK_ROWS,
    FastCarRacing,
)
from drivetrain.envs.words import make_env, shrunk
from drivetrain.envs.worlds import Worlds, make_worlds
from drivetrain.errors import BadConfig, MissingExtra
from drivetrain.sample import ACTION, FRONT, INSTRUCTION


def any_controls(info, random, step):
    return random.uniform((-1, 0, 0), (1, 1, 1))


def along_the_track(info, random, step):
    """Steers at the middle of the road a few tiles ahead."""
    track, here = info["privileged.track"], info["privileged.position_m"]
    nearest = np.argmin(np.linalg.norm(track[: info["privileged.tiles"], :2] - here, axis=1))
    ahead = track[nearest + 4, :2] - here
    off = (math.atan2(ahead[1], ahead[0]) - info["privileged.heading_rad"] + math.pi) % (2 * math.pi) - math.pi
    return np.array([np.clip(-2 * off, -1, 1), 0.6 * (info["privileged.speed_mps"] < 45), 0.0])


def flat_out_then_skidding(info, random, step):
    return np.array([0.0, 1.0, 0.0]) if step < 90 else np.array([math.sin(step / 9), 0.3, step % 40 > 25])


def pair(name):
    return make_env(f"{name}:drawing=official"), make_env(name)


def assert_same_picture(theirs, ours, where):
    """`np.testing` would be slow here, and its message of no use."""
    off = int((theirs != ours).any(axis=-1).sum())
    assert off == 0, f"{where}: {off} pixels differ"


DRIVES = [(any_controls, 1), (along_the_track, 2), (along_the_track, 77), (flat_out_then_skidding, 3)]


@pytest.mark.slow
@pytest.mark.parametrize(("drive", "seed"), DRIVES, ids=[f"{d.__name__}-{s}" for d, s in DRIVES])
def test_every_picture_and_reward_is_gymnasiums(drive, seed):
    official, fast = pair("carracing-continuous")
    random = np.random.default_rng(seed)
    seen, info = fast.reset(seed=seed)
    assert_same_picture(official.reset(seed=seed)[0][FRONT], seen[FRONT], "reset")
    for step in range(150):
        action = drive(info, random, step).astype(np.float32)
        wanted, *their_end, _ = official.step(action)
        seen, *our_end, info = fast.step(action)
        assert our_end == their_end, f"step {step}"
        assert_same_picture(wanted[FRONT], seen[FRONT], f"step {step}")
    if drive is along_the_track:
        assert fast.racing.tile_visited_count > 25, "the driver lost the road, and the test with it"


@pytest.mark.slow
def test_our_labels_are_gymnasiums_numbers():
    official = gym.make("CarRacing-v3", continuous=False)
    fast = make_env("carracing")
    official.reset(seed=5)
    fast.reset(seed=5)
    assert fast.sample_spec.features[ACTION].names == LABELS
    for step, choice in enumerate(np.random.default_rng(5).choice([0, 1, 1, 1, 2, 3, 4], 120)):
        wanted, *their_end, _ = official.step([0, 3, 2, 1, 4][choice])
        seen, *our_end, _ = fast.step(choice)
        assert our_end == their_end, f"step {step}"
        assert_same_picture(wanted, seen[FRONT], f"step {step}")


@pytest.mark.parametrize(("label", "sign"), [("left", 1), ("right", -1)])
def test_left_turns_left(label, sign):
    env = make_env("carracing")
    _, info = env.reset(seed=0)
    before = info["privileged.heading_rad"]
    for name in ["accelerate"] * 30 + [label] * 20:
        _, _, _, info = env.advance(LABELS.index(name))
    assert sign * (info["privileged.heading_rad"] - before) > 0.2
    assert set(GYMNASIUM_NUMBER) == set(LABELS)


@pytest.mark.slow
def test_four_steps_at_once_are_the_fourth_of_gymnasiums_frames():
    official, fast = make_env("carracing-continuous:drawing=official"), make_env("carracing-continuous:repeat=4")
    official.reset(seed=6)
    _, info = fast.reset(seed=6)
    for step in range(50):
        action = along_the_track(info, None, step).astype(np.float32)
        went = [official.step(action) for _ in range(4)]
        seen, reward, terminated, truncated, info = fast.step(action)
        assert (reward, terminated, truncated) == (sum(w[1] for w in went), *went[-1][2:4])
        assert_same_picture(went[-1][0][FRONT], seen[FRONT], f"step {step}")
    fast.unwrapped.env.unwrapped.car.wheels[2].omega = 900.0  # Gymnasium draws this itself, above the panel
    official.unwrapped.env.unwrapped.car.wheels[2].omega = 900.0
    went = [official.step(action) for _ in range(4)]
    assert_same_picture(went[-1][0][FRONT], fast.step(action)[0][FRONT], "spinning")


@pytest.fixture(scope="module")
def racing():
    env = FastCarRacing()
    env.reset(seed=8)
    for _ in range(60):  # the camera has zoomed in
        env.step(np.array([0.0, 0.2, 0.0]))
    return env


def both_drawings(env, where):
    assert_same_picture(CarRacing._render(env, "state_pixels"), env._render("state_pixels"), where)


@pytest.mark.parametrize("score", [-0.3, 0.04, 7.5, 99.96, 812.0, 999.9, -123.4, 1000.0, -10000.0])
def test_the_score_is_written_alike(racing, score):
    racing.reward = score
    both_drawings(racing, score)


def test_indicators_are_alike_below_and_above_their_panel(racing):
    wheels, random = racing.car.wheels, np.random.default_rng(0)
    for most in (0, 1e-3, 30, 200, 385, 395, 600):
        for wheel in wheels:
            wheel.omega = random.uniform(-most, most)
        wheels[random.integers(4)].omega = most
        racing.car.hull.angularVelocity = random.uniform(-12, 12)
        both_drawings(racing, most)


def put(env, x, y, angle):
    """The whole car elsewhere, as it is."""
    here, turn = env.car.hull.position.copy(), angle - env.car.hull.angle
    for body in (env.car.hull, *env.car.wheels):
        apart = pygame.math.Vector2(*(body.position - here)).rotate_rad(turn)
        body.transform = ((x + apart.x, y + apart.y), body.angle + turn)


def test_pictures_are_alike_anywhere_on_the_field_and_beyond(racing):
    random = np.random.default_rng(1)
    edges = [(PLAYFIELD, 0, 0), (-PLAYFIELD, PLAYFIELD, 2), (0, -PLAYFIELD - 30, 4), (3 * PLAYFIELD, 0, 1)]
    for place in edges + random.uniform((-360, -360, -9), (360, 360, 9), (60, 3)).tolist():
        put(racing, *place)
        both_drawings(racing, place)


def test_pictures_are_alike_while_the_camera_zooms_in():
    env = FastCarRacing()
    env.reset(seed=9)
    random = np.random.default_rng(2)
    for _ in range(16):
        env.t = random.uniform(0, 1.1)
        put(env, *random.uniform((-300, -300, -3), (300, 300, 3)))
        both_drawings(env, env.t)


def test_pictures_are_alike_without_the_processors_own_instructions(racing):
    """Pygame shrinks by other code on other processors."""
    usual = pygame.transform.get_smoothscale_backend()
    pygame.transform.set_smoothscale_backend("GENERIC")
    try:
        for place in np.random.default_rng(3).uniform((-250, -250, -3), (250, 250, 3), (5, 3)):
            put(racing, *place.tolist())
            both_drawings(racing, place)
    finally:
        pygame.transform.set_smoothscale_backend(usual)


def test_leaving_the_field_ends_alike():
    ends = []
    for env in pair("carracing-continuous"):
        env.reset(seed=4)
        put(getattr(env, "racing", env.env.unwrapped), PLAYFIELD + 1, 0, 0)
        seen, *end, info = env.step(np.zeros(3, dtype=np.float32))
        ends.append((seen[FRONT].tolist(), *end, info["lap_finished"]))
    assert ends[0] == ends[1]
    assert ends[0][1:] == (-100.0, True, False, False)


def test_the_time_limit_is_gymnasiums_and_truncates():
    assert gym.spec("CarRacing-v3").max_episode_steps == TIME_LIMIT
    env = make_env("carracing")
    env.reset(seed=0)
    ends = [env.advance(0)[1:3] for _ in range(TIME_LIMIT)]
    assert set(ends[:-1]) == {(False, False)}
    assert ends[-1] == (False, True)


def test_nothing_is_drawn_of_steps_in_between(monkeypatch):
    env, drawn = make_env("carracing:repeat=4"), []
    env.reset(seed=0)
    honest = FastCarRacing._drawn
    monkeypatch.setattr(FastCarRacing, "_drawn", lambda self: drawn.append(1) or honest(self))
    for _ in range(3):
        env.step(1)
    assert len(drawn) == 3


def test_what_is_filmed_is_gymnasiums_film():
    films = []
    for env in pair("carracing"):
        env.reset(seed=3)
        for _ in range(5):
            env.step(1)
        films.append(env.render())
    assert films[0].shape == (400, 600, 3)
    np.testing.assert_array_equal(*films)


def test_an_expert_is_told_where_it_is():
    env = make_env("carracing-continuous")
    _, info = env.reset(seed=12)
    track, tiles = info["privileged.track"], info["privileged.tiles"]
    assert track.shape == (TRACK_ROWS, 3)
    np.testing.assert_array_equal(track[tiles:], track[: TRACK_ROWS - tiles])
    assert np.linalg.norm(info["privileged.position_m"] - track[0, :2]) < 1, "the car begins on the first tile"
    assert abs(info["privileged.heading_rad"] - track[0, 2]) < 0.1
    legs = np.diff(track[: tiles + 1, :2], axis=0)
    off = np.angle(np.exp(1j * (np.arctan2(legs[:, 1], legs[:, 0]) - track[1 : tiles + 1, 2])))
    assert np.abs(off[:-1]).max() < 0.4, "headings are along the line"
    before = info["privileged.position_m"]
    for _ in range(40):
        *_, info = env.advance(np.array([0.0, 0.3, 0.0]))
    went = info["privileged.position_m"] - before
    assert abs(math.remainder(math.atan2(went[1], went[0]) - info["privileged.heading_rad"], 2 * math.pi)) < 0.2
    assert info["privileged.speed_mps"] > 5


@pytest.mark.slow
def test_orders_are_given_and_change_as_the_seed_says():
    def heard(name, seed, steps=300):
        env = make_env(name)
        env.reset(seed=seed)
        return [int(env.step(1)[0][INSTRUCTION]) for _ in range(steps)]

    orders = heard("carracing:order=any,repeat=2", 5)
    assert orders == heard("carracing:order=any,repeat=2", 5)
    assert len(set(orders)) > 1
    assert heard("carracing:order=any,repeat=2", 6) != orders
    assert set(heard("carracing:order=slowly", 5, 60)) == {list(ORDERS).index("slowly")}
    lasted = [len(list(run)) for _, run in groupby(orders)][:-1]
    assert min(lasted) >= ORDER_S[0] * FPS / 2 - 1
    assert make_env("carracing:order=any,repeat=2,stack=2").reset(seed=5)[0][INSTRUCTION].shape == ()


def test_a_drawing_that_is_none_is_refused():
    with pytest.raises(BadConfig, match="use fast, official or envpool"):
        make_env("carracing:drawing=quick")
    with pytest.raises(BadConfig, match="training worlds side by side"):
        make_env("carracing-continuous:drawing=envpool")


POOLED = "carracing-continuous:drawing=envpool"
GAS = np.array([0.0, 1.0, 0.0], dtype=np.float32)


@pytest.fixture
def pooled():
    """Makes pools, and closes them."""
    made = []

    def make(count, options=""):
        try:
            made.append(make_worlds(POOLED + options, count))
        except MissingExtra as lack:
            pytest.skip(str(lack))
        return made[-1]

    yield make
    for worlds in made:
        worlds.close()


def some_controls(steps, count, seed=0):
    return np.random.default_rng(seed).uniform((-0.5, 0, 0), (0.5, 1, 0.3), (steps, count, 3)).astype(np.float32)


def played(worlds, seed, steps=30, first=None):
    """All that came of some steps, of the first worlds alone where asked."""
    actions = some_controls(steps, 4)[:, : worlds.count]
    seen = [worlds.rebuild(*seed)[FRONT][:first]]
    rewards = []
    for action in actions:
        step = worlds.step(action)
        seen.append(step.observation[FRONT][:first])
        rewards.append(step.reward[:first])
    return np.stack(seen), np.stack(rewards)


@pytest.mark.slow
def test_pooled_worlds_are_a_function_of_the_seed_alone(pooled, monkeypatch):
    monkeypatch.setattr(pool, "TIME_LIMIT", 12)  # past the ends of episodes, whose followers must be so too
    worlds = pooled(4)
    pictures, rewards = played(worlds, (5, 100))
    for others, first in ((worlds, 4), (pooled(4), 4), (pooled(2), 2)):
        again, gained = played(others, (5, 100), first=first)
        np.testing.assert_array_equal(again, pictures[:, :first])
        np.testing.assert_array_equal(gained, rewards[:, :first])
    assert not np.array_equal(played(worlds, (5, 200))[0], pictures)
    assert len(np.unique(rewards[0])) > 1, "the worlds are all the same one"


def test_a_pooled_episode_starts_anew_in_the_same_step(pooled, monkeypatch):
    monkeypatch.setattr(pool, "TIME_LIMIT", 10)
    worlds = pooled(2, ",repeat=4,stack=2")
    begun = worlds.rebuild(1)[FRONT]
    assert begun.shape == (2, 96, 96, 6)
    np.testing.assert_array_equal(begun[..., :3], begun[..., 3:])
    totals, kept = np.zeros(2), begun.copy()
    for number in range(1, 7):
        step = worlds.step(np.stack([GAS, GAS]))
        totals += step.reward
        assert not step.terminated.any()
        assert step.truncated.all() == (number % 3 == 0), f"step {number} of an episode of 4 + 4 + 2"
        shown, led_to = step.observation[FRONT], step.final[FRONT]
        if number % 3:
            np.testing.assert_array_equal(shown, led_to)
            continue
        np.testing.assert_array_equal(shown[..., :3], shown[..., 3:])
        assert not np.array_equal(shown, led_to)
        assert not np.array_equal(led_to[..., :3], led_to[..., 3:]), "the last observation has lost its past"
        finished = worlds.finished()
        assert [f.length for f in finished] == [3, 3]
        np.testing.assert_allclose([f.total for f in finished], totals, rtol=1e-6)
        totals[:] = 0
    np.testing.assert_array_equal(begun, kept)
    assert worlds.finished() == []


def test_no_step_of_a_pooled_world_is_lost_after_an_end(pooled, monkeypatch):
    monkeypatch.setattr(pool, "TIME_LIMIT", 6)
    worlds = pooled(1)
    worlds.rebuild(2)
    rewards = [float(worlds.step(GAS[None]).reward[0]) for _ in range(12)]
    assert rewards[0] > 5, "the first tile is under the car"
    assert rewards[6] > 5
    assert np.count_nonzero(rewards) == 12, "each step costs a tenth; a step that only began anew would cost nothing"


def test_repeated_steps_of_pooled_worlds_are_single_ones_in_a_row(pooled):
    plain, threefold = pooled(2), pooled(2, ",repeat=3")
    plain.rebuild(3)
    threefold.rebuild(3)
    for action in some_controls(10, 2):
        went = [plain.step(action) for _ in range(3)]
        step = threefold.step(action)
        np.testing.assert_array_equal(step.observation[FRONT], went[-1].observation[FRONT])
        np.testing.assert_array_equal(step.reward, went[0].reward + went[1].reward + went[2].reward)


def test_pooled_pictures_are_shrunk_as_others_are(pooled, monkeypatch):
    monkeypatch.setattr(pool, "TIME_LIMIT", 9)
    whole, small = pooled(2, ",repeat=2,stack=2"), pooled(2, ",repeat=2,shrink=2,stack=2")
    np.testing.assert_array_equal(shrunk(whole.rebuild(3)[FRONT], 2), small.rebuild(3)[FRONT])
    for action in some_controls(10, 2):
        one, other = whole.step(action), small.step(action)
        np.testing.assert_array_equal(shrunk(one.observation[FRONT], 2), other.observation[FRONT])
        np.testing.assert_array_equal(one.reward, other.reward)


def test_a_pooled_car_that_leaves_the_field_has_terminated(pooled):
    worlds = pooled(2, ",repeat=8")
    worlds.rebuild(4)
    for _ in range(TIME_LIMIT // 8):
        step = worlds.step(np.stack([GAS, 0 * GAS]))
        if step.ended.any():
            break
    assert step.terminated.tolist() == [True, False]
    assert not step.truncated.any()
    assert step.reward[0] < -99


def test_a_pooled_spec_is_that_of_the_drawing_here(pooled):
    ours, theirs = Worlds("carracing-continuous:repeat=2,stack=4", 1), pooled(1, ",repeat=2,stack=4")
    ours.sample_spec.require(theirs.sample_spec)
    assert theirs.sample_spec.fps == ours.sample_spec.fps
    assert theirs.sample_spec.env == POOLED + ",repeat=2,stack=4"


def test_pooled_worlds_refuse_what_they_cannot_do(monkeypatch):
    with pytest.raises(BadConfig, match="carracing-continuous alone"):
        make_worlds("carracing:drawing=envpool", 1)
    with pytest.raises(BadConfig, match="cannot do absorb"):
        make_worlds(POOLED + ",absorb=2", 1)
    with pytest.raises(BadConfig, match="no option 'skip'"):
        make_worlds(POOLED + ",skip=2", 1)
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingExtra, match=r"pip install 'drivetrain\[fast\]'"):
        make_worlds(POOLED, 1)
