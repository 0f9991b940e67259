"""The world: who is in it, what it is like, and what happens in a tick.

    world = World(maps, outlet, release)
    world.load("Grid")
    world.tick()

It knows nothing of sockets: `outlet` takes what sensors say. Nothing in it is drawn by chance and, between ticks of one
fixed length, nothing depends on the clock; so the same calls give the same bytes.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from drivetrain.sim import collisions, rooted
from drivetrain.sim.actors import NO_BOX, Actor, Kind, Registry
from drivetrain.sim.blueprints import library, settings
from drivetrain.sim.bumps import bump, solid_boxes, where
from drivetrain.sim.catalogue import MODELS, PROP_BOXES, WALKERS, physics_of, walker_box
from drivetrain.sim.errors import NotOffered, SimError
from drivetrain.sim.geometry import joined, to_array
from drivetrain.sim.lights import Light, LightPlace, Lights
from drivetrain.sim.maps import Map, Maps
from drivetrain.sim.protocol.binary import MAP_CHANGE, sensor_header
from drivetrain.sim.protocol.codec import Codec
from drivetrain.sim.protocol.structs import (
    ActorDescription,
    ActorInfo,
    Attachment,
    AttributeValue,
    BoundingBox,
    EpisodeSettings,
    GenerationParameters,
    Rotation,
    Transform,
    Vector3D,
    VehicleControl,
    Weather,
)
from drivetrain.sim.protocol.versions import Release
from drivetrain.sim.sensors import (
    GRAVITY_MPS2,
    Body,
    Gnss,
    Imu,
    Met,
    Renderer,
    Scene,
    View,
    collision_payload,
    map_origin,
    needs_renderer,
    packed,
)
from drivetrain.sim.snapshot import State
from drivetrain.sim.vehicle import Fleet

STATE_STREAM = 1
CLIMB_M = 0.5  # over a walker's middle
LONGEST_STEP_S = 0.5  # of a world without fixed delta, however late it is
GENERATED = "OpenDriveMap"
NO_EFFECT = {  # settings of CARLA's large maps and ragdolls
    "max_culling_distance": 0.0,
    "deterministic_ragdolls": False,
}
TAGS = {
    "car": 14,
    "van": 14,
    "truck": 15,
    "bus": 16,
    "motorcycle": 18,
    "bicycle": 19,
    "walker": 12,
    "light": 7,
    "prop": 20,
}


class Seen(NamedTuple):
    """Who can be seen: worked out anew when `rows` is another list, which it is when somebody came or went."""

    rows: list[Actor]
    actors: list[Actor]
    bodies: tuple[Body, ...]
    lights: tuple[Light, ...]


class Outlet(Protocol):
    """Where streams end; `protocol/streams.py` is one."""

    def open(self, stream: int) -> None: ...
    def close(self, stream: int) -> None: ...
    def has_listeners(self, stream: int) -> bool: ...
    def publish(self, stream: int, body: bytes, *, keep: bool = False, later: bool = False) -> None: ...


def tell_stderr(text: str) -> None:
    print(f"sim: {text}", file=sys.stderr)


class World:
    def __init__(
        self,
        maps: Maps,
        outlet: Outlet,
        release: Release,
        *,
        renderer: Renderer | None = None,
        tell: Callable[[str], None] = tell_stderr,
        clock: Callable[[], float] = time.time,
    ):
        self.maps, self.outlet, self.release, self.renderer = maps, outlet, release, renderer
        self.tell, self.clock = tell, clock
        self.encode_actor = Codec(release.commands, release.field_order).encoder(ActorInfo)
        self.frame = 0
        self.elapsed_s = 0.0
        self.episode = 0
        self.settings = EpisodeSettings()
        self.weather = Weather()
        self.next_stream = STATE_STREAM + 1
        self.registry = Registry()
        self.generated: Map | None = None
        self.wanted: list[tuple[Actor, View, bytes]] = []  # sensors that a renderer still has to serve
        self.shown: Scene
        self.seen: Seen | None = None
        self.last_tick_s = clock()
        self.before_moving: list[Callable[[float], None]] = []  # whoever drives by itself
        self.after_loading: list[Callable[[], None]] = []
        outlet.open(STATE_STREAM)

    def load(self, name: str, *, reset_settings: bool = True) -> None:
        """Begins an episode on the map so named, or on the same again; everyone of the one before is gone."""
        name = name or self.map.name
        if name.rpartition("/")[2] == GENERATED and self.generated is not None:
            place = self.generated
        else:
            place = self.maps.load(name.rpartition("/")[2])
        self.begin(place, reset_settings)

    def generate(self, xodr: str, parameters: GenerationParameters) -> None:
        """Keeps a map made from OpenDRIVE; the client then loads it by its name."""
        try:
            self.generated = self.maps.from_xodr(xodr, parameters)
        except ValueError as error:  # what `road/` says of a map with errors, naming the element
            raise SimError(str(error)) from error

    def begin(self, place: Map, reset_settings: bool) -> None:
        self.wanted.clear()
        for actor in sorted(self.registry.live.values(), key=lambda one: -one.id):
            self.forget(actor)
        self.map, self.spawn_points = place, tuple(place.spawn_points())
        self.origin, self.rooted = map_origin(place.xodr), rooted.rooted_of(place.roads, place.scenery, place.lights())
        self.fleet, self.lights, self.state = Fleet(place.heights_m), Lights(), State()
        self.episode += 1
        self.elapsed_s = 0.0
        if reset_settings:
            self.settings = EpisodeSettings()
        self.weather, self.imu_gravity_mps2 = Weather(), GRAVITY_MPS2
        start = self.spawn_points[0] if self.spawn_points else Transform()
        self.spectator = self.enlist(Kind.OTHER, ActorDescription(0, "spectator"), {}, NO_BOX, start)
        for light in place.lights():
            self.place_light(light)
        self.lights.reset()
        for populate in self.after_loading:
            populate()
        self.frame += 1
        self.send_state(0.0, MAP_CHANGE, later=True)

    def enlist(
        self, kind: Kind, description: ActorDescription, chosen: dict[str, str], box: BoundingBox, transform: Transform
    ) -> Actor:
        actor = Actor(self.registry.new_id(), kind, description, chosen, box, transform)
        self.registry.add(actor)
        self.state.stale = True
        return actor

    def place_light(self, place: LightPlace) -> None:
        description = ActorDescription(0, "traffic.traffic_light")
        actor = self.enlist(Kind.LIGHT, description, {}, place.trigger, place.transform)
        actor.light, actor.tag = self.lights.add(actor.id, place), TAGS["light"]

    def spawn(
        self,
        description: ActorDescription,
        transform: Transform,
        parent: Actor | None = None,
        attachment: Attachment = Attachment.RIGID,
    ) -> Actor:
        definition = library().find(description.id)
        chosen = settings(definition, description)
        kind, box = self.kind_and_box(description.id, chosen)
        values = tuple(AttributeValue(a.id, a.type, chosen[a.id]) for a in definition.attributes)
        full = ActorDescription(definition.uid, definition.id, values)
        if parent is not None:
            self.check_parent(definition.id, kind, parent)
        here = transform if parent is None else attached(self.where(parent), transform, attachment)
        solid = bool(box.extent.x) and parent is None
        if solid:
            self.check_room(box, here)
        actor = self.enlist(kind, full, chosen, box, here)
        actor.parent, actor.relative, actor.attachment, actor.solid = parent, transform, attachment, solid
        self.equip(actor)
        return actor

    def kind_and_box(self, name: str, chosen: dict[str, str]) -> tuple[Kind, BoundingBox]:
        """Raises for what this server has no world for."""
        if name in MODELS:
            if chosen["terramechanics"].lower() == "true":
                raise NotOffered("terramechanics=true", "the ground does not give way")
            return Kind.VEHICLE, MODELS[name].box
        if name in WALKERS:
            return Kind.WALKER, walker_box(name)
        if name in PROP_BOXES:
            return Kind.OTHER, PROP_BOXES[name]
        if name == "controller.ai.walker":
            raise NotOffered(name, "there is no navigation mesh; use walker.apply_control")
        if needs_renderer(name):
            if self.renderer is None:
                raise NotOffered(name, "the server was started without a renderer")
            self.renderer.check(name, chosen)
        return Kind.OTHER, NO_BOX

    def check_parent(self, name: str, kind: Kind, parent: Actor) -> None:
        if not parent.alive:
            raise SimError(f"cannot attach {name} to actor {parent.id}, which is gone")
        if kind is not Kind.OTHER:
            raise NotOffered(f"attaching {name} to an actor", "only sensors and props can be attached")

    def check_room(self, box: BoundingBox, transform: Transform) -> None:
        boxes, _ = solid_boxes(self.registry, self.fleet, self.rooted, (box, transform))
        for i, j in collisions.near(boxes, 1):
            if collisions.contact(boxes, i, j):
                raise SimError("Spawn failed because of collision at spawn position")

    def equip(self, actor: Actor) -> None:
        name = actor.blueprint
        if actor.kind is Kind.VEHICLE:
            actor.physics = physics_of(MODELS[name])
            actor.tag = TAGS[MODELS[name].base_type]
            self.fleet.add(actor.id, MODELS[name], actor.physics, actor.transform)
        elif actor.kind is Kind.WALKER:
            actor.tag = TAGS["walker"]
        elif name in PROP_BOXES:
            actor.tag = TAGS["prop"]
        if name.startswith("sensor."):
            actor.stream, self.next_stream = self.next_stream, self.next_stream + 1
            self.outlet.open(actor.stream)
        if name == "sensor.other.imu":
            actor.sensor = Imu(actor.settings)
        elif name == "sensor.other.gnss":
            actor.sensor = Gnss(actor.settings, self.origin)

    def destroy(self, actor: Actor) -> None:
        """What was attached to it stays where it is, as in CARLA."""
        if not actor.alive or actor is self.spectator or actor.kind is Kind.LIGHT:
            raise SimError(
                f"unable to destroy actor {actor.id}: {'it is part of the map' if actor.alive else 'not found'}"
            )
        for child in self.registry.children(actor):
            child.parent, child.velocity = None, Vector3D()
        self.forget(actor)

    def forget(self, actor: Actor) -> None:
        if actor.kind is Kind.VEHICLE:
            actor.transform = self.where(actor)
            self.fleet.remove(actor.id)
        if actor.stream:
            self.outlet.close(actor.stream)
        self.registry.remove(actor)
        self.state.stale = True

    def where(self, actor: Actor) -> Transform:
        return where(actor, self.fleet)

    def change_settings(self, wanted: EpisodeSettings) -> int:
        for name, default in NO_EFFECT.items():
            if getattr(wanted, name) not in (default, getattr(self.settings, name)):
                self.tell(f"the setting {name} has no effect here")
        if wanted.substepping and not (wanted.max_substep_delta_time > 0 and 1 <= wanted.max_substeps <= 64):
            raise SimError(
                f"got max_substep_delta_time={wanted.max_substep_delta_time}, max_substeps={wanted.max_substeps};"
                " expected more than 0 s and 1 to 64"
            )
        if wanted.fixed_delta_seconds is not None and wanted.fixed_delta_seconds <= 0:
            wanted = replace(wanted, fixed_delta_seconds=None)
        self.settings = wanted
        self.last_tick_s = self.clock()
        return self.frame

    def step_s(self) -> float:
        now = self.clock()
        passed, self.last_tick_s = now - self.last_tick_s, now
        if self.settings.fixed_delta_seconds is not None:
            return self.settings.fixed_delta_seconds
        return min(LONGEST_STEP_S, max(1e-3, passed))

    def substeps(self, dt_s: float) -> int:
        s = self.settings
        return min(s.max_substeps, math.ceil(dt_s / s.max_substep_delta_time - 1e-6)) if s.substepping else 1

    def tick(self) -> int:
        """One step. `show` has to follow, before anything else is seen of the world."""
        self.show()
        dt_s = self.step_s()
        self.frame += 1
        self.elapsed_s += dt_s
        self.lights.step(dt_s)
        for drive in self.before_moving:
            drive(dt_s)
        self.steer_by_wishes(dt_s)
        self.fleet.step(dt_s, max(1, self.substeps(dt_s)))
        self.walk(dt_s)
        met = bump(self.registry, self.fleet, self.rooted)
        self.carry_along(dt_s)
        self.sense(dt_s, met)
        self.look_up_limit()
        self.send_state(dt_s, 0)
        return self.frame

    def look_up_limit(self) -> None:
        """The speed limit where a vehicle is; one vehicle in each tick, in turn."""
        if len(self.fleet):
            slot = self.frame % len(self.fleet)
            car = self.fleet.f[slot]
            lane = self.map.roads.lane_beneath(float(car["x"]), float(car["y"]), float(car["z"]))
            car["limit_kmh"] = lane.speed_limit_mps * 3.6

    def steer_by_wishes(self, dt_s: float) -> None:
        """Ackermann wishes become pedals; controls that do not stick are let go after the tick they were given for."""
        f = self.fleet.f
        for slot, actor_id in enumerate(self.fleet.ids):
            actor = self.registry.live[actor_id]
            if actor.ackermann.wish is not None:
                forward = f["ax"][slot] * math.cos(f["yaw"][slot]) + f["ay"][slot] * math.sin(f["yaw"][slot])
                actor.control = actor.ackermann.control(
                    float(f["v"][slot]), float(forward), float(f["max_steer"][slot]), dt_s
                )
                self.fleet.set_control(slot, actor.control)
            elif not actor.sticky:
                self.fleet.set_control(slot, actor.control)
                actor.control = VehicleControl()

    def walk(self, dt_s: float) -> None:
        for actor in self.registry.of(Kind.WALKER):
            way = to_array(actor.walk.direction)
            length = float(np.hypot(way[0], way[1]))
            speed = actor.walk.speed / length if length > 1e-6 and actor.simulated else 0.0
            before, at, turn = actor.velocity, actor.transform.location, actor.transform.rotation
            vx, vy = float(way[0]) * speed, float(way[1]) * speed
            x, y = at.x + vx * dt_s, at.y + vy * dt_s
            floor = self.map.heights_m(np.array([[x, y]]), np.array([at.z + CLIMB_M]))
            ground = float(floor[0]) + actor.box.extent.z
            z = max(ground, at.z - 9.81 * dt_s * dt_s - max(0.0, -before.z) * dt_s) if actor.simulated else at.z
            actor.velocity = Vector3D(vx, vy, (z - at.z) / dt_s)
            actor.acceleration = Vector3D((vx - before.x) / dt_s, (vy - before.y) / dt_s, 0.0)
            if speed:
                turn = Rotation(0.0, math.degrees(math.atan2(vy, vx)), 0.0)
            actor.transform = Transform(Vector3D(x, y, z), turn)
            self.state.moved.add(actor)

    def carry_along(self, dt_s: float) -> None:
        """Moves what is attached. A parent always has a smaller id, so it has moved before."""
        for actor in self.registry.live.values():
            if actor.parent is None:
                continue
            before = actor.transform.location
            actor.transform = attached(self.where(actor.parent), actor.relative, actor.attachment)
            now = actor.transform.location
            actor.velocity = Vector3D((now.x - before.x) / dt_s, (now.y - before.y) / dt_s, (now.z - before.z) / dt_s)
            self.state.moved.add(actor)

    def sense(self, dt_s: float, met: list[tuple[Actor, Actor, Vector3D]]) -> None:
        """What needs no picture is sent at once; who wants one is noted, with the world as it is now."""
        self.state.refresh(self.registry, self.fleet)
        for actor in list(self.registry.live.values()):
            if not actor.stream:
                continue
            if isinstance(actor.sensor, Imu):
                actor.sensor.see(actor.transform, dt_s)
            if not self.outlet.has_listeners(actor.stream):
                continue
            if actor.blueprint == "sensor.other.collision":
                self.tell_collisions(actor, met)
            elif not self.due(actor):
                continue
            elif isinstance(actor.sensor, Imu):
                self.send(actor, actor.sensor.payload(actor.transform, self.spin(actor.parent), self.imu_gravity_mps2))
            elif isinstance(actor.sensor, Gnss):
                self.send(actor, actor.sensor.payload(actor.transform))
            elif actor.drawn and not self.settings.no_rendering_mode:
                parent = actor.parent.id if actor.parent else 0
                view = View(actor.id, parent, actor.blueprint, actor.settings, actor.transform, actor.velocity)
                self.wanted.append((actor, view, self.header(actor)))
        if self.wanted:
            self.shown = self.scene(dt_s)

    def show(self) -> None:
        """Draws and sends what the last tick's cameras saw. A server answers the tick before it: the client's way back
        then costs no time of its own."""
        wanted, self.wanted = self.wanted, []
        for actor, view, header in wanted:
            assert self.renderer is not None
            if actor.blueprint == "sensor.other.obstacle":
                self.tell_obstacle(actor, header, self.renderer.obstacle(self.shown, view))
            else:
                self.outlet.publish(actor.stream, header + self.renderer.render(self.shown, view))

    def due(self, actor: Actor) -> bool:
        """Whether `sensor_tick` has passed since the last message."""
        period_s = float(actor.settings.get("sensor_tick", "0"))
        if self.elapsed_s - actor.last_sent_s < period_s - 1e-6:
            return False
        actor.last_sent_s = self.elapsed_s
        return True

    def spin(self, actor: Actor | None) -> np.ndarray:
        """How fast an actor turns, in radians a second about the world's axes."""
        if actor is None or actor.kind is not Kind.VEHICLE:
            return np.zeros(3)
        return np.array([0.0, 0.0, self.fleet.f["w"][self.fleet.slot(actor.id)]])

    def tell_collisions(self, sensor: Actor, met: list[tuple[Actor, Actor, Vector3D]]) -> None:
        for ours, theirs, impulse in met:
            if ours is sensor.parent:
                self.send(sensor, collision_payload(self.info(ours), self.info(theirs), impulse))

    def tell_obstacle(self, sensor: Actor, header: bytes, met: Met | None) -> None:
        if met is None:
            return
        other = self.registry.live.get(met.actor) or rooted.somebody(rooted.KINDS.get(met.tag, "static"))
        own = sensor.parent or sensor
        body = packed([self.info(own), self.info(other), met.distance_m])
        self.outlet.publish(sensor.stream, header + body)

    def info(self, actor: Actor) -> list[object]:
        assert self.encode_actor is not None
        encoded: list[object] = self.encode_actor(self.actor_info(actor, b""))
        return encoded

    def actor_info(self, actor: Actor, token: bytes) -> ActorInfo:
        parent = actor.parent.id if actor.parent else 0
        return ActorInfo(actor.id, parent, actor.description, actor.box, bytes([actor.tag]), token)

    def header(self, actor: Actor) -> bytes:
        index = self.release.sensor[actor.blueprint]
        return sensor_header(index, self.frame, self.elapsed_s, actor.transform)

    def send(self, actor: Actor, payload: bytes) -> None:
        self.outlet.publish(actor.stream, self.header(actor) + payload)

    def send_state(self, dt_s: float, flags: int, later: bool = False) -> None:
        header = sensor_header(self.release.world_index, self.frame, self.elapsed_s, Transform())
        self.state.refresh(self.registry, self.fleet)
        self.state.write_lights(self.lights)
        self.state.at_lights(self.lights, self.fleet)
        body = self.state.body(self.fleet, (self.episode, self.clock(), dt_s, flags))
        self.outlet.publish(STATE_STREAM, header + body, keep=True, later=later)

    def scene(self, dt_s: float) -> Scene:
        """Vehicles first, in the fleet's order."""
        fleet, f = self.fleet, self.fleet.f
        if self.seen is None or self.seen.rows is not self.state.actors:
            live = self.registry.live
            rest = [a for a in live.values() if a.box.extent.x and a.kind not in (Kind.LIGHT, Kind.VEHICLE)]
            everyone = [live[actor] for actor in fleet.ids] + rest
            made = tuple(Body(a.id, a.blueprint, a.settings, a.box) for a in everyone)
            self.seen = Seen(self.state.actors, everyone, made, tuple(self.lights.by_actor.values()))
        _, everyone, bodies, lights = self.seen
        rest = everyone[len(fleet) :]
        places = np.stack([f["x"], f["y"], f["z"]], axis=1)
        turns = np.stack([f["pitch"], f["yaw"], f["roll"]], axis=1)
        velocities = fleet.velocity()
        if rest:
            at = [(a.transform.location, a.transform.rotation, a.velocity) for a in rest]
            places = np.concatenate([places, [(p.x, p.y, p.z) for p, _, _ in at]])
            turns = np.concatenate([turns, np.radians([(r.pitch, r.yaw, r.roll) for _, r, _ in at])])
            velocities = np.concatenate([velocities, [(v.x, v.y, v.z) for _, _, v in at]])
        flags = np.array([actor.light_flags for actor in everyone], np.int64)
        colours = tuple(light.colour for light in lights)
        return Scene(
            frame=self.frame,
            elapsed_s=self.elapsed_s,
            dt_s=dt_s,
            map=self.map,
            weather=self.weather,
            bodies=bodies,
            places_m=places,
            turns_rad=turns,
            velocities_mps=velocities,
            light_flags=flags,
            lights=lights,
            colours=colours,
        )


def attached(parent: Transform, relative: Transform, attachment: Attachment) -> Transform:
    """A spring arm turns with its parent's heading only. Its arm does not give and does not avoid walls."""
    if attachment is not Attachment.RIGID:
        parent = Transform(parent.location, Rotation(0.0, parent.rotation.yaw, 0.0))
    return joined(parent, relative)
