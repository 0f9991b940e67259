"""The world of one tick, ready to be looked at: the map's triangles, those of everything on it, light and shadow."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.geometry import to_array
from drivetrain.sim.lights import Light as TrafficLight
from drivetrain.sim.maps import Map
from drivetrain.sim.protocol.structs import Rotation, Weather
from drivetrain.sim.render import raster, shapes
from drivetrain.sim.render.mesh import PARTS, Bytes, Floats, Mesh, Pattern, joined
from drivetrain.sim.render.place import Place, place_of
from drivetrain.sim.render.weather import Light, light_of
from drivetrain.sim.sensors import Body, Scene
from drivetrain.sim.squares import Doubles

MOST_SHADOW = 2048  # pixels of the map of shadows, along a side
FINEST_M = 0.2
LIVE_SHADOW = 320
LIVE_SHADOW_M = 0.25
LAMP_REACH_M = 12.0
NIGHT_BEAMS = 6
LOW_BEAM, HIGH_BEAM = 2, 4


@dataclass
class Shadows:
    high: Floats
    origin: Doubles  # [2]
    metres: float


@dataclass
class Live:
    """Everything that moves, in the world, in the order of `bodies`; what lights the way is last."""

    corners: Floats
    normals: Floats
    color: Bytes
    pattern: Bytes
    tag: Bytes
    solid: Bytes
    size: Floats
    actor: NDArray[np.int32]
    starts: NDArray[np.int64]  # of each body
    bounds: Floats
    sizes: Floats
    velocity: Floats  # [bodies, 3]
    body: NDArray[np.int32]  # [N] of each triangle
    ids: NDArray[np.int32]  # [bodies] actors


def sun_axes(light: Light) -> Doubles:
    """[3, 3]: across the light, twice, and towards the sun."""
    towards = np.array(light.to_sun)
    aside = np.cross(towards, (0.0, 0.0, 1.0))
    length = float(np.linalg.norm(aside))
    aside = aside / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])
    return np.stack([aside, np.cross(towards, aside), towards])


def shadow_map(corners: Floats, starts: NDArray[np.int64], bounds: Floats, axes: Doubles, shadows: Shadows) -> None:
    shadows.high[:] = -1e9
    ids = np.empty(shadows.high.shape, np.int32)
    raster.shadows(corners, bounds, starts, axes, shadows.origin, shadows.metres, shadows.high, ids)


class World:
    """What is kept between ticks: the map's triangles, its shadows for this sun, its lamps."""

    def __init__(self, of: Map):
        self.place: Place = place_of(of.roads, of.scenery, of.lights())
        self.weather: Weather | None = None
        self.lamp_map, self.lamp_origin = lamp_map(self.place)
        self.cast: tuple[Sequence[Body], Sequence[TrafficLight], Cast] | None = None

    def cast_of(self, scene: Scene) -> Cast:
        if self.cast is None or self.cast[0] is not scene.bodies or self.cast[1] is not scene.lights:
            self.cast = (scene.bodies, scene.lights, Cast(scene.bodies, scene.lights))
        return self.cast[2]

    def enlighten(self, weather: Weather) -> None:
        if weather == self.weather:
            return
        before = getattr(self, "light", None)
        self.weather, self.light = weather, light_of(weather)
        if before is not None and before.to_sun == self.light.to_sun:
            return
        self.axes = sun_axes(self.light)
        corners = np.array(
            [
                (x, y, 0.0)
                for x in (self.place.low[0], self.place.high[0])
                for y in (self.place.low[1], self.place.high[1])
            ]
        )
        flat = corners @ self.axes[:2].T
        low, high = flat.min(0), flat.max(0)
        metres = max(FINEST_M, float((high - low).max()) / MOST_SHADOW)
        size = np.ceil((high - low) / metres).astype(int) + 1
        self.shadows = Shadows(np.empty((size[1], size[0]), np.float32), low, metres)
        casting = self.place.casting
        if self.light.to_sun[2] > 0.02:
            shadow_map(casting.mesh.corners, casting.starts, casting.bounds, self.axes, self.shadows)
        else:
            self.shadows.high[:] = -1e9
        self.live_shadows = Shadows(np.empty((LIVE_SHADOW, LIVE_SHADOW), np.float32), np.zeros(2), LIVE_SHADOW_M)


def lamp_map(place: Place) -> tuple[Floats, Doubles]:
    """[metres south, metres east] how much light street lamps give there."""
    size = np.ceil(place.high - place.low).astype(int) + 1
    found = np.zeros((size[1], size[0]), np.float32)
    reach = int(2 * LAMP_REACH_M)
    offsets = np.arange(-reach, reach + 1)
    fade = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * (LAMP_REACH_M * 0.55) ** 2)).astype(
        np.float32
    )
    for x, y, _ in place.lamps:
        j, i = int(x - place.low[0]), int(y - place.low[1])
        rows, columns = slice(max(0, i - reach), i + reach + 1), slice(max(0, j - reach), j + reach + 1)
        part = found[rows, columns]
        top, left = max(0, reach - i), max(0, reach - j)
        part += fade[top : top + part.shape[0], left : left + part.shape[1]]
    height = float(place.seen.mesh.corners[:, :, 2].min()) if len(place.seen.mesh) else 0.0
    return np.minimum(found, 1.2), np.array([place.low[0], place.low[1], height], np.float64)


class Stage:
    """One tick."""

    def __init__(self, world: World, scene: Scene):
        self.world, self.frame = world, scene.frame
        self.elapsed_s, self.dt_s = scene.elapsed_s, scene.dt_s
        world.enlighten(scene.weather)
        self.light = world.light
        self.live = live_of(world.cast_of(scene), scene)
        self.first_live = len(world.place.seen.mesh)
        self.shaded_at: tuple[float, ...] | None = None
        self.beams = beams_of(scene)

    def cast(self, eye: Doubles) -> None:
        """Shadows of what moves, around where someone looks."""
        shadows = self.world.live_shadows
        ahead = eye[0] + 0.35 * LIVE_SHADOW * LIVE_SHADOW_M * eye[1]
        middle = np.floor((self.world.axes[:2] @ ahead) / 4) * 4
        at = tuple(middle.tolist())
        if at == self.shaded_at:
            return
        self.shaded_at = at
        shadows.origin = middle - LIVE_SHADOW * LIVE_SHADOW_M / 2
        if self.light.sun[0] > 0.01:
            shadow_map(self.live.corners, self.live.starts, self.live.bounds, self.world.axes, shadows)

    def nearest_beams(self, eye: Doubles) -> Doubles:
        if self.light.night <= 0.05 or not len(self.beams):
            return np.zeros((0, 5))
        order = np.argsort(np.linalg.norm(self.beams[:, :3] - eye[0], axis=1), kind="stable")
        return np.ascontiguousarray(self.beams[order[:NIGHT_BEAMS]])


def beams_of(scene: Scene) -> Doubles:
    """[N, 5] where lit headlamps are, and their way."""
    lit = np.flatnonzero(scene.light_flags & (LOW_BEAM | HIGH_BEAM))
    yaw = scene.turns_rad[lit, 1]
    way = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
    ahead = np.array([scene.bodies[i].box.extent.x for i in lit])
    place = scene.places_m[lit] + np.column_stack([way * ahead[:, None], np.full(len(lit), 0.6)])
    return np.column_stack([place, way])


class Cast:
    """The meshes of everyone there is, one after another: made when somebody comes or goes."""

    def __init__(self, bodies: Sequence[Body], lights: Sequence[TrafficLight]):
        meshes = [shapes.shape(body.blueprint, *shapes.half_and_middle(body.box)) for body in bodies]
        meshes += [shapes.lamps()] * len(lights)
        self.mesh: Mesh = joined([shapes.lamps().take(np.zeros(0, np.intp)), *meshes])
        counts = [len(mesh) for mesh in meshes]
        self.normals = self.mesh.normal
        self.which = np.repeat(np.arange(len(meshes)), counts).astype(np.int32)
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.radius = np.array([float(np.linalg.norm(m.corners, axis=2).max()) for m in meshes]).reshape(-1, 1)
        self.sizes = np.array([float(mesh.size.max()) for mesh in meshes], np.float32)
        self.ids = np.array([body.id for body in bodies] + [light.actor for light in lights], np.int32)
        self.actor = self.ids[self.which]
        posts = [light.place.transform for light in lights]
        self.light_places = np.array([to_array(post.location) for post in posts]).reshape(-1, 3)
        self.light_turns = np.array([rotation_rad(post.rotation) for post in posts]).reshape(-1, 3)
        self.part = self.mesh.part
        self.colour_of = [body.settings.get("color", shapes.GREY) for body in bodies]


def rotation_rad(rotation: Rotation) -> tuple[float, float, float]:
    return math.radians(rotation.pitch), math.radians(rotation.yaw), math.radians(rotation.roll)


def live_of(cast: Cast, scene: Scene) -> Live:
    places = np.concatenate([scene.places_m, cast.light_places])
    turns = np.concatenate([scene.turns_rad, cast.light_turns])
    corners, normals = np.empty_like(cast.mesh.corners), np.empty_like(cast.normals)
    blinking = scene.elapsed_s % 1.0 < 0.5
    looks = [shapes.colours(c, int(f), blinking) for c, f in zip(cast.colour_of, scene.light_flags, strict=True)]
    looks += [shapes.lamp_colours(colour) for colour in scene.colours]
    color, pattern = cast.mesh.color.copy(), cast.mesh.pattern.copy()
    table = np.array(looks, np.uint8).reshape(-1, PARTS, 4)
    raster.set_down(
        cast.mesh.corners, cast.normals, cast.which, turns, places, cast.part, table, int(Pattern.LAMP), corners, normals,
        color, pattern,
    )  # fmt: skip
    bounds = np.concatenate([places - cast.radius, places + cast.radius], axis=1).astype(np.float32)
    velocity = np.concatenate([scene.velocities_mps, np.zeros_like(cast.light_places)]).astype(np.float32)
    return Live(
        corners, normals, color, pattern, cast.mesh.tag, cast.mesh.solid, cast.mesh.size, cast.actor, cast.starts, bounds,
        cast.sizes, velocity, cast.which, cast.ids,
    )  # fmt: skip


WORLDS: weakref.WeakKeyDictionary[Map, World] = weakref.WeakKeyDictionary()


def world_of(of: Map) -> World:
    found = WORLDS.get(of)
    if found is None:
        found = WORLDS[of] = World(of)
    return found
