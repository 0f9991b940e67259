"""What scenes say is true: held against Gymnasium's own state and drawing, and against the pixels."""

import math

import numpy as np
import pytest
from gymnasium.envs.box2d.car_racing import CarRacing
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from drivetrain import catalog
from drivetrain.envs import carracing_scenes, cartpole

UNITS = ("_m", "_mps", "_deg", "on_road")


def drawn(scenes, count, difficulty=1.0, seed=0):
    random = np.random.default_rng(seed)
    return [scenes.draw(random, difficulty) for _ in range(count)]


@pytest.mark.parametrize("name", catalog.SCENES)
def test_a_scene_is_a_function_of_the_generator(name):
    make = catalog.find("scenes", name)
    scenes = make()
    first = drawn(scenes, 6)
    for again in (drawn(scenes, 6), drawn(make(), 6)):
        for (picture, facts), (other, told) in zip(first, again, strict=True):
            assert picture.dtype == np.uint8
            np.testing.assert_array_equal(picture, other)
            assert facts == told
            assert all(type(value) is float and key.endswith(UNITS) for key, value in facts.items()), facts
    assert len({picture.tobytes() for picture, _ in first}) == 6


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_a_cartpole_scene_is_gymnasiums_frame_of_that_state(difficulty):
    theirs = CartPoleEnv(render_mode="rgb_array")
    theirs.reset(seed=0)
    for picture, facts in drawn(cartpole.Scenes(), 40, difficulty):
        theirs.state = np.array([facts["position_m"], 0.0, math.radians(facts["tilt_deg"]), 0.0])
        np.testing.assert_array_equal(picture, theirs.render()[160:320], err_msg=str(facts))


def test_the_tilt_can_be_measured_in_the_picture():
    measured, told = [], []
    for picture, facts in drawn(cartpole.Scenes(), 100, 0.5):
        rows, columns = np.nonzero((picture == cartpole.WOOD).all(axis=-1))
        measured.append(math.degrees(math.atan2(np.polyfit(-rows, columns, 1)[0], 1)))
        told.append(facts["tilt_deg"])
    np.testing.assert_allclose(measured, told, atol=1.0)
    assert np.corrcoef(measured, told)[0, 1] > 0.999


def test_hard_cartpole_scenes_reach_farther_than_easy_ones():
    reach = [np.abs([list(f.values()) for _, f in drawn(cartpole.Scenes(), 300, d)]).max(axis=0) for d in (0.0, 1.0)]
    assert (reach[0] <= (0.02, 15)).all()
    assert (reach[1] > (2.2, 14)).all()
    assert (reach[1] <= (2.4, 15)).all()


def test_easy_scenes_are_clear_cut():
    tilts = np.abs([facts["tilt_deg"] for _, facts in drawn(cartpole.Scenes(), 300, 0.0)])
    assert ((tilts <= 1) | (tilts >= 8)).all()
    speeds = np.array([facts["speed_mps"] for _, facts in drawn(carracing_scenes.Scenes(tracks=[5]), 100, 0.0)])
    assert ((speeds <= 10) | (speeds >= 90)).all()
    anything = np.array([facts["speed_mps"] for _, facts in drawn(carracing_scenes.Scenes(tracks=[5]), 100, 1.0)])
    assert ((anything > 20) & (anything < 80)).mean() > 0.4


@pytest.fixture(scope="module")
def one_track():
    """Scenes of a single track, which is then also the one that Gymnasium's own state speaks of."""
    return carracing_scenes.Scenes(tracks=[5])


def test_a_carracing_scene_is_gymnasiums_drawing_of_that_state(one_track):
    random = np.random.default_rng(1)
    for difficulty in np.linspace(0, 1, 12):
        picture, facts = one_track.draw(random, float(difficulty))
        for tile, shade in zip(one_track.racing.road, one_track.laid[5].shades, strict=True):
            tile.color = shade  # Gymnasium paints with its own copies
        official = one_track.racing
        official.road_poly = [
            (corners, shade) for (corners, _), shade in zip(official.road_poly, colours_of(one_track), strict=True)
        ]
        np.testing.assert_array_equal(CarRacing._render(official, "state_pixels"), picture, err_msg=str(facts))


def colours_of(scenes):
    return scenes.laid[5].landscape.colours[-len(scenes.racing.road_poly) :]


def test_carracing_facts_are_those_of_the_bodies_and_the_tiles(one_track):
    random, racing = np.random.default_rng(2), one_track.racing
    betas = np.unwrap([beta for _, beta, _, _ in racing.track])
    centres = np.array([(x, y) for *_, x, y in racing.track])
    off_road = 0
    for _ in range(200):
        _, facts = one_track.draw(random, 1.0)
        hull = racing.car.hull
        assert math.hypot(*hull.linearVelocity) == pytest.approx(facts["speed_mps"], abs=1e-3)
        if abs(abs(facts["offset_m"]) - 6.67) > 0.4:  # the tiles of a bend have corners
            inside = any(tile.fixtures[0].TestPoint(hull.position) for tile in racing.road)
            assert inside == facts["on_road"], facts
            off_road += not inside
        nearest = int(np.linalg.norm(centres - hull.position, axis=1).argmin())
        right = np.array([math.cos(betas[nearest]), math.sin(betas[nearest])])
        assert np.dot(hull.position - centres[nearest], right) == pytest.approx(facts["offset_m"], abs=1.5), facts
        turned = math.degrees(math.remainder(hull.angle - betas[nearest], 2 * math.pi))
        assert turned == pytest.approx(facts["heading_deg"], abs=25), facts
        ahead = math.degrees(betas[nearest + 9] - betas[nearest])  # 9 tiles of 3.5 m
        assert ahead == pytest.approx(facts["bend_30m_deg"], abs=40), facts
    assert 30 < off_road < 90


def edges(picture, row=70, car=48):
    """Columns of the grass nearest to the car on either side of it."""
    red, green, _ = picture[row].astype(int).T
    grass = np.flatnonzero(green > red + 40)
    left, right = grass[grass < car], grass[grass > car]
    return left.max(initial=-1), right.min(initial=96)


def test_offset_and_speed_can_be_measured_in_the_picture():
    off, told_off, bars, speeds = [], [], [], []
    for picture, facts in drawn(carracing_scenes.Scenes(range(8)), 400, 1.0):
        bars.append(picture[84:95, 12:14].astype(int).sum())
        speeds.append(facts["speed_mps"])
        if abs(facts["heading_deg"]) < 5 and abs(facts["bend_10m_deg"]) < 5 and abs(facts["offset_m"]) < 5:
            off.append(48 - np.mean(edges(picture)))
            told_off.append(facts["offset_m"])
    assert len(off) > 30
    assert np.median(np.abs(np.array(off) - np.array(told_off) * 16.2 * 96 / 1000)) < 1, "pixels"
    assert np.corrcoef(off, told_off)[0, 1] > 0.9
    assert np.corrcoef(bars, speeds)[0, 1] > 0.98


def test_the_side_of_a_bend_can_be_measured_in_the_picture():
    """Where the car points along the road, the side to which the grey goes from the car's rows to those 25 m on."""
    agree = []
    for picture, facts in drawn(carracing_scenes.Scenes(range(8)), 300, 0.0, seed=1):
        columns = np.nonzero(np.ptp(picture[24:34].astype(int), axis=-1) < 12)[1]
        if abs(facts["bend_20m_deg"]) > 20 and len(columns):
            agree.append(
                (columns.mean() < np.mean(edges(picture))) == (facts["bend_20m_deg"] + facts["heading_deg"] > 0)
            )
    assert len(agree) > 50
    assert np.mean(agree) > 0.9


def test_bends_come_equally_often_to_either_side_and_easy_cars_are_on_the_road():
    scenes = carracing_scenes.Scenes(range(16))
    scenes.racing._drawn = lambda: None  # facts alone
    easy, hard = ([facts for _, facts in drawn(scenes, 600, d)] for d in (0.0, 1.0))
    for facts in (easy, hard):
        sides = np.sign([f["bend_30m_deg"] * (abs(f["bend_30m_deg"]) > 15) for f in facts])
        assert all(0.25 < np.mean(sides == side) < 0.42 for side in (-1, 0, 1))
    assert all(abs(f["offset_m"]) <= 2 and f["on_road"] for f in easy)
    assert max(abs(f["heading_deg"]) for f in easy) < 30
    assert max(abs(f["heading_deg"]) for f in hard) > 40
    assert 0.2 < 1 - np.mean([f["on_road"] for f in hard]) < 0.4


def test_tiles_are_dark_as_far_as_the_car_has_come(one_track):
    """Whatever was drawn before."""
    random, racing = np.random.default_rng(3), one_track.racing
    centres = np.array([(x, y) for *_, x, y in racing.track])
    for _ in range(40):
        one_track.draw(random, 0.5)
        track = one_track.laid[5]
        bright = np.flatnonzero((track.shades != racing.road_color).any(axis=1))
        assert (track.shades[bright] == track.fresh[bright]).all()
        nearest = np.linalg.norm(centres - racing.car.hull.position, axis=1).argmin()
        assert abs(bright.min() - nearest) <= 4
        assert len(bright) > 0.6 * (len(centres) - bright.min())


def test_other_seeds_are_other_tracks():
    here, there = carracing_scenes.Scenes([1]), carracing_scenes.Scenes([2])
    drawn(here, 1), drawn(there, 1)
    assert not np.array_equal(here.laid[1].line_m[:50], there.laid[2].line_m[:50])
