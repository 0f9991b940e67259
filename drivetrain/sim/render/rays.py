"""Single rays, for LiDAR, radar and the obstacle detector: what each meets first, and how far away.

The map's triangles are listed by squares of the ground, a ray goes from square to square, and passes over those whose
triangles all lie below or above it. What moves is tried body by body.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.render.crew import dealt, hands_for
from drivetrain.sim.render.scene import Live
from drivetrain.sim.squares import OFTEN, Doubles, Floats, Squares

NOTHING = -1
WORTH_A_THREAD = 500  # rays for each hand
GROUP = 12  # triangles of a body behind one box


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
def enters(bounds, k, ox, oy, oz, dx, dy, dz, farthest):  # type: ignore[no-untyped-def]
    """Whether a ray comes into box k of [N, 6] before `farthest`."""
    begin, end = 0.0, farthest
    for axis in range(3):
        o = ox if axis == 0 else (oy if axis == 1 else oz)
        d = dx if axis == 0 else (dy if axis == 1 else dz)
        low, high = bounds[k, axis] - o, bounds[k, 3 + axis] - o
        if abs(d) < 1e-12:
            if low > 0 or high < 0:
                return False
        else:
            a, b = low / d, high / d
            begin, end = max(begin, min(a, b)), min(end, max(a, b))
    return begin <= end


@OFTEN
def follow(  # type: ignore[no-untyped-def]
    corners, starts, items, span, origin, cell, nx, ny,
    live_corners, bodies, outer, groups, inner, eye, ways, range_m, distance, hit, first_ray, ray_step,
):  # fmt: skip
    """For every so many of the ways [N, 3] of length 1 from eye: the distance of what it meets within range_m, and its
    triangle; those of the living come after the map's. Where it meets nothing, hit is -1. Body k is made
    of the groups from bodies[k] to bodies[k + 1], a group of the triangles from groups[g, 0] to groups[g, 1]."""
    still = len(corners)
    ox, oy, oz = eye[0], eye[1], eye[2]
    for ray in range(first_ray, len(ways), ray_step):
        dx, dy, dz = ways[ray, 0], ways[ray, 1], ways[ray, 2]
        best, found = range_m, -1
        for body in range(len(bodies) - 1):
            if not enters(outer, body, ox, oy, oz, dx, dy, dz, best):
                continue
            for group in range(bodies[body], bodies[body + 1]):
                if not enters(inner, group, ox, oy, oz, dx, dy, dz, best):
                    continue
                for t in range(groups[group, 0], groups[group, 1]):
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


class Reach(NamedTuple):
    """Who is near enough to be met: see `follow`."""

    bodies: NDArray[np.int64]
    outer: Floats
    groups: NDArray[np.int64]
    inner: Floats


def in_reach(live: Live, eye: Doubles, range_m: float, hidden: int) -> Reach:
    """A sensor on a roof is inside its own vehicle's box, so boxes are drawn closely, and in two steps."""
    gap = np.maximum(np.maximum(live.bounds[:, :3] - eye, eye - live.bounds[:, 3:]), 0.0)
    there = (live.ids != hidden) & (np.diff(live.starts) > 0)
    near = np.flatnonzero(((gap * gap).sum(1) <= range_m * range_m) & there)
    begins = [np.arange(live.starts[k], live.starts[k + 1], GROUP) for k in near]
    bodies = np.concatenate([[0], np.cumsum([len(b) for b in begins])]).astype(np.int64)
    if not len(near):
        return Reach(bodies, np.zeros((0, 6), np.float32), np.zeros((0, 2), np.int64), np.zeros((0, 6), np.float32))
    first = np.concatenate(begins)
    last = np.minimum(first + GROUP, np.repeat(live.starts[near + 1], np.diff(bodies)))
    groups = np.stack([first, last], axis=1)
    triangles = [live.corners[live.starts[k] : live.starts[k + 1]] for k in near]
    corners, edge = np.concatenate(triangles), np.concatenate([[0], np.cumsum(last - first)[:-1]])
    low, high = (np.minimum.reduceat(corners.min(1), edge), np.maximum.reduceat(corners.max(1), edge))
    outer = [np.minimum.reduceat(low, bodies[:-1]), np.maximum.reduceat(high, bodies[:-1])]
    return Reach(bodies, np.hstack(outer), groups, np.hstack([low, high]))


def cast(
    squares: Squares, live: Live, eye: Doubles, ways: Doubles, range_m: float, hidden: int = 0
) -> tuple[Doubles, NDArray[np.int64]]:
    """`hidden` is an actor that is not seen. The thread that has the rays near the ground has less to do than one that has
    those to the horizon; so rays are dealt."""
    distance, hit = np.empty(len(ways)), np.empty(len(ways), np.int64)
    near = in_reach(live, eye, range_m, hidden)

    def some(first: int, step: int) -> None:
        follow(
            squares.corners, squares.starts, squares.items, squares.span, squares.origin, squares.cell_m, *squares.shape,
            live.corners, *near, eye, ways, range_m, distance, hit, first, step,
        )  # fmt: skip

    dealt(hands_for(len(ways), WORTH_A_THREAD), some)
    return distance, hit
