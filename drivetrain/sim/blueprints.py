"""The blueprint library: what a client is offered, and the check of what it asks for.

library().find("vehicle.tesla.model3")
settings(description)["role_name"]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from drivetrain.sim.catalogue import CHILDREN, MODELS, PROP_BOXES, WALKERS, Model
from drivetrain.sim.errors import SimError
from drivetrain.sim.protocol.structs import ActorAttribute, ActorDefinition, ActorDescription, AttributeType

T = AttributeType
Attribute = ActorAttribute


def fixed(name: str, kind: AttributeType, value: str) -> Attribute:
    return Attribute(name, kind, value, (), is_modifiable=False)


def role(value: str = "autopilot") -> Attribute:
    return Attribute(
        "role_name", T.STRING, value, (value, "scenario", "ego_vehicle") if value == "autopilot" else (value,)
    )


def vehicle(model: Model) -> tuple[Attribute, ...]:
    colours = tuple(model.colours.split())
    found = (
        fixed("object_type", T.STRING, ""),
        fixed("base_type", T.STRING, model.base_type),
        fixed("special_type", T.STRING, model.special_type),
        fixed("generation", T.INT, str(model.generation)),
        fixed("number_of_wheels", T.INT, str(model.wheels)),
        fixed("has_lights", T.BOOL, "false" if model.base_type == "bicycle" else "true"),
        fixed("has_dynamic_doors", T.BOOL, "false"),
        Attribute("color", T.COLOR, colours[0], colours),
        Attribute("sticky_control", T.BOOL, "true"),
        Attribute("terramechanics", T.BOOL, "false"),
        role(),
    )
    return found if model.wheels == 4 else (*found, Attribute("driver_id", T.INT, "0", ("0",)))


def walker(number: int) -> tuple[Attribute, ...]:
    return (
        fixed("gender", T.STRING, "female" if number % 2 else "male"),
        fixed("age", T.STRING, "child" if number in CHILDREN else "adult"),
        fixed("generation", T.INT, "2" if number > 14 else "1"),
        fixed("can_use_wheelchair", T.BOOL, "false"),
        Attribute("is_invincible", T.BOOL, "true"),
        Attribute("speed", T.FLOAT, "0.0", ("0.0", "1.4", "2.3")),
        role("pedestrian"),
    )


def rows(table: str) -> tuple[Attribute, ...]:
    """`name kind value` each; the kind by its first letter."""
    kinds = {"b": T.BOOL, "i": T.INT, "f": T.FLOAT, "s": T.STRING}
    found = []
    for row in filter(None, table.split(";")):
        name, kind, *value = row.split()
        found.append(Attribute(name, kinds[kind], " ".join(value)))
    return tuple(found)


SENSOR = "role_name s front;sensor_tick f 0.0;"
NO_TICK = "role_name s front;"
LENS = (
    "lens_circle_multiplier f 0.0;lens_circle_falloff f 5.0;lens_k f -1.0;lens_kcube f 0.0;lens_x_size f 0.08;"
    "lens_y_size f 0.08;"
)
IMAGE = SENSOR + "image_size_x i 800;image_size_y i 600;fov f 90.0;" + LENS
RGB = (
    "bloom_intensity f 0.675;fstop f 1.4;iso f 100.0;gamma f 2.2;lens_flare_intensity f 0.1;shutter_speed f 200.0;"
    "min_fstop f 1.2;blade_count i 5;exposure_mode s histogram;exposure_compensation f 0.0;exposure_min_bright f 10.0;"
    "exposure_max_bright f 12.0;exposure_speed_up f 3.0;exposure_speed_down f 1.0;calibration_constant f 16.0;"
    "focal_distance f 1000.0;blur_amount f 1.0;blur_radius f 0.0;motion_blur_intensity f 0.45;"
    "motion_blur_max_distortion f 0.35;motion_blur_min_object_screen_size f 0.1;slope f 0.88;toe f 0.55;shoulder f 0.26;"
    "black_clip f 0.0;white_clip f 0.04;temp f 6500.0;tint f 0.0;chromatic_aberration_intensity f 0.0;"
    "chromatic_aberration_offset f 0.0;enable_postprocess_effects b true;"
)
LIDAR = (
    "channels i 32;range f 10.0;points_per_second i 56000;rotation_frequency f 10.0;upper_fov f 10.0;lower_fov f -30.0;"
    "horizontal_fov f 360.0;"
)
LIDAR_NOISE = (
    "atmosphere_attenuation_rate f 0.004;dropoff_general_rate f 0.45;dropoff_intensity_limit f 0.8;"
    "dropoff_zero_intensity f 0.4;noise_stddev f 0.0;noise_seed i 0;"
)
RADAR = "horizontal_fov f 30.0;vertical_fov f 30.0;range f 100.0;points_per_second i 1500;noise_seed i 0;"
IMU = "noise_seed i 0;" + "".join(
    f"noise_{what}_{axis} f 0.0;" for what in ("accel_stddev", "gyro_bias", "gyro_stddev") for axis in "xyz"
)
GNSS = "noise_seed i 0;" + "".join(
    f"noise_{axis}_{what} f 0.0;" for axis in ("alt", "lat", "lon") for what in ("bias", "stddev")
)

SENSORS = {
    "sensor.camera.rgb": IMAGE + RGB,
    "sensor.camera.depth": IMAGE,
    "sensor.camera.semantic_segmentation": IMAGE,
    "sensor.camera.instance_segmentation": IMAGE,
    "sensor.camera.normals": IMAGE,
    "sensor.camera.optical_flow": IMAGE,
    "sensor.camera.dvs": IMAGE
    + RGB
    + "positive_threshold f 0.3;negative_threshold f 0.3;sigma_positive_threshold f 0.0;sigma_negative_threshold f 0.0;"
    "refractory_period_ns i 0;use_log b true;log_eps f 0.001;",
    "sensor.lidar.ray_cast": SENSOR + LIDAR + LIDAR_NOISE,
    "sensor.lidar.ray_cast_semantic": SENSOR + LIDAR,
    "sensor.other.radar": SENSOR + RADAR,
    "sensor.other.imu": SENSOR + IMU,
    "sensor.other.gnss": SENSOR + GNSS,
    "sensor.other.collision": NO_TICK,
    "sensor.other.lane_invasion": NO_TICK,
    "sensor.other.obstacle": SENSOR + "distance f 5.0;hit_radius f 0.5;only_dynamics b false;debug_linetrace b false;",
}


@dataclass(frozen=True)
class Library:
    definitions: tuple[ActorDefinition, ...]

    def find(self, name: str) -> ActorDefinition:
        by_name = index(self)
        if name not in by_name:
            raise SimError(f"got the blueprint {name!r:.80}, expected one of get_blueprint_library()")
        return by_name[name]


@lru_cache(maxsize=4)
def index(library: Library) -> dict[str, ActorDefinition]:
    return {one.id: one for one in library.definitions}


@lru_cache(maxsize=1)
def library() -> Library:
    kinds: list[tuple[str, tuple[Attribute, ...]]] = [(name, vehicle(m)) for name, m in MODELS.items()]
    kinds += [(name, walker(number)) for name, number in WALKERS.items()]
    kinds += [(name, rows(table)) for name, table in SENSORS.items()]
    kinds += [(name, (fixed("size", T.STRING, "medium"), role("prop"))) for name in PROP_BOXES]
    kinds += [("controller.ai.walker", (role("default"),))]
    return Library(
        tuple(
            ActorDefinition(uid, name, ",".join(name.split(".")), attributes)
            for uid, (name, attributes) in enumerate(kinds, start=1)
        )
    )


def settings(definition: ActorDefinition, description: ActorDescription) -> dict[str, str]:
    """Every attribute of the blueprint, with the client's values in place of the defaults."""
    known = {one.id: one for one in definition.attributes}
    found = {one.id: one.value for one in definition.attributes}
    for given in description.attributes:
        if given.id not in known:
            raise SimError(f"{definition.id} has no attribute {given.id!r:.60}; it has {', '.join(known)}")
        check(definition.id, known[given.id], given.value)
        found[given.id] = given.value
    return found


def check(actor: str, attribute: Attribute, value: str) -> None:
    try:
        READ[attribute.type](value)
    except ValueError:
        kind = attribute.type.name.lower()
        raise SimError(f"{actor}: got {attribute.id}={value!r:.60}, expected {kind}, as {attribute.value!r}") from None


def as_float(value: str) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError
    return number


def as_bool(value: str) -> bool:
    if value.lower() not in ("true", "false", "0", "1"):
        raise ValueError
    return value.lower() in ("true", "1")


def as_colour(value: str) -> tuple[int, ...]:
    parts = tuple(map(int, value.split(",")))
    if len(parts) != 3 or not all(0 <= part <= 255 for part in parts):
        raise ValueError
    return parts


READ: dict[AttributeType, Callable[[str], object]] = {
    T.BOOL: as_bool,
    T.INT: int,
    T.FLOAT: as_float,
    T.STRING: str,
    T.COLOR: as_colour,
}
