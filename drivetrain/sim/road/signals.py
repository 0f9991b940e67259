"""Lights, signs and things beside the road: where they stand, which lanes they hold, and where one has to stop.

A signal that stands on an approach holds the lanes of its orientation, at the place where it stands. One that stands
on (or is referred to by) a road inside a junction holds that road's lanes from where they begin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from drivetrain.sim.road.cubics import Floats
from drivetrain.sim.road.lanes import Ground, Lane, to_carla, wrap
from drivetrain.sim.road.opendrive import SPEED_MPS, ObjectRecord, OpenDrive, RoadRecord, SignalRecord

KINDS = {"1000001": "light", "1000011": "light", "206": "stop", "205": "yield", "274": "speed"}
STOP_BEFORE_END_M = 0.5


@dataclass(frozen=True)
class Signal:
    id: str
    kind: str  # light, stop, yield, speed; or its type as written
    road: str
    s_m: float
    t_m: float
    x_m: float
    y_m: float
    z_m: float  # of the ground below it
    z_offset_m: float
    heading_rad: float  # the way that those look who are meant by it
    speed_mps: float | None  # of a speed sign
    controllers: tuple[str, ...]
    lanes: tuple[int, ...]  # indices of the lanes it holds


@dataclass(frozen=True)
class StopLine:
    signal: str
    kind: str
    lane: int
    along_m: float  # along the lane, in the direction of travel
    s_m: float
    left: tuple[float, float, float]
    right: tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """An object beside the road, as a box: middle of its foot, turn, and full sizes."""

    kind: str
    x_m: float
    y_m: float
    z_m: float
    heading_rad: float
    length_m: float
    width_m: float
    height_m: float


def signals_of(opened: OpenDrive, lanes: list[Lane]) -> list[Signal]:
    of_road: dict[str, list[Lane]] = {}
    for lane in lanes:
        of_road.setdefault(lane.road, []).append(lane)
    controllers: dict[str, list[str]] = {}
    for controller, held in opened.controllers.items():
        for signal_id in held:
            controllers.setdefault(signal_id, []).append(controller)
    held_by: dict[str, list[int]] = {}
    stands: dict[str, tuple[RoadRecord, SignalRecord]] = {}
    for road in opened.roads.values():
        for record in road.signals:
            held_by.setdefault(record.id, []).extend(lane.index for lane in holds(road, record, of_road[road.id]))
            if not record.refers:
                stands[record.id] = (road, record)
    return [
        place(road, record, tuple(controllers.get(name, ())), tuple(dict.fromkeys(held_by[name])))
        for name, (road, record) in stands.items()
    ]


def holds(road: RoadRecord, record: SignalRecord, lanes: Iterable[Lane]) -> list[Lane]:
    held = []
    for lane in lanes:
        low, high = sorted((float(lane.s_m[0]), float(lane.s_m[-1])))
        here = low - 1e-3 <= record.s_m < high or (record.s_m >= high >= road.length_m - 1e-3)
        meant = record.orientation not in "+-" or (record.orientation == "+") == lane.runs_with_s
        named = not record.lanes or any(min(pair) <= lane.id <= max(pair) for pair in record.lanes)
        if here and meant and named and lane.is_drivable:
            held.append(lane)
    return held


def place(road: RoadRecord, record: SignalRecord, controllers: tuple[str, ...], lanes: tuple[int, ...]) -> Signal:
    at = np.array([min(max(record.s_m, 0.0), road.length_m)])
    ground, t = Ground(road, at), np.array([record.t_m])
    heading = float(ground.headings(t, np.zeros(1))[0]) - record.heading_offset_rad
    if record.orientation == "-":
        heading += math.pi
    x, y, z = ground.points(t)[0].tolist()
    kind = KINDS.get(record.type, record.type)
    return Signal(
        id=record.id,
        kind=kind,
        road=road.id,
        s_m=record.s_m,
        t_m=record.t_m,
        x_m=x,
        y_m=y,
        z_m=z,
        z_offset_m=record.z_offset_m,
        heading_rad=float(wrap(np.array(heading))),
        speed_mps=speed_of(record) if kind == "speed" else None,
        controllers=controllers,
        lanes=lanes,
    )


def speed_of(record: SignalRecord) -> float | None:
    """The number on a speed sign; German signs (274-55) carry it in the subtype where the value is left out."""
    if record.value is not None:
        return record.value * SPEED_MPS.get(record.unit or "km/h", 1 / 3.6)
    digits = "".join(c for c in record.subtype if c.isdigit())
    return float(digits) / 3.6 if digits else None


def stop_lines_of(opened: OpenDrive, lanes: list[Lane], signals: list[Signal]) -> list[StopLine]:
    return [
        stop_line(signal, lanes[index])
        for signal in signals
        if signal.kind in ("light", "stop", "yield")
        for index in signal.lanes
    ]


def stop_line(signal: Signal, lane: Lane) -> StopLine:
    if lane.junction:
        along = 0.0
    else:
        order = slice(None) if lane.runs_with_s else slice(None, None, -1)
        along = float(np.interp(signal.s_m, lane.s_m[order], lane.along_m[order]))
        along = max(0.0, min(along, lane.length_m - STOP_BEFORE_END_M))
    left, right = (
        tuple(float(np.interp(along, lane.along_m, axis)) for axis in edge.T) for edge in (lane.left, lane.right)
    )
    s = float(np.interp(along, lane.along_m, lane.s_m))
    return StopLine(signal.id, signal.kind, lane.index, along, s, left, right)  # type: ignore[arg-type]


def objects_of(opened: OpenDrive) -> list[Box]:
    """Those that stand up; crosswalks and painted things lie on the ground and are not among them."""
    boxes = []
    for road in opened.roads.values():
        for record in road.objects:
            if record.height_m <= 0 or record.type in ("crosswalk", "roadMark"):
                continue
            at, t = np.array([np.clip(record.s_m, 0.0, road.length_m)]), np.array([record.t_m])
            ground = Ground(road, at)
            x, y, z = ground.points(t, record.z_offset_m)[0].tolist()
            heading = float(ground.headings(t, np.zeros(1))[0]) - record.heading_rad
            sizes = (max(record.length_m, 0.1), max(record.width_m, 0.1), record.height_m)
            boxes.append(Box(record.type, x, y, z, float(wrap(np.array(heading))), *sizes))
    return boxes


def crosswalks_of(opened: OpenDrive) -> list[Floats]:
    found = [(road, record) for road in opened.roads.values() for record in road.objects if record.type == "crosswalk"]
    return [outline_of(road, record) for road, record in found if record.outline]


def outline_of(road: RoadRecord, record: ObjectRecord) -> Floats:
    """[N, 3] its corners on the ground."""
    corners = np.array(record.outline)
    if not record.outline_is_local:
        return Ground(road, np.clip(corners[:, 0], 0.0, road.length_m)).points(corners[:, 1], corners[:, 2])
    at = np.array([np.clip(record.s_m, 0.0, road.length_m)])
    ground = Ground(road, at)
    x, y, z = ground.points(np.array([record.t_m]), record.z_offset_m)[0]
    heading = float(ground.headings(np.array([record.t_m]), np.zeros(1))[0]) - record.heading_rad
    u, v, up = corners.T
    local, _ = to_carla(u, v, up, u)
    sin, cos = math.sin(heading), math.cos(heading)
    return np.stack(
        [x + local[:, 0] * cos - local[:, 1] * sin, y + local[:, 0] * sin + local[:, 1] * cos, z + local[:, 2]], axis=-1
    )
