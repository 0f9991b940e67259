"""The floor of a junction: what lies between the lanes that cross it.

Lanes that part leave wedges open. The floor is one outline, from arm to arm around the junction, along the outer edge of
the lane that leads around each corner, filled with triangles.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.road.cubics import Floats
from drivetrain.sim.road.lanes import Lane

if TYPE_CHECKING:
    from drivetrain.sim.road.map import RoadMap

FLOOR_BELOW_M = 0.02
End = tuple[str, bool]  # a road, and whether it is its end


def floors(roads: RoadMap) -> NDArray[np.float32]:
    inside: dict[str, list[Lane]] = {}
    for lane in roads.lanes:
        if lane.junction and lane.is_drivable and lane.predecessors and lane.successors:
            inside.setdefault(lane.junction, []).append(lane)
    parts = [np.zeros((0, 3, 3))]
    for lanes in inside.values():
        line = outline(roads, lanes)
        if len(line) > 2:
            parts.append(filled(line) - np.array([0.0, 0.0, FLOOR_BELOW_M]))
    return np.concatenate(parts).astype(np.float32)


def ends(roads: RoadMap, lane: Lane) -> tuple[End, End]:
    """The arms that a lane comes from and leads to."""
    before, after = roads.lanes[lane.predecessors[0]], roads.lanes[lane.successors[0]]
    return (before.road, before.runs_with_s), (after.road, not after.runs_with_s)


def outline(roads: RoadMap, lanes: list[Lane]) -> Floats:
    middle = np.mean([lane.centre.mean(0) for lane in lanes], axis=0)
    mouths: dict[End, list[Floats]] = {}
    for lane in lanes:
        first, last = ends(roads, lane)
        mouths.setdefault(first, []).extend([lane.left[0], lane.right[0]])
        mouths.setdefault(last, []).extend([lane.left[-1], lane.right[-1]])

    def angle(point: Floats) -> float:
        return math.atan2(point[1] - middle[1], point[0] - middle[0])

    order = sorted(mouths, key=lambda end: angle(np.mean(mouths[end], axis=0)))
    line: list[Floats] = []
    for here, after in zip(order, order[1:] + order[:1], strict=True):
        line += mouth(mouths[here], middle)
        line += list(corner(roads, lanes, here, after, middle))
    return np.array(line)


def mouth(points: list[Floats], middle: Floats) -> list[Floats]:
    """An arm's two outermost points, in growing angle about the middle."""
    towards = math.atan2(*(np.mean(points, axis=0) - middle)[1::-1])

    def turn(point: Floats) -> float:
        return (math.atan2(point[1] - middle[1], point[0] - middle[0]) - towards + math.pi) % (2 * math.pi)

    return [min(points, key=turn), max(points, key=turn)]


def corner(roads: RoadMap, lanes: list[Lane], here: End, after: End, middle: Floats) -> Floats:
    """The farthest edge of those lanes that join two arms side by side; nothing where none does."""
    edges = []
    for lane in lanes:
        pair = ends(roads, lane)
        if pair == (here, after):
            edges += [lane.left[1:-1], lane.right[1:-1]]
        elif pair == (after, here):
            edges += [lane.left[-2:0:-1], lane.right[-2:0:-1]]
    edges = [edge for edge in edges if len(edge)]
    if not edges:
        return np.zeros((0, 3))
    return max(edges, key=lambda edge: float(np.hypot(*(edge[:, :2] - middle[:2]).T).mean()))


def filled(line: Floats) -> Floats:
    """A simple outline [N, 3] as triangles, by cutting off ears; what folds over itself is left open."""
    flat = line[:, :2]
    area = float((flat[:, 0] * np.roll(flat[:, 1], -1) - flat[:, 1] * np.roll(flat[:, 0], -1)).sum())
    left = list(range(len(line))) if area > 0 else list(range(len(line)))[::-1]
    triangles = []
    while len(left) > 3:
        ear = next((i for i in range(len(left)) if is_ear(flat, left, i)), None)
        if ear is None:
            break
        triangles.append([left[ear - 1], left[ear], left[(ear + 1) % len(left)]])
        del left[ear]
    else:
        triangles.append(left)
    return line[np.array(triangles, dtype=int).reshape(-1, 3)]


def is_ear(flat: Floats, left: list[int], i: int) -> bool:
    a, b, c = flat[left[i - 1]], flat[left[i]], flat[left[(i + 1) % len(left)]]
    if turn(a, b, c) <= 1e-9:
        return bool(abs(turn(a, b, c)) <= 1e-9)
    others = flat[[k for k in left if k not in (left[i - 1], left[i], left[(i + 1) % len(left)])]].T
    inside = (turn(a, b, others) > 0) & (turn(b, c, others) > 0) & (turn(c, a, others) > 0)
    return not inside.any()


def turn(a: Floats, b: Floats, c: Floats) -> Floats:
    out: Floats = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    return out
