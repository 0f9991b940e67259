"""The official client as judge: it reads the same OpenDRIVE text by itself, and must see what we see."""

import math

import numpy as np
import pytest
from sim import client, maps

from drivetrain.sim.road.map import load
from drivetrain.sim.towns.catalog import draft
from drivetrain.sim.towns.writing import write

carla = pytest.importorskip("carla")
TOWNS = ["grid", "roundabout", "highway", "rural", "Random-0", "Random-5", "Random-11"]
SHAPES = {
    "line": "<line/>",
    "arc": '<arc curvature="-0.03"/>',
    "spiral": '<spiral curvStart="0.0" curvEnd="0.03"/>',
    "spiral that swings": '<spiral curvStart="-0.03" curvEnd="0.03"/>',
    "poly3": '<poly3 a="0" b="0" c="0.005" d="-0.00003"/>',
    "paramPoly3": '<paramPoly3 aU="0" bU="50" cU="3" dU="-4" aV="0" bV="0" cV="10" dV="-3" pRange="normalized"/>',
    "paramPoly3 by length": '<paramPoly3 aU="0" bU="1" cU="0" dU="0" aV="0" bV="0" cV="0.005" dV="0" pRange="arcLength"/>',
}  # fmt: skip


@pytest.fixture(scope="module")
def both():
    opened = {}

    def open_(name):
        if name not in opened:
            text = write(draft(name))
            opened[name] = load(text), carla.Map(name, text)
        return opened[name]

    return open_


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_lies_where_the_client_has_it(shape):
    text = maps.one(SHAPES[shape], hdg=0.7)
    roads, theirs = load(text), carla.Map("shape", text)
    for lane in (-1, 1):
        for s in np.linspace(0.5, 49.0, 23):
            waypoint = theirs.get_waypoint_xodr(1, lane, float(s))
            agreement = client.Agreement()
            client.compare_waypoint(agreement, roads, waypoint)
            assert agreement.off_m[0] < 1e-3
            assert agreement.off_deg[0] < 0.01


@pytest.mark.parametrize("name", TOWNS)
def test_waypoints_agree(both, name):
    roads, theirs = both(name)
    waypoints = theirs.generate_waypoints(5.0)
    agreement = client.Agreement()
    for waypoint in waypoints[:: max(1, len(waypoints) // 500)]:
        client.compare_waypoint(agreement, roads, waypoint)
    assert agreement.compared > 400
    assert max(agreement.off_m) < 1e-3
    assert max(agreement.off_deg) < 0.5  # it takes a slope for its angle where lanes widen
    assert max(agreement.off_width_m) < 2e-3
    assert (agreement.marks, agreement.lane_change, agreement.junction, agreement.lane_type) == (0, 0, 0, 0)


@pytest.mark.parametrize("name", TOWNS)
def test_points_are_found_on_the_same_lanes(both, name):
    """The client looks among chords up to half a metre off and takes s from them, so its own answer is the less exact."""
    roads, theirs = both(name)
    points, heights = random_points(roads, 400)
    agreement = client.Agreement()
    client.compare_lookup(agreement, roads, theirs, points, heights, carla)
    assert agreement.same_lane / agreement.compared > 0.97
    assert np.mean(agreement.off_m) < 0.1
    assert max(agreement.off_m) < 0.6


def random_points(roads, count):
    rng = np.random.default_rng(0)
    lanes = [lane for lane in roads.lanes if lane.is_drivable]
    points = []
    for lane in (lanes[i] for i in rng.integers(len(lanes), size=count)):
        i, along, across = rng.integers(len(lane.s_m) - 1), rng.random(), rng.uniform(0.05, 0.95)
        ends = [lane.left[j] * (1 - across) + lane.right[j] * across for j in (i, i + 1)]
        points.append(ends[0] * (1 - along) + ends[1] * along)
    return np.array(points)[:, :2], np.array(points)[:, 2]


@pytest.mark.parametrize("name", TOWNS)
def test_next_and_topology_agree(both, name):
    roads, theirs = both(name)
    waypoints = theirs.generate_waypoints(5.0)
    for waypoint in waypoints[:: max(1, len(waypoints) // 200)]:
        for distance in (2.0, 17.0):
            ahead = roads.ahead(roads.at[client.key_of(waypoint)], waypoint.s, distance)
            ours = sorted((lane.key, s) for lane, s in ahead)
            told = sorted((client.key_of(w), w.s) for w in waypoint.next(distance))
            assert [key for key, _ in ours] == [key for key, _ in told]
            assert [s for _, s in ours] == pytest.approx([s for _, s in told], abs=1e-3)
    ours = {(a.key, roads.lanes[b].key) for a in roads.lanes if a.is_drivable for b in a.successors}
    assert ours == {(client.key_of(a), client.key_of(b)) for a, b in theirs.get_topology()}


@pytest.mark.parametrize("name", TOWNS)
def test_signs_and_crosswalks_agree(both, name):
    """Lights are drawn a quarter of a metre further on by the client."""
    roads, theirs = both(name)
    landmarks = {landmark.id: landmark for landmark in theirs.get_all_landmarks()}
    assert set(landmarks) == {signal.id for signal in roads.signals}
    for signal in roads.signals:
        place = landmarks[signal.id].transform.location
        off = math.hypot(signal.x_m - place.x, signal.y_m - place.y)
        assert off < (0.26 if signal.kind == "light" else 0.01), signal
        assert signal.z_m + signal.z_offset_m == pytest.approx(place.z, abs=0.01)
    corners = np.array([(c.x, c.y, c.z) for c in theirs.get_crosswalks()]).reshape(-1, 5, 3)
    assert len(corners) == len(roads.crosswalks)
    for walk in corners:
        assert min(np.abs(walk - ours).max() for ours in roads.crosswalks) < 0.03


def test_left_hand_traffic_agrees():
    text = maps.one(rule="LHT")
    roads, theirs = load(text), carla.Map("left", text)
    for lane in (-1, 1):
        waypoint = theirs.get_waypoint_xodr(1, lane, 20.0)
        (after,) = waypoint.next(5.0)
        ((_, s),) = roads.ahead(roads.at["1", 0, lane], 20.0, 5.0)
        assert after.s == pytest.approx(s, abs=1e-6)


def test_what_another_package_writes_is_read_as_the_client_reads_it():
    xodr = pytest.importorskip("scenariogeneration").xodr
    roads = [
        xodr.create_road([xodr.Spiral(0.001, 0.02, 60), xodr.Line(30)], id=1, left_lanes=2, right_lanes=1),
        xodr.create_road([xodr.Arc(0.02, length=40), xodr.Line(20)], id=2, left_lanes=2, right_lanes=1),
    ]
    roads[0].add_successor(xodr.ElementType.road, 2, xodr.ContactPoint.start)
    roads[1].add_predecessor(xodr.ElementType.road, 1, xodr.ContactPoint.end)
    network = xodr.OpenDrive("theirs")
    for road in roads:
        network.add_road(road)
    network.adjust_roads_and_lanes()
    text = text_of(network.get_element())
    ours, theirs = load(text), carla.Map("theirs", text)
    agreement = client.Agreement()
    for waypoint in theirs.generate_waypoints(3.0):
        client.compare_waypoint(agreement, ours, waypoint)
        told = sorted(client.key_of(w) for w in waypoint.next(20.0))
        assert sorted(lane.key for lane, _ in ours.ahead(ours.at[client.key_of(waypoint)], waypoint.s, 20.0)) == told
    assert agreement.compared > 100
    assert max(agreement.off_m) < 1e-3


def text_of(element):
    try:
        from lxml import etree

        return etree.tostring(element).decode()
    except TypeError:
        from xml.etree import ElementTree

        return ElementTree.tostring(element).decode()
