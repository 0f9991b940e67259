"""Triangles, and all that is known of each: which way it looks, its colour, its pattern and CARLA's label for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Color = tuple[int, int, int]


class Tag(IntEnum):
    """CARLA 0.9.16's semantic labels."""

    NONE = 0
    ROAD = 1
    SIDEWALK = 2
    BUILDING = 3
    WALL = 4
    FENCE = 5
    POLE = 6
    TRAFFIC_LIGHT = 7
    TRAFFIC_SIGN = 8
    VEGETATION = 9
    TERRAIN = 10
    SKY = 11
    PEDESTRIAN = 12
    RIDER = 13
    CAR = 14
    TRUCK = 15
    BUS = 16
    MOTORCYCLE = 18
    BICYCLE = 19
    STATIC = 20
    DYNAMIC = 21
    ROAD_LINE = 24
    GROUND = 25
    GUARD_RAIL = 28


class Pattern(IntEnum):
    """What `shade.py` paints on a surface."""

    PLAIN = 0
    ASPHALT = 1
    GRASS = 2
    PAVING = 3
    WALL = 4
    LEAVES = 5
    PAINT = 6
    SHINY = 7
    GLASS = 8
    LAMP = 9  # shines by itself
    BRICK = 10


class Part(IntEnum):
    """Triangles whose colour may change while the world runs; see `shapes.colours`."""

    FIXED = 0
    BODY = 1
    HEAD = 2
    TAIL = 3
    LEFT = 4
    RIGHT = 5
    BACK = 6
    RED = 1
    YELLOW = 2
    GREEN = 3


PARTS = 7


@dataclass(frozen=True)
class Mesh:
    """Every array has one row per triangle. Corners run clockwise as seen from the side that is looked at."""

    corners: Floats  # [N, 3, 3]
    color: Bytes  # [N, 3] red, green, blue
    pattern: Bytes  # [N]
    tag: Bytes  # [N]
    part: Bytes  # [N]
    solid: Bytes  # [N] 1: the face of a closed body, unseen from behind
    size: Floats  # [N] metres: of the smallest thing that is worth a pixel
    wall: Floats  # [N, 6] of a wall: the way along it (x, y), where it starts along that, its foot, its length, its height

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def normal(self) -> Floats:
        """[N, 3] of length 1, towards the side that is looked at; of ground, upwards."""
        a, b, c = (self.corners[:, i].astype(np.float64) for i in range(3))
        n = np.cross(c - a, b - a)
        n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)
        n[(self.solid == 0) & (n[:, 2] < 0)] *= -1
        return n.astype(np.float32)

    def moved(self, x_m: float, y_m: float, z_m: float, yaw_rad: float = 0.0) -> Mesh:
        """Turned about the upright axis and then set down somewhere."""
        cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
        turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        corners = (self.corners @ turn + (x_m, y_m, z_m)).astype(np.float32)
        along = self.wall[:, :2].astype(np.float64) @ turn[:2, :2]
        wall = self.wall.copy()
        wall[:, :2] = along
        wall[:, 2] += along @ (x_m, y_m)
        wall[:, 3] += z_m
        return replace(self, corners=corners, wall=wall)

    def take(self, which: NDArray[np.intp]) -> Mesh:
        return Mesh(*(getattr(self, field.name)[which] for field in fields(self)))


def joined(meshes: Sequence[Mesh]) -> Mesh:
    return Mesh(*(np.concatenate([getattr(mesh, field.name) for mesh in meshes]) for field in fields(Mesh)))


def mesh(
    corners: Floats,
    color: Color,
    pattern: Pattern = Pattern.PLAIN,
    tag: Tag = Tag.NONE,
    *,
    part: int = Part.FIXED,
    solid: bool = False,
    size_m: float = 1.0,
) -> Mesh:
    n = len(corners)
    return Mesh(
        np.asarray(corners, np.float32).reshape(n, 3, 3),
        np.tile(np.array(color, np.uint8), (n, 1)),
        np.full(n, pattern, np.uint8),
        np.full(n, tag, np.uint8),
        np.full(n, part, np.uint8),
        np.full(n, solid, np.uint8),
        np.full(n, size_m, np.float32),
        np.zeros((n, 6), np.float32),
    )


QUADS = ((4, 5, 6, 7), (0, 4, 7, 3), (1, 2, 6, 5), (3, 7, 6, 2), (0, 1, 5, 4), (0, 1, 2, 3))


def hull(
    bottom: Sequence[tuple[float, float]], low_m: float, top: Sequence[tuple[float, float]], high_m: float
) -> Floats:
    """[12, 3, 3] the body between two four-sided outlines, (x, y) each and in the order back left, back right, front right,
    front left. Its faces in the order top, left, right, front, back, bottom, two triangles each."""
    points = np.array([(x, y, low_m) for x, y in bottom] + [(x, y, high_m) for x, y in top], np.float64)
    found = []
    for a, b, c, d in QUADS:
        found += [points[[a, b, c]], points[[a, c, d]]]
    return outward(np.array(found), points.mean(0))


def outward(corners: NDArray[np.floating], middle: Sequence[float] | NDArray[np.floating]) -> Floats:
    """The same triangles, turned so that all of them look away from `middle`."""
    out = np.array(corners, np.float32)
    normal = np.cross(corners[:, 2] - corners[:, 0], corners[:, 1] - corners[:, 0])
    inwards = np.einsum("nk,nk->n", normal, corners.mean(1) - middle) < 0
    out[inwards] = out[inwards][:, [0, 2, 1]]
    return out


def rectangle(x0: float, x1: float, half_width: float) -> list[tuple[float, float]]:
    return [(x0, -half_width), (x0, half_width), (x1, half_width), (x1, -half_width)]


def box(half: tuple[float, float, float], middle: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Floats:
    (a, b, c), (x, y, z) = half, middle
    outline = rectangle(-a, a, b)
    return hull(outline, -c, outline, c) + np.array((x, y, z), np.float32)


def drum(radius_m: float, half_width_m: float, x: float, y: float, z: float, sides: int = 8) -> Floats:
    """A wheel: a drum that lies across."""
    angle = np.arange(sides) * 2 * np.pi / sides
    rim = np.stack([x + radius_m * np.cos(angle), np.zeros(sides), z + radius_m * np.sin(angle)], axis=1)
    left, right = (rim + np.array([0.0, side, 0.0]) for side in (y - half_width_m, y + half_width_m))
    found = []
    for i in range(sides):
        j = (i + 1) % sides
        found += [[left[i], right[i], right[j]], [left[i], right[j], left[j]]]
    for i in range(1, sides - 1):
        found += [[left[0], left[i], left[i + 1]], [right[0], right[i + 1], right[i]]]
    faces = np.array(found)
    return outward(faces, faces.reshape(-1, 3).mean(0))
