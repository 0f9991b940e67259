"""Which lane is here: a grid of short lane pieces, searched for many points at once, and then made exact.

Between two samples a lane is taken as an arc, so that a point is found to a tenth of a millimetre although the samples
lie metres apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.road.cubics import Floats
from drivetrain.sim.road.lanes import Lane, wrap

CELL_M = 4.0
REACH_M = 12.0  # a cell lists every piece this near to its middle
STOREY_M = 3.0  # a lane further above or below than this is another storey
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LanePoints:
    """Where points lie on their nearest lanes; every field is an array over the points."""

    lane: Ints  # index into `RoadMap.lanes`
    s_m: Floats  # along the road
    along_m: Floats  # along the lane, in the direction of travel
    lateral_m: Floats  # off the lane's centre line, to the right
    width_m: Floats
    heading_rad: Floats  # of the lane, CARLA's frame
    pitch_rad: Floats
    height_m: Floats  # of the lane's surface there
    x_m: Floats  # the nearest point of the centre line
    y_m: Floats

    @property
    def inside(self) -> NDArray[np.bool_]:
        return np.abs(self.lateral_m) <= self.width_m / 2 + 1e-6


class Grid:
    """All lane pieces as flat arrays, and for every cell of the ground the pieces near it."""

    def __init__(self, lanes: Sequence[Lane]):
        counts = [len(lane.s_m) - 1 for lane in lanes]
        self.lane = np.repeat(np.arange(len(lanes)), counts)

        def both(values: list[Floats]) -> tuple[Floats, Floats]:
            return np.concatenate([v[:-1] for v in values]), np.concatenate([v[1:] for v in values])

        self.p0, self.p1 = both([lane.centre for lane in lanes])
        self.h0, self.h1 = both([lane.heading_rad for lane in lanes])
        self.s0, self.s1 = both([lane.s_m for lane in lanes])
        self.a0, self.a1 = both([lane.along_m for lane in lanes])
        self.w0, self.w1 = both([lane.width_m for lane in lanes])
        self.pitch0, self.pitch1 = both([lane.pitch_rad for lane in lanes])
        self.left0, self.left1 = both([lane.left for lane in lanes])
        self.right0, self.right1 = both([lane.right for lane in lanes])
        self.fall0, self.fall1 = (self.right0 - self.left0)[:, 2], (self.right1 - self.left1)[:, 2]
        step = self.p1[:, :2] - self.p0[:, :2]
        self.chord = np.maximum(np.hypot(*step.T), 1e-9)
        self.unit = step / self.chord[:, None]
        self.turn = wrap(self.h1 - self.h0)
        self._fill_cells()

    def _fill_cells(self) -> None:
        middle, reach = (self.p0 + self.p1)[:, :2] / 2, self.chord / 2 + REACH_M
        self.origin = middle.min(0) - REACH_M - CELL_M
        self.shape = np.ceil((middle.max(0) + REACH_M + CELL_M - self.origin) / CELL_M).astype(np.int64)
        cells, pieces = [], []
        span = math.ceil(float(reach.max()) / CELL_M) + 1
        home = np.floor((middle - self.origin) / CELL_M).astype(np.int64)
        for dx in range(-span, span + 1):
            for dy in range(-span, span + 1):
                cell = home + np.array([dx, dy])
                offset = (cell + 0.5) * CELL_M + self.origin - self.p0[:, :2]
                along = np.clip((offset * self.unit).sum(1), 0.0, self.chord)
                far = np.hypot(*(offset - along[:, None] * self.unit).T)
                near = np.flatnonzero((far <= REACH_M) & ((cell >= 0) & (cell < self.shape)).all(1))
                cells.append(cell[near, 0] * self.shape[1] + cell[near, 1])
                pieces.append(near)
        cell, piece = np.concatenate(cells), np.concatenate(pieces)
        order = np.lexsort((piece, cell))
        self.pieces = piece[order]
        self.cells, first = np.unique(cell[order], return_index=True)
        self.first = np.append(first, len(order))

    def _listed(self, points: Floats) -> tuple[Ints, Ints]:
        """For each point [N, 2], where its cell's pieces begin in `self.pieces`, and how many they are."""
        cell = np.floor((points - self.origin) / CELL_M).astype(np.int64)
        flat = np.where(((cell >= 0) & (cell < self.shape)).all(1), cell[:, 0] * self.shape[1] + cell[:, 1], -1)
        at = np.minimum(np.searchsorted(self.cells, flat), len(self.cells) - 1)
        known = self.cells[at] == flat
        return self.first[at], np.where(known, self.first[at + 1] - self.first[at], 0)

    def near(self, x_m: float, y_m: float) -> Ints:
        """Every piece within about REACH_M of one point."""
        first, count = self._listed(np.array([[x_m, y_m]]))
        return self.pieces[first[0] : first[0] + count[0]]

    def beneath(self, x_m: float, y_m: float, z_m: float, allowed: NDArray[np.bool_]) -> int:
        """The lane that `find` would name for one point, and nothing else about it."""
        point, height = np.array([[x_m, y_m]]), np.array([z_m])
        near = self.near(x_m, y_m)
        near = near[allowed[self.lane[near]]]
        if len(near):
            cost, distance = self._cost(point, height, np.zeros(len(near), np.int64), near)
            best = int(cost.argmin())
            if distance[best] <= REACH_M - CELL_M:
                return int(self.lane[near[best]])
        return int(self.find(point, height, allowed).lane[0])

    def find(self, points: Floats, z_m: Floats | None, allowed: NDArray[np.bool_]) -> LanePoints:
        """`points` [N, 2]; `allowed` says of each lane whether it may be the answer."""
        piece = np.full(len(points), -1)
        first, count = self._listed(points)
        owner = np.repeat(np.arange(len(points)), count)
        start = np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
        candidate = self.pieces[start + np.arange(len(owner))]
        keep = allowed[self.lane[candidate]]
        owner, candidate = owner[keep], candidate[keep]
        if len(owner):
            cost, distance = self._cost(points, z_m, owner, candidate)
            order = np.lexsort((candidate, cost, owner))
            best = order[np.concatenate([[True], np.diff(owner[order]) > 0])]
            sure = best[distance[best] <= REACH_M - CELL_M]
            piece[owner[sure]] = candidate[sure]
        lost = np.flatnonzero(piece < 0)
        if len(lost):
            everything = np.flatnonzero(allowed[self.lane])
            starts = self.p0[everything, :2]
            slack = float(self.chord[everything].max()) + float(self.w0[everything].max()) + STOREY_M
        for i in lost:
            far = np.hypot(*(starts - points[i]).T)
            near = everything if z_m is not None else everything[far <= far.min() + slack]
            cost, _ = self._cost(points, z_m, np.full(len(near), i), near)
            piece[i] = near[int(cost.argmin())]
        return self._exact(points, piece)

    def _cost(self, points: Floats, z_m: Floats | None, owner: Ints, piece: Ints) -> tuple[Floats, Floats]:
        """What is nearest: first the lane one stands in, then the lane whose middle is nearest."""
        offset = points[owner] - self.p0[piece, :2]
        unit, chord = self.unit[piece], self.chord[piece]
        share = np.clip((offset * unit).sum(1) / chord, 0.0, 1.0)
        rest = offset - (share * chord)[:, None] * unit
        bow = chord * self.turn[piece] / 2 * share * (1 - share)  # how far the arc lies off its chord, to the left
        rest += bow[:, None] * np.stack([-unit[:, 1], unit[:, 0]], axis=1)
        distance = np.hypot(*rest.T)
        half = (self.w0[piece] + share * (self.w1[piece] - self.w0[piece])) / 2
        cost = distance + 4.0 * np.maximum(distance - half, 0.0)
        if z_m is not None:
            height = self.p0[piece, 2] + share * (self.p1[piece, 2] - self.p0[piece, 2])
            cost += 100.0 * np.maximum(np.abs(z_m[owner] - height) - STOREY_M, 0.0)
        return cost, distance

    def _exact(self, points: Floats, piece: Ints) -> LanePoints:
        share = np.clip(((points - self.p0[piece, :2]) * self.unit[piece]).sum(1) / self.chord[piece], 0.0, 1.0)
        for _ in range(3):
            centre, heading = self._arc(piece, share)
            ahead = np.stack([np.cos(heading), np.sin(heading)], axis=1)
            off = points - centre
            lateral = off[:, 1] * ahead[:, 0] - off[:, 0] * ahead[:, 1]
            stretch = np.maximum(self.chord[piece] - self.turn[piece] * lateral, 0.1 * self.chord[piece])
            share = np.clip(share + (off * ahead).sum(1) / stretch, 0.0, 1.0)
        centre, heading = self._arc(piece, share)
        off = points - centre
        lateral = off[:, 1] * np.cos(heading) - off[:, 0] * np.sin(heading)

        def between(first: Floats, last: Floats) -> Floats:
            return first[piece] + share * (last[piece] - first[piece])

        width = between(self.w0, self.w1)
        fall = between(self.fall0, self.fall1) / np.maximum(width, 1e-6)
        height = between(self.p0[:, 2], self.p1[:, 2]) + fall * np.clip(lateral, -width / 2, width / 2)
        return LanePoints(
            lane=self.lane[piece],
            s_m=between(self.s0, self.s1),
            along_m=between(self.a0, self.a1),
            lateral_m=lateral,
            width_m=width,
            heading_rad=wrap(heading),
            pitch_rad=between(self.pitch0, self.pitch1),
            height_m=height,
            x_m=centre[:, 0],
            y_m=centre[:, 1],
        )

    def _arc(self, piece: Ints, share: Floats) -> tuple[Floats, Floats]:
        """The point at that share of a piece, with the cubic that has the right ends and the right headings there."""
        chord = self.chord[piece]
        chord_heading = np.arctan2(self.unit[piece, 1], self.unit[piece, 0])
        first, last = np.tan(wrap(self.h0[piece] - chord_heading)), np.tan(wrap(self.h1[piece] - chord_heading))
        u = share
        side = chord * u * (1 - u) * (first * (1 - u) - last * u)
        slope = first * (1 - u) * (1 - 3 * u) + last * u * (3 * u - 2)
        unit = self.unit[piece]
        normal = np.stack([-unit[:, 1], unit[:, 0]], axis=1)
        return self.p0[piece, :2] + (u * chord)[:, None] * unit + side[:, None] * normal, chord_heading + np.arctan(
            slope
        )
