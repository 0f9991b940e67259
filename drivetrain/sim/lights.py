"""Traffic lights: who has green. In a group (a junction) one phase after another runs green, yellow and red.

A light that is frozen stays as it is; one that a client has set goes on from there when its time is over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from drivetrain.sim.geometry import joined
from drivetrain.sim.protocol.structs import BoundingBox, LightColour, Transform

Array = np.ndarray
GREEN_S, YELLOW_S, RED_S = 10.0, 3.0, 2.0  # CARLA's


@dataclass(frozen=True)
class LightPlace:
    """Where a map has a light."""

    sign_id: str  # of the signal in the OpenDRIVE text
    transform: Transform
    group: int = 0  # the junction
    phase: int = 0  # those of a group that are green together
    trigger: BoundingBox = field(default_factory=BoundingBox)  # where vehicles wait for it, seen from the light
    boxes: tuple[BoundingBox, ...] = ()  # of its lamps, in the world


@dataclass(eq=False)
class Light:
    actor: int
    place: LightPlace
    pole_index: int
    colour: LightColour = LightColour.RED
    green_s: float = GREEN_S
    yellow_s: float = YELLOW_S
    red_s: float = RED_S
    elapsed_s: float = 0.0
    frozen: bool = False

    def lasts_s(self) -> float:
        return {LightColour.GREEN: self.green_s, LightColour.YELLOW: self.yellow_s}.get(self.colour, self.red_s)

    def show(self, colour: LightColour) -> None:
        self.colour, self.elapsed_s = colour, 0.0


def trigger(place: LightPlace) -> tuple[float, ...]:
    """x, y and heading of its trigger box in the world, and half its sizes."""
    box = place.trigger
    middle = joined(place.transform, Transform(box.location)).location
    yaw = math.radians(place.transform.rotation.yaw + box.rotation.yaw)
    return middle.x, middle.y, yaw, box.extent.x, box.extent.y, box.extent.z


NEXT = {LightColour.GREEN: LightColour.YELLOW, LightColour.YELLOW: LightColour.RED}


@dataclass(eq=False)
class Group:
    phases: dict[int, list[Light]] = field(default_factory=dict)
    turn: int = 0

    def lights(self) -> list[Light]:
        return [light for phase in self.phases.values() for light in phase]

    def reset(self) -> None:
        self.turn = 0
        for light in self.lights():
            light.show(LightColour.RED)
        self.start()

    def start(self) -> None:
        for light in self.phases[sorted(self.phases)[self.turn]]:
            light.show(LightColour.GREEN)

    def step(self, dt_s: float) -> None:
        active = self.phases[sorted(self.phases)[self.turn]]
        for light in self.lights():
            light.elapsed_s += 0.0 if light.frozen else dt_s
        leader = active[0]
        if leader.frozen or leader.elapsed_s < leader.lasts_s():
            return
        if leader.colour in NEXT:
            after = NEXT[leader.colour]
            for light in active:
                light.show(after)
            return
        self.turn = (self.turn + 1) % len(self.phases)
        self.start()


class Lights:
    def __init__(self) -> None:
        self.by_actor: dict[int, Light] = {}
        self.groups: dict[int, Group] = {}
        self.frozen = False
        self.boxes: Array | None = None

    def add(self, actor: int, place: LightPlace) -> Light:
        group = self.groups.setdefault(place.group, Group())
        light = Light(actor, place, pole_index=len(group.lights()))
        group.phases.setdefault(place.phase, []).append(light)
        self.by_actor[actor] = light
        return light

    def holding(self, x_m: Array, y_m: Array) -> Array:
        """[lights, N] which points are in which trigger boxes."""
        if self.boxes is None or self.boxes.shape[1] != len(self.by_actor):
            self.boxes = np.array([trigger(light.place) for light in self.by_actor.values()]).reshape(-1, 6).T
        x, y, yaw, half_x, half_y, _ = self.boxes[:, :, None]
        cos, sin, dx, dy = np.cos(yaw), np.sin(yaw), x_m - x, y_m - y
        inside: Array = (np.abs(dx * cos + dy * sin) < half_x) & (np.abs(dy * cos - dx * sin) < half_y)
        return inside

    def group_of(self, light: Light) -> Group:
        return self.groups[light.place.group]

    def reset(self) -> None:
        for group in self.groups.values():
            group.reset()

    def step(self, dt_s: float) -> None:
        if not self.frozen:
            for group in self.groups.values():
                group.step(dt_s)
