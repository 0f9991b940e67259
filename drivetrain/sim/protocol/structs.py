"""The structs of CARLA's calls, with their fields in the order in which release 0.9.16 sends them.

Angles are in degrees, lengths in metres, and the axes are CARLA's: x forward, y right, z up. Names are the client's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

ActorId = NewType("ActorId", int)


@dataclass(frozen=True, slots=True)
class Vector2D:
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Vector3D:
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0


@dataclass(frozen=True, slots=True)
class Rotation:
    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0


@dataclass(frozen=True, slots=True)
class Transform:
    location: Vector3D = Vector3D()
    rotation: Rotation = Rotation()


@dataclass(frozen=True, slots=True)
class BoundingBox:
    location: Vector3D = Vector3D()  # of its centre, seen from the actor
    extent: Vector3D = Vector3D()  # half its sides
    rotation: Rotation = Rotation()


@dataclass(frozen=True, slots=True)
class GeoLocation:
    latitude: float = 0.0
    longitude: float = 0.0
    altitude: float = 0.0


@dataclass(frozen=True, slots=True)
class Token:
    data: bytes


@dataclass(frozen=True, slots=True)
class EpisodeInfo:
    episode_id: int
    token: Token


@dataclass(frozen=True, slots=True)
class EpisodeSettings:
    synchronous_mode: bool = False
    no_rendering_mode: bool = False
    fixed_delta_seconds: float | None = None
    substepping: bool = True
    max_substep_delta_time: float = 0.01
    max_substeps: int = 10
    max_culling_distance: float = 0.0
    deterministic_ragdolls: bool = False
    tile_stream_distance: float = 3000.0
    actor_active_distance: float = 2000.0
    spectator_as_ego: bool = True


@dataclass(frozen=True, slots=True)
class MapInfo:
    name: str
    spawn_points: tuple[Transform, ...]


class AttributeType(IntEnum):
    BOOL = 1
    INT = 2
    FLOAT = 3
    STRING = 4
    COLOR = 5  # "r,g,b"


@dataclass(frozen=True, slots=True)
class ActorAttribute:
    id: str
    type: AttributeType
    value: str
    recommended: tuple[str, ...] = ()
    is_modifiable: bool = True
    restrict_to_recommended: bool = False


@dataclass(frozen=True, slots=True)
class ActorDefinition:
    uid: int
    id: str
    tags: str  # "a,b,c"
    attributes: tuple[ActorAttribute, ...]


@dataclass(frozen=True, slots=True)
class AttributeValue:
    id: str
    type: AttributeType
    value: str


@dataclass(frozen=True, slots=True)
class ActorDescription:
    uid: int
    id: str
    attributes: tuple[AttributeValue, ...] = ()


@dataclass(frozen=True, slots=True)
class ActorInfo:
    """CARLA's `rpc::Actor`: what a client needs to know about an actor."""

    id: int
    parent_id: int
    description: ActorDescription
    bounding_box: BoundingBox
    semantic_tags: bytes = b""
    stream_token: bytes = b""


class Attachment(IntEnum):
    RIGID = 0
    SPRING_ARM = 1
    SPRING_ARM_GHOST = 2


@dataclass(frozen=True, slots=True)
class VehicleControl:
    throttle: float = 0.0
    steer: float = 0.0
    brake: float = 0.0
    hand_brake: bool = False
    reverse: bool = False
    manual_gear_shift: bool = False
    gear: int = 0


@dataclass(frozen=True, slots=True)
class AckermannControl:
    steer: float = 0.0  # radians
    steer_speed: float = 0.0  # rad/s
    speed: float = 0.0  # m/s
    acceleration: float = 0.0  # m/s2
    jerk: float = 0.0  # m/s3


@dataclass(frozen=True, slots=True)
class AckermannSettings:
    speed_kp: float = 0.15
    speed_ki: float = 0.0
    speed_kd: float = 0.25
    accel_kp: float = 0.01
    accel_ki: float = 0.0
    accel_kd: float = 0.01


@dataclass(frozen=True, slots=True)
class WalkerControl:
    direction: Vector3D = Vector3D(1.0, 0.0, 0.0)
    speed: float = 0.0
    jump: bool = False


@dataclass(frozen=True, slots=True)
class Weather:
    cloudiness: float = 0.0
    precipitation: float = 0.0
    precipitation_deposits: float = 0.0
    wind_intensity: float = 0.0
    sun_azimuth_angle: float = 0.0
    sun_altitude_angle: float = 45.0
    fog_density: float = 0.0
    fog_distance: float = 0.0
    fog_falloff: float = 0.0
    wetness: float = 0.0
    scattering_intensity: float = 0.0
    mie_scattering_scale: float = 0.0
    rayleigh_scattering_scale: float = 0.0331
    dust_storm: float = 0.0


@dataclass(frozen=True, slots=True)
class Gear:
    ratio: float = 1.0
    down_ratio: float = 0.5
    up_ratio: float = 0.65


@dataclass(frozen=True, slots=True)
class Wheel:
    tire_friction: float = 3.5
    damping_rate: float = 0.25
    max_steer_angle: float = 0.0
    radius: float = 35.0  # centimetres
    max_brake_torque: float = 1500.0
    max_handbrake_torque: float = 0.0
    lat_stiff_max_load: float = 3.0
    lat_stiff_value: float = 20.0
    long_stiff_value: float = 3000.0
    position: Vector3D = Vector3D()  # in the world, centimetres


@dataclass(frozen=True, slots=True)
class PhysicsControl:
    torque_curve: tuple[Vector2D, ...] = (Vector2D(0.0, 500.0), Vector2D(5000.0, 500.0))
    max_rpm: float = 5000.0
    moi: float = 1.0
    damping_rate_full_throttle: float = 0.15
    damping_rate_zero_throttle_clutch_engaged: float = 2.0
    damping_rate_zero_throttle_clutch_disengaged: float = 0.35
    use_gear_autobox: bool = True
    gear_switch_time: float = 0.5
    clutch_strength: float = 10.0
    final_ratio: float = 4.0
    forward_gears: tuple[Gear, ...] = ()
    mass: float = 1000.0
    drag_coefficient: float = 0.3
    center_of_mass: Vector3D = Vector3D()
    steering_curve: tuple[Vector2D, ...] = (Vector2D(0.0, 1.0),)
    wheels: tuple[Wheel, ...] = ()
    use_sweep_wheel_collision: bool = False


@dataclass(frozen=True, slots=True)
class LightState:
    flags: int = 0


@dataclass(frozen=True, slots=True)
class GenerationParameters:
    """How `generate_opendrive_world` builds a world."""

    vertex_distance: float = 2.0
    max_road_length: float = 50.0
    wall_height: float = 1.0
    additional_width: float = 0.6
    smooth_junctions: bool = True
    enable_mesh_visibility: bool = True
    enable_pedestrian_navigation: bool = True


@dataclass(frozen=True, slots=True)
class Command:
    """One of a batch. Each has a class of its own below; their numbers on the wire are in `versions.py`."""


@dataclass(frozen=True, slots=True)
class Spawn(Command):
    description: ActorDescription
    transform: Transform
    parent: ActorId | None
    attachment: int  # the client leaves it unset and sends any number
    socket: str
    do_after: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Destroy(Command):
    actor: ActorId


@dataclass(frozen=True, slots=True)
class ApplyVehicleControl(Command):
    actor: ActorId
    control: VehicleControl


@dataclass(frozen=True, slots=True)
class ApplyAckermannControl(Command):
    actor: ActorId
    control: AckermannControl


@dataclass(frozen=True, slots=True)
class ApplyWalkerControl(Command):
    actor: ActorId
    control: WalkerControl


@dataclass(frozen=True, slots=True)
class ApplyPhysicsControl(Command):
    actor: ActorId
    control: PhysicsControl


@dataclass(frozen=True, slots=True)
class ApplyTransform(Command):
    actor: ActorId
    transform: Transform


@dataclass(frozen=True, slots=True)
class ApplyWalkerState(Command):
    actor: ActorId
    transform: Transform
    speed: float


@dataclass(frozen=True, slots=True)
class ApplyTargetVelocity(Command):
    actor: ActorId
    vector: Vector3D


@dataclass(frozen=True, slots=True)
class ApplyTargetAngularVelocity(Command):
    actor: ActorId
    vector: Vector3D


@dataclass(frozen=True, slots=True)
class ApplyImpulse(Command):
    actor: ActorId
    vector: Vector3D


@dataclass(frozen=True, slots=True)
class ApplyForce(Command):
    actor: ActorId
    vector: Vector3D


@dataclass(frozen=True, slots=True)
class ApplyAngularImpulse(Command):
    actor: ActorId
    vector: Vector3D


@dataclass(frozen=True, slots=True)
class ApplyTorque(Command):
    actor: ActorId
    vector: Vector3D


@dataclass(frozen=True, slots=True)
class SetSimulatePhysics(Command):
    actor: ActorId
    enabled: bool


@dataclass(frozen=True, slots=True)
class SetEnableGravity(Command):
    actor: ActorId
    enabled: bool


@dataclass(frozen=True, slots=True)
class SetAutopilot(Command):
    actor: ActorId
    enabled: bool


@dataclass(frozen=True, slots=True)
class ShowDebugTelemetry(Command):
    actor: ActorId
    enabled: bool


@dataclass(frozen=True, slots=True)
class SetVehicleLightState(Command):
    actor: ActorId
    flags: int


@dataclass(frozen=True, slots=True)
class ApplyLocation(Command):
    actor: ActorId
    location: Vector3D


@dataclass(frozen=True, slots=True)
class ConsoleCommand(Command):
    text: str


class LightColour(IntEnum):
    RED = 0
    YELLOW = 1
    GREEN = 2
    OFF = 3
    UNKNOWN = 4


@dataclass(frozen=True, slots=True)
class SetTrafficLightState(Command):
    actor: ActorId
    state: LightColour


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """What became of one command: the actor's id, or why not."""

    actor: int = 0
    error: str = ""
