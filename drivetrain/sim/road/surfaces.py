"""What a renderer draws of a map: triangles, float32 [N, 3, 3], in CARLA's frame.

Paint lies PAINT_M over the road, so that a depth buffer can tell them apart. The ground is a coarse sheet that stays
below every road and rises no steeper than a bank between a low road and a high one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.road.cubics import Floats
from drivetrain.sim.road.junction_floor import floors
from drivetrain.sim.road.lanes import Lane
from drivetrain.sim.road.opendrive import Mark

if TYPE_CHECKING:
    from drivetrain.sim.road.map import RoadMap

PAINT_M = 0.01
STOP_LINE_M = 0.4
STRIPE_M, STRIPE_GAP_M = 0.5, 0.5
GROUND_CELL_M, GROUND_MARGIN_M, GROUND_BELOW_M = 10.0, 120.0, 0.15
GROUND_CELLS = 200  # across, at most
BANK = 0.5  # the steepest ground
PLACE_M = 5.0
FLAT_M = 0.5  # what differs by less is kerbs
VERGE_M = 15.0  # beside a road the ground is level for so far
Triangles = NDArray[np.float32]
UP = np.array([0.0, 0.0, 1.0])
PAINT = UP * PAINT_M
EMPTY: Triangles = np.zeros((0, 3, 3), np.float32)


@dataclass(frozen=True)
class Surfaces:
    lanes: dict[str, Triangles]  # by lane type
    kerbs: Triangles  # upright, between lanes of different height
    marks: dict[tuple[str, str], Triangles]  # by type (solid, broken, ...) and colour
    stop_lines: Triangles
    crosswalks: Triangles
    floors: Triangles  # of junctions, a little below their lanes
    ground: Triangles


def surfaces_of(roads: RoadMap) -> Surfaces:
    by_type: dict[str, list[Triangles]] = {}
    kerbs: list[Triangles] = []
    marks: dict[tuple[str, str], list[Triangles]] = {}
    for lane in roads.lanes:
        if lane.type != "none" and lane.width_m.max() > 1e-3:
            by_type.setdefault(lane.type, []).append(band(lane.left, lane.right))
            kerbs.append(kerb(roads, lane))
        for key, strips in painted(lane):
            marks.setdefault(key, []).append(strips)
    return Surfaces(
        lanes={kind: np.concatenate(parts) for kind, parts in by_type.items()},
        kerbs=np.concatenate([EMPTY, *kerbs]),
        marks={key: np.concatenate(parts) for key, parts in marks.items()},
        stop_lines=np.concatenate([EMPTY, *(stop_line(roads, i) for i in range(len(roads.stop_lines)))]),
        crosswalks=np.concatenate([EMPTY, *(stripes(outline) for outline in roads.crosswalks)]),
        floors=floors(roads),
        ground=ground(roads),
    )


def band(left: Floats, right: Floats) -> Triangles:
    """Two edges [N, 3] become 2 (N - 1) triangles, less those without area."""
    a, b, c, d = left[:-1], left[1:], right[:-1], right[1:]
    triangles = np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)])
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
    return triangles[area > 1e-9].astype(np.float32)


def kerb(roads: RoadMap, lane: Lane) -> Triangles:
    """The step up to a lane from the one on its inner side, and its outer face where nothing lies beside it."""
    record = roads.opened.roads[lane.road].sections[lane.section].lanes[lane.id]
    raised = max((max(inner, outer) for _, inner, outer in record.heights), default=0.0)
    parts = [EMPTY]
    for edge, beside in ((lane.left, lane.left_lane), (lane.right, lane.right_lane)):
        if beside is None:
            parts.append(band(edge, edge - UP * (raised + GROUND_BELOW_M)) if raised else EMPTY)
        elif lane.index < beside:
            face = nearer_edge(roads.lanes[beside], edge)
            parts.append(band(edge, face) if np.abs(face[:, 2] - edge[:, 2]).max() > 0.01 else EMPTY)
    return np.concatenate(parts)


def nearer_edge(other: Lane, edge: Floats) -> Floats:
    """The edge of the lane beside, in the same order as this one."""
    options = [line[::step] for line in (other.left, other.right) for step in (1, -1)]
    return min(options, key=lambda line: float(np.abs(line[:, :2] - edge[:, :2]).sum()))


def painted(lane: Lane) -> list[tuple[tuple[str, str], Triangles]]:
    """A lane's own marks: those of its outer edge, and of the middle of the road where it lies beside it."""
    outer_is_right = lane.is_right_of_centre == lane.runs_with_s
    sides = [(lane.right, lane.right_marks), (lane.left, lane.left_marks)]
    outer, inner = sides if outer_is_right else sides[::-1]
    draws_middle = lane.id == -1 or (lane.id == 1 and lane.right_lane is None and lane.left_lane is None)
    order = slice(None) if lane.runs_with_s else slice(None, None, -1)
    s = lane.s_m[order]
    found = []
    for edge, marks in (outer, inner) if draws_middle else (outer,):
        ends = [*(mark.s_m for mark in marks[1:]), float(s[-1])]
        for mark, end in zip(marks, ends, strict=False):
            if mark.type not in ("none", "curb", "grass") and end > mark.s_m:
                found.append(((mark.type, mark.color), strips_of(mark, edge[order], s, min(end, float(s[-1])))))
    return found


def strips_of(mark: Mark, edge: Floats, s_m: Floats, end_m: float) -> Triangles:
    lines = mark.type.split()
    offsets = (0.0,) if len(lines) == 1 else (-mark.width_m, mark.width_m)
    parts = [EMPTY]
    for line, offset in zip(lines, offsets, strict=False):
        start = max(mark.s_m, float(s_m[0]))
        if line == "broken":
            first = np.arange(start + mark.gap_m / 2, end_m, mark.dash_m + mark.gap_m)
            spans = [(a, min(a + mark.dash_m, end_m)) for a in first.tolist()]
        else:
            spans = [(start, end_m)]
        parts += [strip(edge, s_m, a, b, offset, mark.width_m) for a, b in spans]
    return np.concatenate(parts)


def strip(edge: Floats, s_m: Floats, start_m: float, end_m: float, offset_m: float, width_m: float) -> Triangles:
    inner = s_m[(s_m > start_m + 1e-6) & (s_m < end_m - 1e-6)]
    at = np.concatenate([[start_m], inner, [end_m]])
    line = np.stack([np.interp(at, s_m, axis) for axis in edge.T], axis=1)
    ahead = np.gradient(line[:, :2], axis=0)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    across = np.stack([-ahead[:, 1], ahead[:, 0], np.zeros(len(at))], axis=1)
    line = line + offset_m * across + PAINT
    return band(line - across * width_m / 2, line + across * width_m / 2)


def stop_line(roads: RoadMap, index: int) -> Triangles:
    line = roads.stop_lines[index]
    lane = roads.lanes[line.lane]
    if line.kind == "yield" or lane.junction:
        return EMPTY
    along = np.array([line.along_m - STOP_LINE_M, line.along_m])
    left, right = (
        np.stack([np.interp(along, lane.along_m, axis) for axis in e.T], axis=1) for e in (lane.left, lane.right)
    )
    inset = (right - left) * 0.05
    return band(left + inset + PAINT, right - inset + PAINT)


def stripes(outline: Floats) -> Triangles:
    """A crosswalk of four corners: bars side by side across the way that people walk, which is its longer way."""
    corners = outline[:4]
    if np.linalg.norm(corners[1] - corners[0]) < np.linalg.norm(corners[2] - corners[1]):
        corners = np.roll(corners, -1, axis=0)
    a, b, c, d = corners
    count = max(1, int(np.linalg.norm(b - a) / (STRIPE_M + STRIPE_GAP_M)))
    low = (np.arange(count) + 0.25) / count
    high = low + 0.5 / count
    parts = [EMPTY]
    for u, v in zip(low.tolist(), high.tolist(), strict=True):
        near, far = np.stack([a + u * (b - a), a + v * (b - a)]), np.stack([d + u * (c - d), d + v * (c - d)])
        parts.append(band(near + PAINT, far + PAINT))
    return np.concatenate(parts)


def ground(roads: RoadMap) -> Triangles:
    places, half = lowest(roads)
    low, high = places[:, :2].min(0) - GROUND_MARGIN_M, places[:, :2].max(0) + GROUND_MARGIN_M
    if np.ptp(places[:, 2]) < FLAT_M:
        x, y = np.array([low[0], high[0]]), np.array([low[1], high[1]])
        z = np.full((2, 2), places[:, 2].min() - GROUND_BELOW_M)
    else:
        cell = max(GROUND_CELL_M, float((high - low).max()) / GROUND_CELLS)
        x, y = (np.arange(low[i], high[i] + cell, cell) for i in (0, 1))
        z = np.stack([sheet(np.stack([np.full_like(y, at), y], axis=1), places, half) for at in x])
    points = np.stack([*np.meshgrid(x, y, indexing="ij"), z], axis=-1)  # [X, Y, 3]
    return np.concatenate([band(points[i], points[i + 1]) for i in range(len(x) - 1)])


def lowest(roads: RoadMap) -> tuple[Floats, Floats]:
    """Of the lowest lanes, one place [N, 3] in every few metres, and half the lane's width there: what `sheet` takes."""
    grid = roads.grid
    paved = np.flatnonzero(roads.paved[grid.lane])
    places, half = grid.p0[paved], grid.w0[paved] / 2
    order = np.argsort(places[:, 2], kind="stable")
    _, first = np.unique(np.floor(places[order, :2] / PLACE_M), axis=0, return_index=True)
    return places[order[first]], half[order[first]]


def sheet(points: Floats, places: Floats, half_m: Floats) -> Floats:
    """The highest ground under points [N, 2] that leaves every road free."""
    far = np.hypot(points[:, None, 0] - places[None, :, 0], points[:, None, 1] - places[None, :, 1])
    rise = BANK * np.maximum(far - half_m - VERGE_M, 0.0)
    return np.minimum((places[:, 2] + rise).min(1), places[:, 2].max()) - GROUND_BELOW_M
