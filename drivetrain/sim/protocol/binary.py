"""What the streams carry: little-endian and packed, unlike the calls.

A message is a length, a sensor header and a payload. The world's own stream lists every actor in `STATE_BYTES` each,
the last 54 of which mean something else for each kind of actor; hence one numpy type per kind.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address

import numpy as np

from drivetrain.sim.protocol.structs import Transform

LENGTH = struct.Struct("<I")
SENSOR_HEADER = struct.Struct("<QQd6f")  # index, frame, timestamp, x y z pitch yaw roll
EPISODE_HEADER = struct.Struct("<Qdf3iI")  # episode, wall clock, delta, map origin, flags
IMAGE_HEADER = struct.Struct("<IIf")  # width, height, fov in degrees
TOKEN = struct.Struct("<IHBB16s")
TCP, IPV4, IPV6 = 1, 1, 2
MAP_CHANGE, LIGHT_UPDATE = 1, 2

COMMON = [
    ("id", "<u4"),
    ("state", "u1"),
    ("location", "<f4", 3),
    ("rotation", "<f4", 3),  # pitch, yaw, roll
    ("velocity", "<f4", 3),
    ("angular_velocity", "<f4", 3),  # degrees a second
    ("acceleration", "<f4", 3),
]
ACTIVE, DORMANT = 1, 2
UNION_BYTES = 54


def with_union(fields: list[tuple[str, str] | tuple[str, str, int]]) -> np.dtype[np.void]:
    own = np.dtype(fields)
    padding = [] if own.itemsize == UNION_BYTES else [("padding", f"V{UNION_BYTES - own.itemsize}")]
    return np.dtype(COMMON + fields + padding)


OTHER_STATE = with_union([])
VEHICLE_STATE = with_union(
    [
        ("pedals", "<f4", 3),  # throttle, steer, brake
        ("switches", "u1", 3),  # hand brake, reverse, manual gear shift
        ("gear", "<i4"),
        ("speed_limit", "<f4"),  # km/h
        ("light_colour", "u1"),  # of the traffic light that it stands at
        ("at_light", "u1"),
        ("light_id", "<u4"),
        ("failure", "u1"),
    ]
)
WALKER_STATE = with_union([("direction", "<f4", 3), ("speed", "<f4"), ("jump", "u1")])
LIGHT_STATE = with_union(
    [
        ("sign_id", "S32"),
        ("times", "<f4", 4),  # green, yellow, red, elapsed
        ("pole_index", "<u4"),
        ("frozen", "u1"),
        ("colour", "u1"),
    ]
)
SIGN_STATE = with_union([("sign_id", "S32")])
STATE_BYTES = OTHER_STATE.itemsize
assert STATE_BYTES == 119


@dataclass(frozen=True)
class Address:
    """Where streams are served, as a client is told."""

    host: str
    port: int


def token(stream_id: int, address: Address) -> bytes:
    ip = ip_address(address.host)
    return TOKEN.pack(stream_id, address.port, TCP, IPV4 if ip.version == 4 else IPV6, ip.packed.ljust(16, b"\0"))


def sensor_header(index: int, frame: int, timestamp_s: float, transform: Transform) -> bytes:
    at, turn = transform.location, transform.rotation
    return SENSOR_HEADER.pack(index, frame, timestamp_s, at.x, at.y, at.z, turn.pitch, turn.yaw, turn.roll)


def image(width: int, height: int, fov_deg: float, bgra: bytes | memoryview) -> bytes:
    assert len(bgra) == width * height * 4, (width, height, len(bgra))
    return IMAGE_HEADER.pack(width, height, fov_deg) + bgra


def local_host(connection: socket.socket) -> str:
    """The address by which this client reached us, so that it is an address by which it reaches the streams."""
    host: str = connection.getsockname()[0]
    return host.split("%")[0]
