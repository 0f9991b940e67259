"""CarRacing's pictures with what is true of them, without driving there: a car is put somewhere on a track, and drawn.

    drivetrain collect --as captions --env carracing --scenes 1000 --output-dir data/carracing-captions

The tracks are Gymnasium's of the first so many seeds; hand in other seeds for roads that no training saw. What is drawn
depends on the generator and on nothing else. Pictures look as in play after the first second: the camera has zoomed in,
tiles that were driven over have darkened, score, wheels and indicators fit. Facts:

    speed_mps                     what the white bar at the bottom shows
    offset_m, on_road             right of the middle of the road; 1 where the car's centre is on the road, else 0
    heading_deg                   how far the nose points to the left of the road's direction here
    bend_10m_deg  _20m  _30m      how far the road turns to the left until so much farther on
    aim_deg                       how far to the left of the nose the middle of the road is, 12 m farther on

The road 30 m on is always in sight, and no other part of the track is nearer than the one the facts speak of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium.envs.box2d.car_dynamics import SIZE, WHEELPOS
from gymnasium.envs.box2d.car_racing import TRACK_WIDTH

from drivetrain.envs.carracing import FastCarRacing, Landscape

TRACKS = range(128)  # seeds; a track takes 10 ms to lay and 100 kB to keep
AHEAD_M = (10.0, 20.0, 30.0)
AIM_M = 12.0
STRAIGHT_DEG = 15.0  # over the longest of AHEAD_M; places that bend less, or to either side, come equally often
FIRST_TILE, LAST_TILE = 2, -12  # far enough from the seam of the lap
IN_SIGHT_M = ((-5.0, 36.0), (-29.0, 29.0))  # ahead of the car, and to its left

SPEED_MPS = 100.0
CRAWL_MPS, RACE_MPS = 10.0, 90.0  # at difficulty 0 a car goes at less than the first or more than the second
MIDDLE_M, EDGE_M = 2.0, 6.0  # how far off the middle a car on the road is, at difficulty 0 and at 1
GRASS_SHARE, GRASS_M = 0.3, (8.2, 11.0)  # at difficulty 1 so many cars are off the road, so far from its middle

SWAY_DEG = 6.0  # most cars point along the road here, within this standard deviation;
AIMED_SHARE, AIMED_DEG = 0.35, 7.0  # at difficulty 1 so many at the road ahead, within this;
ASKEW_SHARE, ASKEW_DEG = 0.3, 45.0  # and so many anywhere within this


@dataclass(frozen=True)
class Track:
    """The landscape, and the middle of the road by the distance driven; N tiles."""

    landscape: Landscape
    shades: np.ndarray  # [N, 3] what the tiles are painted with; the landscape's own memory
    fresh: np.ndarray  # [N, 3] what they were before a car drove over them
    line_m: np.ndarray  # [N, 2]
    along_m: np.ndarray  # [N]
    heading_rad: np.ndarray  # [N] without jumps
    bending: Sequence[np.ndarray]  # tiles with a right bend ahead, with a straight road, with a left bend

    def point(self, along_m: float) -> np.ndarray:
        return np.array([np.interp(along_m, self.along_m, axis) for axis in self.line_m.T])

    def heading(self, along_m: float) -> float:
        return float(np.interp(along_m, self.along_m, self.heading_rad))


class Place(NamedTuple):
    """Where a car is put."""

    tile: int
    position_m: np.ndarray
    heading_rad: float  # anticlockwise from the x axis
    speed_mps: float
    facts: dict[str, float]


class Scenes:
    """Pictures [96, 96, 3] and their facts."""

    def __init__(self, tracks: Sequence[int] = TRACKS) -> None:
        self.racing = FastCarRacing()
        self.seeds = tracks
        self.laid: dict[int, Track] = {}

    def draw(self, random: np.random.Generator, difficulty: float) -> tuple[np.ndarray, dict[str, float]]:
        """At difficulty 0 the car is about in the middle of the road and along it; at 1 askew, or on the grass."""
        assert 0 <= difficulty <= 1, f"difficulty is {difficulty}"
        track = self._track(self.seeds[int(random.integers(len(self.seeds)))])
        while not (place := somewhere(track, random, difficulty)):
            pass
        self._put(place, random)
        track.shades[:] = track.fresh
        track.shades[: place.tile + 1] = self.racing.road_color
        steps = 60 + place.tile * random.uniform(2, 6)
        self.racing.t = 2.0
        self.racing.reward = 1000 * (place.tile + 1) / len(track.fresh) - 0.1 * steps
        self.racing._landscape = track.landscape
        return self.racing._drawn(), place.facts

    @staticmethod
    def facts(info: dict[str, Any]) -> dict[str, float]:
        """Those of the same facts that a world which is played tells of."""
        track, place = info["privileged.track"], info["privileged.position_m"]
        apart = place - track[:, :2]
        here = int(np.square(apart).sum(1).argmin())
        heading = float(track[here, 2])
        offset_m = float(apart[here, 0] * math.sin(heading) - apart[here, 1] * math.cos(heading))
        return {
            "speed_mps": float(info["privileged.speed_mps"]),
            "offset_m": offset_m,
            "on_road": float(abs(offset_m) < TRACK_WIDTH),
        }

    def _track(self, seed: int) -> Track:
        if seed not in self.laid:
            self.racing.blind = True
            self.racing.reset(seed=seed)
            self.laid[seed] = lay(self.racing)
        return self.laid[seed]

    def _put(self, place: Place, random: np.random.Generator) -> None:
        """Hull and wheels, turned and turning as they do at that speed."""
        car = self.racing.car
        assert car is not None
        cos, sin = math.cos(place.heading_rad), math.sin(place.heading_rad)
        angle, (x, y) = place.heading_rad - math.pi / 2, place.position_m.tolist()
        car.hull.transform = ((x, y), angle)
        car.hull.linearVelocity = (place.speed_mps * cos, place.speed_mps * sin)
        car.hull.angularVelocity = random.uniform(-1, 1)
        steer_rad, slip = random.uniform(-0.4, 0.4), random.uniform(0.95, 1.25)
        for i, (wheel, (right, ahead)) in enumerate(zip(car.wheels, WHEELPOS, strict=True)):
            front = i < 2
            centre = (x + SIZE * (ahead * cos + right * sin), y + SIZE * (ahead * sin - right * cos))
            wheel.transform = (centre, angle + (steer_rad if front else 0.0))
            wheel.omega = place.speed_mps / wheel.wheel_rad * (1.0 if front else slip)
            wheel.phase = random.uniform(0, 2 * math.pi)


def lay(racing: FastCarRacing) -> Track:
    """The track that the last reset made."""
    road: list[Any] = racing.road  # type: ignore[assignment]
    fresh = np.array([tile.color for tile in road], dtype=float)
    shades, landscape = fresh.copy(), racing._landscape
    number = {id(tile.color): i for i, tile in enumerate(road)}
    landscape.colours = [shades[number[id(c)]] if id(c) in number else c for c in landscape.colours]
    line = np.array([(x, y) for _, _, x, y in racing.track])
    legs = np.roll(line, -1, axis=0) - line
    lengths, ways = np.hypot(*legs.T), np.unwrap(np.arctan2(legs[:, 1], legs[:, 0]))
    along = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    heading = np.concatenate([ways[:1], (ways[:-1] + ways[1:]) / 2])  # at a point: between the legs that meet there
    ahead = np.interp(along + AHEAD_M[-1], along, heading) - heading
    bend = np.sign(np.where(np.abs(np.degrees(ahead)) < STRAIGHT_DEG, 0, ahead))[FIRST_TILE:LAST_TILE]
    bending = [np.flatnonzero(bend == side) + FIRST_TILE for side in (-1, 0, 1)]
    return Track(landscape, shades, fresh, line, along, heading, bending)


def somewhere(track: Track, random: np.random.Generator, difficulty: float) -> Place | None:
    """A place; None where the road ahead would be out of sight, or another part of the track nearer."""
    tiles = track.bending[int(random.integers(3))]
    if not len(tiles):
        return None
    tile = int(random.choice(tiles))
    along = random.uniform(*track.along_m[tile : tile + 2])
    offset_m, speed_mps = off_the_middle(random, difficulty), pace(random, difficulty)
    road_rad = track.heading(along)
    position = track.point(along) + offset_m * np.array([math.sin(road_rad), -math.cos(road_rad)])
    to_aim = track.point(along + AIM_M) - position
    heading_deg = turned(math.degrees(math.atan2(to_aim[1], to_aim[0]) - road_rad), random, difficulty)
    heading_rad = road_rad + math.radians(heading_deg)
    nearest = int(np.square(track.line_m - position).sum(axis=1).argmin())
    far = seen_from(position, heading_rad, track.point(along + AHEAD_M[-1]))
    if abs(nearest - tile) > 2 or not all(low < m < high for m, (low, high) in zip(far, IN_SIGHT_M, strict=True)):
        return None
    aim_ahead, aim_left = seen_from(position, heading_rad, track.point(along + AIM_M))
    facts = {
        "speed_mps": speed_mps,
        "offset_m": offset_m,
        "on_road": float(abs(offset_m) < TRACK_WIDTH),
        "heading_deg": heading_deg,
        **{f"bend_{d:.0f}m_deg": math.degrees(track.heading(along + d) - road_rad) for d in AHEAD_M},
        "aim_deg": math.degrees(math.atan2(aim_left, aim_ahead)),
    }
    return Place(tile, position, heading_rad, speed_mps, facts)


def off_the_middle(random: np.random.Generator, difficulty: float) -> float:
    if random.random() < GRASS_SHARE * difficulty:
        return math.copysign(random.uniform(*GRASS_M), random.uniform(-1, 1))
    return random.uniform(-1, 1) * (MIDDLE_M + (EDGE_M - MIDDLE_M) * difficulty)


def pace(random: np.random.Generator, difficulty: float) -> float:
    speed_mps = random.uniform(0, SPEED_MPS)
    if random.random() < difficulty:
        return speed_mps
    share = speed_mps / SPEED_MPS
    return 2 * share * CRAWL_MPS if share < 0.5 else SPEED_MPS - 2 * (1 - share) * (SPEED_MPS - RACE_MPS)


def turned(aimed_deg: float, random: np.random.Generator, difficulty: float) -> float:
    """How far the nose points to the left of the road here; `aimed_deg` would be at the road ahead."""
    which = random.random()
    if which < AIMED_SHARE * difficulty:
        return math.remainder(aimed_deg, 360) + random.uniform(-AIMED_DEG, AIMED_DEG)
    if which < (AIMED_SHARE + ASKEW_SHARE) * difficulty:
        return random.uniform(-ASKEW_DEG, ASKEW_DEG)
    return float(random.normal(0, SWAY_DEG))


def seen_from(position_m: np.ndarray, heading_rad: float, point_m: np.ndarray) -> tuple[float, float]:
    """How far ahead and how far to the left."""
    x, y = (point_m - position_m).tolist()
    cos, sin = math.cos(heading_rad), math.sin(heading_rad)
    return x * cos + y * sin, y * cos - x * sin
