"""Boxes that meet: found on the ground plane by separating axes, pushed apart, and given an impulse.

Vehicles have mass and spin; walkers only mass; props stand as if rooted. A pair counts as meeting where its boxes overlap
in height too. Left out: friction between bodies, and tipping over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
BOUNCE = 0.1  # of the closing speed comes back


@dataclass(frozen=True)
class Boxes:
    """Upright boxes, [N] each: centre, yaw and half sides."""

    x: Array
    y: Array
    z: Array
    yaw: Array
    half_length: Array
    half_width: Array
    half_height: Array

    def __len__(self) -> int:
        return len(self.x)

    def corners(self, i: int) -> Array:
        """[4, 2]"""
        cos, sin = math.cos(self.yaw[i]), math.sin(self.yaw[i])
        forward = np.array([cos, sin]) * self.half_length[i]
        right = np.array([-sin, cos]) * self.half_width[i]
        middle = np.array([self.x[i], self.y[i]])
        return np.array(
            [middle + forward + right, middle + forward - right, middle - forward - right, middle - forward + right]
        )


@dataclass(frozen=True)
class Contact:
    first: int
    second: int
    normal: tuple[float, float]  # on the ground, from first to second
    depth_m: float
    point: tuple[float, float]


def near(boxes: Boxes, movers: int) -> Iterator[tuple[int, int]]:
    """Pairs whose circles overlap, at least one of them among the first `movers`."""
    if len(boxes) < 2 or not movers:
        return
    radius = np.hypot(boxes.half_length, boxes.half_width)
    reach = radius[:movers, None] + radius
    close = np.abs(boxes.x[:movers, None] - boxes.x) < reach
    close &= np.abs(boxes.y[:movers, None] - boxes.y) < reach
    close &= np.abs(boxes.z[:movers, None] - boxes.z) < boxes.half_height[:movers, None] + boxes.half_height
    for i, j in np.argwhere(close).tolist():
        if i < j:
            yield i, j


def contact(boxes: Boxes, i: int, j: int) -> Contact | None:
    """Whether they meet: not where their shadows on the side of either are apart."""
    away = float(boxes.x[j] - boxes.x[i]), float(boxes.y[j] - boxes.y[i])
    ours, theirs = sides(boxes, i), sides(boxes, j)
    depth, best = math.inf, (1.0, 0.0)
    for x, y in (ours[0], ours[1], theirs[0], theirs[1]):
        distance = away[0] * x + away[1] * y
        overlap = shadow(ours, x, y) + shadow(theirs, x, y) - abs(distance)
        if overlap <= 0:
            return None
        if overlap < depth:
            depth, best = overlap, (x, y) if distance >= 0 else (-x, -y)
    return Contact(i, j, best, depth, touching(boxes, i, j))


Sides = tuple[tuple[float, float], tuple[float, float], float, float]  # forward, right, and half of each


def sides(boxes: Boxes, i: int) -> Sides:
    cos, sin = math.cos(boxes.yaw[i]), math.sin(boxes.yaw[i])
    return (cos, sin), (-sin, cos), float(boxes.half_length[i]), float(boxes.half_width[i])


def shadow(box: Sides, x: float, y: float) -> float:
    """Half its length on an axis; less than nothing for a box turned inside out."""
    (fx, fy), (rx, ry), half_length, half_width = box
    return half_length * abs(fx * x + fy * y) + half_width * abs(rx * x + ry * y)


def touching(boxes: Boxes, i: int, j: int) -> tuple[float, float]:
    """The middle of the corners that are inside the other box; of the two centres where none is."""
    ours, theirs = boxes.corners(i), boxes.corners(j)
    inside = [c for c in theirs if holds(boxes, i, c)] + [c for c in ours if holds(boxes, j, c)]
    middle = np.mean(inside, axis=0) if inside else np.array([boxes.x[i] + boxes.x[j], boxes.y[i] + boxes.y[j]]) / 2
    return float(middle[0]), float(middle[1])


def holds(boxes: Boxes, i: int, point: Array) -> bool:
    dx, dy = point[0] - boxes.x[i], point[1] - boxes.y[i]
    cos, sin = math.cos(boxes.yaw[i]), math.sin(boxes.yaw[i])
    return bool(abs(dx * cos + dy * sin) <= boxes.half_length[i] and abs(-dx * sin + dy * cos) <= boxes.half_width[i])


@dataclass
class Body:
    """What an impulse needs to know of one that meets another, and changes."""

    x: float
    y: float
    vx: float
    vy: float
    spin: float  # rad/s, to the right
    inverse_mass: float
    inverse_inertia: float

    def speed_at(self, point: tuple[float, float]) -> tuple[float, float]:
        return self.vx - self.spin * (point[1] - self.y), self.vy + self.spin * (point[0] - self.x)

    def lever(self, point: tuple[float, float], normal: tuple[float, float]) -> float:
        return (point[0] - self.x) * normal[1] - (point[1] - self.y) * normal[0]

    def kick(self, point: tuple[float, float], normal: tuple[float, float], impulse: float) -> None:
        self.vx += impulse * self.inverse_mass * normal[0]
        self.vy += impulse * self.inverse_mass * normal[1]
        self.spin += impulse * self.inverse_inertia * self.lever(point, normal)


def bounce(first: Body, second: Body, met: Contact) -> float:
    """Kicks both apart, and gives the impulse in newton seconds; 0 where they already part."""
    ours, theirs = first.speed_at(met.point), second.speed_at(met.point)
    closing = (ours[0] - theirs[0]) * met.normal[0] + (ours[1] - theirs[1]) * met.normal[1]
    give = first.inverse_mass + second.inverse_mass
    give += first.inverse_inertia * first.lever(met.point, met.normal) ** 2
    give += second.inverse_inertia * second.lever(met.point, met.normal) ** 2
    if closing <= 0 or give == 0:
        return 0.0
    impulse = (1 + BOUNCE) * closing / give
    first.kick(met.point, met.normal, -impulse)
    second.kick(met.point, met.normal, impulse)
    return impulse
