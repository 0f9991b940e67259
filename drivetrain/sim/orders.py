"""What clients tell actors to do, one by one or in batches.

An order to an actor that is gone is no error: its client could not have known. An order to one that cannot follow it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from drivetrain.sim.actors import Actor, Kind
from drivetrain.sim.errors import NotOffered, SimError
from drivetrain.sim.geometry import joined
from drivetrain.sim.protocol import structs as s
from drivetrain.sim.protocol.structs import ActorId, Transform, Vector3D
from drivetrain.sim.vehicle import MOST_GEARS, Fleet
from drivetrain.sim.world import World

C = TypeVar("C", bound=s.Command)


class Orders:
    def __init__(self, world: World):
        self.world = world

    @property
    def fleet(self) -> Fleet:
        return self.world.fleet

    def find(self, actor: int) -> Actor:
        return self.world.registry.find(actor)

    def vehicle(self, actor: int) -> Actor:
        found = self.find(actor)
        if found.kind is not Kind.VEHICLE:
            raise SimError(f"actor {actor} is a {found.blueprint}, expected a vehicle")
        return found

    def slot(self, actor: Actor) -> int | None:
        """Its place in the fleet; None where it has none, being gone or no vehicle."""
        if actor.kind is not Kind.VEHICLE or not actor.alive:
            return None
        return self.fleet.slot(actor.id)

    def control_vehicle(self, actor: ActorId, control: s.VehicleControl) -> None:
        found = self.vehicle(actor)
        found.control, found.ackermann.wish, found.in_traffic = control, None, False
        if (slot := self.slot(found)) is not None:
            self.fleet.set_control(slot, control)

    def control_ackermann(self, actor: ActorId, control: s.AckermannControl) -> None:
        found = self.vehicle(actor)
        found.ackermann.start(control)
        found.in_traffic = False

    def set_ackermann(self, actor: ActorId, settings: s.AckermannSettings) -> None:
        self.vehicle(actor).ackermann.settings = settings

    def control_walker(self, actor: ActorId, control: s.WalkerControl) -> None:
        found = self.find(actor)
        if found.kind is not Kind.WALKER:
            raise SimError(f"actor {actor} is a {found.blueprint}, expected a walker")
        found.walk = control

    def walker_state(self, actor: ActorId, transform: Transform, speed: float) -> None:
        turn = math.radians(transform.rotation.yaw)
        self.set_transform(actor, transform)
        self.control_walker(actor, s.WalkerControl(Vector3D(math.cos(turn), math.sin(turn), 0.0), speed))

    def set_transform(self, actor: ActorId, transform: Transform) -> None:
        found = self.find(actor)
        if found.parent is not None:
            found.relative = transform  # as in CARLA, of what is attached the place on its parent
        else:
            found.transform = transform
            if found.alive and found.kind is not Kind.VEHICLE:
                self.world.state.moved.add(found)
        if (slot := self.slot(found)) is not None:
            self.fleet.place(slot, transform)

    def set_location(self, actor: ActorId, location: Vector3D) -> None:
        found = self.find(actor)
        before = found.relative if found.parent is not None else self.world.where(found)
        self.set_transform(actor, replace(before, location=location))

    def set_velocity(self, actor: ActorId, vector: Vector3D) -> None:
        if (slot := self.slot(self.vehicle(actor))) is not None:
            self.fleet.set_velocity(slot, vector.x, vector.y, vector.z)

    def set_spin(self, actor: ActorId, vector: Vector3D) -> None:
        """Degrees a second. A vehicle turns about its upright axis only."""
        if (slot := self.slot(self.vehicle(actor))) is not None:
            self.fleet.f["w"][slot] = math.radians(vector.z)

    def hold_velocity(self, actor: ActorId, vector: Vector3D) -> None:
        if (slot := self.slot(self.vehicle(actor))) is not None:
            self.fleet.f["held_v"][slot], self.fleet.f["held_u"][slot] = vector.x, vector.y
            self.fleet.f["constant"][slot] = True

    def release_velocity(self, actor: ActorId) -> None:
        if (slot := self.slot(self.vehicle(actor))) is not None:
            self.fleet.f["constant"][slot] = False

    def add_impulse(self, actor: ActorId, vector: Vector3D) -> None:
        """Newton seconds."""
        if (slot := self.slot(self.vehicle(actor))) is not None:
            mass = self.fleet.f["mass"][slot]
            x, y, z = (float(v) for v in self.fleet.velocity()[slot])
            self.fleet.set_velocity(slot, x + vector.x / mass, y + vector.y / mass, z + vector.z / mass)

    def add_force(self, actor: ActorId, vector: Vector3D) -> None:
        """Newtons, until the end of the next tick."""
        if (slot := self.slot(self.vehicle(actor))) is not None:
            for name, value in zip(("fx", "fy", "fz"), (vector.x, vector.y, vector.z), strict=True):
                self.fleet.f[name][slot] += value

    def add_spin_impulse(self, actor: ActorId, vector: Vector3D) -> None:
        if (slot := self.slot(self.vehicle(actor))) is not None:
            self.fleet.f["w"][slot] += vector.z / self.fleet.f["inertia"][slot]

    def add_torque(self, actor: ActorId, vector: Vector3D) -> None:
        if (slot := self.slot(self.vehicle(actor))) is not None:
            self.fleet.f["torque_z"][slot] += vector.z

    def set_simulated(self, actor: ActorId, enabled: bool) -> None:
        found = self.find(actor)
        found.simulated = enabled
        self.switch(found, "physics", enabled)

    def set_gravity(self, actor: ActorId, enabled: bool) -> None:
        self.switch(self.find(actor), "gravity", enabled)

    def set_solid(self, actor: ActorId, enabled: bool) -> None:
        found = self.find(actor)
        found.solid = enabled and bool(found.box.extent.x)
        self.switch(found, "solid", enabled)

    def switch(self, actor: Actor, name: str, enabled: bool) -> None:
        if (slot := self.slot(actor)) is not None:
            self.fleet.f[name][slot] = enabled

    def set_physics(self, actor: ActorId, physics: s.PhysicsControl) -> None:
        found = self.vehicle(actor)
        check_physics(physics)
        own = found.physics.wheels
        if len(physics.wheels) != len(own):
            raise SimError(f"got {len(physics.wheels)} wheels, expected {len(own)}, as {found.blueprint} has")
        wheels = tuple(replace(new, position=old.position) for new, old in zip(physics.wheels, own, strict=True))
        found.physics = physics = replace(physics, wheels=wheels)
        if (slot := self.slot(found)) is not None:
            self.fleet.set_physics(slot, physics)

    def physics(self, actor: ActorId) -> s.PhysicsControl:
        """With the wheels where they are in the world, in centimetres, as CARLA says it."""
        found = self.vehicle(actor)
        here = self.world.where(found)
        wheels = []
        for wheel in found.physics.wheels:
            at = wheel.position
            there = joined(here, Transform(Vector3D(at.x / 100, at.y / 100, at.z / 100))).location
            wheels.append(replace(wheel, position=Vector3D(100 * there.x, 100 * there.y, 100 * there.z)))
        return replace(found.physics, wheels=tuple(wheels))

    def set_lights(self, actor: ActorId, flags: int) -> None:
        self.vehicle(actor).light_flags = flags & 0xFFFFFFFF

    def set_traffic_light(self, actor: ActorId, colour: s.LightColour) -> None:
        found = self.find(actor)
        if found.light is None:
            raise SimError(f"actor {actor} is a {found.blueprint}, expected a traffic light")
        found.light.show(colour)

    def destroy(self, actor: ActorId) -> None:
        self.world.destroy(self.find(actor))

    def autopilot(self, actor: ActorId, enabled: bool) -> None:
        self.vehicle(actor)  # the client's TrafficManager drives; there is nothing to do here

    def spawn(self, command: s.Spawn) -> Actor:
        parent = None if command.parent is None else self.find(command.parent)
        known = command.attachment in set(s.Attachment)
        attachment = s.Attachment(command.attachment) if known else s.Attachment.RIGID
        return self.world.spawn(command.description, command.transform, parent, attachment)

    def batch(self, commands: tuple[s.Command, ...]) -> list[s.BatchAnswer]:
        return [self.one(command) for command in commands]

    def one(self, command: s.Command) -> s.BatchAnswer:
        try:
            if isinstance(command, s.Spawn):
                return self.spawn_and_after(command)
            APPLY[type(command)](self, command)
        except SimError as error:
            return s.BatchAnswer(error=str(error))
        return s.BatchAnswer(getattr(command, "actor", 0))

    def spawn_and_after(self, command: s.Spawn) -> s.BatchAnswer:
        actor = self.spawn(command).id
        for after in command.do_after:
            said = self.one(after if isinstance(after, s.Spawn) else replace(after, actor=actor))  # type: ignore[call-arg]
            if said.error:
                self.world.tell(f"after the spawn of actor {actor}: {said.error}")
        return s.BatchAnswer(actor)


def check_physics(physics: s.PhysicsControl) -> None:
    wheels, gears = physics.wheels, physics.forward_gears
    if not (
        physics.mass > 0
        and physics.max_rpm > 0
        and physics.final_ratio > 0
        and 1 <= len(gears) <= MOST_GEARS
        and len(wheels) >= 2
        and all(wheel.radius > 0 and wheel.tire_friction >= 0 for wheel in wheels)
        and physics.torque_curve
        and physics.steering_curve
    ):
        raise SimError(
            f"got a VehiclePhysicsControl with mass {physics.mass}, max_rpm {physics.max_rpm}, {len(gears)} gears and"
            f" {len(wheels)} wheels; expected positive numbers, both curves, 1 to {MOST_GEARS} gears and 2 wheels or more"
        )


def refuse_telemetry(orders: Orders, command: Any) -> None:
    raise NotOffered("ShowDebugTelemetry", "there is no screen on the server")


def refuse_console(orders: Orders, command: Any) -> None:
    raise NotOffered(f"the console command {command.text!r:.60}", "there is no Unreal console behind it")


APPLY: dict[type, Callable[[Orders, Any], None]] = {
    s.Destroy: lambda o, c: o.destroy(c.actor),
    s.ApplyVehicleControl: lambda o, c: o.control_vehicle(c.actor, c.control),
    s.ApplyAckermannControl: lambda o, c: o.control_ackermann(c.actor, c.control),
    s.ApplyWalkerControl: lambda o, c: o.control_walker(c.actor, c.control),
    s.ApplyPhysicsControl: lambda o, c: o.set_physics(c.actor, c.control),
    s.ApplyTransform: lambda o, c: o.set_transform(c.actor, c.transform),
    s.ApplyWalkerState: lambda o, c: o.walker_state(c.actor, c.transform, c.speed),
    s.ApplyTargetVelocity: lambda o, c: o.set_velocity(c.actor, c.vector),
    s.ApplyTargetAngularVelocity: lambda o, c: o.set_spin(c.actor, c.vector),
    s.ApplyImpulse: lambda o, c: o.add_impulse(c.actor, c.vector),
    s.ApplyForce: lambda o, c: o.add_force(c.actor, c.vector),
    s.ApplyAngularImpulse: lambda o, c: o.add_spin_impulse(c.actor, c.vector),
    s.ApplyTorque: lambda o, c: o.add_torque(c.actor, c.vector),
    s.SetSimulatePhysics: lambda o, c: o.set_simulated(c.actor, c.enabled),
    s.SetEnableGravity: lambda o, c: o.set_gravity(c.actor, c.enabled),
    s.SetAutopilot: lambda o, c: o.autopilot(c.actor, c.enabled),
    s.ShowDebugTelemetry: refuse_telemetry,
    s.SetVehicleLightState: lambda o, c: o.set_lights(c.actor, c.flags),
    s.ApplyLocation: lambda o, c: o.set_location(c.actor, c.location),
    s.ConsoleCommand: refuse_console,
    s.SetTrafficLightState: lambda o, c: o.set_traffic_light(c.actor, c.state),
}
