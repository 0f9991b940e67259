"""Triangles listed by squares of the ground, so that whoever asks about one place looks at few of them."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
OFTEN = numba.njit(cache=True, nogil=True, error_model="numpy")

CELL_M = 4.0
MOST_CELLS = 1_000_000


@dataclass(frozen=True)
class Squares:
    """The triangles over each square of the ground: those of square k are items[starts[k]:starts[k + 1]]."""

    corners: Floats  # [N, 3, 3]
    starts: NDArray[np.int64]
    items: NDArray[np.int32]
    span: Floats  # [squares, 2] lowest and highest corner of what can be cut off at the square's edge
    origin: Doubles
    cell_m: float
    shape: tuple[int, int]


def squares_of(corners: Floats, cell_m: float = CELL_M) -> Squares:
    low, high = corners[:, :, :2].min(1), corners[:, :, :2].max(1)
    origin, end = low.min(0).astype(np.float64), high.max(0).astype(np.float64)
    cell = cell_m
    while np.prod(np.ceil((end - origin) / cell) + 1) > MOST_CELLS:
        cell *= 2
    nx, ny = (np.ceil((end - origin) / cell).astype(int) + 1).tolist()
    first = np.floor((low - origin) / cell).astype(np.int64)
    last = np.floor((high - origin) / cell).astype(np.int64)
    counts = np.zeros(nx * ny + 1, np.int64)
    listed(corners, first, last, ny, origin, cell, counts, np.empty(0, np.int32), False)
    starts = np.concatenate([[0], np.cumsum(counts[:-1])])
    items = np.empty(starts[-1], np.int32)
    listed(corners, first, last, ny, origin, cell, starts[:-1].copy(), items, True)
    span = np.empty((nx * ny, 2), np.float32)
    spans(corners, starts, items, origin, cell, ny, span)
    return Squares(corners, starts, items, span, origin, cell, (nx, ny))


@OFTEN
def apart(corners, t, x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    """Whether one of a triangle's edges has the whole square on its outer side, seen from above."""
    ax, ay = corners[t, 0, 0], corners[t, 0, 1]
    bx, by = corners[t, 1, 0], corners[t, 1, 1]
    cx, cy = corners[t, 2, 0], corners[t, 2, 1]
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if abs(area) < 1e-6:
        return False
    sign = 1.0 if area > 0 else -1.0
    for k in range(3):
        px, py = corners[t, k, 0], corners[t, k, 1]
        qx, qy = corners[t, (k + 1) % 3, 0], corners[t, (k + 1) % 3, 1]
        nx, ny = -(qy - py) * sign, (qx - px) * sign  # inwards
        x = x1 if nx > 0 else x0
        y = y1 if ny > 0 else y0
        if (x - px) * nx + (y - py) * ny < 0:
            return True
    return False


@OFTEN
def listed(corners, first, last, ny, origin, cell, at, items, write):  # type: ignore[no-untyped-def]
    """Counts the triangles of each square, or writes them down."""
    for t in range(len(corners)):
        for i in range(first[t, 0], last[t, 0] + 1):
            for j in range(first[t, 1], last[t, 1] + 1):
                x, y = origin[0] + i * cell, origin[1] + j * cell
                if apart(corners, t, x, y, x + cell, y + cell):
                    continue
                square = i * ny + j
                if write:
                    items[at[square]] = t
                at[square] += 1


@OFTEN
def spans(corners, starts, items, origin, cell, ny, out):  # type: ignore[no-untyped-def]
    for square in range(len(starts) - 1):
        low, high = 1e9, -1e9
        for n in range(starts[square], starts[square + 1]):
            t = items[n]
            for k in range(3):
                low, high = min(low, corners[t, k, 2]), max(high, corners[t, k, 2])
        out[square, 0], out[square, 1] = low - 0.01, high + 0.01


@OFTEN
def heights(corners, starts, items, origin, cell, nx, ny, points, below, out):  # type: ignore[no-untyped-def]
    """For each point [N, 2] the highest triangle that is no higher than below[N]; not a number where there is none."""
    for n in range(len(points)):
        x, y = points[n, 0], points[n, 1]
        i, j = int(np.floor((x - origin[0]) / cell)), int(np.floor((y - origin[1]) / cell))
        best = -1e18
        if 0 <= i < nx and 0 <= j < ny:
            square = i * ny + j
            for m in range(starts[square], starts[square + 1]):
                t = items[m]
                ax, ay, az = corners[t, 0, 0], corners[t, 0, 1], corners[t, 0, 2]
                bx, by = corners[t, 1, 0] - ax, corners[t, 1, 1] - ay
                cx, cy = corners[t, 2, 0] - ax, corners[t, 2, 1] - ay
                area = bx * cy - cx * by
                if abs(area) < 1e-6:
                    continue
                px, py = x - ax, y - ay
                u, v = (px * cy - cx * py) / area, (bx * py - px * by) / area
                if u < -1e-3 or v < -1e-3 or u + v > 1.001:
                    continue
                z = az + u * (corners[t, 1, 2] - az) + v * (corners[t, 2, 2] - az)
                if best < z <= below[n]:
                    best = z
        out[n] = best if best > -1e17 else np.nan


def heights_m(squares: Squares, points: Doubles, below_m: Doubles) -> Doubles:
    out = np.empty(len(points))
    s = squares
    heights(s.corners, s.starts, s.items, s.origin, s.cell_m, *s.shape, points, below_m, out)
    return out
