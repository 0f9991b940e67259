"""Single rays, for LiDAR, radar and the obstacle detector: what each meets first, and how far away.

The map's triangles are listed by squares of the ground, a ray goes from square to square, and passes over those whose
triangles all lie below or above it. What moves is tried body by body.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.render.crew import divided
from drivetrain.sim.render.scene import Live
from drivetrain.sim.squares import OFTEN, Doubles, Squares

NOTHING = -1


@OFTEN
def meet(corners, t, ox, oy, oz, dx, dy, dz, farthest):  # type: ignore[no-untyped-def]
    """How far along a ray a triangle is, or `farthest` where the ray goes by."""
    ax, ay, az = corners[t, 0, 0], corners[t, 0, 1], corners[t, 0, 2]
    e1x, e1y, e1z = corners[t, 1, 0] - ax, corners[t, 1, 1] - ay, corners[t, 1, 2] - az
    e2x, e2y, e2z = corners[t, 2, 0] - ax, corners[t, 2, 1] - ay, corners[t, 2, 2] - az
    px, py, pz = dy * e2z - dz * e2y, dz * e2x - dx * e2z, dx * e2y - dy * e2x
    det = e1x * px + e1y * py + e1z * pz
    if abs(det) < 1e-12:
        return farthest
    inverse = 1.0 / det
    sx, sy, sz = ox - ax, oy - ay, oz - az
    u = (sx * px + sy * py + sz * pz) * inverse
    if u < -1e-7 or u > 1.0000001:
        return farthest
    qx, qy, qz = sy * e1z - sz * e1y, sz * e1x - sx * e1z, sx * e1y - sy * e1x
    v = (dx * qx + dy * qy + dz * qz) * inverse
    if v < -1e-7 or u + v > 1.0000001:
        return farthest
    distance = (e2x * qx + e2y * qy + e2z * qz) * inverse
    return distance if 1e-4 < distance < farthest else farthest


@OFTEN
def follow(  # type: ignore[no-untyped-def]
    corners, starts, items, span, origin, cell, nx, ny,
    live_corners, live_starts, live_bounds, live_ids, hidden, eye, ways, range_m, distance, hit,
):  # fmt: skip
    """For each way [N, 3] of length 1 from eye: the distance of what it meets within range_m, and its triangle; those of the
    living come after the map's. Where it meets nothing, hit is -1. `hidden` is an actor that is not seen."""
    still = len(corners)
    ox, oy, oz = eye[0], eye[1], eye[2]
    for ray in range(len(ways)):
        dx, dy, dz = ways[ray, 0], ways[ray, 1], ways[ray, 2]
        best, found = range_m, -1
        for body in range(len(live_starts) - 1):
            if live_ids[body] == hidden:
                continue
            begin, end = 0.0, best
            for k in range(3):
                o = ox if k == 0 else (oy if k == 1 else oz)
                d = dx if k == 0 else (dy if k == 1 else dz)
                low, high = live_bounds[body, k] - o, live_bounds[body, 3 + k] - o
                if abs(d) < 1e-12:
                    if low > 0 or high < 0:
                        end = -1.0
                else:
                    a, b = low / d, high / d
                    begin, end = max(begin, min(a, b)), min(end, max(a, b))
            if begin > end:
                continue
            for t in range(live_starts[body], live_starts[body + 1]):
                reach = meet(live_corners, t, ox, oy, oz, dx, dy, dz, best)
                if reach < best:
                    best, found = reach, still + t
        # from square to square, as far as the best so far
        i, j = int(np.floor((ox - origin[0]) / cell)), int(np.floor((oy - origin[1]) / cell))
        step_i, step_j = 1 if dx > 0 else -1, 1 if dy > 0 else -1
        edge_x = origin[0] + (i + (1 if dx > 0 else 0)) * cell
        edge_y = origin[1] + (j + (1 if dy > 0 else 0)) * cell
        next_x = (edge_x - ox) / dx if abs(dx) > 1e-12 else 1e18
        next_y = (edge_y - oy) / dy if abs(dy) > 1e-12 else 1e18
        more_x = cell / abs(dx) if abs(dx) > 1e-12 else 1e18
        more_y = cell / abs(dy) if abs(dy) > 1e-12 else 1e18
        enter = 0.0
        while enter < best:
            leave = min(next_x, next_y)
            if 0 <= i < nx and 0 <= j < ny:
                square = i * ny + j
                z0, z1 = oz + dz * enter, oz + dz * min(leave, best)
                if min(z0, z1) <= span[square, 1] and max(z0, z1) >= span[square, 0]:
                    for n in range(starts[square], starts[square + 1]):
                        reach = meet(corners, items[n], ox, oy, oz, dx, dy, dz, best)
                        if reach < best:
                            best, found = reach, items[n]
            elif (
                (i < 0 and step_i < 0) or (i >= nx and step_i > 0) or (j < 0 and step_j < 0) or (j >= ny and step_j > 0)
            ):
                break
            enter = leave
            if next_x < next_y:
                next_x += more_x
                i += step_i
            else:
                next_y += more_y
                j += step_j
        distance[ray], hit[ray] = best, found


def cast(
    squares: Squares, live: Live, eye: Doubles, ways: Doubles, range_m: float, hidden: int = 0
) -> tuple[Doubles, NDArray[np.int64]]:
    distance, hit = np.empty(len(ways)), np.empty(len(ways), np.int64)

    def some(first: int, last: int) -> None:
        follow(
            squares.corners, squares.starts, squares.items, squares.span, squares.origin, squares.cell_m, *squares.shape,
            live.corners, live.starts, live.bounds, live.ids, hidden, eye, ways[first:last], range_m, distance[first:last],
            hit[first:last],
        )  # fmt: skip

    divided(len(ways), some, 1000)
    return distance, hit
