"""A net of streets: corners and the streets between them become a draft.

A corner of one street is a dead end, of two a bend, of more a junction, or a roundabout where it says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from drivetrain.sim.road.planview import Geometry
from drivetrain.sim.towns.curves import Bend, Place, between, end_of, follow, length_of, wrapped
from drivetrain.sim.towns.drafting import Arm, Draft, Profile, Road, rise

CORNER_M = 6.0  # radius of a kerb
RING_M, RING_LANE_M = 17.0, 4.5
RING = Profile(left=0, right=1, lane_m=RING_LANE_M, speed_kmh=30)


@dataclass(frozen=True)
class Corner:
    x_m: float
    y_m: float
    z_m: float = 0.0
    control: str = "lights"  # lights, stop (for whoever comes from the side), yield, none; or roundabout


@dataclass(frozen=True)
class Street:
    start: str
    end: str
    profile: Profile
    start_bend_rad: float = 0.0  # how far it leaves the straight way, at either corner
    end_bend_rad: float = 0.0
    via: tuple[tuple[float, float, float], ...] = ()  # places that it passes through: x, y, z

    def headings(self, corners: Mapping[str, Corner]) -> tuple[float, float]:
        """The way it goes where it leaves its first corner, and where it comes to its last."""
        route = [corners[self.start], *(Corner(*v) for v in self.via), corners[self.end]]
        first = math.atan2(route[1].y_m - route[0].y_m, route[1].x_m - route[0].x_m)
        last = math.atan2(route[-1].y_m - route[-2].y_m, route[-1].x_m - route[-2].x_m)
        return first + self.start_bend_rad, last + self.end_bend_rad


@dataclass(frozen=True)
class Ray:
    """A street as it leaves a corner."""

    street: Street
    at_start: bool
    heading_rad: float


def build(draft: Draft, corners: Mapping[str, Corner], streets: Sequence[Street]) -> dict[str, list[Arm]]:
    rays: dict[str, list[Ray]] = {name: [] for name in corners}
    for street in streets:
        first, last = street.headings(corners)
        rays[street.start].append(Ray(street, True, first))
        rays[street.end].append(Ray(street, False, last + math.pi))
    arms: dict[str, list[Arm]] = {name: [] for name in corners}
    for street in streets:
        road = street_road(draft, corners, rays, street)
        arms[street.start].append(Arm(road, "start"))
        arms[street.end].append(Arm(road, "end"))
    for name, corner in corners.items():
        finish(draft, corner, arms[name])
    for road in draft.roads:
        if road.junction < 0 and road.profile.sidewalk_m:
            draft.speed_signs(road)
    return arms


def trim(corner: Corner, rays: Sequence[Ray], ray: Ray) -> float:
    """How far from the middle of a corner a street begins, so that every kerb there can be round."""
    if len(rays) == 1:
        return 0.0
    if corner.control == "roundabout":
        return RING_M + RING_LANE_M + 10.0
    room = 0.0
    for one in rays:
        for other in rays:
            angle = abs(wrapped(one.heading_rad - other.heading_rad))
            if one is not other and angle < math.radians(150):
                widest = max(one.street.profile.half_m, other.street.profile.half_m)
                room = max(room, (widest + CORNER_M) / math.tan(angle / 2))
    return max(room, 8.0)


def street_road(draft: Draft, corners: Mapping[str, Corner], rays: Mapping[str, Sequence[Ray]], street: Street) -> Road:
    first, last = corners[street.start], corners[street.end]
    out, into = street.headings(corners)
    start_ray = next(r for r in rays[street.start] if r.street is street and r.at_start)
    end_ray = next(r for r in rays[street.end] if r.street is street and not r.at_start)
    start = Place(first.x_m, first.y_m, out).moved(trim(first, rays[street.start], start_ray))
    end = Place(last.x_m, last.y_m, into).moved(-trim(last, rays[street.end], end_ray))
    pieces = through([start, *tangents(start, street.via, end), end])
    starts = [piece.s_m for piece in pieces] + [length_of(pieces)]
    heights = [first.z_m, *(z for _, _, z in street.via), last.z_m]
    rises = []
    for s, after, low, high in zip(starts, starts[1:], heights, heights[1:], strict=False):
        ((_, *factors),) = rise(low, high, after - s)
        rises.append((s, *factors))
    return draft.road(pieces, street.profile, rises)  # type: ignore[arg-type]


def tangents(start: Place, via: Sequence[tuple[float, float, float]], end: Place) -> list[Place]:
    points = [(start.x_m, start.y_m), *((x, y) for x, y, _ in via), (end.x_m, end.y_m)]
    return [
        Place(*points[i], math.atan2(points[i + 1][1] - points[i - 1][1], points[i + 1][0] - points[i - 1][0]))
        for i in range(1, len(points) - 1)
    ]


def through(places: Sequence[Place]) -> tuple[Geometry, ...]:
    pieces: list[Geometry] = []
    for before, after in pairwise(places):
        s = length_of(pieces) if pieces else 0.0
        at = end_of(pieces[-1]) if pieces else before
        for piece in between(at, after):
            pieces.append(Geometry(piece.kind, s + piece.s_m, *pose(piece), piece.length_m, piece.factors))
    return tuple(pieces)


def pose(piece: Geometry) -> tuple[float, float, float]:
    return piece.x_m, piece.y_m, piece.heading_rad


def finish(draft: Draft, corner: Corner, arms: Sequence[Arm]) -> None:
    if len(arms) == 2 and corner.control != "roundabout":
        draft.bend(*arms)
    elif corner.control == "roundabout":
        roundabout(draft, corner, arms)
    elif len(arms) > 2:
        junction = draft.junction(arms)
        for arm in arms:
            if arm.road.profile.sidewalk_m:
                draft.crosswalk(arm)
        if corner.control == "lights":
            draft.lights(junction, arms)
        elif corner.control in ("stop", "yield"):
            kind, name = ("206", "Sign_Stop") if corner.control == "stop" else ("205", "Sign_Yield")
            for arm in side_arms(arms):
                draft.sign(arm, kind, name)


def side_arms(arms: Sequence[Arm]) -> list[Arm]:
    """Those that have to wait: all but the two that lie most nearly in one line."""
    pairs = [(one, other) for i, one in enumerate(arms) for other in arms[i + 1 :]]
    main = max(pairs, key=lambda pair: abs(wrapped(pair[0].place.heading_rad - pair[1].place.heading_rad)))
    return [arm for arm in arms if arm not in main]


def roundabout(draft: Draft, corner: Corner, arms: Sequence[Arm]) -> None:
    """A ring, driven counter-clockwise, cut at every arm by a junction of three: ring in, ring out, and the arm."""
    inner = RING_M - RING_LANE_M / 2  # the ring's reference line is its left edge
    gap = math.radians(24)
    arms = sorted(arms, key=lambda arm: wrapped(arm.place.heading_rad + math.pi))
    outward = [wrapped(arm.place.heading_rad + math.pi) for arm in arms]
    level = ((0.0, corner.z_m, 0.0, 0.0, 0.0),)
    rings = []
    for i, angle in enumerate(outward):
        sweep = (outward[(i + 1) % len(arms)] - angle) % (2 * math.pi) - 2 * gap
        begin = angle + gap
        start = Place(corner.x_m + inner * math.cos(begin), corner.y_m + inner * math.sin(begin), begin + math.pi / 2)
        ring = RING if not arms[i].road.profile.sidewalk_m else Profile(0, 1, RING_LANE_M, 0.0, 2.0, 30)
        rings.append(draft.road(follow(start, [Bend(inner * sweep, 1 / inner, 1 / inner)]), ring, level))
    for i, arm in enumerate(arms):
        draft.junction([Arm(rings[i - 1], "end"), Arm(rings[i], "start"), arm])
        draft.sign(arm, "205", "Sign_Yield")
        if arm.road.profile.sidewalk_m:
            draft.crosswalk(arm)
