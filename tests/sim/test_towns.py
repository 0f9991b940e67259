import math

import numpy as np
import pytest

from drivetrain.sim.road.map import RoadMap, load
from drivetrain.sim.towns.catalog import UnknownTown, draft, names, town
from drivetrain.sim.towns.curves import Place, between, end_of
from drivetrain.sim.towns.scenery import footprint, overlap
from drivetrain.sim.towns.writing import write

NAMED = ["grid", "roundabout", "highway", "rural"]
SOME = [*NAMED, "Random-0", "Random-7"]


@pytest.mark.parametrize("turn", [-2.5, -math.pi / 2, -0.4, 0.0, 0.8, math.pi / 2])
def test_a_clothoid_joins_two_poses(turn):
    start, end = Place(1.0, 2.0, 0.3), Place(21.0, 7.0, 0.3 + turn)
    (piece,) = between(start, end)
    found = end_of(piece)
    assert found.distance_m(end) < 1e-9
    assert math.cos(found.heading_rad - end.heading_rad) == pytest.approx(1.0, abs=1e-14)


def test_even_turns_are_arcs_and_straight_ways_are_lines():
    assert between(Place(0, 0, 0), Place(10, 0, 0))[0].kind == "line"
    assert between(Place(0, 0, 0), Place(10, 10, math.pi / 2))[0].kind == "arc"
    assert between(Place(0, 0, 0), Place(20, 10, math.pi / 2))[0].kind == "spiral"


def test_towns_are_known_by_name():
    assert names() == NAMED
    with pytest.raises(UnknownTown, match="Atlantis"):
        town("Atlantis")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grid", "Random-3"])
def test_a_town_is_a_function_of_its_name(name):
    first = town(name)
    town.cache_clear()
    again = town(name)
    assert again.xodr == first.xodr
    assert again.scenery == first.scenery
    assert again.roads.spawn_points() == first.roads.spawn_points()


def test_seeds_make_different_towns():
    assert len({write(draft(f"Random-{seed}")) for seed in range(5)}) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_nothing_stands_on_a_road_or_in_another_thing(name):
    place = town(name)
    roads = place.roads
    corners = np.array([footprint(thing) for thing in place.scenery])  # [N, 4, 2]
    between = [corners + share * (np.roll(corners, -1, axis=1) - corners) for share in (0.0, 0.2, 0.4, 0.6, 0.8)]
    points = np.concatenate([*between, corners.mean(1, keepdims=True)], axis=1)
    assert not roads.nearest_lanes(points.reshape(-1, 2), roads.paved).inside.any()
    solid = [thing for thing in place.scenery if thing.kind != "tree_crown"]
    middles = np.array([(thing.x_m, thing.y_m) for thing in solid])
    for i, thing in enumerate(solid):
        near = np.flatnonzero(np.hypot(*(middles[:i] - middles[i]).T) < 40.0)
        assert not any(overlap(footprint(thing), footprint(solid[j]), 0.0) for j in near)


@pytest.mark.slow
def test_each_town_has_what_belongs_there():
    kinds = {name: {signal.kind for signal in town(name).roads.signals} for name in NAMED}
    assert kinds["grid"] == {"light", "stop", "speed"}
    assert kinds["roundabout"] == {"yield", "stop", "speed"}
    assert kinds["highway"] == {"light", "speed"}
    assert kinds["rural"] == {"stop", "yield", "speed"}
    heights = np.concatenate([lane.centre[:, 2] for lane in town("rural").roads.lanes])
    assert np.ptp(heights) > 15.0
    arms = [{c.incoming for c in j.connections} for j in town("grid").roads.opened.junctions.values()]
    assert {len(roads) for roads in arms} == {3, 4}
    for name in ("grid", "roundabout"):
        assert {"building", "tree_crown", "lamp"} <= {thing.kind for thing in town(name).scenery}
        assert "sidewalk" in {lane.type for lane in town(name).roads.lanes}


def test_lights_of_one_junction_share_its_controllers():
    roads = town("grid").roads
    lights = [signal for signal in roads.signals if signal.kind == "light"]
    assert all(len(light.controllers) == 1 for light in lights)
    used = {controller for junction in roads.opened.junctions.values() for controller in junction.controllers}
    assert used == set(roads.opened.controllers)
    for line in roads.stop_lines:
        lane = roads.lanes[line.lane]
        assert 0.5 < lane.length_m - line.along_m < 7.0
        assert all(roads.lanes[i].junction for i in lane.successors)


@pytest.mark.parametrize("name", SOME)
def test_signs_stand_beside_the_lanes(name):
    roads = town(name).roads
    points = np.array([(signal.x_m, signal.y_m) for signal in roads.signals])
    assert not roads.nearest_lanes(points).inside.any()


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_the_ground_stays_below_the_roads(name):
    roads = town(name).roads
    ground = roads.surfaces.ground
    rng = np.random.default_rng(0)
    lanes = rng.choice(len(roads.lanes), 60)
    for lane in (roads.lanes[i] for i in lanes):
        point = lane.centre[len(lane.s_m) // 2]
        assert height_of(ground, point) < point[2] - 0.02, (name, lane.key)


def height_of(triangles, point):
    """Of a sheet of triangles, under a point."""
    a, b, c = (triangles[:, i].astype(np.float64) for i in range(3))
    full = cross(b - a, c - a)
    u, v = cross(point - a, c - a) / full, cross(b - a, point - a) / full
    inside = (u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6)
    return float((a + u[:, None] * (b - a) + v[:, None] * (c - a))[inside, 2].max())


def cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


@pytest.mark.parametrize("name", [*NAMED, *(f"Random-{seed}" for seed in range(20))])
def test_all_lanes_lead_on_without_gaps(name):
    roads = load(write(draft(name)))
    for lane in roads.lanes:
        if not lane.is_drivable:
            continue
        assert lane.successors, f"{name}: {lane.key} ends nowhere"
        assert lane.predecessors, f"{name}: {lane.key} begins nowhere"
        for after in (roads.lanes[i] for i in lane.successors):
            gaps = [np.linalg.norm(getattr(lane, e)[-1] - getattr(after, e)[0]) for e in ("centre", "left", "right")]
            assert max(gaps) < 0.01, (name, lane.key, after.key, gaps)
            assert math.cos(lane.heading_rad[-1] - after.heading_rad[0]) > 0.9999
        assert lane.width_m.min() > 2.9
    assert reach(roads) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 120))
def test_towns_without_end_are_sound(seed):
    test_all_lanes_lead_on_without_gaps(f"Random-{seed}")


def reach(roads: RoadMap):
    """The least share of all spawn points' lanes that can be reached from one of them, changing lanes where marks allow."""
    lanes = {roads.nearest_lane(pose.x_m, pose.y_m, z_m=pose.z_m).lane.index for pose in roads.spawn_points()}
    shares = []
    for start in sorted(lanes):
        seen, todo = {start}, [start]
        while todo:
            lane = roads.lanes[todo.pop()]
            beside = zip((lane.left_lane, lane.right_lane), lane.lane_change_at(float(lane.s_m[0])), strict=True)
            ways = lane.successors + [i for i, may in beside if may and i is not None and same_way(roads, lane, i)]
            for other in ways:
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        shares.append(len(lanes & seen) / len(lanes))
    return min(shares)


def same_way(roads, lane, other):
    return roads.lanes[other].is_drivable and roads.lanes[other].runs_with_s == lane.runs_with_s
