"""Routes: where to go, what to do at each junction, and the lights and stop signs on the way. Only the client's map is asked.

    route = draw(world.get_map(), random, at_least_m=300, turns=2)     along the lanes, anywhere
    route = between(world.get_map(), [(x, y, z), ...])                 the shortest way past some points
    routes = read_xml("routes_devtest.xml")                            points, as CARLA's Leaderboard writes them

A turn is a change of direction by 45 degrees or more in one go, at a junction or in a bend. y grows to the right of x, as
in all of CARLA, so that yaw grows clockwise.
"""

from __future__ import annotations

import heapq
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from drivetrain.errors import BadData

Array = np.ndarray
COMMANDS = ("follow", "left", "right", "straight")
FOLLOW, LEFT, RIGHT, STRAIGHT = range(4)
STEP_M = 1.0
TOLD_M = 25.0  # before a junction its command begins
TURNED_DEG = 30.0  # what is less goes straight on
TURN_DEG = 45.0
APART_M = 1.5  # of two ways that both go straight on, how far aside one is an exit
PATIENCE = 400  # routes tried
STOP_SIGN = "206"
CHANGE_M = 12.0  # of way for a change of lane
MOST_LANES = 8  # on one side of a road
STOREY_M = 3.0  # a line further above or below is on another road


class Stop(NamedTuple):
    """A line on the way at which one may have to stop."""

    at_m: float  # along the route
    light: int  # the traffic light's actor, or 0 for a stop sign


@dataclass(frozen=True, eq=False)
class Route:
    """Points every metre; all arrays have a row for each."""

    points: Array  # [N, 3]
    yaw_rad: Array  # [N] unwrapped
    width_m: Array  # [N] of the lane
    junction: Array  # [N] bool
    command: Array  # [N] of COMMANDS
    stops: tuple[Stop, ...] = ()

    @property
    def length_m(self) -> float:
        return (len(self.points) - 1) * STEP_M

    def nearest(self, x_m: float, y_m: float, about: int, back: int = 4, ahead: int = 20) -> int:
        """The row nearest to a point, not far from row `about`: where a route crosses itself, only one is meant."""
        first = max(0, about - back)
        offset = self.points[first : about + ahead, :2] - (x_m, y_m)
        return first + int((offset * offset).sum(1).argmin())


def draw(
    of: Any, random: np.random.Generator, at_least_m: float = 300.0, turns: int = 2, at_most_m: float = 1200.0
) -> Route:
    """Somewhere on the map, and at each junction any way on."""
    starts = of.get_spawn_points()
    for _ in range(PATIENCE):
        way = [of.get_waypoint(starts[int(random.integers(len(starts)))].location)]
        if way[0].is_junction:
            continue
        while len(way) * STEP_M < at_most_m:
            options = way[-1].next(STEP_M)
            if not options:
                break
            way.append(options[int(random.integers(len(options)))])
            if len(way) * STEP_M > at_least_m + 5 and not way[-1].is_junction and len(way) % 10 == 0:
                route = along(way)
                if turns_of(route.yaw_rad) >= turns:
                    return route
    raise BadData(
        f"BadData: {of.name} has no route of {at_least_m:.0f} to {at_most_m:.0f} m with {turns} turns that {PATIENCE}"
        " tries found; ask for fewer turns"
    )


def turns_of(yaw_rad: Array) -> int:
    """How often the direction changes by TURN_DEG in one go: on the same side, within bends a few metres apart."""
    count, run, side, quiet = 0, 0.0, 0, 0
    for change in np.diff(yaw_rad):
        now = 0 if abs(change) < math.radians(0.5) else int(math.copysign(1, change))
        quiet = 0 if now else quiet + 1
        if (now and now != side) or quiet > 8:
            count += abs(run) >= math.radians(TURN_DEG)
            run, side = 0.0, now
        run += float(change)
    return count + (abs(run) >= math.radians(TURN_DEG))


def along(way: Sequence[Any]) -> Route:
    """The route that waypoints about a metre apart make."""
    raw = np.array([(p.x, p.y, p.z) for p in (w.transform.location for w in way)])
    step = np.maximum(np.hypot(*np.diff(raw[:, :2], axis=0).T), 1e-6)
    far = np.concatenate([[0.0], np.cumsum(step)])
    at = np.arange(0.0, far[-1], STEP_M)
    points = np.stack([np.interp(at, far, axis) for axis in raw.T], axis=1)
    which = np.clip(np.searchsorted(far, at, side="right") - 1, 0, len(way) - 1)
    heading = np.unwrap([math.radians(w.transform.rotation.yaw) for w in way])
    junction = np.array([w.is_junction for w in way])[which]
    yaw = np.interp(at, far, heading)
    return Route(
        points,
        yaw,
        np.array([w.lane_width for w in way])[which],
        junction,
        commands(way, which, junction, yaw),
    )


def commands(way: Sequence[Any], which: Array, junction: Array, yaw: Array) -> Array:
    """What to do, for each point: from TOLD_M before a junction to its end."""
    found, before = np.full(len(which), FOLLOW), 0
    for first, last in runs(junction):
        if first == 0:
            continue
        turned = math.degrees(yaw[min(last, len(yaw) - 1)] - yaw[first - 1])
        word = STRAIGHT
        if abs(turned) >= TURNED_DEG:
            word = RIGHT if turned > 0 else LEFT
        else:
            length = (last - first) * STEP_M
            others = way[max(which[first] - 1, 0)].next(length + STEP_M) if length else []
            mine = way[min(which[min(last, len(which) - 1)], len(way) - 1)].transform
            word = aside(mine, others) if len(others) > 1 else FOLLOW
        found[max(before, first - int(TOLD_M / STEP_M)) : last] = word
        before = last
    return found


def aside(mine: Any, others: Sequence[Any]) -> int:
    """Where several ways go about straight on, one is an exit."""
    right = mine.get_right_vector()
    offset = [
        (o.transform.location.x - mine.location.x) * right.x + (o.transform.location.y - mine.location.y) * right.y
        for o in others
        if abs((o.transform.rotation.yaw - mine.rotation.yaw + 180) % 360 - 180) < TURNED_DEG
    ]
    if any(o < -APART_M for o in offset) and not any(o > APART_M for o in offset):
        return RIGHT
    return STRAIGHT


def runs(flags: Array) -> Iterator[tuple[int, int]]:
    """Where flags are set without a gap: first, and last + 1."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        yield int(first), int(last)


def between(of: Any, places: Sequence[tuple[float, float, float]]) -> Route:
    """The shortest way along the lanes past the places, changing lanes where marks allow it."""
    import carla

    stations = [of.get_waypoint(carla.Location(*place)) for place in places]
    if len(stations) < 2 or any(one is None for one in stations):
        raise BadData(f"BadData: a route needs two places on a road of {of.name} or more, got {len(places)}")
    way = [stations[0]]
    for goal in stations[1:]:
        way += shortest(way[-1], goal)[1:]
    return along(way)


def key_of(w: Any) -> tuple[int, int, int, int]:
    return w.road_id, w.section_id, w.lane_id, round(w.s / STEP_M)


def shortest(start: Any, goal: Any) -> list[Any]:
    """A* over waypoints a metre apart."""
    import carla

    def left_m(w: Any) -> float:
        return float(w.transform.location.distance(goal.transform.location))

    best = {key_of(start): 0.0}
    before: dict[tuple[int, int, int, int], list[Any]] = {key_of(start): []}
    heap: list[tuple[float, int, Any]] = [(left_m(start), 0, start)]
    count = 0
    while heap:
        _, _, here = heapq.heappop(heap)
        if (here.road_id, here.lane_id) == (goal.road_id, goal.lane_id) and left_m(here) < 1.5 * STEP_M:
            return chain(before, here)
        change = here.lane_change if not here.is_junction else carla.LaneChange.NONE
        ways = [([one], STEP_M) for one in here.next(STEP_M)]
        for side, beside in (
            (carla.LaneChange.Left, here.get_left_lane),
            (carla.LaneChange.Right, here.get_right_lane),
        ):
            lane = beside() if change in (side, carla.LaneChange.Both) else None
            if lane is not None and lane.lane_type == carla.LaneType.Driving and lane.lane_id * here.lane_id > 0:
                ways += [([one], 2 * CHANGE_M) for one in lane.next(CHANGE_M)]
        for steps, cost in ways:
            there, price = key_of(steps[-1]), best[key_of(here)] + cost
            if price < best.get(there, math.inf):
                best[there], before[there] = price, [here]
                count += 1
                heapq.heappush(heap, (price + left_m(steps[-1]), count, steps[-1]))
    at = start.transform.location
    raise BadData(
        f"BadData: no way leads from ({at.x:.1f}, {at.y:.1f}) to the next place of the route; move one of them"
    )


def chain(before: dict[tuple[int, int, int, int], list[Any]], last: Any) -> list[Any]:
    found = [last]
    while before[key_of(found[-1])]:
        found.append(before[key_of(found[-1])][0])
    return found[::-1]


@dataclass(frozen=True)
class Listed:
    """A route of a file: its id, its town, and the places on the way."""

    id: str
    town: str
    places: tuple[tuple[float, float, float], ...]


def read_xml(path: str | Path) -> list[Listed]:
    """Leaderboard 1.0 (`<waypoint .../>` in a route) and 2.0 (`<position .../>` in its `<waypoints>`)."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise BadData(f"BadData: {path}: {error}; expected routes as CARLA's Leaderboard writes them") from None
    found: list[Listed] = []
    for route in root.iter("route"):
        spots = list(route.iter("position")) or list(route.iter("waypoint"))
        try:
            places = tuple((float(p.attrib["x"]), float(p.attrib["y"]), float(p.attrib["z"])) for p in spots)
        except (KeyError, ValueError) as error:
            raise BadData(f"BadData: {path}: route {route.get('id')}: a place without a number for {error}") from None
        if len(places) < 2:
            raise BadData(f"BadData: {path}: route {route.get('id')} has {len(places)} places, expected 2 or more")
        found.append(Listed(route.get("id", str(len(found))), route.get("town", ""), places))
    if not found:
        raise BadData(f"BadData: {path} has no <route>; expected routes as CARLA's Leaderboard writes them")
    return found


def stops_on(route: Route, of: Any, lights: Sequence[Any]) -> tuple[Stop, ...]:
    """The lines of traffic lights and stop signs that the route comes over, in order."""
    found: list[Stop] = []
    for light in lights:
        for waypoint in light.get_stop_waypoints():
            found += [Stop(at, light.id) for at in line_on(route, waypoint.transform)]
    for sign in of.get_all_landmarks_of_type(STOP_SIGN):
        for waypoint in governed(sign, of):
            found += [Stop(at, 0) for at in line_on(route, waypoint.transform)]
    kept: list[Stop] = []
    for stop in sorted(found):
        if not kept or stop.at_m - kept[-1].at_m > 3.0 or stop.light != kept[-1].light:
            kept.append(stop)
    return tuple(kept)


def governed(sign: Any, of: Any) -> Iterator[Any]:
    """Where a landmark stands, in each lane that it is for. (The landmarks of a whole map come without their waypoints.)"""
    import carla

    lanes = [
        lane for first, last in sign.get_lane_validities() for lane in range(min(first, last), max(first, last) + 1)
    ]
    if not lanes:
        lanes = list(range(-MOST_LANES, MOST_LANES + 1))
    forward = {carla.LandmarkOrientation.Positive: True, carla.LandmarkOrientation.Negative: False}.get(
        sign.orientation
    )
    for lane in lanes:
        if lane and forward in (None, lane < 0):
            waypoint = of.get_waypoint_xodr(sign.road_id, lane, sign.s)
            if waypoint is not None and waypoint.lane_type == carla.LaneType.Driving:
                yield waypoint


def line_on(route: Route, place: Any) -> list[float]:
    """Where along the route a line lies, each time that the route crosses it."""
    offset = route.points - (place.location.x, place.location.y, place.location.z)
    far = np.hypot(offset[:, 0], offset[:, 1])
    apart = np.abs((math.radians(place.rotation.yaw) - route.yaw_rad + math.pi) % (2 * math.pi) - math.pi)
    here = (far < 0.6 * route.width_m) & (apart < math.radians(60)) & (np.abs(offset[:, 2]) < STOREY_M)
    found = []
    for first, last in runs(here):
        row = first + int(far[first:last].argmin())
        ahead = np.array([math.cos(route.yaw_rad[row]), math.sin(route.yaw_rad[row])])
        found.append(row * STEP_M - float(offset[row, :2] @ ahead))
    return found
