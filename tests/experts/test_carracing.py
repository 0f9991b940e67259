"""The driver of CarRacing: near-perfect laps by pedals, good ones by labels, and left is left."""

import numpy as np
import pytest

from drivetrain.collect import find_actor
from drivetrain.envs.carracing import ORDERS
from drivetrain.envs.rollout import Lane, rollout
from drivetrain.envs.words import make_env, spec_of
from drivetrain.experts.carracing import TILE_M, controls, labels, plan, wrapped
from drivetrain.experts.choosing import find_expert
from drivetrain.sample import EXPERT_WORDS

HALF_ROAD_M = 20 / 3
ENVS = ["carracing-continuous:repeat=2", "carracing:repeat=2"]


def off_the_middle_m(info):
    apart = info["privileged.track"][:, :2] - info["privileged.position_m"]
    return np.linalg.norm(apart, axis=-1).min()


@pytest.mark.parametrize("env", ENVS)
def test_it_stays_on_the_road_and_gets_ahead(env):
    """The first quarter of a lap, with some bends."""
    expert, lane = find_expert("", spec_of(env)), Lane(env, 3)
    furthest_m = 0.0
    for _ in range(120):
        batch = {key: np.asarray(value)[None] for key, value in lane.seen_by(expert).items()}
        action, _, _ = expert.act(batch, {}, greedy=True, generator=None)
        assert not lane.step(action[0], keep=False, film=None, said={})
        furthest_m = max(furthest_m, off_the_middle_m(lane.info))
    assert furthest_m < HALF_ROAD_M + 1.0  # of the middle of the car
    assert lane.episode.total > 170


@pytest.mark.slow
@pytest.mark.parametrize(("env", "good"), list(zip(ENVS, (925, 880), strict=True)))
def test_its_laps_are_near_perfect(env, good):
    """Seeds that its numbers were not chosen on."""
    totals = [episode.total for episode in rollout(find_expert("carracing", spec_of(env)), env, range(7_000, 7_004))]
    assert np.mean(totals) > good


def test_it_sets_off_where_the_road_lies_far_to_the_side():
    env = "carracing-continuous"
    expert, lane = find_expert("", spec_of(env)), Lane(env, 30_081)
    for _ in range(60):
        batch = {key: np.asarray(value)[None] for key, value in lane.seen_by(expert).items()}
        lane.step(expert.act(batch, {}, greedy=True, generator=None)[0][0], keep=False, film=None, said={})
    assert lane.info["privileged.speed_mps"] > 20


def test_who_has_spun_slows_down_to_turn_round():
    expert = find_expert("", spec_of("carracing-continuous"))
    astray = privileged(heading_rad=1.5, position_m=(30.0, 20.0), speed_mps=40.0)
    ((steer, gas, brake),), _, _ = expert.act(astray, {}, greedy=True, generator=None)
    assert (steer > 0, gas, brake > 0) == (True, 0, True)


def privileged(tiles=40, turn_rad=0.0, position_m=(0.0, 0.0), heading_rad=0.0, turn_radps=0.0, speed_mps=30.0):
    """On a road from the origin along x, which turns by so much with each tile."""
    heading = np.arange(512) % tiles * turn_rad
    steps_m = TILE_M * np.stack((np.cos(heading), np.sin(heading)), -1)
    places = np.cumsum(steps_m, 0) - steps_m
    return {
        "privileged.track": np.concatenate((places, heading[:, None]), -1)[None],
        "privileged.tiles": np.array([tiles]),
        "privileged.position_m": np.array([position_m]),
        "privileged.heading_rad": np.array([heading_rad]),
        "privileged.turn_radps": np.array([turn_radps]),
        "privileged.speed_mps": np.array([speed_mps]),
    }


@pytest.mark.parametrize(
    ("told", "label"),  # of somebody at 30 m/s in the middle of a straight road
    [
        ({}, "accelerate"),
        ({"position_m": (3.5, -3.0)}, "left"),
        ({"position_m": (3.5, 3.0)}, "right"),
        ({"heading_rad": -0.4}, "left"),
        ({"heading_rad": 0.4 + 4 * np.pi}, "right"),
        ({"turn_rad": 0.3, "speed_mps": 80.0}, "brake"),
        ({"heading_rad": -0.4, "speed_mps": 0.0}, "accelerate"),
        ({"turn_radps": -6.0}, "left"),
    ],
)
def test_it_does_the_obvious_by_labels_and_by_pedals(told, label):
    seen = privileged(**told)
    (choice,), _, _ = find_expert("", spec := spec_of("carracing")).act(seen, {}, greedy=True, generator=None)
    assert spec.action.names[choice] == label
    if "turn_radps" in told:
        return  # with a wheel to turn it has no need to look at that
    ((steer, gas, brake),), _, _ = find_expert("", spec_of("carracing-continuous")).act(
        seen, {}, greedy=True, generator=None
    )
    if "heading_rad" in told or "position_m" in told:
        assert np.sign(steer) == (
            -1 if seen["privileged.heading_rad"] < 0 or seen["privileged.position_m"][0, 1] < 0 else 1
        )
    else:
        assert (gas > 0, brake > 0) == (label == "accelerate", label == "brake")


@pytest.mark.parametrize("env", ["carracing", "carracing-continuous"])
@pytest.mark.parametrize(("left_rad", "sign"), [(0.3, 1), (-0.3, -1)])
def test_what_says_left_turns_the_car_to_the_left(env, left_rad, sign):
    spec, world = spec_of(env), make_env(env)
    _, info = world.reset(seed=1)
    forth, steering, speed = np.zeros(1), np.array([left_rad]), np.array([40.0])
    before = info["privileged.heading_rad"]
    for step in range(60):
        left = forth if step < 40 else steering
        if spec.discrete:
            action = spec.action.names.index(labels(left, speed, speed + 10)[0])
        else:
            action = controls(left, speed, speed + 10)[0]
        if step == 40:
            before = info["privileged.heading_rad"]
        *_, info = world.step(action)
    world.close()
    assert sign * wrapped(info["privileged.heading_rad"] - before) > 0.2


def test_a_batch_is_driven_as_each_alone():
    rows = [privileged(turn_rad=0.05, heading_rad=h, speed_mps=v) for h, v in ((0.1, 20.0), (-0.2, 60.0), (0.0, 90.0))]
    rows[1] = rows[1] | {"privileged.tiles": np.array([33])}
    together = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    for env in ("carracing", "carracing-continuous"):
        expert = find_actor("carracing", spec_of(env))
        alone = [expert.act(row, {}, greedy=True, generator=None)[0][0] for row in rows]
        np.testing.assert_array_equal(expert.act(together, {}, greedy=True, generator=None)[0], alone)


def test_behind_the_last_tile_comes_the_first():
    """On a circle every place is like every other."""
    around = privileged(tiles=40, turn_rad=2 * np.pi / 40)
    track = around["privileged.track"][0]
    manner = find_expert("", spec_of("carracing")).manner
    said = [
        plan(
            around | {"privileged.position_m": track[i : i + 1, :2], "privileged.heading_rad": track[i : i + 1, 2]},
            manner,
        )
        for i in (0, 20, 39)
    ]
    for left_rad, wanted_mps in said[1:]:
        np.testing.assert_allclose(left_rad, said[0][0])
        np.testing.assert_allclose(wanted_mps, said[0][1])


@pytest.mark.parametrize("env", ["carracing", "carracing-continuous"])
@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"speed_mps": 40.0}, "The road is straight ahead and the car is neither slow nor fast: accelerate."),
        ({"turn_rad": 0.15, "speed_mps": 25.0}, "The road bends left ahead and the car is slow: turn left."),
        ({"turn_rad": -0.3, "speed_mps": 80.0}, "The road bends right ahead and the car is fast: brake."),
    ],
)
def test_what_it_says_is_what_is_there_and_what_it_does(env, told, sentence):
    expert, seen = find_expert("", spec_of(env)), privileged(**told)
    action, _, info = expert.act(seen, {}, greedy=True, generator=None)
    assert expert.sentences[info[EXPERT_WORDS][0]] == sentence
    assert expert.explain(seen, action).tolist() == info[EXPERT_WORDS].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("base", ["carracing", "carracing-continuous"])
def test_it_obeys(base):
    """Five seconds after each order: how fast it goes, and where on the road; it stands three seconds after `stop`."""
    env = make_env(f"{base}:repeat=2,order=drive")
    expert, found = find_expert("", env.sample_spec), {}
    for order in ORDERS:
        observation, info = env.reset(seed=7_001)
        env.env.order, speeds, lefts = "drive", [], []
        for step in range(260):
            if step == 60:
                env.env.order = order
            seen = {k: np.asarray(v)[None] for k, v in (observation | info).items()}
            action, _, _ = expert.act(seen, {}, greedy=True, generator=None)
            observation, _, _, _, info = env.step(action[0])
            if step >= 60 + 75:
                speeds.append(info["privileged.speed_mps"])
                lefts.append(left_of_the_middle_m(info))
        found[order] = np.mean(speeds), np.mean(lefts)
    assert found["stop"][0] < 0.5
    assert found["slowly"][0] < 0.5 * found["drive"][0]
    assert found["left"][1] > 2.0
    assert found["right"][1] < -2.0


def left_of_the_middle_m(info):
    track, position = info["privileged.track"], info["privileged.position_m"]
    apart = position - track[:, :2]
    nearest = np.linalg.norm(apart, axis=-1).argmin()
    heading = track[nearest, 2]
    return -apart[nearest, 0] * np.sin(heading) + apart[nearest, 1] * np.cos(heading)
