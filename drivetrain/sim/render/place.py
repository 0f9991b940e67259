"""A map as triangles: the ground, the roads and their paint, and what stands beside them.

Triangles are sorted into chunks, by where they are and by how small they are, so that what cannot be seen is passed over
a chunk at a time.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.lights import LightPlace
from drivetrain.sim.render import shapes
from drivetrain.sim.render.mesh import Color, Floats, Mesh, Pattern, Tag, box, hull, joined, mesh, outward, rectangle
from drivetrain.sim.road.map import RoadMap
from drivetrain.sim.road.signals import Signal
from drivetrain.sim.towns.scenery import Thing

CHUNK_M = 32.0
LARGE_M = 1.0  # things of at least this size are one sort of chunk; below it each power of two is one
ASPHALT: Color = (84, 85, 90)
LANES: dict[str, tuple[Color, Pattern, Tag]] = {
    "driving": (ASPHALT, Pattern.ASPHALT, Tag.ROAD),
    "sidewalk": ((164, 162, 156), Pattern.PAVING, Tag.SIDEWALK),
    "shoulder": ((98, 96, 92), Pattern.ASPHALT, Tag.ROAD),
    "parking": ((92, 92, 96), Pattern.ASPHALT, Tag.ROAD),
    "border": ((120, 118, 112), Pattern.PAVING, Tag.GROUND),
    "biking": ((120, 72, 66), Pattern.ASPHALT, Tag.ROAD),
    "median": ((92, 120, 62), Pattern.GRASS, Tag.TERRAIN),
}
OTHER_LANE = ((110, 110, 108), Pattern.ASPHALT, Tag.ROAD)
GRASS: Color = (98, 128, 62)
KERB: Color = (186, 184, 178)
PAINTS: dict[str, Color] = {"yellow": (226, 178, 44), "white": (232, 232, 228), "standard": (232, 232, 228)}
THINGS: dict[str, tuple[Tag, Pattern]] = {
    "building": (Tag.BUILDING, Pattern.WALL),
    "tree_trunk": (Tag.VEGETATION, Pattern.PLAIN),
    "tree_crown": (Tag.VEGETATION, Pattern.LEAVES),
    "lamp": (Tag.POLE, Pattern.PLAIN),
    "barrier": (Tag.GUARD_RAIL, Pattern.PLAIN),
}
ROOFS: tuple[Color, ...] = ((120, 62, 48), (92, 78, 72), (70, 74, 82), (134, 92, 62))


@dataclass(frozen=True)
class Chunks:
    """A mesh in the order of its chunks."""

    mesh: Mesh
    normals: Floats
    starts: NDArray[np.int64]  # [K + 1]
    bounds: Floats  # [K, 6] low and high corner
    sizes: Floats  # [K] of the largest thing


@dataclass(frozen=True)
class Place:
    """What of a map never changes."""

    seen: Chunks  # by cameras
    felt: Chunks  # by rays: without paint, which has no height
    casting: Chunks  # shadows
    low: Floats  # [2] corner of the area
    high: Floats
    lamps: Floats  # [N, 3] where street lamps hang


def place_of(roads: RoadMap, things: Sequence[Thing], lights: Sequence[LightPlace]) -> Place:
    flat, paint, standing = list(ground(roads)), list(painted(roads)), list(beside(roads, things, lights))
    everything = joined([*flat, *paint, *standing])
    corners = np.concatenate([lane.centre[:, :2] for lane in roads.lanes])
    lamps = [(t.x_m, t.y_m, t.z_m + t.extent_z_m) for t in things if t.kind == "lamp"]
    return Place(
        seen=chunks(everything),
        felt=chunks(joined([*flat, *standing])),
        casting=chunks(joined([part for part in standing if len(part)] or [everything.take(np.zeros(0, np.intp))])),
        low=(corners.min(0) - 40.0).astype(np.float32),
        high=(corners.max(0) + 40.0).astype(np.float32),
        lamps=np.array(lamps, np.float32).reshape(-1, 3),
    )


def chunks(whole: Mesh, chunk_m: float = CHUNK_M) -> Chunks:
    middle = whole.corners.mean(1)[:, :2]
    cell = np.floor(middle / chunk_m).astype(np.int64)
    wide = np.ptp(whole.corners[:, :, :2], axis=1).max(1) > 2 * chunk_m
    cell[wide] = np.arange(wide.sum())[:, None] + 1_000_000
    key = np.column_stack([np.floor(np.log2(np.minimum(whole.size, LARGE_M))).astype(np.int64), cell])
    order = np.lexsort((np.arange(len(key)), key[:, 2], key[:, 1], key[:, 0]))
    sorted_key = key[order]
    cuts = np.flatnonzero(np.any(np.diff(sorted_key, axis=0), axis=1)) + 1
    starts = np.concatenate([[0], cuts, [len(order)]]) if len(order) else np.zeros(1, np.int64)
    mesh_ = whole.take(order)
    low = [mesh_.corners[a:b].min((0, 1)) for a, b in pairwise(starts)]
    high = [mesh_.corners[a:b].max((0, 1)) for a, b in pairwise(starts)]
    sizes = [mesh_.size[a:b].max() for a, b in pairwise(starts)]
    bounds = np.column_stack([low, high]).astype(np.float32) if low else np.zeros((0, 6), np.float32)
    return Chunks(mesh_, mesh_.normal, starts.astype(np.int64), bounds, np.array(sizes, np.float32))


def ground(roads: RoadMap) -> Iterable[Mesh]:
    surfaces = roads.surfaces
    yield mesh(surfaces.ground, GRASS, Pattern.GRASS, Tag.TERRAIN, size_m=50.0)
    yield mesh(surfaces.floors, ASPHALT, Pattern.ASPHALT, Tag.ROAD, size_m=5.0)
    for kind, triangles in surfaces.lanes.items():
        color, pattern, tag = LANES.get(kind, OTHER_LANE)
        yield mesh(triangles, color, pattern, tag, size_m=2.0)
    yield mesh(surfaces.kerbs, KERB, Pattern.PLAIN, Tag.SIDEWALK, size_m=0.15)


def painted(roads: RoadMap) -> Iterable[Mesh]:
    surfaces = roads.surfaces
    for (_, color), triangles in surfaces.marks.items():
        yield mesh(triangles, PAINTS.get(color, PAINTS["white"]), Pattern.PAINT, Tag.ROAD_LINE, size_m=0.15)
    for triangles in (surfaces.stop_lines, surfaces.crosswalks):
        yield mesh(triangles, PAINTS["white"], Pattern.PAINT, Tag.ROAD_LINE, size_m=0.4)


def beside(roads: RoadMap, things: Sequence[Thing], lights: Sequence[LightPlace]) -> Iterable[Mesh]:
    for thing in things:
        yield from standing(thing)
    for signal in roads.signals:
        yield from sign(signal)
    for light in lights:
        at = light.transform
        yaw = math.radians(at.rotation.yaw)
        yield shapes.light_post(light).moved(at.location.x, at.location.y, at.location.z, yaw)
    for thing_box in roads.objects:
        half = (thing_box.length_m / 2, thing_box.width_m / 2, thing_box.height_m / 2)
        body = mesh(box(half, (0, 0, half[2])), (150, 150, 148), Pattern.PLAIN, Tag.STATIC, solid=True)
        yield body.moved(thing_box.x_m, thing_box.y_m, thing_box.z_m, thing_box.heading_rad)


def standing(thing: Thing) -> Iterable[Mesh]:
    half = (thing.extent_x_m, thing.extent_y_m, thing.extent_z_m)
    yaw = math.radians(thing.yaw_deg)
    at = (thing.x_m, thing.y_m, thing.z_m)
    if thing.kind == "building":
        yield from (part.moved(*at, yaw) for part in building(thing, half))
    elif thing.kind == "tree_crown":
        yield crown(thing, half).moved(*at, yaw)
    elif thing.kind == "lamp":
        pole = mesh(box(half), thing.color, Pattern.PLAIN, Tag.POLE, solid=True, size_m=0.16)
        head = mesh(
            box((0.5, 0.12, 0.06), (0.0, 0.0, half[2])), (225, 215, 180), Pattern.LAMP, Tag.POLE, solid=True, size_m=0.3
        )
        yield from (part.moved(*at, yaw) for part in (pole, head))
    else:
        tag, pattern = THINGS.get(thing.kind, (Tag.STATIC, Pattern.PLAIN))
        size = 2 * min(half[0] + half[1], half[2])
        yield mesh(box(half), thing.color, pattern, tag, solid=True, size_m=size).moved(*at, yaw)


def building(thing: Thing, half: tuple[float, float, float]) -> Iterable[Mesh]:
    """Walls with windows; low houses have a ridged roof, high ones a flat roof with an edge."""
    draw = zlib.crc32(f"{thing.x_m:.2f} {thing.y_m:.2f}".encode())
    a, b, c = half
    body = mesh(box(half), thing.color, Pattern.WALL, Tag.BUILDING, solid=True, size_m=4.0)
    normals = body.normal
    body.wall[:, 0], body.wall[:, 1] = -normals[:, 1], normals[:, 0]
    reach = np.abs(body.wall[:, 0]) * a + np.abs(body.wall[:, 1]) * b
    body.wall[:, 2], body.wall[:, 3] = -reach, -c
    body.wall[:, 4], body.wall[:, 5] = 2 * reach, 2 * c
    body.pattern[np.abs(normals[:, 2]) > 0.5] = Pattern.PAVING
    yield body
    roof = ROOFS[draw % len(ROOFS)]
    if c < 6.0:
        high = 0.35 * min(a, b) + 0.8
        over = rectangle(-a - 0.4, a + 0.4, b + 0.4)
        ridge = rectangle(-a - 0.4, a + 0.4, 0.05) if a >= b else rectangle(-0.05, 0.05, b + 0.4)
        yield mesh(hull(over, c, ridge, c + high), roof, Pattern.BRICK, Tag.BUILDING, solid=True, size_m=3.0)
    else:
        edge = box((a + 0.15, b + 0.15, 0.25), (0.0, 0.0, c + 0.1))
        yield mesh(edge, (120, 118, 114), Pattern.PLAIN, Tag.BUILDING, solid=True, size_m=1.0)
        if draw % 3 == 0:
            shed = box((a * 0.3, b * 0.3, 1.2), (a * 0.2, 0.0, c + 1.2))
            yield mesh(shed, (150, 148, 144), Pattern.PLAIN, Tag.BUILDING, solid=True, size_m=2.0)


def crown(thing: Thing, half: tuple[float, float, float]) -> Mesh:
    """Two eight-sided cones, base to base: narrow below, widest under the middle."""
    a, b, c = half
    angle = np.arange(8) * np.pi / 4 + 0.2
    wide = [(float(1.25 * a * np.cos(t)), float(1.25 * b * np.sin(t))) for t in angle]
    faces = []
    rings = [(-c, 0.35), (-0.35 * c, 1.0), (0.35 * c, 0.8), (c, 0.12)]
    for (low, r0), (high, r1) in pairwise(rings):
        for i in range(8):
            j = (i + 1) % 8
            p, q = (np.array([x * r0, y * r0, low]) for x, y in (wide[i], wide[j]))
            s, t = (np.array([x * r1, y * r1, high]) for x, y in (wide[i], wide[j]))
            faces += [[p, s, t], [p, t, q]]
    for (high, r), step in ((rings[0], 1), (rings[-1], -1)):
        ends = [np.array([x * r, y * r, high]) for x, y in wide[::step]]
        faces += [[ends[0], ends[i], ends[i + 1]] for i in range(1, 7)]
    return mesh(
        outward(np.array(faces), (0.0, 0.0, 0.0)), thing.color, Pattern.LEAVES, Tag.VEGETATION, solid=True, size_m=1.5
    )


def sign(signal: Signal) -> Iterable[Mesh]:
    if signal.kind not in ("stop", "yield", "speed"):
        return
    made = shapes.road_sign(signal.kind, signal.speed_mps)
    yield made.moved(signal.x_m, signal.y_m, signal.z_m, signal.heading_rad + math.pi)
