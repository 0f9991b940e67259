"""A driver who knows the route, the lights and everyone around: CARLA's, on the real server or on ours.

    drivetrain collect --env carla:traffic=20 --by carla --episodes 20 --output-dir data/carla

The speed is the highest of a few that keeps all of these: the limit, the bends ahead, the line of a light that is not green, a
stop sign not yet heeded, the gap to who is ahead in the lane, and no meeting with anyone whose way crosses ours within the next
seconds, if they go on as they do. It remembers nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from drivetrain.envs.carla import follow
from drivetrain.envs.carla.env import PATH, POINTS_M
from drivetrain.sample import Memory, Sample, Spec

Array = np.ndarray
LIMIT_SHARE, CRUISE_MPS = 0.9, 10.0
ASIDE_MPS2, BRAKE_MPS2, HARD_MPS2, PULL_MPS2 = 2.0, 2.5, 5.0, 2.0
BEND_M = 4  # rows over which a bend is measured
LIGHT_M, SIGN_M = 4.5, 1.0  # to stop before a line: of a light, where a camera on the roof still sees the lamp
GAP_M, GAP_S = 3.0, 1.1
MARGIN_M = 0.5
FORESIGHT_S, MOMENT_S = 4.0, 0.25
SLOWER = (1.0, 0.6, 0.3, 0.0)  # of the speed that all else allows
WALKER, THING = 2, 3


class Expert:
    privileged = True

    def __init__(self, spec: Spec | None = None):
        self.by_path = spec is not None and spec.action.names == PATH.names

    def initial(self, batch_size: int) -> Memory:
        return {}

    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: Any
    ) -> tuple[Array, Memory, dict[str, Any]]:
        keys = [f"privileged.{name}" for name in ("path", "car", "others", "stops")]
        rows = zip(*(np.asarray(observation[key], np.float64) for key in keys), strict=True)
        return np.stack([self.one(*row) for row in rows]).astype(np.float32), memory, {}

    def one(self, path: Array, car: Array, others: Array, stops: Array) -> Array:
        wanted = speed(path, car, others[others[:, 6] > 0], stops)
        if self.by_path:
            way = from_here(path)
            points = np.stack([np.interp(POINTS_M, far_along(way), axis) for axis in way.T], axis=1)
            return np.concatenate([points.reshape(-1), [wanted]])
        _, base_m, most_rad, rear_m, now_mps, _ = car
        return follow.controls(path, wanted, now_mps, follow.Car(base_m, most_rad, rear_m))


def from_here(path: Array) -> Array:
    """From the vehicle to the path and along it; who is off it comes back at half a right angle."""
    off_m = float(np.hypot(*path[0]))
    return np.concatenate([np.zeros((1, 2)), path[1 + min(int(off_m), len(path) - 2) :]])


def far_along(path: Array) -> Array:
    """[N] metres; a route that has ended stays at its last point."""
    return np.concatenate([[0.0], np.cumsum(np.maximum(np.hypot(*np.diff(path, axis=0).T), 1e-6))])


def speed(path: Array, car: Array, others: Array, stops: Array) -> float:
    half_m, now_mps, limit_mps = car[0], car[4], car[5]
    allowed = min(LIMIT_SHARE * limit_mps, CRUISE_MPS, for_bends(path))
    light_m, sign_m = stops
    if light_m < 900 and stopping_m(now_mps, HARD_MPS2) < light_m + 2.0:
        allowed = min(allowed, before_line(light_m - LIGHT_M))
    if sign_m < 900:
        allowed = min(allowed, before_line(sign_m - SIGN_M))
    if not len(others):
        return allowed
    allowed = min(allowed, behind(path, others, half_m, now_mps))
    for share in SLOWER:
        if share == 0.0 or clear(path, car, others, share * allowed):
            return share * allowed
    return 0.0


def stopping_m(speed_mps: float, brake_mps2: float) -> float:
    return speed_mps * speed_mps / (2 * brake_mps2)


def before_line(gap_m: float) -> float:
    """The speed from which one still comes to stand in so many metres."""
    return math.sqrt(2 * BRAKE_MPS2 * max(gap_m, 0.0))


def for_bends(path: Array) -> float:
    far = far_along(path)
    moves = np.diff(path[::BEND_M], axis=0)
    length = np.hypot(*moves.T)
    there = length > 0.5
    heading = np.unwrap(np.arctan2(moves[there, 1], moves[there, 0]))
    if len(heading) < 2:
        return CRUISE_MPS
    bend = np.abs(np.diff(heading)) / length[there][1:]
    at = far[::BEND_M][1 : 1 + len(bend)]
    fits = np.sqrt(ASIDE_MPS2 / np.maximum(bend, 1e-4))
    return float(np.sqrt(fits * fits + 2 * BRAKE_MPS2 * 0.6 * np.maximum(at - 2.0, 0.0)).min())


def behind(path: Array, others: Array, half_m: float, now_mps: float) -> float:
    """Keeps the distance to whoever is ahead on our path, and goes our way or stands."""
    far = far_along(path)
    allowed = math.inf
    for x, y, yaw, v, half_length, half_width, kind in others:
        offset = path - (x, y)
        row = int((offset * offset).sum(1).argmin())
        following = path[min(row + 1, len(path) - 1)] - path[max(row - 1, 0)]
        way = math.atan2(following[1], following[0])
        turned = yaw - way
        reach = abs(half_length * math.sin(turned)) + abs(half_width * math.cos(turned))
        if math.hypot(*offset[row]) > reach + 1.0 + MARGIN_M or x < -half_m:
            continue
        along = max(0.0, v * math.cos(turned))
        crossing = abs(math.cos(turned)) < 0.5 and abs(v) > 1.0
        if crossing and kind != THING:
            continue  # `clear` looks at those
        depth = abs(half_length * math.cos(turned)) + abs(half_width * math.sin(turned))
        gap = far[row] - half_m - depth
        keep = GAP_M + GAP_S * min(now_mps, along)
        allowed = min(allowed, math.sqrt(along * along + 2 * BRAKE_MPS2 * max(gap - keep, 0.0)) if gap > 0.5 else 0.0)
    return allowed


def clear(path: Array, car: Array, others: Array, wanted_mps: float) -> bool:
    """Whether nobody is met when we go at that speed and they go on as they do."""
    half_m, now_mps = car[0], car[4]
    times = np.arange(1, int(FORESIGHT_S / MOMENT_S) + 1) * MOMENT_S
    change = np.clip(wanted_mps - now_mps, -HARD_MPS2 * times, PULL_MPS2 * times)
    speeds = now_mps + change
    gone = np.cumsum(speeds) * MOMENT_S
    far = far_along(path)
    mine = np.stack([np.interp(gone, far, axis) for axis in path.T], axis=1)  # [T, 2]
    ahead = np.stack([np.interp(gone + 1.0, far, axis) for axis in path.T], axis=1) - mine
    mine_yaw = np.arctan2(ahead[:, 1], np.maximum(ahead[:, 0], 1e-6))
    for x, y, yaw, v, half_length, half_width, kind in others:
        if abs(v) < 0.3 or (x < -half_m and kind != WALKER):
            continue
        turned = math.remainder(yaw, 2 * math.pi)
        theirs = np.stack([x + v * times * math.cos(turned), y + v * times * math.sin(turned)], axis=1)
        if same_way(theirs, mine, turned, mine_yaw):
            continue
        if overlap(mine, mine_yaw, (half_m + MARGIN_M, 1.0 + MARGIN_M), theirs, turned, (half_length, half_width)):
            return False
    return True


def same_way(theirs: Array, mine: Array, turned: float, mine_yaw: Array) -> bool:
    """Who drives along with us is `behind`'s business."""
    return abs(math.remainder(turned - float(mine_yaw[0]), 2 * math.pi)) < math.radians(30) and bool(
        np.hypot(*(theirs[0] - mine[0])) > 2.0 and abs(theirs[0, 1]) < 2.5
    )


def overlap(
    mine: Array, mine_yaw: Array, half: tuple[float, float], theirs: Array, yaw: float, their_half: tuple[float, float]
) -> bool:
    """Whether two oblong boxes touch at any of the moments: no axis of either keeps them apart."""
    offset = theirs - mine
    turned = yaw - mine_yaw
    cos, sin = np.abs(np.cos(turned)), np.abs(np.sin(turned))
    along = np.abs(offset[:, 0] * np.cos(mine_yaw) + offset[:, 1] * np.sin(mine_yaw))
    across = np.abs(offset[:, 1] * np.cos(mine_yaw) - offset[:, 0] * np.sin(mine_yaw))
    apart = along > half[0] + their_half[0] * cos + their_half[1] * sin
    apart |= across > half[1] + their_half[0] * sin + their_half[1] * cos
    their_along = np.abs(offset[:, 0] * math.cos(yaw) + offset[:, 1] * math.sin(yaw))
    their_across = np.abs(offset[:, 1] * math.cos(yaw) - offset[:, 0] * math.sin(yaw))
    apart |= their_along > their_half[0] + half[0] * cos + half[1] * sin
    apart |= their_across > their_half[1] + half[0] * sin + half[1] * cos
    return bool((~apart).any())
