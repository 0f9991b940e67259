"""LiDAR, plain and with labels, and radar, as CARLA sends them."""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

from drivetrain.sim.geometry import matrix, to_array
from drivetrain.sim.render.mesh import Bytes, Floats, Tag
from drivetrain.sim.render.rays import NOTHING, cast
from drivetrain.sim.render.scene import Stage
from drivetrain.sim.sensors import Met, View, noise
from drivetrain.sim.squares import Doubles, Squares

LEVEL = (Tag.ROAD, Tag.SIDEWALK, Tag.TERRAIN, Tag.GROUND, Tag.ROAD_LINE)  # is driven over, and no obstacle
LABELLED = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("cos", "<f4"), ("who", "<u4"), ("tag", "<u4")])
assert LABELLED.itemsize == 24


class Felt:
    """What rays meet: the map's triangles and the living ones after them, as tables."""

    def __init__(self, stage: Stage, squares: Squares):
        self.stage, self.squares = stage, squares
        felt, live = stage.world.place.felt, stage.live
        self.tags: Bytes = np.concatenate([felt.mesh.tag, live.tag])
        self.actors: NDArray[np.int32] = np.concatenate([np.zeros(len(felt.mesh), np.int32), live.actor])
        self.normals: Floats = np.concatenate([felt.normals, live.normals])
        self.first_live = len(felt.mesh)

    def cast(self, eye: Doubles, ways: Doubles, range_m: float, hidden: int = 0) -> tuple[Doubles, NDArray[np.int64]]:
        return cast(self.squares, self.stage.live, eye, ways, range_m, hidden)

    def velocity(self, hit: NDArray[np.int64]) -> Floats:
        found = np.zeros((len(hit), 3), np.float32)
        living = hit >= self.first_live
        live = self.stage.live
        found[living] = live.velocity[live.body[hit[living] - self.first_live]]
        return found


class Lidar:
    """Turns a little in each tick: so far as its rotation frequency says."""

    def __init__(self, view: View):
        s = view.settings
        self.labelled = view.blueprint.endswith("semantic")
        self.channels, self.per_second = int(s["channels"]), float(s["points_per_second"])
        self.range_m, self.turns_hz = float(s["range"]), float(s["rotation_frequency"])
        self.fov_deg = float(s["horizontal_fov"])
        upper, lower = math.radians(float(s["upper_fov"])), math.radians(float(s["lower_fov"]))
        self.altitude = np.linspace(upper, lower, self.channels) if self.channels > 1 else np.array([upper])
        self.turned_deg = 0.0
        self.then_s: float | None = None
        self.random = noise(s, view.id)
        if not self.labelled:
            self.air = float(s["atmosphere_attenuation_rate"])
            self.drop = float(s["dropoff_general_rate"])
            self.drop_limit, self.drop_zero = float(s["dropoff_intensity_limit"]), float(s["dropoff_zero_intensity"])
            self.noise_m = float(s["noise_stddev"])

    def message(self, felt: Felt, view: View) -> bytes:
        now_s = felt.stage.elapsed_s
        dt_s = now_s - self.then_s if self.then_s is not None else felt.stage.dt_s
        self.then_s = now_s
        each = round(self.per_second * dt_s / self.channels)
        sweep_deg = self.turns_hz * self.fov_deg * dt_s
        angle = (self.turned_deg + sweep_deg * np.arange(each) / max(each, 1)) % self.fov_deg - self.fov_deg / 2
        self.turned_deg = (self.turned_deg + sweep_deg) % self.fov_deg
        azimuth = np.radians(np.tile(angle, self.channels))
        altitude = np.repeat(self.altitude, each)
        flat = np.cos(altitude)
        local = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(altitude)], axis=1)
        turn = matrix(view.transform.rotation)
        ways = np.ascontiguousarray(local @ turn.T)
        distance, hit = felt.cast(to_array(view.transform.location), ways, self.range_m)
        keep = hit != NOTHING
        points = local * distance[:, None]
        channel = np.repeat(np.arange(self.channels), each)
        if self.labelled:
            data = np.empty(int(keep.sum()), LABELLED)
            for column, name in enumerate("xyz"):
                data[name] = points[keep, column]
            facing = np.abs(np.einsum("nk,nk->n", felt.normals[hit[keep]], ways[keep]))
            data["cos"], data["who"], data["tag"] = facing, felt.actors[hit[keep]], felt.tags[hit[keep]]
            body = data.tobytes()
        else:
            intensity = np.exp(-self.air * distance)
            keep &= self.returned(intensity)
            if self.noise_m > 0:
                points += local * self.random.normal(scale=self.noise_m, size=(len(local), 1))
            body = np.column_stack([points, intensity])[keep].astype("<f4").tobytes()
        counts = np.bincount(channel[keep], minlength=self.channels)
        head = struct.pack(f"<fI{self.channels}I", math.radians(self.turned_deg), self.channels, *counts.tolist())
        return head + body

    def returned(self, intensity: Doubles) -> NDArray[np.bool_]:
        """CARLA's losses: a share of all, and more of the faint the fainter they are."""
        kept = self.random.random(len(intensity)) >= self.drop
        faint = np.clip((self.drop_limit - intensity) / max(self.drop_limit, 1e-9), 0.0, 1.0) * self.drop_zero
        lost: NDArray[np.bool_] = self.random.random(len(intensity)) < np.where(intensity < self.drop_limit, faint, 0.0)
        return kept & ~lost


class Radar:
    def __init__(self, view: View):
        s = view.settings
        self.across, self.upward = math.radians(float(s["horizontal_fov"])), math.radians(float(s["vertical_fov"]))
        self.range_m, self.per_second = float(s["range"]), float(s["points_per_second"])
        self.random = noise(s, view.id)
        self.then_s: float | None = None

    def message(self, felt: Felt, view: View) -> bytes:
        now_s = felt.stage.elapsed_s
        dt_s = now_s - self.then_s if self.then_s is not None else felt.stage.dt_s
        self.then_s = now_s
        count = max(1, int(self.per_second * dt_s))
        radius, angle = self.random.random(count), self.random.random(count) * 2 * math.pi
        azimuth = radius * np.cos(angle) * self.across / 2
        altitude = radius * np.sin(angle) * self.upward / 2
        flat = np.cos(altitude)
        local = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(altitude)], axis=1)
        ways = np.ascontiguousarray(local @ matrix(view.transform.rotation).T)
        distance, hit = felt.cast(to_array(view.transform.location), ways, self.range_m, view.parent)
        keep = hit != NOTHING
        apart = felt.velocity(hit[keep]) - to_array(view.velocity)
        speed = np.einsum("nk,nk->n", apart, ways[keep])
        rows = np.column_stack([speed, azimuth[keep], altitude[keep], distance[keep]])
        return rows.astype("<f4").tobytes()


def obstacle(felt: Felt, view: View) -> Met | None:
    """The first thing in a tube ahead, as CARLA's detector sweeps it: nine rays, one along the middle."""
    s = view.settings
    reach_m, radius_m = float(s["distance"]), float(s["hit_radius"])
    moving_only = s["only_dynamics"].lower() in ("true", "1")
    turn = matrix(view.transform.rotation)
    forward, right, up = turn.T
    found: Met | None = None
    for angle in (None, *(i * math.pi / 4 for i in range(8))):
        aside = np.zeros(3) if angle is None else radius_m * (math.cos(angle) * right + math.sin(angle) * up)
        eye = to_array(view.transform.location) + aside
        distance, hit = felt.cast(eye, forward[None].copy(), reach_m, view.parent)
        if hit[0] == NOTHING or (found and distance[0] >= found.distance_m):
            continue
        tag = int(felt.tags[hit[0]])
        if tag in LEVEL or (moving_only and hit[0] < felt.first_live):
            continue
        found = Met(int(felt.actors[hit[0]]), tag, float(distance[0]))
    return found
