"""What stands beside the roads and cannot be moved: houses, trunks, poles. Vehicles and walkers run into it.

A rooted thing has no actor on the wire; where a collision names one, it is CARLA's number 0 with a type such as
`static.building`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.actors import NO_BOX, Actor, Kind
from drivetrain.sim.lights import LightPlace
from drivetrain.sim.protocol.structs import ActorDescription, Transform
from drivetrain.sim.road.map import RoadMap
from drivetrain.sim.squares import OFTEN, Doubles
from drivetrain.sim.towns.scenery import Thing

CELL_M = 32.0
POLE_M = (0.1, 1.5)  # half the width and the height of a sign's or a light's
TYPES = {"building": "building", "tree_trunk": "vegetation", "lamp": "pole", "barrier": "guardrail"}
TAGS = {"building": 3, "vegetation": 9, "pole": 6, "guardrail": 28, "static": 20}
KINDS = {tag: kind for kind, tag in TAGS.items()}
Row = tuple[float, float, float, float, float, float, float]


class Rooted:
    """Boxes as in `collisions.Boxes`, [N, 7], and whom a collision with each names."""

    def __init__(self, rows: Sequence[tuple[str, Row]]):
        self.rows: Doubles = np.array([row for _, row in rows], np.float64).reshape(-1, 7)
        kinds = {kind: somebody(kind) for kind, _ in rows}
        self.actors = [kinds[kind] for kind, _ in rows]
        cell = np.floor(self.rows[:, :2] / CELL_M).astype(np.int64)
        self.low = cell.min(0) if len(cell) else np.zeros(2, np.int64)
        self.shape = tuple((np.ptp(cell, axis=0) + 1).tolist()) if len(cell) else (0, 0)
        square = (cell - self.low) @ np.array([self.shape[1], 1]) if len(cell) else np.zeros(0, np.int64)
        self.items = np.argsort(square, kind="stable")
        self.starts = np.searchsorted(square[self.items], np.arange(self.shape[0] * self.shape[1] + 1))
        self.radius = np.hypot(self.rows[:, 4], self.rows[:, 5])
        self.farthest_m = float(self.radius.max()) if len(self.rows) else 0.0

    def around(self, x: Doubles, y: Doubles, radius: Doubles) -> NDArray[np.int64]:
        """Which of them may touch any of these circles."""
        if not len(self.rows):
            return np.zeros(0, np.int64)
        found = np.zeros(len(self.rows), np.bool_)
        mark(
            self.rows, self.radius, self.items, self.starts, self.low, self.shape, self.farthest_m, x, y, radius, found
        )
        return np.flatnonzero(found)


@OFTEN
def mark(rows, own, items, starts, low, shape, farthest, x, y, radius, found):  # type: ignore[no-untyped-def]
    for n in range(len(x)):
        reach = radius[n] + farthest
        i0, i1 = int(np.floor((x[n] - reach) / CELL_M)) - low[0], int(np.floor((x[n] + reach) / CELL_M)) - low[0]
        j0, j1 = int(np.floor((y[n] - reach) / CELL_M)) - low[1], int(np.floor((y[n] + reach) / CELL_M)) - low[1]
        for i in range(max(0, i0), min(shape[0] - 1, i1) + 1):
            for j in range(max(0, j0), min(shape[1] - 1, j1) + 1):
                square = i * shape[1] + j
                for m in range(starts[square], starts[square + 1]):
                    t = items[m]
                    apart = radius[n] + own[t]
                    if abs(rows[t, 0] - x[n]) < apart and abs(rows[t, 1] - y[n]) < apart:
                        found[t] = True


def somebody(kind: str) -> Actor:
    actor = Actor(0, Kind.OTHER, ActorDescription(0, f"static.{kind}"), {}, NO_BOX, Transform())
    actor.tag = TAGS[kind]
    return actor


def rooted_of(roads: RoadMap, things: Iterable[Thing], lights: Iterable[LightPlace]) -> Rooted:
    return Rooted([*standing(things), *poles(roads, lights)])


def standing(things: Iterable[Thing]) -> Iterator[tuple[str, Row]]:
    for t in things:
        if t.kind != "tree_crown":  # which hangs over the road
            row = (t.x_m, t.y_m, t.z_m, np.radians(t.yaw_deg), t.extent_x_m, t.extent_y_m, t.extent_z_m)
            yield TYPES.get(t.kind, "static"), row


def poles(roads: RoadMap, lights: Iterable[LightPlace]) -> Iterator[tuple[str, Row]]:
    half, high = POLE_M
    for signal in roads.signals:
        if signal.kind in ("stop", "yield", "speed"):
            yield "pole", (signal.x_m, signal.y_m, signal.z_m + high, 0.0, half, half, high)
    for light in lights:
        at = light.transform.location
        yield "pole", (at.x, at.y, at.z + high, 0.0, half, half, high)
    for thing in roads.objects:
        half_high = thing.height_m / 2
        row = (
            thing.x_m,
            thing.y_m,
            thing.z_m + half_high,
            thing.heading_rad,
            thing.length_m / 2,
            thing.width_m / 2,
            half_high,
        )
        yield "static", row
