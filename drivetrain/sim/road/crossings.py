"""Lane invasion: which road marks a moving box came over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.road.cubics import Floats
from drivetrain.sim.road.lanes import Lane
from drivetrain.sim.road.opendrive import Mark

if TYPE_CHECKING:
    from drivetrain.sim.road.map import RoadMap


def marks_crossed(roads: RoadMap, before: Floats, after: Floats) -> list[Mark]:
    """The marks between the places of any corner before and after, each line once; what is not painted is no line."""
    x, y = np.concatenate([before, after]).mean(0)
    grid = roads.grid
    found: dict[tuple[str, int, int], Mark] = {}
    pieces = grid.near(float(x), float(y))
    for right, (first, last) in enumerate(((grid.left0, grid.left1), (grid.right0, grid.right1))):
        hit = crossing(before[:, None], after[:, None], first[None, pieces], last[None, pieces]).any(0)
        for piece in pieces[hit]:
            lane = roads.lanes[int(grid.lane[piece])]
            mark = lane.marks_at(float(grid.s0[piece] + grid.s1[piece]) / 2)[right]
            if mark.type != "none":
                found.setdefault((lane.road, lane.section, line_of(lane, bool(right))), mark)
    return list(found.values())


def line_of(lane: Lane, right: bool) -> int:
    """The id of the lane whose outer edge this is, 0 for the middle: the same from either side of the line."""
    outer_is_right = lane.is_right_of_centre == lane.runs_with_s
    if right == outer_is_right:
        return lane.id
    return lane.id - 1 if lane.id > 0 else lane.id + 1


def crossing(a: Floats, b: Floats, c: Floats, d: Floats) -> NDArray[np.bool_]:
    """Whether the stretches a-b and c-d cross, seen from above."""

    def turn(p: Floats, q: Floats, r: Floats) -> Floats:
        return (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])

    return (turn(a, b, c) * turn(a, b, d) < 0) & (turn(c, d, a) * turn(c, d, b) < 0)
