"""Turning and moving, in CARLA's left-handed axes: x forward, y right, z up; angles in degrees on the wire.

Yaw grows clockwise seen from above; pitch lifts the nose; roll lowers the right side... as `matrix` says, which is the
client's own `Transform.get_matrix`.
"""

from __future__ import annotations

import math

import numpy as np

from drivetrain.sim.protocol.structs import Rotation, Transform, Vector3D

Array = np.ndarray


def matrix(rotation: Rotation) -> Array:
    """[3, 3]; its columns are the actor's forward, right and up, in the world."""
    cp, sp = cos_sin(rotation.pitch)
    cy, sy = cos_sin(rotation.yaw)
    cr, sr = cos_sin(rotation.roll)
    return np.array(
        [
            [cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr],
            [cp * sy, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr],
            [sp, -cp * sr, cp * cr],
        ]
    )


def cos_sin(angle_deg: float) -> tuple[float, float]:
    angle = math.radians(angle_deg)
    return math.cos(angle), math.sin(angle)


def rotation_of(turn: Array) -> Rotation:
    pitch = math.degrees(math.asin(max(-1.0, min(1.0, turn[2, 0]))))
    if abs(turn[2, 0]) > 1 - 1e-12:  # straight up or down: yaw and roll are one, so let it all be yaw
        return Rotation(pitch, math.degrees(math.atan2(-turn[0, 1], turn[1, 1])), 0.0)
    yaw = math.degrees(math.atan2(turn[1, 0], turn[0, 0]))
    return Rotation(pitch, yaw, math.degrees(math.atan2(-turn[2, 1], turn[2, 2])))


def joined(parent: Transform, child: Transform) -> Transform:
    """Where a child is in the world, given where it is on its parent."""
    turn = matrix(parent.rotation)
    at, own = parent.location, child.location
    x, y, z = (turn @ (own.x, own.y, own.z)).tolist()
    here = Vector3D(at.x + x, at.y + y, at.z + z)
    if child.rotation == Rotation():
        return Transform(here, parent.rotation)
    return Transform(here, rotation_of(turn @ matrix(child.rotation)))


def to_array(vector: Vector3D) -> Array:
    return np.array([vector.x, vector.y, vector.z])


def to_vector(values: Array) -> Vector3D:
    x, y, z = (float(v) for v in values)
    return Vector3D(x, y, z)
