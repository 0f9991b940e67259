"""Routes, the score and the wheel, without a server."""

import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from drivetrain.envs.carla import follow, route, server
from drivetrain.envs.carla.score import FACTORS, Score, Touch
from drivetrain.errors import BadData

carla = pytest.importorskip("carla")
pytest.importorskip("msgpack")


@pytest.fixture(scope="module")
def town():
    from drivetrain.sim.towns.catalog import town

    return carla.Map("grid", town("grid").xodr)


class Places:
    """A map whose spawn points do not come from a server."""

    def __init__(self, of):
        self.of, self.name = of, of.name

    def get_spawn_points(self):
        return [start.transform for start, _ in self.of.get_topology() if not start.is_junction]

    def __getattr__(self, name):
        return getattr(self.of, name)


@pytest.mark.parametrize("seed", range(4))
def test_a_drawn_route_is_long_enough_turns_and_stays_in_its_lanes(town, seed):
    way = route.draw(Places(town), np.random.default_rng(seed), 300, 2)
    assert 300 <= way.length_m <= 1200
    assert route.turns_of(way.yaw_rad) >= 2
    step = np.hypot(*np.diff(way.points[:, :2], axis=0).T)
    assert np.abs(step - route.STEP_M).max() < 0.1
    for point in way.points[::25]:
        lane = town.get_waypoint(carla.Location(*map(float, point)), project_to_road=False)
        assert lane is not None
    again = route.draw(Places(town), np.random.default_rng(seed), 300, 2)
    assert np.array_equal(way.points, again.points)


def test_the_command_says_where_the_route_turns(town):
    found = set()
    for seed in range(12):
        way = route.draw(Places(town), np.random.default_rng(seed), 300, 2)
        for first, last in route.runs(way.junction):
            if first < 30 or last >= len(way.points) - 1:
                continue
            turned = math.degrees(way.yaw_rad[last] - way.yaw_rad[first - 1])
            word = way.command[first]
            found.add(int(word))
            if turned > 60:
                assert word == route.RIGHT
            elif turned < -60:
                assert word == route.LEFT
            else:
                assert word in (route.STRAIGHT, route.FOLLOW)
            assert way.command[first - 20] == word, "it is said before the junction"
    assert {route.LEFT, route.RIGHT, route.STRAIGHT} <= found


def test_turns_are_counted_once_each():
    straight, right = np.zeros(30), np.linspace(0, math.pi / 2, 15)
    corner = np.concatenate([straight, right, straight + math.pi / 2])
    assert route.turns_of(corner) == 1
    assert route.turns_of(np.concatenate([corner, right[::-1], straight])) == 2
    assert route.turns_of(np.linspace(0, math.radians(40), 60)) == 0
    assert route.turns_of(straight) == 0


def test_the_shortest_way_is_no_longer_than_a_drawn_one(town):
    way = route.draw(Places(town), np.random.default_rng(5), 300, 2)
    ends = [tuple(map(float, way.points[i])) for i in (0, -1)]
    short = route.between(town, ends)
    assert short.length_m <= way.length_m + 5
    assert np.hypot(*(short.points[-1] - way.points[-1])[:2]) < 3
    past = route.between(town, [ends[0], tuple(map(float, way.points[len(way.points) // 2])), ends[1]])
    assert past.length_m >= short.length_m - 5


def test_leaderboards_files_are_read(tmp_path):
    path = tmp_path / "routes.xml"
    path.write_text(
        '<routes><route id="3" town="Town01"><waypoints><position x="1" y="2" z="0"/><position x="5" y="2.5" z="0"/>'
        '</waypoints></route><route id="4" town="Town02"><waypoint pitch="0" x="1" y="2" z="0" yaw="9"/>'
        '<waypoint x="7" y="8" z="0.5"/></route></routes>'
    )
    first, second = route.read_xml(path)
    assert first == route.Listed("3", "Town01", ((1.0, 2.0, 0.0), (5.0, 2.5, 0.0)))
    assert second.places[1] == (7.0, 8.0, 0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<routes></routes>", "no <route>"),
        ("<routes><route id='1'>", "expected routes"),
        ("<routes><route id='9'><waypoint x='1' y='2' z='0'/></route></routes>", "route 9 has 1 places"),
        ("<routes><route id='9'><waypoint x='a' y='2' z='0'/></route></routes>", "route 9"),
    ],
)
def test_what_is_wrong_with_a_routes_file_is_said(tmp_path, text, said):
    path = tmp_path / "routes.xml"
    path.write_text(text)
    with pytest.raises(BadData, match=said):
        route.read_xml(path)


def test_a_map_without_such_turns_says_so(town):
    with pytest.raises(BadData, match="fewer turns"):
        route.draw(Places(town), np.random.default_rng(0), 50, 20, 60)


def test_the_score_is_the_leaderboards():
    score = Score(100.0)
    for metre in range(1, 51):
        score.step(0.1, float(metre), 0.0, 10.0, False)
    score.infringe("red_light")
    assert score.touch(Touch((7,), "vehicle", 0.0, 5.0))
    assert not score.touch(Touch((7,), "vehicle", 0.0, 5.0)), "one touch that goes on"
    assert score.completion == pytest.approx(0.5)
    assert score.driving == pytest.approx(0.5 * FACTORS["red_light"] * FACTORS["vehicle"])
    for metre in range(51, 61):
        score.step(0.1, float(metre), 0.0, 10.0, True)
    assert score.completion == pytest.approx(0.5), "what is driven outside does not count"


@pytest.mark.parametrize(
    ("touch", "caused"),
    [
        (Touch((1,), "vehicle", 0.1, 5.0), 1),  # into somebody ahead
        (Touch((1,), "vehicle", math.pi, 5.0), 0),  # from behind
        (Touch((1,), "vehicle", 0.0, 0.0), 0),  # while standing
        (Touch((1,), "static", math.pi, 2.0), 1),
    ],
)
def test_who_caused_a_collision(touch, caused):
    score = Score(100.0)
    score.touch(touch)
    assert score.caused == caused


@pytest.mark.parametrize(
    ("at_m", "off_m", "speed_mps", "how", "after_s"),
    [
        (98.0, 0.0, 5.0, "finished", 0.1),
        (5.0, 31.0, 5.0, "deviated", 0.1),
        (5.0, 0.0, 0.0, "blocked", 60.0),
        (5.0, 0.0, 1.0, "timeout", 110.0),
    ],
)
def test_how_a_drive_ends(at_m, off_m, speed_mps, how, after_s):
    score = Score(100.0)
    while not score.ended:
        score.step(0.1, at_m, off_m, speed_mps, False)
    assert score.ended == how
    assert score.time_s == pytest.approx(after_s, abs=0.11)


def test_the_wheel_turns_to_where_the_path_goes():
    car = follow.Car()
    ahead = np.arange(0.0, 20.0)
    straight, right = np.stack([ahead, 0 * ahead], axis=1), np.stack([ahead, 0.03 * ahead**2], axis=1)
    assert follow.steer(straight, 5.0, car) == pytest.approx(0.0)
    assert follow.steer(right, 5.0, car) > 0.02
    assert follow.steer(right * (1, -1), 5.0, car) == pytest.approx(-follow.steer(right, 5.0, car))


def test_pedals():
    assert follow.pedals(10.0, 0.0)[0] > 0.5
    assert follow.pedals(10.0, 10.0)[1] == 0.0
    assert follow.pedals(5.0, 10.0)[0] == 0.0
    assert follow.pedals(5.0, 10.0)[1] > 0.3
    assert follow.pedals(0.0, 0.0) == (0.0, 1.0)


class Spot:
    """Of a transform what `line_on` looks at."""

    def __init__(self, x, y, z=0.0, yaw=0.0):
        self.location = type("Location", (), {"x": x, "y": y, "z": z})
        self.rotation = type("Rotation", (), {"yaw": yaw})


def test_a_line_is_met_each_time_the_route_comes_over_it():
    loop = 40 * np.stack([np.cos(angle := np.arange(0, 4 * math.pi, 1 / 40)), np.sin(angle)], axis=1)
    points = np.column_stack([loop, np.zeros(len(loop))])
    flat = np.zeros(len(loop), bool)
    way = route.Route(points, angle + math.pi / 2, np.full(len(loop), 3.5), flat, flat.astype(int))
    there = route.line_on(way, Spot(40 * math.cos(1.0), 40 * math.sin(1.0), yaw=math.degrees(1.0) + 90))
    assert there == pytest.approx([40.0, 40.0 + 80 * math.pi], abs=0.6)
    assert not route.line_on(way, Spot(40 * math.cos(1.0), 40 * math.sin(1.0), z=6.0, yaw=math.degrees(1.0) + 90))
    assert not route.line_on(way, Spot(40 * math.cos(1.0), 40 * math.sin(1.0), yaw=math.degrees(1.0) - 90))


def test_no_junctions_command_is_taken_from_it_by_the_next():
    from drivetrain.sim.towns.catalog import town

    around = carla.Map("roundabout", town("roundabout").xodr)
    for seed in range(8):
        way = route.draw(Places(around), np.random.default_rng(seed), 300, 2)
        for first, last in route.runs(way.junction):
            assert first == 0 or len(set(way.command[first:last])) == 1


def test_two_who_ask_at_once_get_a_server_each(monkeypatch):
    """Worlds side by side begin in threads; one that idles goes to one of them."""

    class Slow(server.Server):
        @property
        def running(self):
            time.sleep(0.02)  # long enough for the other to look as well
            return True

    idle = [Slow("127.0.0.1", 7, kind=(0, 0))]
    monkeypatch.setattr(server, "IDLE", list(idle))
    monkeypatch.setattr(server, "start", lambda port, traffic: server.Server("127.0.0.1", 9))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: server.borrow("127.0.0.1", 0, 0), range(2)))
    assert {one.port for one in found} == {7, 9}
    assert not server.IDLE


def test_an_address_where_nothing_could_be_started_is_free_again(monkeypatch):
    def fails(port, traffic):
        raise server.NoServer("NoServer: it did not start")

    monkeypatch.setattr(server, "start", fails)
    monkeypatch.setattr(server, "listening", lambda host, port: False)
    with pytest.raises(server.NoServer, match="did not start"):
        server.borrow("127.0.0.1", 45_321, 0)
    assert ("127.0.0.1", 45_321) not in server.LENT
