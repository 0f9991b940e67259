"""The world's own stream: a header and `STATE_BYTES` for each actor, rewritten only where something moved."""

from __future__ import annotations

import numpy as np

from drivetrain.sim.actors import Actor, Kind, Registry
from drivetrain.sim.lights import Lights
from drivetrain.sim.protocol.binary import (
    ACTIVE,
    EPISODE_HEADER,
    LIGHT_STATE,
    OTHER_STATE,
    STATE_BYTES,
    VEHICLE_STATE,
    WALKER_STATE,
)
from drivetrain.sim.protocol.structs import LightColour
from drivetrain.sim.vehicle import Fleet

Array = np.ndarray


class State:
    """The rows of all actors, kept from tick to tick."""

    def __init__(self) -> None:
        self.rows: Array = np.zeros((0, STATE_BYTES), np.uint8)
        self.actors: list[Actor] = []
        self.vehicles: Array = np.zeros(0, VEHICLE_STATE)
        self.lights: Array = np.zeros(0, LIGHT_STATE)
        self.stale = True
        self.moved: set[Actor] = set()
        self.row_of: dict[int, int] = {}

    def rebuild(self, registry: Registry, fleet: Fleet) -> None:
        """Vehicles come first, in the fleet's order."""
        vehicles = [registry.live[actor] for actor in fleet.ids]
        others = sorted(registry.of(Kind.WALKER, Kind.LIGHT, Kind.OTHER), key=lambda actor: (actor.kind, actor.id))
        self.actors = vehicles + others
        self.row_of = {actor.id: row for row, actor in enumerate(self.actors)}
        self.rows = np.zeros((len(self.actors), STATE_BYTES), np.uint8)
        common = self.rows.view(OTHER_STATE).reshape(-1)
        common["id"] = [actor.id for actor in self.actors]
        common["state"] = ACTIVE
        self.vehicles = self.rows[: len(vehicles)].view(VEHICLE_STATE).reshape(-1)
        self.vehicles["light_colour"] = int(LightColour.GREEN)  # CARLA's word for no light at all
        lights = [actor.light for actor in others if actor.light is not None]
        first = self.row_of[lights[0].actor] if lights else 0
        self.lights = self.rows[first : first + len(lights)].view(LIGHT_STATE).reshape(-1)
        self.moved = set(others)
        self.stale = False

    def refresh(self, registry: Registry, fleet: Fleet) -> None:
        if self.stale:
            self.rebuild(registry, fleet)

    def body(self, fleet: Fleet, header: tuple[int, float, float, int]) -> bytes:
        """Episode, wall clock, delta and flags, and then everyone."""
        self.write_vehicles(fleet)
        for actor in self.moved:
            self.write(actor)
        self.moved.clear()
        episode, clock_s, delta_s, flags = header
        return EPISODE_HEADER.pack(episode, clock_s, delta_s, 0, 0, 0, flags) + self.rows.tobytes()

    def at_lights(self, lights: Lights, fleet: Fleet) -> None:
        """Notes which light each vehicle stands at: the one whose trigger box it is in."""
        to = self.vehicles
        if len(fleet) and lights.by_actor:
            to["at_light"], to["light_colour"], to["light_id"] = 0, int(LightColour.GREEN), 0
        if not (len(fleet) and lights.by_actor):
            return
        every = list(lights.by_actor.values())
        for number, slot in zip(*np.nonzero(lights.holding(fleet.f["x"], fleet.f["y"])), strict=True):
            light = every[number]
            to["at_light"][slot], to["light_colour"][slot], to["light_id"][slot] = 1, light.colour, light.actor

    def write_lights(self, lights: Lights) -> None:
        """What of them changes; in the order of the rows, which is that of the actors' numbers."""
        every = sorted(lights.by_actor.values(), key=lambda light: light.actor)
        if every:
            self.lights["times"] = [(one.green_s, one.yellow_s, one.red_s, one.elapsed_s) for one in every]
            self.lights["frozen"] = [one.frozen for one in every]
            self.lights["colour"] = [one.colour for one in every]

    def write_vehicles(self, fleet: Fleet) -> None:
        if not len(fleet):
            return
        f, to = fleet.f, self.vehicles
        to["location"] = np.stack([f["x"], f["y"], f["z"]], axis=1)
        to["rotation"] = np.degrees(np.stack([f["pitch"], f["yaw"], f["roll"]], axis=1))
        to["velocity"] = fleet.velocity()
        to["angular_velocity"][:, 2] = np.degrees(f["w"])
        to["acceleration"] = np.stack([f["ax"], f["ay"], f["az"]], axis=1)
        to["pedals"] = np.stack([f["want_throttle"], f["want_steer"], f["want_brake"]], axis=1)
        to["switches"] = np.stack([f["want_hand"] > 0, fleet.f["want_reverse"], fleet.f["want_manual"]], axis=1)
        to["gear"], to["speed_limit"] = f["gear"], f["limit_kmh"]

    def write(self, actor: Actor) -> None:
        row = self.rows[self.row_of[actor.id]]
        common = row.view(OTHER_STATE)[0]
        at, turn = actor.transform.location, actor.transform.rotation
        common["location"] = at.x, at.y, at.z
        common["rotation"] = turn.pitch, turn.yaw, turn.roll
        common["velocity"] = actor.velocity.x, actor.velocity.y, actor.velocity.z
        common["acceleration"] = actor.acceleration.x, actor.acceleration.y, actor.acceleration.z
        if actor.kind is Kind.WALKER:
            own, walk = row.view(WALKER_STATE)[0], actor.walk
            own["direction"] = walk.direction.x, walk.direction.y, walk.direction.z
            own["speed"], own["jump"] = walk.speed, walk.jump
        elif actor.light is not None:
            own, light = row.view(LIGHT_STATE)[0], actor.light
            own["sign_id"], own["pole_index"] = light.place.sign_id.encode()[:31], light.pole_index
