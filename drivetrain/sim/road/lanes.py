"""Lanes as they lie on the ground: sampled along s, in the direction of travel, in CARLA's frame.

A road's lanes are computed for a whole lane section at once, at the same places along s for all of them, so that lanes
side by side share their edge to the bit. How close the places lie depends on how sharply the road turns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.road.cubics import Floats
from drivetrain.sim.road.opendrive import NO_MARK, LaneRecord, Mark, RoadRecord, SectionRecord

STRAIGHT_STEP_M, CURVED_STEP_M, SHORTEST_STEP_M = 5.0, 1.0, 0.25
SAG_M = 0.01  # how far a chord may lie off its arc
DEFAULT_SPEED_MPS = 50 / 3.6
DRIVABLE = frozenset({"driving", "bidirectional", "entry", "exit", "onRamp", "offRamp", "connectingRamp"})


@dataclass(eq=False)
class Lane:
    """One lane of one lane section. Arrays run in the direction of travel; points are x, y, z in CARLA's frame."""

    index: int  # in `RoadMap.lanes`
    road: str
    section: int
    id: int
    type: str
    junction: str  # empty outside of junctions
    runs_with_s: bool
    s_m: Floats  # [N] along the road, falling where the lane runs against it
    centre: Floats  # [N, 3]
    left: Floats  # [N, 3] its edge at the left of someone who drives in it
    right: Floats  # [N, 3]
    heading_rad: Floats  # [N] of the centre line
    pitch_rad: Floats  # [N] up is positive
    width_m: Floats  # [N]
    along_m: Floats  # [N] length of the centre line so far
    speed_limit_mps: float
    left_marks: tuple[Mark, ...]
    right_marks: tuple[Mark, ...]
    is_right_of_centre: bool  # its id is negative
    left_lane: int | None = None  # the lane beside it, as an index, whichever way it runs
    right_lane: int | None = None
    successors: list[int] = field(default_factory=list)
    predecessors: list[int] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, int, int]:
        return self.road, self.section, self.id

    @property
    def is_drivable(self) -> bool:
        return self.type in DRIVABLE

    @property
    def length_m(self) -> float:
        return float(self.along_m[-1])

    def marks_at(self, s_m: float) -> tuple[Mark, Mark]:
        return mark_at(self.left_marks, s_m), mark_at(self.right_marks, s_m)

    def lane_change_at(self, s_m: float) -> tuple[bool, bool]:
        """Whether the marks let one cross to the left, to the right."""
        left, right = self.marks_at(s_m)
        up = (
            self.runs_with_s
        )  # to the left means to a higher id for who drives along s, to a lower one for who does not
        return crosses(left, rising=up), crosses(right, rising=not up)


def mark_at(marks: tuple[Mark, ...], s_m: float) -> Mark:
    found = NO_MARK
    for mark in marks:
        if mark.s_m > s_m + 1e-9 and found is not NO_MARK:
            break
        found = mark
    return found


def crosses(mark: Mark, rising: bool) -> bool:
    return mark.lane_change == "both" or mark.lane_change == ("increase" if rising else "decrease")


def to_carla(x_m: Floats, y_m: Floats, z_m: Floats, heading_rad: Floats) -> tuple[Floats, Floats]:
    """OpenDRIVE's frame becomes CARLA's here, and nowhere else: points [..., 3] and headings."""
    return np.stack([x_m, -y_m, z_m], axis=-1), -heading_rad


@dataclass(frozen=True)
class Ground:
    """A road's surface over a set of s: what turns (s, t) into points."""

    road: RoadRecord
    s_m: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "line", self.road.plan.at(self.s_m))

    def points(self, t_m: Floats, height_m: Floats | float = 0.0) -> Floats:
        line = self.line  # type: ignore[attr-defined]
        z = self.road.elevation.value(self.s_m) + cross_fall(self.road, self.s_m, t_m) + height_m
        sin, cos = np.sin(line.heading_rad), np.cos(line.heading_rad)
        return to_carla(line.x_m - t_m * sin, line.y_m + t_m * cos, z, line.heading_rad)[0]

    def headings(self, t_m: Floats, t_slope: Floats) -> Floats:
        """Of a line that lies at t and drifts sideways by t_slope."""
        line = self.line  # type: ignore[attr-defined]
        drift = np.arctan2(t_slope, np.maximum(1 - line.curvature_1pm * t_m, 1e-3))
        zero = np.zeros_like(t_m)
        return to_carla(zero, zero, zero, line.heading_rad + drift)[1]


def cross_fall(road: RoadRecord, s_m: Floats, t_m: Floats) -> Floats:
    """Height that superelevation and lateral shape add at t."""
    fall = t_m * np.tan(road.superelevation.value(s_m)) if road.superelevation else np.zeros_like(t_m)
    if not road.shape:
        return fall
    places = np.array([s for s, _ in road.shape])
    heights = np.stack([shape.value(t_m) for _, shape in road.shape])  # [K, N]
    before = np.clip(np.searchsorted(places, s_m, side="right") - 1, 0, len(places) - 1)
    after = np.minimum(before + 1, len(places) - 1)
    gap = places[after] - places[before]
    share = np.clip(np.divide(s_m - places[before], gap, out=np.zeros_like(s_m), where=gap > 0), 0.0, 1.0)
    column = np.arange(len(s_m))
    return fall + heights[before, column] * (1 - share) + heights[after, column] * share


def lanes_of(road: RoadRecord, first_index: int) -> Iterator[Lane]:
    for number, section in enumerate(road.sections):
        s = sample(road, section)
        ground = Ground(road, s)
        edges = edges_of(road, section, s)
        for lane_id in sorted(section.lanes):
            if lane_id:
                yield lane_of(road, number, section.lanes[lane_id], ground, edges, first_index)
                first_index += 1


Edge = tuple[Floats, Floats]  # t, and how t changes along s


def edges_of(road: RoadRecord, section: SectionRecord, s_m: Floats) -> dict[int, Edge]:
    """The outer edge of each lane; of lane 0, the line that both sides start from."""
    edges = {0: (road.offset.value(s_m), road.offset.slope(s_m))}
    for side in (1, -1):
        for lane_id in sorted((i for i in section.lanes if i * side > 0), key=abs):
            lane, (t, slope) = section.lanes[lane_id], edges[lane_id - side]
            if lane.widths:
                width = lane.widths.value(s_m)
                edges[lane_id] = t + side * np.maximum(width, 0.0), slope + side * lane.widths.slope(s_m)
            else:
                edges[lane_id] = lane.borders.value(s_m), lane.borders.slope(s_m)
    return edges


def sample(road: RoadRecord, section: SectionRecord) -> Floats:
    """Places along s, with every place where something starts among them."""
    start, end = section.s_m, section.end_m
    across = [lane.widths for lane in section.lanes.values()] + [lane.borders for lane in section.lanes.values()]
    breaks = [start, end]
    for starts in (
        [piece.s_m for piece in road.plan.pieces],
        *(profile.start.tolist() for profile in (road.elevation, road.superelevation, road.offset, *across)),
        [s for s, _ in road.shape],
    ):
        breaks += [s for s in starts if start + 1e-6 < s < end - 1e-6]
    breaks = sorted(set(breaks))
    bends = not all(profile.is_linear for profile in (road.elevation, road.superelevation, road.offset, *across))
    widest = max((float(np.abs(t).max()) for t, _ in edges_of(road, section, np.array([start, end])).values()))
    pieces = []
    for low, high in pairwise(breaks):
        step = step_of(road, (low + high) / 2, widest, bends)
        pieces.append(np.linspace(low, high, 1 + max(1, math.ceil((high - low) / step)))[:-1])
    return np.concatenate([*pieces, [end]])


def step_of(road: RoadRecord, s_m: float, widest_m: float, bends: bool) -> float:
    piece = next((p for p in reversed(road.plan.pieces) if p.s_m <= s_m), road.plan.pieces[0])
    sharpest = piece.sharpest_1pm()
    if sharpest < 1e-6:
        return CURVED_STEP_M if bends else STRAIGHT_STEP_M
    outward = sharpest / (1 + sharpest * widest_m)
    step = math.sqrt(8 * SAG_M / sharpest * min(1.0, outward / sharpest * 2))
    return min(max(step, SHORTEST_STEP_M), CURVED_STEP_M if bends else STRAIGHT_STEP_M)


def lane_of(
    road: RoadRecord, section: int, lane: LaneRecord, ground: Ground, edges: dict[int, Edge], index: int
) -> Lane:
    inner_id = lane.id - 1 if lane.id > 0 else lane.id + 1
    (t_in, slope_in), (t_out, slope_out) = edges[inner_id], edges[lane.id]
    h_in, h_out = heights_of(lane, ground.s_m)
    inner, outer = ground.points(t_in, h_in), ground.points(t_out, h_out)
    t, slope = (t_in + t_out) / 2, (slope_in + slope_out) / 2
    centre, heading = ground.points(t, (h_in + h_out) / 2), ground.headings(t, slope)
    rise = road.elevation.slope(ground.s_m)
    runs_with_s = (lane.id < 0) == road.is_rht
    outer_is_right = (lane.id < 0) == runs_with_s
    inner_marks, outer_marks = marks_of(road, section, inner_id), marks_of(road, section, lane.id)
    order = slice(None) if runs_with_s else slice(None, None, -1)
    steps = np.hypot(*np.diff(centre[order, :2], axis=0).T)
    return Lane(
        index=index,
        road=road.id,
        section=section,
        id=lane.id,
        type=lane.type,
        junction=road.junction,
        runs_with_s=runs_with_s,
        s_m=ground.s_m[order],
        centre=centre[order],
        left=(inner if outer_is_right else outer)[order],
        right=(outer if outer_is_right else inner)[order],
        heading_rad=wrap(np.unwrap(heading[order]) + (0.0 if runs_with_s else math.pi)),
        pitch_rad=np.arctan(rise if runs_with_s else -rise)[order],
        width_m=np.abs(t_out - t_in)[order],
        along_m=np.concatenate([[0.0], np.cumsum(steps)]),
        speed_limit_mps=speed_of(road, lane),
        left_marks=inner_marks if outer_is_right else outer_marks,
        right_marks=outer_marks if outer_is_right else inner_marks,
        is_right_of_centre=lane.id < 0,
    )


def heights_of(lane: LaneRecord, s_m: Floats) -> tuple[Floats, Floats]:
    if not lane.heights:
        return np.zeros_like(s_m), np.zeros_like(s_m)
    starts, inner, outer = np.array(lane.heights).T
    at = np.maximum(np.searchsorted(starts, s_m, side="right") - 1, 0)
    return inner[at], outer[at]


def marks_of(road: RoadRecord, section: int, lane_id: int) -> tuple[Mark, ...]:
    lane = road.sections[section].lanes.get(lane_id)
    return lane.marks if lane else ()


def speed_of(road: RoadRecord, lane: LaneRecord) -> float:
    if lane.speeds:
        return lane.speeds[0][1]
    return road.speeds[0][1] if road.speeds else DEFAULT_SPEED_MPS


def wrap(angle_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Into -pi..pi."""
    return (angle_rad + np.pi) % (2 * np.pi) - np.pi
