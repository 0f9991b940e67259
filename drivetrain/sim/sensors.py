"""Sensors: those that need no picture (IMU, GNSS, collision), and what a renderer is asked for by the rest.

Each gives the bytes after the sensor header, as CARLA 0.9.16 packs them. Lane invasion has nothing to send: the client
computes it from the map.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgpack
import numpy as np

from drivetrain.sim.geometry import matrix, to_array
from drivetrain.sim.lights import Light
from drivetrain.sim.maps import Map
from drivetrain.sim.protocol.structs import BoundingBox, LightColour, Transform, Vector3D, Weather

Array = np.ndarray
GRAVITY_MPS2 = 9.81
SCALED_RADIUS_M = 6378137.0 * 0.9996
RENDERED = ("sensor.camera.", "sensor.lidar.", "sensor.other.radar", "sensor.other.obstacle")


@dataclass(frozen=True, eq=False)
class Body:
    """Something that a renderer can see, and that may move."""

    id: int
    blueprint: str
    settings: Mapping[str, str]
    box: BoundingBox


@dataclass(frozen=True, eq=False)
class Scene:
    """The world at one tick. The arrays have a row for each body; while nobody comes or goes, `bodies` and
    `lights` are the same objects."""

    frame: int
    elapsed_s: float
    dt_s: float
    map: Map
    weather: Weather
    bodies: tuple[Body, ...]
    places_m: Array  # [N, 3]
    turns_rad: Array  # [N, 3] pitch, yaw, roll
    velocities_mps: Array  # [N, 3]
    light_flags: Array  # [N]
    lights: Sequence[Light]
    colours: Sequence[LightColour]  # theirs


@dataclass(frozen=True)
class View:
    """The sensor that is to be served."""

    id: int
    parent: int  # 0 where it stands free
    blueprint: str
    settings: Mapping[str, str]
    transform: Transform
    velocity: Vector3D


@dataclass(frozen=True)
class Met:
    """What an obstacle detector finds."""

    actor: int  # 0 where it is none
    tag: int
    distance_m: float


class Renderer(Protocol):
    """Whoever makes pictures, clouds and radar echoes. Called once per tick for each sensor that is due and listened to."""

    def check(self, blueprint: str, settings: Mapping[str, str]) -> None:
        """Raises SimError, naming it, for a sensor or a setting that it cannot serve."""

    def render(self, scene: Scene, view: View) -> bytes:
        """The message's payload: for cameras `binary.image(...)`."""

    def obstacle(self, scene: Scene, view: View) -> Met | None:
        """What an obstacle detector meets within its distance, if anything."""


def needs_renderer(blueprint: str) -> bool:
    return blueprint.startswith(RENDERED)


def noise(settings: Mapping[str, str], actor_seed: int = 0) -> np.random.Generator:
    return np.random.default_rng([int(settings.get("noise_seed", "0")) & 0xFFFFFFFF, actor_seed])


def three(settings: Mapping[str, str], name: str) -> Array:
    return np.array([float(settings[f"noise_{name}_{axis}"]) for axis in "xyz"])


@dataclass
class Imu:
    """Accelerometer (from three positions, as CARLA's), gyroscope and compass, in the sensor's own axes."""

    settings: Mapping[str, str]
    positions: list[Array] = field(default_factory=list)
    steps_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = noise(self.settings)
        self.accel_std, self.gyro_std = three(self.settings, "accel_stddev"), three(self.settings, "gyro_stddev")
        self.gyro_bias = three(self.settings, "gyro_bias")

    def see(self, transform: Transform, dt_s: float) -> None:
        """Called every tick, whether or not a message is due."""
        self.positions = [*self.positions[-2:], to_array(transform.location)]
        self.steps_s = [*self.steps_s[-1:], dt_s]

    def acceleration(self) -> Array:
        if len(self.positions) < 3:
            return np.zeros(3)
        first, second, third = self.positions
        was, now = self.steps_s
        change: Array = ((third - second) / now - (second - first) / was) / now
        return change

    def payload(self, transform: Transform, spin_radps: Array, gravity_mps2: float) -> bytes:
        turn = matrix(transform.rotation)
        felt = self.acceleration() + np.array([0.0, 0.0, gravity_mps2])
        accel = turn.T @ felt + self.random.normal(size=3) * self.accel_std
        gyro = turn.T @ spin_radps + self.gyro_bias + self.random.normal(size=3) * self.gyro_std
        return packed([accel.tolist(), gyro.tolist(), compass_rad(turn)])


def compass_rad(turn: Array) -> float:
    """0 to the north, which is -y, and growing to the east."""
    return math.atan2(turn[0, 0], -turn[1, 0]) % (2 * math.pi)


@dataclass
class Gnss:
    settings: Mapping[str, str]
    origin: tuple[float, float]  # latitude and longitude of the map's origin

    def __post_init__(self) -> None:
        self.random = noise(self.settings)

    def payload(self, transform: Transform) -> bytes:
        at = transform.location
        place = {"alt": at.z, **dict(zip(("lat", "lon"), geolocation(self.origin, at.x, at.y), strict=True))}
        for axis in ("alt", "lat", "lon"):  # CARLA draws in this order
            std, bias = (float(self.settings[f"noise_{axis}_{what}"]) for what in ("stddev", "bias"))
            place[axis] += bias + std * float(self.random.normal())
        return packed([place["lat"], place["lon"], place["alt"]])


def geolocation(origin: tuple[float, float], x_m: float, y_m: float) -> tuple[float, float]:
    """The client's `transform_to_geolocation` to the last digit: whatever the map says, a sphere's transverse Mercator with a
    scale of 0.9996 and with +y to the north."""
    latitude, longitude = map(math.radians, origin)
    east, north = x_m / SCALED_RADIUS_M, y_m / SCALED_RADIUS_M + latitude
    turned = math.atan2(math.sinh(east), math.cos(north))
    return math.degrees(math.asin(math.sin(north) / math.cosh(east))), math.degrees(longitude + turned)


def map_origin(xodr: str) -> tuple[float, float]:
    """From the OpenDRIVE header's geoReference; what the client falls back on where there is none."""
    found = [re.search(rf"\+{name}=([-+.\deE]+)", xodr) for name in ("lat_0", "lon_0")]
    if found[0] is None or found[1] is None:
        return 42.0, 2.0
    return float(found[0].group(1)), float(found[1].group(1))


def collision_payload(own: list[object], other: list[object], impulse: Vector3D) -> bytes:
    """Both actors as the codec encodes `ActorInfo`."""
    return packed([own, other, [impulse.x, impulse.y, impulse.z]])


def packed(value: object) -> bytes:
    data: bytes = msgpack.packb(value)
    return data
