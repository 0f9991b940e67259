"""The table of releases: all that differs from one CARLA to the next, so that another one is another entry.

    release = find("0.9.16")
    release.sensor["sensor.camera.rgb"], release.calls["spawn_actor"].args

`calls` also names what this server leaves out, with the reason that its users are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from drivetrain.sim.errors import SimError
from drivetrain.sim.protocol import structs as s
from drivetrain.sim.protocol.structs import ActorId, BoundingBox, Transform, Vector3D


class Answer(Enum):
    VALUE = "value"
    VOID = "void"
    BATCH = "batch"  # an array of answers with nothing round it


@dataclass(frozen=True)
class Call:
    """One method: its arguments after the metadata, what it returns, and why not, where this server leaves it out."""

    args: tuple[Any, ...] = ()
    returns: Any = None
    left_out: str = ""

    @property
    def answer(self) -> Answer:
        if self.returns is s.BatchAnswer:
            return Answer.BATCH
        return Answer.VOID if self.returns is None else Answer.VALUE


@dataclass(frozen=True)
class Release:
    name: str
    sensor: Mapping[str, int]  # the index in a sensor message's header, by blueprint
    world_index: int  # the same for the stream of the world's state
    commands: tuple[type[s.Command], ...]  # in the order of their numbers
    calls: Mapping[str, Call]
    field_order: Mapping[type, tuple[str, ...]] = field(default_factory=dict)  # where a struct is not sent as declared


SENSORS_0_9_16 = tuple(
    """
    sensor.other.collision sensor.camera.depth sensor.camera.normals sensor.camera.dvs sensor.other.gnss sensor.other.imu
    sensor.other.lane_invasion sensor.other.obstacle sensor.camera.optical_flow sensor.other.radar
    sensor.lidar.ray_cast_semantic sensor.lidar.ray_cast sensor.other.rss sensor.camera.rgb
    sensor.camera.semantic_segmentation sensor.camera.instance_segmentation sensor.camera.cosmos_visualization world
    gbuffer_uint8 gbuffer_float sensor.other.v2x sensor.other.v2x_custom
    """.split()  # noqa: SIM905
)

COMMANDS_0_9_16 = (
    s.Spawn,
    s.Destroy,
    s.ApplyVehicleControl,
    s.ApplyAckermannControl,
    s.ApplyWalkerControl,
    s.ApplyPhysicsControl,
    s.ApplyTransform,
    s.ApplyWalkerState,
    s.ApplyTargetVelocity,
    s.ApplyTargetAngularVelocity,
    s.ApplyImpulse,
    s.ApplyForce,
    s.ApplyAngularImpulse,
    s.ApplyTorque,
    s.SetSimulatePhysics,
    s.SetEnableGravity,
    s.SetAutopilot,
    s.ShowDebugTelemetry,
    s.SetVehicleLightState,
    s.ApplyLocation,
    s.ConsoleCommand,
    s.SetTrafficLightState,
)

EPISODE = {
    "version": Call((), str),
    "get_episode_info": Call((), s.EpisodeInfo),
    "get_sensor_token": Call((int,), s.Token),
    "get_episode_settings": Call((), s.EpisodeSettings),
    "set_episode_settings": Call((s.EpisodeSettings,), int),
    "get_required_files": Call((str,), tuple[str, ...]),
    "query_lights_state": Call((str,), tuple[int, ...]),  # street lamps: there are none
    "get_map_info": Call((), s.MapInfo),
    "get_map_data": Call((), str),
    "get_available_maps": Call((), tuple[str, ...]),
    "get_actor_definitions": Call((), tuple[s.ActorDefinition, ...]),
    "get_spectator": Call((), s.ActorInfo),
    "tick_cue": Call((), int),
    "load_new_episode": Call((str, bool, int)),
    "copy_opendrive_to_file": Call((str, s.GenerationParameters)),
    "get_weather_parameters": Call((), s.Weather),
    "set_weather_parameters": Call((s.Weather,)),
    "get_imui_gravity": Call((), float),
    "set_imui_gravity": Call((float,)),
    "apply_batch": Call((tuple[s.Command, ...], bool), s.BatchAnswer),
    "is_traffic_manager_running": Call((int,), bool),
    "get_traffic_manager_running": Call((int,), tuple[str, int]),
    "add_traffic_manager_running": Call((tuple[str, int],), bool),
    "destroy_traffic_manager": Call((int,), bool),
}
ACTORS = {
    "get_actors_by_id": Call((tuple[ActorId, ...],), tuple[s.ActorInfo, ...]),
    "spawn_actor": Call((s.ActorDescription, Transform), s.ActorInfo),
    "spawn_actor_with_parent": Call((s.ActorDescription, Transform, ActorId, s.Attachment, str), s.ActorInfo),
    "destroy_actor": Call((ActorId,), bool),
    "get_actor_bounding_box": Call((ActorId,), BoundingBox),
    "set_actor_transform": Call((ActorId, Transform)),
    "set_actor_location": Call((ActorId, Vector3D)),
    "set_actor_target_velocity": Call((ActorId, Vector3D)),
    "set_actor_target_angular_velocity": Call((ActorId, Vector3D)),
    "enable_actor_constant_velocity": Call((ActorId, Vector3D)),
    "disable_actor_constant_velocity": Call((ActorId,)),
    "add_actor_impulse": Call((ActorId, Vector3D)),
    "add_actor_force": Call((ActorId, Vector3D)),
    "add_actor_angular_impulse": Call((ActorId, Vector3D)),
    "add_actor_torque": Call((ActorId, Vector3D)),
    "set_actor_simulate_physics": Call((ActorId, bool)),
    "set_actor_enable_gravity": Call((ActorId, bool)),
    "set_actor_collisions": Call((ActorId, bool)),
    "apply_control_to_vehicle": Call((ActorId, s.VehicleControl)),
    "apply_control_to_walker": Call((ActorId, s.WalkerControl)),
    "apply_ackermann_control_to_vehicle": Call((ActorId, s.AckermannControl)),
    "apply_ackermann_controller_settings": Call((ActorId, s.AckermannSettings)),
    "get_ackermann_controller_settings": Call((ActorId,), s.AckermannSettings),
    "get_physics_control": Call((ActorId,), s.PhysicsControl),
    "apply_physics_control": Call((ActorId, s.PhysicsControl)),
    "get_vehicle_light_state": Call((ActorId,), s.LightState),
    "get_vehicle_light_states": Call((), tuple[tuple[ActorId, int], ...]),
    "set_vehicle_light_state": Call((ActorId, s.LightState)),
    "get_wheel_steer_angle": Call((ActorId, int), float),
}
LIGHTS = {
    "set_traffic_light_state": Call((ActorId, s.LightColour)),
    "set_traffic_light_green_time": Call((ActorId, float)),
    "set_traffic_light_yellow_time": Call((ActorId, float)),
    "set_traffic_light_red_time": Call((ActorId, float)),
    "freeze_traffic_light": Call((ActorId, bool)),
    "freeze_all_traffic_lights": Call((bool,)),
    "reset_traffic_light_group": Call((ActorId,)),
    "reset_all_traffic_lights": Call(),
    "get_group_traffic_lights": Call((ActorId,), tuple[ActorId, ...]),
    "get_light_boxes": Call((ActorId,), tuple[BoundingBox, ...]),
}

WHY_LEFT_OUT = {
    "a vehicle here is one body without doors, bones, sockets or parts": "open_vehicle_door close_vehicle_door"
    " get_actor_component_names get_actor_component_world_transform get_actor_component_relative_transform"
    " get_actor_bone_names get_actor_bone_world_transforms get_actor_bone_relative_transforms"
    " get_actor_socket_names get_actor_socket_world_transforms get_actor_socket_relative_transforms"
    " get_vehicle_bone_world_transforms get_bones_transform set_bones_transform blend_pose get_pose_from_animation"
    " set_wheel_steer_direction get_wheel_pitch_angle set_wheel_pitch_angle",
    "vehicles here have one physics of their own": "enable_carsim use_carsim_road enable_chrono_physics"
    " restore_physx_physics get_telemetry_data show_vehicle_debug_telemetry"
    " add_actor_impulse_at_location add_actor_force_at_location",
    "nothing is recorded": "start_recorder stop_recorder show_recorder_file_info show_recorder_collisions"
    " show_recorder_actors_blocked replay_file stop_replayer set_replayer_time_factor set_replayer_ignore_hero"
    " set_replayer_ignore_spectator",
    "there is no scene of meshes behind the map": "get_all_level_BBs get_environment_objects enable_environment_objects"
    " project_point cast_ray get_names_of_all_objects load_map_layer unload_map_layer draw_debug_shape"
    " apply_color_texture_to_objects apply_float_color_texture_to_objects set_annotations_traverse_translucency",
    "there are no street lamps": "update_lights_state update_day_night_cycle",
    "there is no ROS bridge inside": "enable_sensor_for_ros disable_sensor_for_ros is_sensor_enabled_for_ros",
    "cameras have no G-buffer": "get_gbuffer_token",
    "walkers here do not die": "set_actor_dead",
    "no files are needed from the server": "request_file",
}
VALUES = ("get_", "is_", "show_", "start_recorder", "replay_file", "project_point", "cast_ray", "request_file")
VOID = ("show_vehicle_debug_telemetry", "get_pose_from_animation")


def left_out(name: str, why: str) -> Call:
    """What it would have returned matters: a client shows our reason only where the error has the right shape."""
    return Call(returns=bool if name.startswith(VALUES) and name not in VOID else None, left_out=why)


LEFT_OUT = {name: left_out(name, why) for why, names in WHY_LEFT_OUT.items() for name in names.split()}

RELEASES = {
    "0.9.16": Release(
        name="0.9.16",
        sensor={name: index for index, name in enumerate(SENSORS_0_9_16)},
        world_index=SENSORS_0_9_16.index("world"),
        commands=COMMANDS_0_9_16,
        calls=EPISODE | ACTORS | LIGHTS | LEFT_OUT,
    )
}


def find(name: str) -> Release:
    if name not in RELEASES:
        raise SimError(f"got CARLA release {name!r}, expected one of {', '.join(RELEASES)}")
    return RELEASES[name]
