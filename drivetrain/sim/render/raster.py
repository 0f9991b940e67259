"""Which triangle is behind each pixel, and how far away: scan conversion with a depth buffer.

`near[y, x]` holds 1/depth (0 where there is nothing), `ids[y, x]` the triangle. 1/depth is linear on the screen, so that of a
triangle is one plane over the pixels. A camera is [4, 3]: where it is, and its forward, right and down.
"""

from __future__ import annotations

import numpy as np

from drivetrain.sim.squares import OFTEN

CLOSEST_M = 0.05


@OFTEN
def fill(px, py, count, a, b, c, near, ids, number):  # type: ignore[no-untyped-def]
    """A convex outline of `count` points on the screen, whose nearness is a x + b y + c at each pixel's middle."""
    height, width = near.shape
    top, bottom = py[0], py[0]
    for k in range(1, count):
        top, bottom = min(top, py[k]), max(bottom, py[k])
    first = max(0, int(np.ceil(top - 0.5)))
    last = min(height, int(np.ceil(bottom - 0.5))) - 1
    for row in range(first, last + 1):
        y = row + 0.5
        left, right = 1e9, -1e9
        for k in range(count):
            j = k + 1 if k + 1 < count else 0
            y0, y1 = py[k], py[j]
            if (y0 <= y) != (y1 <= y):
                x = px[k] + (y - y0) * (px[j] - px[k]) / (y1 - y0)
                left, right = min(left, x), max(right, x)
        begin = max(0, int(np.ceil(left - 0.5)))
        end = min(width, int(np.ceil(right - 0.5)))
        value = a * (begin + 0.5) + b * y + c
        for column in range(begin, end):
            kept = np.float32(value)  # as it is kept: of two at one distance the first wins, whoever draws them
            if kept > near[row, column]:
                near[row, column] = kept
                ids[row, column] = number
            value += a


@OFTEN
def draw(  # type: ignore[no-untyped-def]
    corners, solid, size, starts, bounds, sizes, eye, focal, near, ids, base, first_chunk, step
):
    """Draws every so many of the chunks of triangles: chunk k has those from starts[k] to starts[k + 1], inside the box
    bounds[k]. What is smaller than half a pixel is left out."""
    height, width = near.shape
    cx, cy = width / 2.0, height / 2.0
    ox, oy, oz = eye[0, 0], eye[0, 1], eye[0, 2]
    slope_x, above, below = cx / focal, -cy / focal, cy / focal
    z = np.empty(3)
    u = np.empty(3)
    v = np.empty(3)
    px = np.empty(4)
    py = np.empty(4)
    for chunk in range(first_chunk, len(starts) - 1, step):
        # the box's middle and half sizes, in the camera's axes
        mx = (bounds[chunk, 0] + bounds[chunk, 3]) / 2 - ox
        my = (bounds[chunk, 1] + bounds[chunk, 4]) / 2 - oy
        mz = (bounds[chunk, 2] + bounds[chunk, 5]) / 2 - oz
        hx = (bounds[chunk, 3] - bounds[chunk, 0]) / 2
        hy = (bounds[chunk, 4] - bounds[chunk, 1]) / 2
        hz = (bounds[chunk, 5] - bounds[chunk, 2]) / 2
        ahead = mx * eye[1, 0] + my * eye[1, 1] + mz * eye[1, 2]
        deep = hx * abs(eye[1, 0]) + hy * abs(eye[1, 1]) + hz * abs(eye[1, 2])
        if ahead + deep < CLOSEST_M:
            continue
        if (ahead - deep) * 0.5 > sizes[chunk] * focal:
            continue
        seen = True
        for side in range(4):  # left, right, above, below: the middle is too far outside for its half sizes
            axis = 2 if side < 2 else 3
            slope, sign = slope_x, 1.0 if side == 0 else -1.0
            if side >= 2:
                slope, sign = (-above, 1.0) if side == 2 else (below, -1.0)
            nx = slope * eye[1, 0] + sign * eye[axis, 0]
            ny = slope * eye[1, 1] + sign * eye[axis, 1]
            nz = slope * eye[1, 2] + sign * eye[axis, 2]
            if mx * nx + my * ny + mz * nz + hx * abs(nx) + hy * abs(ny) + hz * abs(nz) < 0:
                seen = False
                break
        if not seen:
            continue
        for t in range(starts[chunk], starts[chunk + 1]):
            in_front = 0
            for k in range(3):
                x, y, h = corners[t, k, 0] - ox, corners[t, k, 1] - oy, corners[t, k, 2] - oz
                z[k] = x * eye[1, 0] + y * eye[1, 1] + h * eye[1, 2]
                u[k] = x * eye[2, 0] + y * eye[2, 1] + h * eye[2, 2]
                v[k] = x * eye[3, 0] + y * eye[3, 1] + h * eye[3, 2]
                in_front += z[k] >= CLOSEST_M
            if in_front == 0:
                continue
            if min(z[0], z[1], z[2]) * 0.5 > size[t] * focal:
                continue
            if u[0] > slope_x * z[0] and u[1] > slope_x * z[1] and u[2] > slope_x * z[2]:
                continue
            if -u[0] > slope_x * z[0] and -u[1] > slope_x * z[1] and -u[2] > slope_x * z[2]:
                continue
            if v[0] > below * z[0] and v[1] > below * z[1] and v[2] > below * z[2]:
                continue
            if v[0] < above * z[0] and v[1] < above * z[1] and v[2] < above * z[2]:
                continue
            # n . p = d for all points p of its plane, so 1/depth = n . (u/z, v/z, 1) / d
            nu = (v[1] - v[0]) * (z[2] - z[0]) - (z[1] - z[0]) * (v[2] - v[0])
            nv = (z[1] - z[0]) * (u[2] - u[0]) - (u[1] - u[0]) * (z[2] - z[0])
            nz = (u[1] - u[0]) * (v[2] - v[0]) - (v[1] - v[0]) * (u[2] - u[0])
            d = nu * u[0] + nv * v[0] + nz * z[0]
            if d == 0.0 or (solid[t] and d > 0.0):
                continue
            a, b = nu / (d * focal), nv / (d * focal)
            c = nz / d - a * cx - b * cy
            count = 0
            if in_front == 3:
                for k in range(3):
                    px[k] = cx + focal * u[k] / z[k]
                    py[k] = cy + focal * v[k] / z[k]
                count = 3
            else:
                for k in range(3):
                    j = k + 1 if k < 2 else 0
                    if z[k] >= CLOSEST_M:
                        px[count] = cx + focal * u[k] / z[k]
                        py[count] = cy + focal * v[k] / z[k]
                        count += 1
                    if (z[k] >= CLOSEST_M) != (z[j] >= CLOSEST_M):
                        part = (CLOSEST_M - z[k]) / (z[j] - z[k])
                        px[count] = cx + focal * (u[k] + part * (u[j] - u[k])) / CLOSEST_M
                        py[count] = cy + focal * (v[k] + part * (v[j] - v[k])) / CLOSEST_M
                        count += 1
            fill(px, py, count, a, b, c, near, ids, base + t)


@OFTEN
def merge(near, ids, other_near, other_ids, first_row, last_row):  # type: ignore[no-untyped-def]
    """What is nearer in another's drawing is taken over; at the same distance the first triangle, as one hand would."""
    for row in range(first_row, last_row):
        for column in range(near.shape[1]):
            value, number = other_near[row, column], other_ids[row, column]
            mine = near[row, column]
            if value > mine or (value == mine and value > 0 and number < ids[row, column]):
                near[row, column] = value
                ids[row, column] = number


@OFTEN
def shadows(corners, bounds, starts, axes, origin, metres, high, ids):  # type: ignore[no-untyped-def]
    """What the sun sees: `high[y, x]` is how far towards the sun the nearest surface lies, over a map of the plane across
    it. axes [3, 3]: right, down and towards the sun; origin: of the map along the first two; metres: of a pixel."""
    height, width = high.shape
    px = np.empty(4)
    py = np.empty(4)
    value = np.empty(3)
    for chunk in range(len(starts) - 1):
        for t in range(starts[chunk], starts[chunk + 1]):
            for k in range(3):
                x, y, z = corners[t, k, 0], corners[t, k, 1], corners[t, k, 2]
                px[k] = (x * axes[0, 0] + y * axes[0, 1] + z * axes[0, 2] - origin[0]) / metres
                py[k] = (x * axes[1, 0] + y * axes[1, 1] + z * axes[1, 2] - origin[1]) / metres
                value[k] = x * axes[2, 0] + y * axes[2, 1] + z * axes[2, 2]
            if max(px[0], px[1], px[2]) < 0 or min(px[0], px[1], px[2]) > width:
                continue
            if max(py[0], py[1], py[2]) < 0 or min(py[0], py[1], py[2]) > height:
                continue
            area = (px[1] - px[0]) * (py[2] - py[0]) - (px[2] - px[0]) * (py[1] - py[0])
            if abs(area) < 1e-9:
                continue
            a = ((value[1] - value[0]) * (py[2] - py[0]) - (value[2] - value[0]) * (py[1] - py[0])) / area
            b = ((value[2] - value[0]) * (px[1] - px[0]) - (value[1] - value[0]) * (px[2] - px[0])) / area
            c = value[0] - a * px[0] - b * py[0]
            fill(px, py, 3, a, b, c, high, ids, t)


@OFTEN
def set_down(  # type: ignore[no-untyped-def]
    corners, normals, which, turns, places, part, looks, lamp, out_corners, out_normals, out_color, out_pattern
):
    """Bodies in the world: triangle i is one of body b = which[i], turned by turns[b] (pitch, yaw, roll in radians) and set
    down at places[b]. Parts whose colour changes get it from looks[b, part] (red, green, blue, whether it shines); a
    lamp that does not shine is a plain surface."""
    turn = np.empty((3, 3))
    before = -1
    for i in range(len(which)):
        body = which[i]
        if body != before:
            before = body
            cp, sp = np.cos(turns[body, 0]), np.sin(turns[body, 0])
            cy, sy = np.cos(turns[body, 1]), np.sin(turns[body, 1])
            cr, sr = np.cos(turns[body, 2]), np.sin(turns[body, 2])
            turn[0, 0], turn[0, 1], turn[0, 2] = cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr
            turn[1, 0], turn[1, 1], turn[1, 2] = cp * sy, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr
            turn[2, 0], turn[2, 1], turn[2, 2] = sp, -cp * sr, cp * cr
        for row in range(3):
            t0, t1, t2 = turn[row, 0], turn[row, 1], turn[row, 2]
            out_normals[i, row] = t0 * normals[i, 0] + t1 * normals[i, 1] + t2 * normals[i, 2]
            for k in range(3):
                out_corners[i, k, row] = (
                    t0 * corners[i, k, 0] + t1 * corners[i, k, 1] + t2 * corners[i, k, 2] + places[body, row]
                )
        p = part[i]
        if p > 0:
            for k in range(3):
                out_color[i, k] = looks[body, p, k]
            if out_pattern[i] == lamp and looks[body, p, 3] == 0:
                out_pattern[i] = 0
