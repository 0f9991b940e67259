"""A motorway around an oval, two carriageways apart, with an interchange on either straight and a road over both.

Between the interchanges a fourth lane runs from every on-ramp to the next off-ramp, so that no lane ends anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from drivetrain.sim.road.planview import Geometry
from drivetrain.sim.towns.curves import Bend, Place, between, follow, length_of
from drivetrain.sim.towns.drafting import Arm, Draft, Profile, Road, rise

HALF_M, RADIUS_M = 320.0, 200.0  # half a straight; the middle of the bends
MEDIAN_M = 6.0
SPLIT_M, TAPER_M = 230.0, 50.0  # from the interchange to where ramps leave, and over what length
BRIDGE_M = 6.5
NODE_M = 65.0  # from the motorway's middle to where the ramps meet the road over it
ROOM_M = 16.0  # half a junction
SHOULDER_M = 2.5
THREE = Profile(left=0, right=3, lane_m=3.5, shoulder_m=SHOULDER_M, speed_kmh=110)
FOUR = Profile(left=0, right=4, lane_m=3.5, shoulder_m=SHOULDER_M, speed_kmh=110)
RAMP = Profile(left=0, right=1, lane_m=3.5, shoulder_m=SHOULDER_M, speed_kmh=50)
OVER = Profile(lane_m=3.5, shoulder_m=SHOULDER_M, speed_kmh=50, centre="solid")


@dataclass(frozen=True)
class Side:
    """One carriageway, driven so that the oval's middle is at its left (outer) or its right (inner)."""

    outer: bool

    @property
    def turn(self) -> int:
        return 1 if self.outer else -1

    def place(self, half: int, along_m: float) -> Place:
        """On its left edge, so far from the middle of one of the two straights, in the direction of travel."""
        radius = RADIUS_M + self.turn * MEDIAN_M / 2
        heading = math.pi if self.outer else 0.0
        local = Place(0.0, radius, heading).moved(along_m)
        return rotated(local, half)

    def around(self, half: int) -> tuple[Geometry, ...]:
        """From behind one interchange to the next one."""
        radius = RADIUS_M + self.turn * MEDIAN_M / 2
        bend = Bend(math.pi * radius, self.turn / radius, self.turn / radius)
        straight = Bend(HALF_M - SPLIT_M)
        return follow(self.place(half, SPLIT_M), [straight, bend, straight])


def rotated(place: Place, half: int) -> Place:
    if not half:
        return place
    return Place(-place.x_m, -place.y_m, place.heading_rad + math.pi)


def highway() -> Draft:
    draft = Draft("highway")
    sides = (Side(outer=True), Side(outer=False))
    nodes: dict[tuple[int, bool], list[Arm]] = {}
    for side in sides:
        carriageway(draft, side, nodes)
    overpass(draft, nodes)
    for arms in nodes.values():
        junction = draft.junction(arms)
        draft.lights(junction, arms)
    return draft


def carriageway(draft: Draft, side: Side, nodes: dict[tuple[int, bool], list[Arm]]) -> None:
    past = [draft.road(straight(side, half), THREE) for half in (0, 1)]  # under the bridge
    around = [draft.road(side.around(half), FOUR) for half in (0, 1)]  # from interchange `half` to the other
    for half in (0, 1):
        off, on = ramps(draft, side, half)
        split = [Arm(around[1 - half], "end"), Arm(past[half], "start"), Arm(off, "start")]
        junction = draft.empty_junction(split)
        draft.connect(junction, split[0], 1, split[1], 1, 3, edge=False)
        draft.connect(junction, split[0], 4, split[2], 1, 1, edge=True)
        merge = [Arm(past[half], "end"), Arm(on, "end"), Arm(around[half], "start")]
        junction = draft.empty_junction(merge)
        draft.connect(junction, merge[0], 1, merge[2], 1, 3, edge=False)
        draft.connect(junction, merge[1], 1, merge[2], 4, 1, edge=True)
        nodes[half, side.outer] = [Arm(off, "end"), Arm(on, "start")]
        draft.speed_signs(past[half], 90.0)  # where the ramp is far enough away
        draft.speed_signs(around[half])


def straight(side: Side, half: int) -> tuple[Geometry, ...]:
    return follow(side.place(half, TAPER_M - SPLIT_M), [Bend(2 * (SPLIT_M - TAPER_M))])


def node(side: Side, half: int) -> Place:
    """The middle of the junction on top, in the direction of the ramps."""
    place = side.place(half, 0.0)
    return place.moved(0.0, -(NODE_M - MEDIAN_M / 2))


def ramps(draft: Draft, side: Side, half: int) -> tuple[Road, Road]:
    beside = 3 * THREE.lane_m + 2.5
    middle = node(side, half).moved(0.0, RAMP.lane_m / 2)
    off = between(side.place(half, TAPER_M - SPLIT_M).moved(0.0, -beside), middle.moved(-ROOM_M))
    on = between(middle.moved(ROOM_M), side.place(half, SPLIT_M - TAPER_M).moved(0.0, -beside))
    return draft.road(off, RAMP, rise(0.0, BRIDGE_M, length_of(off))), draft.road(
        on, RAMP, rise(BRIDGE_M, 0.0, length_of(on))
    )


def overpass(draft: Draft, nodes: dict[tuple[int, bool], list[Arm]]) -> None:
    """From the node outside of the one straight, over it, through the oval, and over the other."""
    order = [(0, True), (0, False), (1, False), (1, True)]
    for first, last in pairwise(order):
        one, other = (node(Side(outer), half) for half, outer in (first, last))
        start = Place(one.x_m, one.y_m, -math.pi / 2).moved(ROOM_M)
        end = Place(other.x_m, other.y_m, -math.pi / 2).moved(-ROOM_M)
        road = draft.road(between(start, end), OVER, ((0.0, BRIDGE_M, 0.0, 0.0, 0.0),))
        nodes[first].append(Arm(road, "start"))
        nodes[last].append(Arm(road, "end"))
