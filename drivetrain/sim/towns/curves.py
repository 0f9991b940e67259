"""Curves between two poses, in OpenDRIVE's frame: the pieces that our roads are made of.

`between` finds the one clothoid that leaves a pose in its heading and arrives at another in its heading (Bertolazzi and
Frego 2015, by Newton on one unknown). Where its curvature hardly changes it becomes an arc, and where there is none a
line: CARLA's client makes not-a-number of a spiral whose two curvatures are all but equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drivetrain.sim.road.planview import Geometry, clothoid

SAME_1PM = 1e-7  # curvatures nearer than this are one


@dataclass(frozen=True)
class Place:
    x_m: float
    y_m: float
    heading_rad: float

    def moved(self, ahead_m: float, left_m: float = 0.0) -> Place:
        sin, cos = math.sin(self.heading_rad), math.cos(self.heading_rad)
        return Place(self.x_m + ahead_m * cos - left_m * sin, self.y_m + ahead_m * sin + left_m * cos, self.heading_rad)

    def turned(self, by_rad: float) -> Place:
        return Place(self.x_m, self.y_m, self.heading_rad + by_rad)

    def distance_m(self, other: Place) -> float:
        return math.hypot(other.x_m - self.x_m, other.y_m - self.y_m)


@dataclass(frozen=True)
class Bend:
    """A piece of road whose curvature goes evenly from one value to another."""

    length_m: float
    first_1pm: float = 0.0
    last_1pm: float = 0.0


def follow(start: Place, bends: Sequence[Bend]) -> tuple[Geometry, ...]:
    pieces, s, at = [], 0.0, start
    for bend in bends:
        pieces.append(geometry(bend, s, at))
        s, at = s + bend.length_m, end_of(pieces[-1])
    return tuple(pieces)


def geometry(bend: Bend, s_m: float, at: Place) -> Geometry:
    pose = (s_m, at.x_m, at.y_m, at.heading_rad, bend.length_m)
    if abs(bend.first_1pm - bend.last_1pm) > SAME_1PM:
        return Geometry("spiral", *pose, (bend.first_1pm, bend.last_1pm))
    if abs(bend.first_1pm) > SAME_1PM:
        return Geometry("arc", *pose, (bend.first_1pm,))
    return Geometry("line", *pose)


def end_of(piece: Geometry) -> Place:
    line = piece.at(np.array([piece.s_m + piece.length_m]))
    return Place(float(line.x_m[0]), float(line.y_m[0]), float(line.heading_rad[0]))


def place_on(pieces: Sequence[Geometry], s_m: float) -> Place:
    piece = next((p for p in reversed(pieces) if p.s_m <= s_m), pieces[0])
    line = piece.at(np.array([s_m]))
    return Place(float(line.x_m[0]), float(line.y_m[0]), float(line.heading_rad[0]))


def length_of(pieces: Sequence[Geometry]) -> float:
    return pieces[-1].s_m + pieces[-1].length_m


def between(start: Place, end: Place) -> tuple[Geometry, ...]:
    gap = start.distance_m(end)
    toward = math.atan2(end.y_m - start.y_m, end.x_m - start.x_m)
    out, into = wrapped(start.heading_rad - toward), wrapped(end.heading_rad - toward)
    if max(abs(out), abs(into)) < 1e-9:
        return (Geometry("line", 0.0, start.x_m, start.y_m, start.heading_rad, gap),)
    turn = into - out
    sharp = 3.0 * (out + into)
    for _ in range(30):
        across, slope = offset(sharp, turn, out)
        sharp -= across / slope
        if abs(across) < 1e-13:
            break
    ahead, _ = unit_curve(sharp, turn, out)
    length = gap / ahead
    assert length > 0, (start, end)
    return (geometry(Bend(length, (turn - sharp) / length, (turn + sharp) / length), 0.0, start),)


def unit_curve(sharp: float, turn: float, out: float) -> tuple[float, float]:
    """The end of a curve of length 1 whose heading is out + (turn - sharp) t + sharp t^2."""
    u, v = clothoid(turn - sharp, 2 * sharp, np.ones(1))
    sin, cos = math.sin(out), math.cos(out)
    return float(u[0] * cos - v[0] * sin), float(u[0] * sin + v[0] * cos)


def offset(sharp: float, turn: float, out: float) -> tuple[float, float]:
    """How far the unit curve misses the straight way, and how that changes with its sharpness."""
    step = 1e-5
    low, high = unit_curve(sharp - step, turn, out)[1], unit_curve(sharp + step, turn, out)[1]
    return unit_curve(sharp, turn, out)[1], (high - low) / (2 * step)


def wrapped(angle_rad: float) -> float:
    return (angle_rad + math.pi) % (2 * math.pi) - math.pi
