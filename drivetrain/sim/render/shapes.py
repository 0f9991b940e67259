"""What moves or changes, as triangles about its own origin: vehicles, people, props, lights and signs.

`shape(blueprint, box)` is one body's mesh; `colours` says how its parts look just now.
"""

from __future__ import annotations

import functools
import zlib
from itertools import pairwise

import numpy as np

from drivetrain.sim.catalogue import MODELS, Model
from drivetrain.sim.lights import LightPlace
from drivetrain.sim.protocol.structs import BoundingBox, LightColour
from drivetrain.sim.render.mesh import (
    PARTS,
    Bytes,
    Color,
    Mesh,
    Part,
    Pattern,
    Tag,
    box,
    drum,
    hull,
    joined,
    mesh,
    outward,
    rectangle,
)

RUBBER: Color = (28, 28, 30)
GLASS: Color = (38, 48, 58)
GREY = "150,150,155"  # of what has no colour of its own
TRIM: Color = (40, 40, 44)
SKIN: Color = (214, 168, 138)
CLOTHES: tuple[Color, ...] = (
    (60, 70, 120),
    (130, 50, 50),
    (70, 100, 70),
    (190, 170, 120),
    (50, 50, 55),
    (150, 90, 130),
)
TAGS = {
    "car": Tag.CAR,
    "van": Tag.CAR,
    "truck": Tag.TRUCK,
    "bus": Tag.BUS,
    "motorcycle": Tag.MOTORCYCLE,
    "bicycle": Tag.BICYCLE,
}
BRAKE, LEFT_BLINKER, RIGHT_BLINKER, REVERSE = 8, 16, 32, 64  # CARLA's VehicleLightState
POSITION, LOW_BEAM, HIGH_BEAM = 1, 2, 4
LAMP_M = 0.42  # half the side of a traffic light's lamp: larger than life, to be seen in small pictures
LAMP_MIDDLE_M = 4.6  # of its housing, over the ground


@functools.lru_cache(maxsize=512)
def shape(blueprint: str, half: tuple[float, float, float], middle: tuple[float, float, float]) -> Mesh:
    if blueprint in MODELS:
        model = MODELS[blueprint]
        return two_wheeler(model) if model.wheels == 2 else car(model)
    if blueprint.startswith("walker."):
        return person(blueprint, half)
    if "cone" in blueprint:
        a, b, c = half
        low, tip = rectangle(-a, a, b), rectangle(-a * 0.2, a * 0.2, b * 0.2)
        return mesh(hull(low, 0.0, tip, 2 * c), (236, 96, 30), Pattern.PLAIN, Tag.DYNAMIC, solid=True, size_m=a)
    color: Color = tuple(60 + 25 * ((zlib.crc32(blueprint.encode()) >> shift) % 6) for shift in (0, 5, 10))  # type: ignore[assignment]
    return mesh(box(half, middle), color, Pattern.PLAIN, Tag.DYNAMIC, solid=True, size_m=2 * min(half))


def half_and_middle(of: BoundingBox) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    e, m = of.extent, of.location
    return (e.x, e.y, e.z), (m.x, m.y, m.z)


def car(model: Model) -> Mesh:
    """A body, a cabin that narrows upwards with glass around, wheels, lamps. Vans, trucks and buses have a tall cabin."""
    a, b, high = model.length_m / 2, model.width_m / 2, model.height_m
    tall = model.base_type in ("van", "truck", "bus")
    tag = TAGS[model.base_type]
    radius = min(0.36, 0.24 * high) if not tall else 0.45
    low, belt = 0.55 * radius + 0.05, high * (0.42 if tall else 0.58)
    lower = hull(rectangle(-a, a, b * 0.94), low, rectangle(-a * 0.985, a * 0.97, b), belt)
    if tall:
        front = a if model.base_type == "bus" else a * 0.82
        cabin_low, cabin_top = rectangle(-a * 0.985, front * 0.97, b), rectangle(-a * 0.97, front * 0.9, b * 0.94)
    else:
        cabin_low, cabin_top = rectangle(-a * 0.9, a * 0.5, b * 0.94), rectangle(-a * 0.62, a * 0.12, b * 0.76)
    cabin = hull(cabin_low, belt, cabin_top, high)
    paint = Pattern.SHINY
    parts = [
        mesh(lower, (150, 150, 155), paint, tag, part=Part.BODY, solid=True, size_m=1.0),
        mesh(cabin[:2], (150, 150, 155), paint, tag, part=Part.BODY, solid=True, size_m=1.0),
        mesh(cabin[2:], GLASS, Pattern.GLASS, tag, solid=True, size_m=0.6),
    ]
    wheels = [drum(radius, 0.11, x, y, radius, 8) for x in (0.6 * a, -0.6 * a) for y in (b - 0.12, 0.12 - b)]
    parts.append(mesh(np.concatenate(wheels), RUBBER, Pattern.PLAIN, tag, solid=True, size_m=0.3))
    y0, y1, z0, z1 = b * 0.45, b * 0.92, low + 0.5 * (belt - low), low + 0.8 * (belt - low)
    for side in (-1, 1):
        inner, outer = sorted((side * y0, side * y1))
        ahead, behind = a * 1.002, -a * 1.002
        parts.append(lamp(Part.HEAD, facing(ahead, inner, outer, z0, z1, forward=True), tag))
        parts.append(lamp(Part.TAIL, facing(behind, inner, outer, z0, z1, forward=False), tag))
        left, right = sorted((side * b * 0.93, side * b * 1.0))
        blink = Part.LEFT if side < 0 else Part.RIGHT
        parts.append(lamp(blink, facing(ahead, left, right, z0, z1, forward=True), tag))
        parts.append(lamp(blink, facing(behind, left, right, z0, z1, forward=False), tag))
    parts.append(lamp(Part.BACK, facing(-a * 1.002, -0.2, 0.2, z0, z0 + 0.12, forward=False), tag))
    grille = facing(a * 1.002, -b * 0.4, b * 0.4, low + 0.1, z0, forward=True)
    parts.append(mesh(grille, TRIM, Pattern.PLAIN, tag, solid=True, size_m=0.25))
    return joined(parts)


def lamp(part: Part, corners: np.ndarray, tag: Tag) -> Mesh:
    return mesh(corners, (200, 200, 200), Pattern.LAMP, tag, part=part, solid=True, size_m=0.25)


def facing(x: float, y0: float, y1: float, z0: float, z1: float, *, forward: bool) -> np.ndarray:
    """An upright rectangle across the way, that looks forward or back."""
    a, b, c, d = (x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)
    return outward(np.array([[a, b, c], [a, c, d]]), (x - 1.0 if forward else x + 1.0, 0.0, 0.0))


def two_wheeler(model: Model) -> Mesh:
    a, high = model.length_m / 2, model.height_m
    tag, radius = TAGS[model.base_type], min(0.34, 0.3 * high)
    frame = hull(rectangle(-a * 0.55, a * 0.55, 0.08), radius, rectangle(-a * 0.4, a * 0.35, 0.12), 0.62 * high)
    bar = box((0.05, model.width_m / 2, 0.04), (a * 0.35, 0.0, 0.75 * high))
    rider = hull(rectangle(-0.25, 0.15, 0.2), 0.6 * high, rectangle(-0.1, 0.25, 0.22), 0.6 * high + 0.62)
    head = box((0.12, 0.1, 0.14), (0.12, 0.0, 0.6 * high + 0.78))
    legs = box((0.12, 0.16, 0.3), (0.02, 0.0, 0.45 * high))
    wheels = [drum(radius, 0.05, x, 0.0, radius, 10) for x in (0.68 * a, -0.68 * a)]
    return joined(
        [
            mesh(frame, (150, 150, 155), Pattern.SHINY, tag, part=Part.BODY, solid=True, size_m=0.3),
            mesh(bar, TRIM, Pattern.PLAIN, tag, solid=True, size_m=0.1),
            mesh(np.concatenate(wheels), RUBBER, Pattern.PLAIN, tag, solid=True, size_m=0.3),
            mesh(np.concatenate([rider, legs]), CLOTHES[0], Pattern.PLAIN, Tag.RIDER, solid=True, size_m=0.3),
            mesh(head, SKIN, Pattern.PLAIN, Tag.RIDER, solid=True, size_m=0.2),
            lamp(Part.HEAD, facing(a * 0.45, -0.08, 0.08, 0.55 * high, 0.68 * high, forward=True), tag),
            lamp(Part.TAIL, facing(-a * 0.6, -0.08, 0.08, 0.5 * high, 0.6 * high, forward=False), tag),
        ]
    )


def person(blueprint: str, half: tuple[float, float, float]) -> Mesh:
    """Legs, trunk, arms and head; the origin is the middle of the body."""
    draw = zlib.crc32(blueprint.encode())
    high, foot = 2 * half[2], -half[2]
    shirt, trousers = CLOTHES[draw % len(CLOTHES)], CLOTHES[(draw >> 8) % len(CLOTHES)]
    legs = np.concatenate([box((0.08, 0.07, 0.235 * high), (s * 0.1, s * 0.09, foot + 0.235 * high)) for s in (-1, 1)])
    trunk = hull(rectangle(-0.11, 0.11, 0.16), foot + 0.46 * high, rectangle(-0.12, 0.12, 0.22), foot + 0.82 * high)
    arms = np.concatenate([box((0.06, 0.05, 0.18 * high), (-s * 0.08, s * 0.27, foot + 0.63 * high)) for s in (-1, 1)])
    head = box((0.1, 0.09, 0.075 * high), (0.0, 0.0, foot + 0.92 * high))
    tag = Tag.PEDESTRIAN
    return joined(
        [
            mesh(legs, trousers, Pattern.PLAIN, tag, solid=True, size_m=0.2),
            mesh(trunk, shirt, Pattern.PLAIN, tag, solid=True, size_m=0.4),
            mesh(arms, shirt, Pattern.PLAIN, tag, solid=True, size_m=0.15),
            mesh(head, SKIN, Pattern.PLAIN, tag, solid=True, size_m=0.25),
        ]
    )


@functools.lru_cache(maxsize=4096)
def colours(color: str, flags: int, blinking: bool) -> Bytes:
    """[PARTS, 4] red, green and blue of a vehicle's parts, and whether they shine."""
    found = np.zeros((PARTS, 4), np.uint8)
    found[Part.BODY, :3] = [int(value) for value in color.split(",")]
    found[Part.HEAD, :3], found[Part.TAIL, :3], found[Part.BACK, :3] = (205, 208, 212), (110, 20, 20), (120, 120, 120)
    found[[Part.LEFT, Part.RIGHT], :3] = (150, 84, 20)
    if flags & (POSITION | LOW_BEAM | HIGH_BEAM):
        found[Part.HEAD], found[Part.TAIL] = (255, 250, 225, 1), (170, 24, 24, 1)
    if flags & BRAKE:
        found[Part.TAIL] = (255, 36, 30, 1)
    if flags & REVERSE:
        found[Part.BACK] = (250, 250, 250, 1)
    for part, bit in ((Part.LEFT, LEFT_BLINKER), (Part.RIGHT, RIGHT_BLINKER)):
        if flags & bit and blinking:
            found[part] = (255, 160, 30, 1)
    return found


def light_post(light: LightPlace) -> Mesh:
    """The pole and the housing; they look the way the light does, against those it is meant for."""
    pole = box((0.07, 0.07, LAMP_MIDDLE_M / 2), (-0.15, 0.0, LAMP_MIDDLE_M / 2))
    housing = box((0.14, LAMP_M + 0.1, 3 * LAMP_M + 0.15), (0.0, 0.0, LAMP_MIDDLE_M))
    return joined(
        [
            mesh(pole, (70, 72, 76), Pattern.PLAIN, Tag.POLE, solid=True, size_m=0.14),
            mesh(housing, (24, 26, 26), Pattern.PLAIN, Tag.TRAFFIC_LIGHT, solid=True, size_m=0.8),
        ]
    )


@functools.lru_cache(maxsize=1)
def lamps() -> Mesh:
    """The three lamps of a traffic light, red above."""
    made = []
    for number, part in enumerate((Part.RED, Part.YELLOW, Part.GREEN)):
        z = LAMP_MIDDLE_M + 2 * LAMP_M * (1 - number)
        face = facing(0.145, -LAMP_M * 0.88, LAMP_M * 0.88, z - LAMP_M * 0.88, z + LAMP_M * 0.88, forward=True)
        made.append(mesh(face, (60, 60, 60), Pattern.LAMP, Tag.TRAFFIC_LIGHT, part=part, solid=True, size_m=0.7))
    return joined(made)


LIT: dict[LightColour, tuple[int, Color]] = {
    LightColour.RED: (Part.RED, (255, 36, 24)),
    LightColour.YELLOW: (Part.YELLOW, (255, 200, 30)),
    LightColour.GREEN: (Part.GREEN, (40, 250, 110)),
}


@functools.lru_cache(maxsize=8)
def lamp_colours(colour: LightColour) -> Bytes:
    found = np.zeros((PARTS, 4), np.uint8)
    found[Part.RED, :3], found[Part.YELLOW, :3], found[Part.GREEN, :3] = (52, 16, 14), (48, 40, 12), (12, 44, 24)
    if colour in LIT:
        part, bright = LIT[colour]
        found[part] = (*bright, 1)
    return found


DIGITS = {
    "0": "111101101101111", "1": "010110010010111", "2": "111001111100111", "3": "111001111001111",
    "4": "101101111001001", "5": "111100111001111", "6": "111100111101111", "7": "111001001001001",
    "8": "111101111101111", "9": "111101111001111",
}  # fmt: skip


def road_sign(kind: str, speed_mps: float | None) -> Mesh:
    """On a pole, 2.2 m up, looking along +x; 0.9 m across."""
    up, r = 2.4, 0.45
    parts = [
        mesh(
            box((0.04, 0.04, up / 2), (-0.06, 0.0, up / 2)),
            (130, 132, 134),
            Pattern.PLAIN,
            Tag.POLE,
            solid=True,
            size_m=0.1,
        )
    ]
    white, red, black = (238, 238, 236), (200, 28, 32), (20, 20, 20)

    def plate(corners: list[tuple[float, float]], color: Color, x: float, back: bool = False) -> None:
        fan = [[corners[0], p, q] for p, q in pairwise(corners[1:])]
        faces = np.array([[(x, y, up + z) for y, z in triangle] for triangle in fan])
        behind = 1.0 if back else -1.0
        parts.append(
            mesh(outward(faces, (x + behind, 0, up)), color, Pattern.PLAIN, Tag.TRAFFIC_SIGN, solid=True, size_m=0.7)
        )

    def ring(sides: int, radius: float, turn: float) -> list[tuple[float, float]]:
        angle = turn - np.arange(sides) * 2 * np.pi / sides
        return [(float(radius * np.cos(t)), float(radius * np.sin(t))) for t in angle]

    outline = {"stop": ring(8, r * 1.05, np.pi / 8), "yield": ring(3, r * 1.2, -np.pi / 2)}.get(kind, ring(16, r, 0.0))
    plate(outline, (120, 122, 124), -0.02, back=True)
    if kind == "stop":
        plate(ring(8, r * 1.05, np.pi / 8), white, 0.0)
        plate(ring(8, r * 0.97, np.pi / 8), red, 0.005)
        plate([(-0.32, 0.06), (0.32, 0.06), (0.32, -0.06), (-0.32, -0.06)], white, 0.01)
    elif kind == "yield":
        plate(ring(3, r * 1.2, -np.pi / 2), red, 0.0)
        plate(ring(3, r * 0.75, -np.pi / 2), white, 0.005)
    else:
        plate(ring(16, r, 0.0), red, 0.0)
        plate(ring(16, r * 0.78, 0.0), white, 0.005)
        text = str(round((speed_mps or 0.0) * 3.6))
        for place, digit in enumerate(text):
            left = (place - len(text) / 2) * 0.22 + 0.02
            for cell, on in enumerate(DIGITS[digit]):
                if on == "1":
                    y, z = left + 0.06 * (cell % 3), 0.15 - 0.06 * (cell // 3)
                    plate([(-y, z), (-y - 0.06, z), (-y - 0.06, z - 0.06), (-y, z - 0.06)], black, 0.01)
    return joined(parts)
