"""From a path and a speed to steering wheel and pedals: pure pursuit, and pedals that know the car's drag."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

Array = np.ndarray
SHORTEST_M, LONGEST_M = 3.5, 12.0
THROTTLE_PER_MPS, BRAKE_PER_MPS = 0.35, 0.25
DRAG = 0.012  # of throttle for each m/s, to hold a speed
COAST_MPS = 0.6  # too fast by less than this rolls out
STANDING_MPS = 0.1


class Car(NamedTuple):
    """What steering depends on."""

    base_m: float = 2.9  # between the axles
    most_steer_rad: float = math.radians(70.0)
    rear_m: float = 1.4  # from the vehicle's origin back to the rear axle


def steer(path: Array, speed_mps: float, car: Car) -> float:
    """-1 to 1, towards a point of the path [N, 2] (ahead and to the right, from the vehicle's origin)."""
    reach = min(max(2.0 + 0.45 * speed_mps, SHORTEST_M), LONGEST_M) + car.rear_m
    from_rear = path + np.array([car.rear_m, 0.0])
    far = np.hypot(*from_rear.T)
    further = np.flatnonzero(far >= reach)
    row = int(further[0]) if len(further) else len(path) - 1
    aim = from_rear[row]
    if row and len(further):
        share = (reach - far[row - 1]) / max(far[row] - far[row - 1], 1e-6)
        aim = from_rear[row - 1] + min(max(share, 0.0), 1.0) * (from_rear[row] - from_rear[row - 1])
    angle = math.atan2(2.0 * car.base_m * float(aim[1]), max(float(aim @ aim), 1e-6))
    return min(max(angle / car.most_steer_rad, -1.0), 1.0)


def pedals(wanted_mps: float, speed_mps: float) -> tuple[float, float]:
    """Throttle and brake."""
    if wanted_mps < STANDING_MPS:
        return 0.0, 1.0 if speed_mps < 1.0 else min(1.0, 0.2 + BRAKE_PER_MPS * speed_mps)
    short = wanted_mps - speed_mps
    if short < -COAST_MPS:
        return 0.0, min(1.0, -(short + COAST_MPS) * BRAKE_PER_MPS)
    return min(max(THROTTLE_PER_MPS * short + DRAG * wanted_mps, 0.0), 0.85), 0.0


def controls(path: Array, wanted_mps: float, speed_mps: float, car: Car) -> Array:
    """[steer, throttle, brake]."""
    throttle, brake = pedals(wanted_mps, speed_mps)
    return np.array([steer(path, speed_mps, car), throttle, brake], np.float32)
