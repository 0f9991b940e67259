import contextlib
import math
import random
import re

import numpy as np
import pytest
from sim import maps

from drivetrain.sim.road.errors import BadMap
from drivetrain.sim.road.map import load
from drivetrain.sim.road.opendrive import read
from drivetrain.sim.towns import catalog
from drivetrain.sim.towns.curves import Bend, Place, follow
from drivetrain.sim.towns.drafting import Draft, Profile
from drivetrain.sim.towns.writing import write

SOLID = '<roadMark sOffset="0" type="solid" color="white" width="0.12" laneChange="none"/>'
BROKEN = '<roadMark sOffset="0" type="broken" color="yellow" width="0.12"/>'


def test_y_is_flipped_and_right_lanes_run_along_s():
    roads = load(maps.one())
    right = roads.nearest_lane(10.0, 1.75)
    assert (right.lane.id, right.s_m, right.heading_rad) == (-1, pytest.approx(10.0), pytest.approx(0.0))
    left = roads.nearest_lane(10.0, -1.0)
    assert left.lane.id == 1
    assert abs(left.heading_rad) == pytest.approx(math.pi)
    assert left.lateral_m == pytest.approx(-0.75)  # nearer to the middle of the road, which is at its left
    assert left.along_m == pytest.approx(40.0)


def test_left_hand_traffic_runs_the_other_way():
    roads = load(maps.one(rule="LHT"))
    assert abs(roads.nearest_lane(10.0, 1.75).heading_rad) == pytest.approx(math.pi)
    assert roads.nearest_lane(10.0, -1.75).heading_rad == pytest.approx(0.0)


def test_a_point_is_found_on_a_bend_to_a_tenth_of_a_millimetre():
    roads = load(maps.one('<arc curvature="0.08"/>', 30.0))
    rng = np.random.default_rng(0)
    s, t = rng.uniform(0.5, 29.5, 200), rng.uniform(-3.4, -0.1, 200)
    angle = s * 0.08
    radius = 1 / 0.08 - t
    points = np.stack([radius * np.sin(angle), -(1 / 0.08 - radius * np.cos(angle))], axis=1)
    found = roads.nearest_lanes(points)
    assert np.abs(found.s_m - s).max() < 1e-4
    assert np.abs(found.lateral_m - (-1.75 - t)).max() < 1e-4
    assert np.abs(found.heading_rad + angle).max() < 1e-3


def test_one_point_and_many_give_the_same_answer():
    roads = load(maps.one('<spiral curvStart="0" curvEnd="0.05"/>'))
    points = np.random.default_rng(1).uniform(-10, 50, (50, 2))
    many = roads.nearest_lanes(points)
    for i, (x, y) in enumerate(points):
        found = roads.nearest_lane(x, y)
        assert (found.lane.index, found.s_m) == (many.lane[i], many.s_m[i])


def test_nearest_is_nearest_far_away_too():
    roads = load(maps.one())
    far = roads.nearest_lane(25.0, 500.0)
    assert (far.lane.id, far.s_m, far.inside) == (-1, pytest.approx(25.0), False)


def test_heights_follow_elevation_superelevation_and_kerbs():
    walk = maps.lane(-2, 2.0, "sidewalk", more='<height sOffset="0" inner="0.15" outer="0.15"/>')
    profiles = (
        '<elevationProfile><elevation s="0" a="2" b="0.1" c="0" d="0"/></elevationProfile>'
        '<lateralProfile><superelevation s="0" a="0.05" b="0" c="0" d="0"/></lateralProfile>'
    )
    roads = load(maps.one(sections=maps.section([maps.lane(1)], [maps.lane(-1), walk]), profiles=profiles))
    assert roads.height_m(20.0, 1.0) == pytest.approx(4.0 - 1.0 * math.tan(0.05), abs=1e-6)
    assert roads.height_m(20.0, -2.0) == pytest.approx(4.0 + 2.0 * math.tan(0.05), abs=1e-6)
    assert roads.height_m(20.0, 4.5) == pytest.approx(4.15 - 4.5 * math.tan(0.05), abs=1e-6)


def test_lateral_shape_lies_between_its_places():
    shape = '<shape s="{}" t="-5" a="{}" b="0" c="0" d="0"/>'
    profiles = f"<lateralProfile>{shape.format(0, 0)}{shape.format(50, 1)}</lateralProfile>"
    assert load(maps.one(profiles=profiles)).height_m(10.0, 1.0) == pytest.approx(0.2, abs=1e-6)


def test_lane_offset_borders_and_widths_that_change():
    taper = '<lane id="-1" type="driving"><width sOffset="0" a="3" b="0.02" c="0" d="0"/></lane>'
    offset = '<laneOffset s="0" a="1.5" b="0" c="0" d="0"/>'
    roads = load(maps.one(sections=maps.section([], [taper]), offset=offset))
    found = roads.nearest_lane(25.0, 0.0)
    assert found.width_m == pytest.approx(3.5, abs=1e-3)
    assert found.y_m == pytest.approx(-1.5 + 1.75, abs=1e-4)
    border = '<lane id="-1" type="driving"><border sOffset="0" a="-4" b="0" c="0" d="0"/></lane>'
    assert load(maps.one(sections=maps.section([], [border]))).nearest_lane(5.0, 2.0).width_m == pytest.approx(4.0)


def test_sections_roads_and_junctions_lead_on():
    to = '<successor elementType="{}" elementId="{}" {}/>'
    back = '<predecessor elementType="road" elementId="1" contactPoint="end"/>'
    first = maps.road(
        maps.geometry("<line/>", 50),
        50.0,
        maps.section([], [maps.lane(-1, link='<successor id="-2"/>')])
        + maps.section([], [maps.lane(-1, link='<predecessor id="-1"/>'), maps.lane(-2)], s=20.0),
        link=to.format("junction", 9, ""),
    )
    second = maps.road(
        maps.geometry("<line/>", 10, x=50), 10.0, maps.section([], [maps.lane(-1)]), id="2", junction="9", link=back
    )
    junction = (
        '<junction id="9"><connection id="0" incomingRoad="1" connectingRoad="2" contactPoint="start">'
        '<laneLink from="-2" to="-1"/></connection></junction>'
    )
    roads = load(maps.drive(first, second, junction))
    start = roads.at["1", 0, -1]
    assert [roads.lanes[i].key for i in start.successors] == [("1", 1, -2)]
    onward = roads.at["1", 1, -2]
    assert [roads.lanes[i].key for i in onward.successors] == [("2", 0, -1)]
    assert roads.lanes[onward.successors[0]].predecessors == [onward.index]
    assert roads.is_junction(onward.successors[0])
    assert roads.ahead(start, 5.0, 47.0)[0][0].key == ("2", 0, -1)
    assert roads.at["1", 1, -1].right_lane == onward.index


def test_marks_and_lane_changes_are_seen_by_the_driver():
    right = [maps.lane(-1, mark=BROKEN), maps.lane(-2, mark=SOLID)]
    roads = load(maps.one(sections=maps.section([maps.lane(1, mark=SOLID)], right, centre=SOLID)))
    inner, outer = roads.nearest_lane(10.0, 1.75), roads.nearest_lane(10.0, 5.25)
    assert [mark.type for mark in inner.marks] == ["solid", "broken"]
    assert inner.lane_change == (False, True)
    assert outer.lane_change == (True, False)
    assert inner.marks[1].color == "yellow"
    against = roads.nearest_lane(10.0, -1.75)
    assert [mark.type for mark in against.marks] == ["solid", "solid"]


def test_increase_and_decrease_are_one_way_streets():
    up = '<roadMark sOffset="0" type="broken solid" color="white" width="0.12" laneChange="increase"/>'
    roads = load(maps.one(sections=maps.section([], [maps.lane(-1, mark=up), maps.lane(-2, mark=SOLID)])))
    assert roads.nearest_lane(10.0, 1.75).lane_change[1] is False
    assert roads.nearest_lane(10.0, 5.25).lane_change[0] is True


def test_a_box_crosses_the_marks_between_its_corners():
    right = [maps.lane(-1, mark=BROKEN), maps.lane(-2, mark=SOLID)]
    roads = load(maps.one(sections=maps.section([maps.lane(1)], right, centre=SOLID)))
    box = np.array([[12.0, 2.75], [12.0, 0.75], [8.0, 0.75], [8.0, 2.75]])
    assert roads.marks_crossed(box, moved(box, 0.3, 0.5)) == []
    assert [mark.type for mark in roads.marks_crossed(box, moved(box, 0.3, 1.0))] == ["broken"]
    assert [mark.type for mark in roads.marks_crossed(box, moved(box, 0.0, -1.0))] == ["solid"]
    assert {mark.type for mark in roads.marks_crossed(moved(box, 0.0, -1.5), moved(box, 0.0, 5.0))} == {
        "solid",
        "broken",
    }
    assert len(roads.marks_crossed(moved(box, 0.0, -1.5), moved(box, 0.0, 5.0))) == 3


def moved(box, x, y):
    return box + np.array([x, y])


SIGNALS = (
    '<signals><signal id="7" s="45" t="-4" zOffset="5" orientation="+" dynamic="yes" type="1000001" name="x"/>'
    '<signal id="8" s="10" t="-4" orientation="+" dynamic="no" type="274" subtype="-1" value="30" unit="km/h"/>'
    '<signal id="9" s="5" t="4" orientation="-" dynamic="no" type="206"/></signals>'
)


def test_lights_and_signs_hold_the_lanes_they_face():
    more = SIGNALS
    text = maps.one(more=more).replace(
        "</OpenDRIVE>", '<controller id="3"><control signalId="7"/></controller></OpenDRIVE>'
    )
    roads = load(text)
    light, speed, stop = roads.signals
    assert (light.kind, speed.kind, stop.kind) == ("light", "speed", "stop")
    assert [roads.lanes[i].id for i in light.lanes] == [-1]
    assert [roads.lanes[i].id for i in stop.lanes] == [1]
    assert (light.x_m, light.y_m, light.controllers) == (pytest.approx(45.0), pytest.approx(4.0), ("3",))
    assert speed.speed_mps == pytest.approx(30 / 3.6)
    assert abs(stop.heading_rad) == pytest.approx(math.pi)
    lines = {line.signal: line for line in roads.stop_lines}
    assert lines["7"].along_m == pytest.approx(45.0)
    assert lines["9"].along_m == pytest.approx(45.0)
    assert lines["7"].right[:2] == pytest.approx((45.0, 3.5))


def test_speed_limits_in_every_unit():
    kind = '<type s="0" type="town"><speed max="30" unit="mph"/></type>'
    assert load(maps.one(more=kind)).lanes[0].speed_limit_mps == pytest.approx(13.4112)
    lane = maps.lane(-1, more='<speed sOffset="0" max="36" unit="km/h"/>')
    assert load(maps.one(sections=maps.section([], [lane]), more=kind)).lanes[0].speed_limit_mps == pytest.approx(10.0)


def test_surfaces_cover_the_road_and_no_more():
    walk = maps.lane(-2, 2.0, "sidewalk", more='<height sOffset="0" inner="0.15" outer="0.15"/>')
    roads = load(maps.one(sections=maps.section([maps.lane(1, mark=SOLID)], [maps.lane(-1), walk], centre=BROKEN)))
    surfaces = roads.surfaces
    assert all(part.dtype == np.float32 for part in surfaces.lanes.values())
    assert area(surfaces.lanes["driving"]) == pytest.approx(2 * 3.5 * 50, rel=1e-5)
    assert area(surfaces.lanes["sidewalk"]) == pytest.approx(2 * 50, rel=1e-5)
    assert area(surfaces.marks["solid", "white"]) == pytest.approx(0.12 * 50, rel=1e-3)
    dashes = area(surfaces.marks["broken", "yellow"])
    assert 0.25 * 0.12 * 50 < dashes < 0.45 * 0.12 * 50
    assert np.ptp(surfaces.kerbs[:, :, 2]) == pytest.approx(0.30, abs=1e-5)
    assert surfaces.ground[:, :, 2].max() < 0.0


def area(triangles):
    triangles = triangles.astype(np.float64)
    return (
        np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1).sum() / 2
    )


def test_spawn_points_hang_over_driving_lanes():
    roads = load(maps.one(length=200.0))
    for pose in roads.spawn_points():
        here = roads.nearest_lane(pose.x_m, pose.y_m)
        assert abs(here.lateral_m) < 1e-6
        assert pose.z_m == pytest.approx(here.height_m + 0.5)
        assert math.cos(math.radians(pose.yaw_deg) - here.heading_rad) == pytest.approx(1.0)


GOOD = maps.one(more=SIGNALS)
MISTAKES = {
    "not xml": ("<line/>", "<line>", "the file"),
    "not opendrive": ("OpenDRIVE", "OpenStreet", "the root element"),
    "a word for a number": ('hdg="0.0"', 'hdg="east"', "road 1 geometry 0 hdg"),
    "not a number": ('hdg="0.0"', 'hdg="nan"', "road 1 geometry 0 hdg"),
    "no geometry": ("<line/>", "<loop/>", "road 1 geometry 0"),
    "arc without curvature": ("<line/>", "<arc/>", "road 1 geometry 0 arc curvature"),
    "no length": ('length="50.0" id', 'length="-1" id', "road 1 length"),
    "a length that is not its geometry's": ('length="50.0" id', 'length="70" id', "road 1 length"),
    "no lanes": ("laneSection", "lanePart", "road 1 lanes"),
    "no width": ("width", "weight", "road 1 laneSection 0 lane 1"),
    "a hole in the lane ids": ('id="-1" type', 'id="-2" type', "road 1 laneSection 0 lane -2"),
    "a lane twice": ('id="1" type', 'id="-1" type', "road 1 laneSection 0 lane -1"),
    "a link to nowhere": (
        "<link></link>",
        '<link><successor elementType="road" elementId="5" contactPoint="end"/></link>',
        "road 1 successor",
    ),
    "a junction that is not there": ('junction="-1"', 'junction="4"', "road 1 junction"),
    "a section behind the end": ('laneSection s="0.0"', 'laneSection s="99"', "road 1 laneSection 0 s"),
    "a signal without a place": ('id="7" s="45"', 'id="7"', "road 1 signal 7 s"),
    "no driving lane": ('type="driving"', 'type="sidewalk"', "OpenDRIVE"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_map_is_named(name):
    right, wrong, element = MISTAKES[name]
    load(GOOD)
    assert right in GOOD
    with pytest.raises(BadMap) as caught:
        load(GOOD.replace(right, wrong))
    assert caught.value.element == element
    assert "got" in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_wrong_is_a_bad_map(seed):
    draw = random.Random(seed)
    text = GOOD if seed == 0 else maps.one('<spiral curvStart="0" curvEnd="0.1"/>', more=SIGNALS)
    values = list(re.finditer(r'="([^"]*)"', text))
    for _ in range(300):
        value = draw.choice(values)
        wrong = draw.choice(["", "-1", "nan", "1e300", "x", "0", "99999999", "-0.5", "3"])
        with contextlib.suppress(BadMap):
            load(text[: value.start(1)] + wrong + text[value.end(1) :])
        with contextlib.suppress(BadMap):
            load(text[: draw.randrange(len(text))])


def test_what_is_read_is_what_was_written():
    pieces = follow(Place(1.0, 2.0, 0.3), [Bend(30.0), Bend(20.0, 0.0, 0.04), Bend(10.0, 0.04, 0.04)])
    draft = Draft("one")
    draft.road(pieces, Profile(left=2, sidewalk_m=1.5))
    again = read(write(draft)).roads["1"]
    for one, other in zip(again.plan.pieces, pieces, strict=True):
        assert one.kind == other.kind
        assert (one.x_m, one.y_m, one.heading_rad, one.length_m) == pytest.approx(
            (other.x_m, other.y_m, other.heading_rad, other.length_m), abs=1e-11
        )
        assert one.factors == pytest.approx(other.factors)
    assert sorted(again.sections[0].lanes) == [-2, -1, 0, 1, 2, 3]
    assert again.sections[0].lanes[3].heights == ((0.0, 0.15, 0.15),)


@pytest.mark.parametrize("town", ["grid", "highway"])
def test_the_lane_beneath_is_the_nearest(town):
    roads = load(catalog.town(town).xodr)
    spread = np.array([lane.centre[:, :2].mean(0) for lane in roads.lanes])
    random = np.random.default_rng(0)
    for x, y in random.uniform(spread.min(0) - 40, spread.max(0) + 40, (300, 2)):
        z = float(random.choice([0.0, 6.0]))
        assert roads.lane_beneath(x, y, z) is roads.nearest_lane(x, y, z_m=z).lane
