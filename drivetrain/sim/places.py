"""The maps there are: towns made here, and whatever OpenDRIVE a client sends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from drivetrain.sim.errors import SimError
from drivetrain.sim.lights import LightPlace
from drivetrain.sim.protocol.structs import BoundingBox, GenerationParameters, Rotation, Transform, Vector3D
from drivetrain.sim.road.map import Pose, RoadMap, load
from drivetrain.sim.road.signals import Signal
from drivetrain.sim.squares import Doubles, heights_m, squares_of
from drivetrain.sim.towns.catalog import UnknownTown, names, town
from drivetrain.sim.towns.scenery import Thing

GENERATED = "OpenDriveMap"
TRIGGER_M = (4.0, 1.0)  # before and behind the stop line, where a vehicle waits
STAND_INS = {  # CARLA's own towns are Unreal assets; programs that ask for one by name get a town of the same kind
    "Town01": "grid", "Town02": "grid", "Town03": "roundabout", "Town04": "highway", "Town05": "grid",
    "Town06": "highway", "Town07": "rural", "Town10HD": "grid", "Town10HD_Opt": "grid", "Town01_Opt": "grid",
    "Town02_Opt": "grid", "Town03_Opt": "roundabout", "Town04_Opt": "highway", "Town05_Opt": "grid",
}  # fmt: skip


class RoadPlace:
    """A map of `road/` with what stands beside its roads, as the world and the renderer ask for it."""

    def __init__(self, name: str, xodr: str, roads: RoadMap, scenery: Sequence[Thing]):
        self.name, self.xodr, self.roads, self.scenery = name, xodr, roads, scenery
        self.light_places = lights_of(roads)
        flat = [roads.surfaces.ground, roads.surfaces.floors, *roads.surfaces.lanes.values()]
        self.ground = squares_of(np.concatenate(flat))

    def spawn_points(self) -> list[Transform]:
        return [transform(pose) for pose in self.roads.spawn_points()]

    def heights_m(self, points: Doubles, below_m: Doubles) -> Doubles:
        found = heights_m(self.ground, points, below_m)
        for i in np.flatnonzero(np.isnan(found)):  # beyond the ground's edge, or under it
            found[i] = self.roads.height_m(*points[i].tolist())
        return found

    def lights(self) -> list[LightPlace]:
        return self.light_places


class Places:
    """All of them, by name; the last few are kept as they are."""

    def __init__(self, tell: Callable[[str], None] = lambda text: None):
        self.tell = tell
        self.kept: dict[str, RoadPlace] = {}

    def names(self) -> list[str]:
        return names()

    def load(self, name: str) -> RoadPlace:
        if name in STAND_INS:
            self.tell(f"{name} is one of CARLA's own maps, which is not here; loading {STAND_INS[name]} in its stead")
            name = STAND_INS[name]
        if name not in self.kept:
            try:
                made = town(name)
            except UnknownTown as error:
                raise SimError(str(error)) from error
            if len(self.kept) >= 4:
                self.kept.clear()
            self.kept[name] = RoadPlace(name, made.xodr, made.roads, made.scenery)
        return self.kept[name]

    def from_xodr(self, xodr: str, parameters: GenerationParameters) -> RoadPlace:
        """The ground goes on beside the roads, so it needs no walls to keep vehicles from falling off."""
        return RoadPlace(GENERATED, xodr, load(xodr), ())


def transform(pose: Pose) -> Transform:
    return Transform(Vector3D(pose.x_m, pose.y_m, pose.z_m), Rotation(pose.pitch_deg, pose.yaw_deg, pose.roll_deg))


def lights_of(roads: RoadMap) -> list[LightPlace]:
    """A group for each junction; in it, the lights of one controller are green together."""
    lights = [signal for signal in roads.signals if signal.kind == "light" and signal.lanes]
    groups: dict[str, int] = {}
    phases: dict[str, dict[str, int]] = {}
    found = []
    for signal in lights:
        junction = junction_of(roads, signal)
        group = groups.setdefault(junction, len(groups))
        phase_of = phases.setdefault(junction, {})
        controller = signal.controllers[0] if signal.controllers else f"alone {signal.id}"
        found.append(light_place(roads, signal, group, phase_of.setdefault(controller, len(phase_of))))
    return found


def junction_of(roads: RoadMap, signal: Signal) -> str:
    for index in signal.lanes:
        lane = roads.lanes[index]
        for after in (lane, *(roads.lanes[i] for i in lane.successors)):
            if after.junction:
                return after.junction
    return f"none {signal.id}"


def light_place(roads: RoadMap, signal: Signal, group: int, phase: int) -> LightPlace:
    yaw = signal.heading_rad + math.pi  # it looks at those it is meant for
    at = np.array([signal.x_m, signal.y_m, signal.z_m])
    lines = [line for line in roads.stop_lines if line.signal == signal.id]
    ends = np.array([end for line in lines for end in (line.left, line.right)])
    forward = np.array([math.cos(signal.heading_rad), math.sin(signal.heading_rad), 0.0])
    aside = np.array([-forward[1], forward[0], 0.0])
    across, along = ends @ aside, float((ends @ forward).mean())
    middle_along = along + (TRIGGER_M[1] - TRIGGER_M[0]) / 2
    middle = forward * middle_along + aside * (across.min() + across.max()) / 2
    middle[2] = ends[:, 2].mean()
    x, y, z = (middle - at).tolist()
    cos, sin = math.cos(yaw), math.sin(yaw)
    trigger = BoundingBox(
        Vector3D(x * cos + y * sin, -x * sin + y * cos, z + 1.0),
        Vector3D(sum(TRIGGER_M) / 2, float(np.ptp(across)) / 2, 1.5),
    )
    lamps = BoundingBox(
        Vector3D(signal.x_m, signal.y_m, signal.z_m + signal.z_offset_m),
        Vector3D(0.2, 0.5, 1.3),
        Rotation(0.0, math.degrees(yaw), 0.0),
    )
    place = Transform(Vector3D(*at.tolist()), Rotation(0.0, math.degrees(yaw), 0.0))
    return LightPlace(signal.id, place, group, phase, trigger, (lamps,))
