"""What stands beside the roads: houses, trees, lamps and smaller things, as boxes, in CARLA's frame.

Along every street houses are set in a row behind the sidewalk and trees and lamps before them; in the country trees
stand about. A thing is put down only where its footprint, and a margin, is clear of every lane and of the others.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from drivetrain.sim.road.cubics import Floats
from drivetrain.sim.road.lanes import Lane
from drivetrain.sim.road.map import RoadMap
from drivetrain.sim.road.surfaces import lowest, sheet

MARGIN_M = 0.3
LANE_M = 5.0  # whatever stands in a lane has an edge nearer than this
CELL_M = 8.0
SUNK_M = 0.3
Color = tuple[int, int, int]
WALLS: tuple[Color, ...] = (
    (178, 92, 70), (201, 178, 140), (158, 160, 165), (214, 205, 190), (140, 105, 85), (188, 150, 110), (120, 130, 145),
)  # fmt: skip
LEAVES: tuple[Color, ...] = ((52, 92, 40), (66, 110, 48), (80, 118, 52), (45, 80, 45))
WOOD: Color = (92, 70, 50)
METAL: Color = (90, 92, 96)


@dataclass(frozen=True)
class Thing:
    """A box. x, y, z are its middle, the extents half its sizes, as CARLA's bounding boxes have them."""

    kind: str  # building, tree_trunk, tree_crown, lamp, bench, bin, hydrant, barrier, rock
    x_m: float
    y_m: float
    z_m: float
    yaw_deg: float
    extent_x_m: float
    extent_y_m: float
    extent_z_m: float
    color: Color


@dataclass(frozen=True)
class Kind:
    """What grows beside the streets of a place."""

    houses: bool
    lamps: bool
    trees: tuple[tuple[float, float], ...]  # how many along 100 m, and how far from the road


TOWN = Kind(houses=True, lamps=True, trees=((6.0, 3.0), (8.0, 45.0)))
COUNTRYSIDE = Kind(houses=False, lamps=False, trees=((3.0, 12.0), (14.0, 80.0)))


class Plot:
    """The ground that is still free."""

    def __init__(self, roads: RoadMap):
        self.roads = roads
        self.cells: dict[tuple[int, int], list[tuple[Floats, Thing]]] = {}
        self.places, self.half = lowest(roads)
        edges = [edge for lane in roads.lanes if roads.paved[lane.index] for edge in (lane.left, lane.right)]
        points = np.concatenate([dense(edge) for edge in edges])[:, :2]
        self.kerbs: dict[tuple[int, int], Floats] = {}
        cell = np.floor(points / CELL_M).astype(int)
        order = np.lexsort(cell.T)
        cuts = np.flatnonzero(np.diff(cell[order], axis=0).any(1)) + 1
        for part in np.split(order, cuts):
            self.kerbs[tuple(cell[part[0]].tolist())] = points[part]

    def ground_m(self, x_m: float, y_m: float) -> float:
        return float(sheet(np.array([[x_m, y_m]]), self.places, self.half)[0])

    def is_free(self, corners: Floats, margin_m: float = MARGIN_M) -> bool:
        """`corners` [4, 2]: no lane and no other thing in it."""
        for cell in cells_of(corners, margin_m):
            kerb = self.kerbs.get(cell)
            if kerb is not None and in_box(kerb, corners, margin_m).any():
                return False
        if any(cell in self.kerbs for cell in cells_of(corners, LANE_M)):
            points = np.concatenate([corners, corners.mean(0, keepdims=True)])
            if self.roads.nearest_lanes(points, self.roads.paved).inside.any():
                return False
        return not any(overlap(corners, other, margin_m) for other in self.around(corners))

    def around(self, corners: Floats) -> Iterator[Floats]:
        seen: set[int] = set()
        for cell in cells_of(corners):
            for other, _ in self.cells.get(cell, ()):
                if id(other) not in seen:
                    seen.add(id(other))
                    yield other

    def put(self, corners: Floats, thing: Thing) -> None:
        for cell in cells_of(corners):
            self.cells.setdefault(cell, []).append((corners, thing))


def scenery(name: str, roads: RoadMap, kind: Kind) -> list[Thing]:
    draw, plot = random.Random(f"scenery of {name}"), Plot(roads)
    things: list[Thing] = []
    sides = [lane for lane in roads.lanes if is_outermost(roads, lane) and not lane.junction]
    if kind.houses:
        for lane in sides:
            things += houses(draw, plot, lane)
    for lane in sides:
        for per_100m, reach_m in kind.trees:
            things += trees(draw, plot, lane, per_100m, reach_m)
        if kind.lamps and lane.type == "sidewalk":
            things += furniture(draw, plot, lane)
    if not kind.houses:
        things += barriers(plot, roads)
    return things


def is_outermost(roads: RoadMap, lane: Lane) -> bool:
    outward = lane.right_lane if lane.is_right_of_centre == lane.runs_with_s else lane.left_lane
    return outward is None and lane.type in ("sidewalk", "shoulder")


def outer_edge(lane: Lane) -> tuple[Floats, int]:
    """Its points, and at which side of the direction of travel the open land is."""
    outer_is_right = lane.is_right_of_centre == lane.runs_with_s
    return (lane.right, 1) if outer_is_right else (lane.left, -1)


def beside(lane: Lane, along_m: float, off_m: float) -> tuple[float, float, float]:
    """A place off the outer edge of a lane, and the lane's heading there."""
    edge, side = outer_edge(lane)
    x, y = (float(np.interp(along_m, lane.along_m, axis)) for axis in edge.T[:2])
    heading = float(np.interp(along_m, lane.along_m, np.unwrap(lane.heading_rad)))
    return x - side * off_m * math.sin(heading), y + side * off_m * math.cos(heading), heading


def houses(draw: random.Random, plot: Plot, lane: Lane) -> Iterator[Thing]:
    along = draw.uniform(0.0, 4.0)
    while along < lane.length_m:
        front, deep, high = draw.uniform(9.0, 20.0), draw.uniform(9.0, 14.0), 3.2 * draw.randint(1, 5) + 2.0
        gap = draw.uniform(3.0, 5.0)
        x, y, heading = beside(lane, along + front / 2, gap + deep / 2)
        corners = corners_of(x, y, heading, front / 2, deep / 2)
        if plot.is_free(corners, 1.0):
            z = plot.ground_m(x, y) - SUNK_M
            color = draw.choice(WALLS)
            thing = Thing("building", x, y, z + high / 2, math.degrees(heading), front / 2, deep / 2, high / 2, color)
            plot.put(corners, thing)
            yield thing
            along += front + draw.uniform(1.5, 8.0)
        else:
            along += 4.0


def trees(draw: random.Random, plot: Plot, lane: Lane, per_100m: float, reach_m: float) -> Iterator[Thing]:
    count = int(lane.length_m / 100 * per_100m + draw.random())
    for _ in range(count):
        off = 1.2 + (reach_m - 1.2) * draw.random() ** 1.5
        x, y, heading = beside(lane, draw.uniform(0.0, lane.length_m), off)
        tall, wide, stem = draw.uniform(4.0, 9.0), draw.uniform(1.2, 2.4), draw.uniform(0.15, 0.3)
        wide = min(wide, off)
        corners = corners_of(x, y, heading, max(stem, wide * 0.6), max(stem, wide * 0.6))
        if not plot.is_free(corners):
            continue
        z = plot.ground_m(x, y) - SUNK_M
        yaw, bare = math.degrees(heading), 0.35 * tall
        trunk = Thing("tree_trunk", x, y, z + bare / 2, yaw, stem, stem, bare / 2, WOOD)
        half = wide * 0.6
        crown = Thing(
            "tree_crown", x, y, z + (bare + tall) / 2, yaw, half, half, (tall - bare) / 2, draw.choice(LEAVES)
        )
        plot.put(corners, trunk)
        yield from (trunk, crown)


SMALL: tuple[tuple[str, float, float, float, Color], ...] = (
    ("bench", 0.9, 0.25, 0.45, (110, 80, 50)),
    ("bin", 0.25, 0.25, 0.5, (60, 80, 60)),
    ("hydrant", 0.15, 0.15, 0.4, (190, 40, 30)),
)


def furniture(draw: random.Random, plot: Plot, lane: Lane) -> Iterator[Thing]:
    for along in np.arange(12.0, lane.length_m - 6.0, 25.0).tolist():
        x, y, heading = beside(lane, along, 0.55)
        yield from put(plot, "lamp", x, y, heading, (0.08, 0.08, 3.0), METAL)
        if draw.random() < 0.5:
            kind, length, width, height, color = draw.choice(SMALL)
            x, y, heading = beside(lane, along + draw.uniform(3.0, 9.0), 0.75)
            yield from put(plot, kind, x, y, heading, (length, width, height), color)


def barriers(plot: Plot, roads: RoadMap) -> Iterator[Thing]:
    """A low wall along the left of one-way roads that are fast: a motorway's median."""
    for lane in roads.lanes:
        if lane.junction or lane.speed_limit_mps < 25.0 or lane.left_lane is not None or not lane.is_drivable:
            continue
        for along in np.arange(5.0, lane.length_m - 4.0, 9.0).tolist():
            at = roads.pose_at(lane, along)
            heading, off = math.radians(at.yaw_deg), float(lane.width_m[0]) / 2 + 1.2
            x, y = at.x_m + off * math.sin(heading), at.y_m - off * math.cos(heading)
            yield from put(plot, "barrier", x, y, heading, (3.8, 0.15, 0.45), (150, 150, 150))


def put(
    plot: Plot, kind: str, x: float, y: float, heading: float, half: tuple[float, float, float], color: Color
) -> Iterator[Thing]:
    corners = corners_of(x, y, heading, half[0], half[1])
    if plot.is_free(corners, 0.1):
        thing = Thing(kind, x, y, plot.ground_m(x, y) + half[2], math.degrees(heading), *half, color)
        plot.put(corners, thing)
        yield thing


def corners_of(x: float, y: float, heading: float, half_x: float, half_y: float) -> Floats:
    ahead = np.array([math.cos(heading), math.sin(heading)]) * half_x
    side = np.array([-math.sin(heading), math.cos(heading)]) * half_y
    return np.array([x, y]) + np.stack([ahead + side, ahead - side, -ahead - side, -ahead + side])


def footprint(thing: Thing) -> Floats:
    """[4, 2] its corners, seen from above."""
    return corners_of(thing.x_m, thing.y_m, math.radians(thing.yaw_deg), thing.extent_x_m, thing.extent_y_m)


def in_box(points: Floats, corners: Floats, margin_m: float) -> np.ndarray:
    middle = corners.mean(0)
    near = points - middle
    a, b = corners[0] - corners[3], corners[0] - corners[1]
    long, wide = float(np.hypot(*a)), float(np.hypot(*b))
    return (np.abs(near @ a) / long <= long / 2 + margin_m) & (np.abs(near @ b) / wide <= wide / 2 + margin_m)


def overlap(one: Floats, other: Floats, margin_m: float) -> bool:
    """Two boxes overlap unless some edge of either parts them."""
    for box in (one, other):
        for i in (0, 1):
            axis = box[i] - box[i + 1]
            axis = axis / np.hypot(*axis)
            a, b = one @ axis, other @ axis
            if a.max() + margin_m < b.min() or b.max() + margin_m < a.min():
                return False
    return True


def cells_of(corners: Floats, margin_m: float = 1.0) -> list[tuple[int, int]]:
    low = np.floor((corners.min(0) - margin_m) / CELL_M).astype(int).tolist()
    high = np.floor((corners.max(0) + margin_m) / CELL_M).astype(int).tolist()
    return [(i, j) for i in range(low[0], high[0] + 1) for j in range(low[1], high[1] + 1)]


def dense(edge: Floats) -> Floats:
    """A point at least every metre."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(edge[:, :2], axis=0).T))])
    at = np.linspace(0.0, length[-1], 2 + int(length[-1]))
    return np.stack([np.interp(at, length, axis) for axis in edge.T], axis=1)
