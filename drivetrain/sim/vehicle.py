"""Vehicles: a dynamic bicycle each, with engine, gears, brakes and tyres that slide; all vehicles in one pass of numpy.

The tyres' sideways forces are solved implicitly in the two unknowns that they make stiff (sideways speed and yaw rate), as
Ge et al. 2021 (Numerically stable dynamic bicycle model) do, so that any step length and any speed, zero and reverse included,
is stable. Their stiffness is the secant of a curve that saturates at the grip left over by braking and driving.

Left out: suspension (a body lies on the plane of the ground under it), load transfer, differential and clutch slip.
Arrays are [N] by slot; lengths in metres, angles in radians, x forward and y to the right, so that yaw grows to the right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from drivetrain.sim.catalogue import Model
from drivetrain.sim.protocol.structs import PhysicsControl, Rotation, Transform, Vector2D, Vector3D, VehicleControl

Array = np.ndarray
GRAVITY_MPS2 = 9.81
GRIP_PER_FRICTION = 0.3  # CARLA's tire_friction of 3.5 grips like dry asphalt
ROLLING = 0.015  # of the weight
AIR_KGPM3 = 1.2
ENGINE_BRAKE_SHARE = 0.2  # of CARLA's damping, the clutch slipping: a car coasts down at some 1 m/s2 at 10 m/s
IDLE_RPM = 800.0
SLOW_MPS = 0.5  # below it tyres act as dampers
PEDAL_UP_PER_S, PEDAL_DOWN_PER_S, STEER_PER_S = 6.0, 10.0, 10.0  # how fast the vehicle follows the control
MOST_GEARS = 10
CURVE_POINTS = 33
CURVE_KMH = 200.0
LANDED_M = 0.02
CLIMB_M = 1.0  # ground further above a vehicle's origin is another storey
PLANE_M = 0.5  # the ground under a vehicle is asked for again after so far
RPM_PER_RADPS = 60 / (2 * math.pi)

STATE = ("x", "y", "z", "yaw", "pitch", "roll", "v", "u", "w", "vz", "ax", "ay", "az", "rpm", "shifting_s")
FOLLOWED = ("throttle", "steer", "brake", "hand")
WISH = tuple(f"want_{name}" for name in FOLLOWED)
BODY = ("mass", "inertia", "lf", "lr", "com", "base", "radius", "half_length", "half_width", "half_height")
TYRES = ("max_steer", "brake_force", "hand_force", "grip", "stiff", "drag")
ENGINE = ("final", "engine_damping", "switch_s", "max_rpm")
GROUND = ("ground_x", "ground_y", "ground_z", "slope_x", "slope_y")
EXTRA = ("fx", "fy", "fz", "torque_z")  # what clients push with, until the next tick
FLOATS = STATE + FOLLOWED + WISH + BODY + TYRES + ENGINE + GROUND + EXTRA
SWITCHES = ["want_reverse", "want_manual", "autobox", "physics", "gravity", "solid", "constant"]


@dataclass(frozen=True)
class Still:
    """What stays the same within a tick, for all vehicles."""

    push: Array  # newtons forward
    hold: Array  # newtons against whichever way it rolls
    cos: Array  # of the front wheels' angle
    sin: Array
    cos_cos: Array
    cos_sin: Array
    loads: tuple[Array, Array]  # on the front and rear axle, times the tyres' stiffness
    stiff_per_grip: Array
    tilted: bool  # whether any stands on a slope
    pushed: bool


class Fleet:
    """All vehicles. `slot` is a place in the arrays; it changes when a vehicle before it goes."""

    def __init__(self, heights_m: Callable[[Array, Array], Array]):
        self.heights_m = heights_m  # of the ground under points [N, 2], no higher than [N]
        self.ids: list[int] = []
        self.f = {name: np.zeros(0) for name in FLOATS}
        self.b = {name: np.zeros(0, bool) for name in SWITCHES}
        self.gear = np.zeros(0, np.int64)
        self.target_gear = np.zeros(0, np.int64)
        self.want_gear = np.zeros(0, np.int64)
        self.gears = np.zeros(0, np.int64)
        self.ratio = np.zeros((0, MOST_GEARS + 2))  # [N, gear + 1]
        self.up = np.zeros((0, MOST_GEARS + 2))
        self.down = np.zeros((0, MOST_GEARS + 2))
        self.torque = np.zeros((0, CURVE_POINTS))  # over 0 to max_rpm
        self.steer_share = np.zeros((0, CURVE_POINTS))  # over 0 to CURVE_KMH
        self.held = np.zeros((0, 2))  # the body's speed forward and right, where `constant`

    def __len__(self) -> int:
        return len(self.ids)

    def slot(self, actor: int) -> int:
        return self.ids.index(actor)

    def add(self, actor: int, model: Model, physics: PhysicsControl, transform: Transform) -> int:
        self.ids.append(actor)
        for group in (self.f, self.b):
            for name, values in group.items():
                group[name] = np.append(values, np.zeros(1, values.dtype))
        for name in ("gear", "target_gear", "want_gear", "gears"):
            setattr(self, name, np.append(getattr(self, name), 0))
        for name in ("ratio", "up", "down", "torque", "steer_share", "held"):
            values = getattr(self, name)
            setattr(self, name, np.vstack([values, np.zeros((1, values.shape[1]))]))
        slot = len(self.ids) - 1
        self.f["half_length"][slot] = model.length_m / 2
        self.f["half_width"][slot] = model.width_m / 2
        self.f["half_height"][slot] = model.height_m / 2
        self.f["base"][slot] = model.wheelbase_m
        for name in ("physics", "gravity", "solid"):
            self.b[name][slot] = True
        self.set_physics(slot, physics)
        self.place(slot, transform)
        return slot

    def remove(self, actor: int) -> None:
        slot = self.slot(actor)
        del self.ids[slot]
        for group in (self.f, self.b):
            for name, values in group.items():
                group[name] = np.delete(values, slot)
        for name in (
            "gear",
            "target_gear",
            "want_gear",
            "gears",
            "ratio",
            "up",
            "down",
            "torque",
            "steer_share",
            "held",
        ):
            setattr(self, name, np.delete(getattr(self, name), slot, axis=0))

    def set_physics(self, slot: int, physics: PhysicsControl) -> None:
        f, wheels = self.f, physics.wheels
        radius_m = wheels[0].radius / 100
        base_m, com_m = f["base"][slot], physics.center_of_mass.x
        values = {
            "mass": physics.mass,
            "inertia": physics.mass * (4 * (f["half_length"][slot] ** 2 + f["half_width"][slot] ** 2)) / 12,
            "lf": base_m / 2 - com_m,
            "lr": base_m / 2 + com_m,
            "com": com_m,
            "radius": radius_m,
            "final": physics.final_ratio,
            "max_steer": math.radians(max(wheel.max_steer_angle for wheel in wheels)),
            "brake_force": sum(wheel.max_brake_torque for wheel in wheels) / radius_m,
            "hand_force": sum(wheel.max_handbrake_torque for wheel in wheels) / radius_m,
            "grip": GRIP_PER_FRICTION * sum(wheel.tire_friction for wheel in wheels) / len(wheels),
            "stiff": sum(wheel.lat_stiff_value for wheel in wheels) / len(wheels),
            "drag": AIR_KGPM3 / 2 * physics.drag_coefficient * 3.4 * f["half_width"][slot] * f["half_height"][slot],
            "engine_damping": physics.damping_rate_zero_throttle_clutch_engaged * ENGINE_BRAKE_SHARE,
            "switch_s": physics.gear_switch_time,
            "max_rpm": physics.max_rpm,
        }
        for name, value in values.items():
            f[name][slot] = value
        self.b["autobox"][slot] = physics.use_gear_autobox
        self.gears[slot] = len(physics.forward_gears)
        self.ratio[slot] = gear_row([gear.ratio for gear in physics.forward_gears], -physics.forward_gears[0].ratio)
        self.up[slot] = gear_row([gear.up_ratio for gear in physics.forward_gears], np.inf)
        self.down[slot] = gear_row([gear.down_ratio for gear in physics.forward_gears], -np.inf)
        self.torque[slot] = sampled(physics.torque_curve, physics.max_rpm)
        self.steer_share[slot] = sampled(physics.steering_curve, CURVE_KMH)

    def place(self, slot: int, transform: Transform) -> None:
        """Sets it down somewhere; its speed stays."""
        f, at, turn = self.f, transform.location, transform.rotation
        f["x"][slot], f["y"][slot], f["z"][slot] = at.x, at.y, at.z
        f["pitch"][slot], f["yaw"][slot], f["roll"][slot] = map(math.radians, (turn.pitch, turn.yaw, turn.roll))
        self.look_at_ground(np.array([slot]))

    def transform(self, slot: int) -> Transform:
        f = self.f
        x, y, z = (float(f[name][slot]) for name in ("x", "y", "z"))
        pitch, yaw, roll = (math.degrees(f[name][slot]) for name in ("pitch", "yaw", "roll"))
        return Transform(Vector3D(x, y, z), Rotation(pitch, yaw, roll))

    def set_control(self, slot: int, control: VehicleControl) -> None:
        f = self.f
        f["want_throttle"][slot] = min(1.0, max(0.0, control.throttle))
        f["want_steer"][slot] = min(1.0, max(-1.0, control.steer))
        f["want_brake"][slot] = min(1.0, max(0.0, control.brake))
        f["want_hand"][slot] = control.hand_brake
        self.b["want_reverse"][slot], self.b["want_manual"][slot] = control.reverse, control.manual_gear_shift
        self.want_gear[slot] = min(MOST_GEARS, max(-1, control.gear))

    def look_at_ground(self, slots: Array) -> None:
        """A plane through the ground under the axles and the sides of each."""
        f = self.f
        x, y, yaw = f["x"][slots], f["y"][slots], f["yaw"][slots]
        cos, sin = np.cos(yaw), np.sin(yaw)
        along, aside = 0.6 * f["half_length"][slots], 0.8 * f["half_width"][slots]
        points = [(x + along * cos, y + along * sin), (x - along * cos, y - along * sin)]
        points += [(x - aside * sin, y + aside * cos), (x + aside * sin, y - aside * cos)]
        below = np.tile(f["z"][slots] + CLIMB_M, 4)
        heights = self.heights_m(np.stack([np.concatenate(axis) for axis in zip(*points, strict=True)], axis=1), below)
        front, back, right, left = heights.reshape(4, -1)
        rise, fall = (front - back) / (2 * along), (right - left) / (2 * aside)
        f["ground_x"][slots], f["ground_y"][slots], f["ground_z"][slots] = x, y, (front + back) / 2
        f["slope_x"][slots], f["slope_y"][slots] = rise * cos - fall * sin, rise * sin + fall * cos

    def velocity(self) -> Array:
        """[N, 3], in the world, of the actors' origins."""
        f = self.f
        cos, sin, side = np.cos(f["yaw"]), np.sin(f["yaw"]), f["u"] - f["w"] * f["com"]
        return np.stack([f["v"] * cos - side * sin, f["v"] * sin + side * cos, f["vz"]], axis=1)

    def set_velocity(self, slot: int, x_mps: float, y_mps: float, z_mps: float) -> None:
        f = self.f
        cos, sin = math.cos(f["yaw"][slot]), math.sin(f["yaw"][slot])
        f["v"][slot] = x_mps * cos + y_mps * sin
        f["u"][slot] = -x_mps * sin + y_mps * cos + f["w"][slot] * f["com"][slot]
        f["vz"][slot] = z_mps

    def step(self, dt_s: float, substeps: int) -> None:
        """Moves all by dt_s, in so many pieces."""
        if not self.ids:
            return
        before = self.velocity()
        self.follow_controls(dt_s)
        self.change_gears(dt_s)
        still = self.hold_still()
        for _ in range(substeps):
            self.substep(dt_s / substeps, still)
        self.settle()
        acceleration = (self.velocity() - before) / dt_s
        for axis, name in enumerate(("ax", "ay", "az")):
            self.f[name] = acceleration[:, axis]
        for name in EXTRA:
            self.f[name][:] = 0.0

    def follow_controls(self, dt_s: float) -> None:
        f = self.f
        for name in ("throttle", "brake", "hand"):
            change = f[f"want_{name}"] - f[name]
            f[name] += np.clip(change, -PEDAL_DOWN_PER_S * dt_s, PEDAL_UP_PER_S * dt_s)
        f["steer"] += np.clip(f["want_steer"] - f["steer"], -STEER_PER_S * dt_s, STEER_PER_S * dt_s)

    def change_gears(self, dt_s: float) -> None:
        f, rows = self.f, np.arange(len(self.ids))
        f["shifting_s"] -= dt_s
        arrived = f["shifting_s"] <= 0
        self.gear = np.where(arrived, self.target_gear, self.gear)
        wheel = np.abs(f["v"]) / f["radius"] * f["final"] * RPM_PER_RADPS
        f["rpm"] = np.clip(wheel * np.abs(self.ratio[rows, self.gear + 1]), IDLE_RPM, f["max_rpm"])
        share = f["rpm"] / f["max_rpm"]
        forward = np.maximum(self.gear, 1)
        forward += (share > self.up[rows, forward + 1]) & (forward < self.gears) & (self.gear > 0)
        forward -= (share < self.down[rows, forward + 1]) & (forward > 1)
        automatic = np.where(self.b["autobox"], forward, np.clip(self.gear, 1, None))
        wish = np.where(self.b["want_reverse"], -1, automatic)
        wish = np.where(self.b["want_manual"], np.minimum(self.want_gear, self.gears), wish)
        changed = arrived & (wish != self.gear)
        self.target_gear = np.where(changed, wish, self.target_gear)
        self.gear = np.where(changed, 0, self.gear)
        f["shifting_s"] = np.where(changed, f["switch_s"], np.maximum(f["shifting_s"], 0.0))

    def forces(self) -> tuple[Array, Array]:
        """What drives forward, and what holds back whichever way it rolls; both in newtons."""
        f, rows = self.f, np.arange(len(self.ids))
        place = f["rpm"] / f["max_rpm"] * (CURVE_POINTS - 1)
        low = np.minimum(place.astype(np.int64), CURVE_POINTS - 2)
        part = place - low
        torque = self.torque[rows, low] * (1 - part) + self.torque[rows, low + 1] * part
        gearing = self.ratio[rows, self.gear + 1] * f["final"] / f["radius"]
        limited = (f["rpm"] >= f["max_rpm"]) & (gearing * f["v"] > 0)
        limit = f["grip"] * f["mass"] * GRAVITY_MPS2
        push = np.clip(np.where(limited, 0.0, torque * f["throttle"] * gearing), -limit, limit)
        engine = (1 - f["throttle"]) * f["engine_damping"] * f["rpm"] / RPM_PER_RADPS * np.abs(gearing)
        brakes = np.minimum(f["brake"] * f["brake_force"] + f["hand"] * f["hand_force"], limit)
        roll = ROLLING * f["mass"] * GRAVITY_MPS2
        moving = np.abs(f["v"]) > SLOW_MPS
        return push, brakes + roll + np.where(moving, engine, 0.0)

    def steer_rad(self) -> Array:
        """Of the front wheels."""
        f, rows = self.f, np.arange(len(self.ids))
        place = np.minimum(np.abs(f["v"]) * 3.6 / CURVE_KMH, 1.0) * (CURVE_POINTS - 1)
        low = np.minimum(place.astype(np.int64), CURVE_POINTS - 2)
        part = place - low
        share = self.steer_share[rows, low] * (1 - part) + self.steer_share[rows, low + 1] * part
        return f["steer"] * f["max_steer"] * share

    def hold_still(self) -> Still:
        """What does not change within a tick."""
        f = self.f
        push, hold = self.forces()
        steer = self.steer_rad()
        weight = f["mass"] * GRAVITY_MPS2
        used = np.minimum((np.abs(push) + hold) / (f["grip"] * weight), 0.9)
        grip = f["grip"] * np.sqrt(1 - used * used)
        share = f["lr"] / (f["lf"] + f["lr"])
        tilted = bool(np.any(f["slope_x"]) or np.any(f["slope_y"]))
        pushed = bool(np.any(f["fx"]) or np.any(f["fy"]))
        cos, sin = np.cos(steer), np.sin(steer)
        loads = weight * share * f["stiff"], weight * (1 - share) * f["stiff"]
        return Still(
            push, hold, cos, sin, cos * cos, cos * sin, loads, f["stiff"] / np.maximum(grip, 1e-6), tilted, pushed
        )

    def substep(self, dt_s: float, still: Still) -> None:
        f = self.f
        v, u, w, mass, inertia, lf, lr = (f[name] for name in ("v", "u", "w", "mass", "inertia", "lf", "lr"))
        ground = self.ground()
        standing = (f["z"] <= ground + LANDED_M) & (f["vz"] <= 3.0)
        cos, sin = still.cos, still.sin
        front_side = u + lf * w
        damp_f = damping(front_side * cos - v * sin, v * cos + front_side * sin, still.loads[0], still.stiff_per_grip)
        damp_r = damping(u - lr * w, v, still.loads[1], still.stiff_per_grip)
        damp_f, damp_r = damp_f * standing, damp_r * standing

        front, heavy, turned = damp_f * still.cos_cos, mass / dt_s, inertia / dt_s
        a21 = lf * front - lr * damp_r
        a11, a12, a22 = heavy + front + damp_r, a21 + mass * v, turned + lf * lf * front + lr * lr * damp_r
        turning = damp_f * still.cos_sin * v
        b1, b2 = heavy * u + turning, turned * w + lf * turning + f["torque_z"]
        ahead = still.push * standing
        if still.tilted or still.pushed:
            along, aside = self.pushes(standing)
            ahead, b1 = ahead + along, b1 + aside
        bottom = a11 * a22 - a12 * a21
        new_u, new_w = (b1 * a22 - a12 * b2) / bottom, (a11 * b2 - a21 * b1) / bottom

        scrub = damp_f * ((new_u + lf * new_w) * cos - v * sin) * sin
        rolled = v + dt_s * ((ahead + scrub) / mass + new_w * new_u)
        held = dt_s * (still.hold * standing + f["drag"] * v * v) / mass
        self.take(np.copysign(np.maximum(np.abs(rolled) - held, 0.0), rolled), new_u, new_w)
        self.move(dt_s, standing, ground)

    def ground(self) -> Array:
        f = self.f
        height: Array = (
            f["ground_z"] + f["slope_x"] * (f["x"] - f["ground_x"]) + f["slope_y"] * (f["y"] - f["ground_y"])
        )
        return height

    def pushes(self, standing: Array) -> tuple[Array, Array]:
        """The newtons, forward and to the right, of the slope and of what clients push with."""
        f, weight = self.f, self.f["mass"] * GRAVITY_MPS2 * standing
        cos, sin = np.cos(f["yaw"]), np.sin(f["yaw"])
        x, y = f["fx"] - weight * f["slope_x"], f["fy"] - weight * f["slope_y"]
        return x * cos + y * sin, y * cos - x * sin

    def take(self, v: Array, u: Array, w: Array) -> None:
        """The new speeds, for those that are free."""
        f, b = self.f, self.b
        if b["physics"].all() and not b["constant"].any():
            f["v"], f["u"], f["w"] = v, u, w
            return
        free = b["physics"] & ~b["constant"]
        f["v"] = np.where(b["constant"], self.held[:, 0], np.where(free, v, 0.0))
        f["u"] = np.where(b["constant"], self.held[:, 1], np.where(free, u, 0.0))
        f["w"] = np.where(b["physics"], w, 0.0)

    def move(self, dt_s: float, standing: Array, ground: Array) -> None:
        f, live = self.f, self.b["physics"]
        half = f["yaw"] + f["w"] * (dt_s / 2)
        cos, sin, side = np.cos(half), np.sin(half), f["u"] - f["w"] * f["com"]
        step_x, step_y = (f["v"] * cos - side * sin) * dt_s, (f["v"] * sin + side * cos) * dt_s
        f["x"] = f["x"] + np.where(live, step_x, 0.0)
        f["y"] = f["y"] + np.where(live, step_y, 0.0)
        f["yaw"] = f["yaw"] + f["w"] * dt_s
        new_ground = ground + f["slope_x"] * step_x + f["slope_y"] * step_y
        falling = f["vz"] + (f["fz"] / f["mass"] - GRAVITY_MPS2 * self.b["gravity"]) * dt_s
        fallen = f["z"] + falling * dt_s
        lands = standing | (fallen <= new_ground)
        climb = np.where(standing, (new_ground - ground) / dt_s, 0.0)
        f["vz"] = np.where(live, np.where(lands, climb, falling), 0.0)
        f["z"] = np.where(live, np.where(lands, new_ground, fallen), f["z"])

    def settle(self) -> None:
        """Wraps yaw, lays the bodies on the ground, and asks for the ground again where one has gone far enough."""
        f = self.f
        f["yaw"] = np.arctan2(np.sin(f["yaw"]), np.cos(f["yaw"]))
        far = np.hypot(f["x"] - f["ground_x"], f["y"] - f["ground_y"]) > PLANE_M
        if far.any():
            self.look_at_ground(np.flatnonzero(far))
        ground = self.ground()
        lying = self.b["physics"] & (f["z"] <= ground + LANDED_M)
        f["z"] = np.where(lying | (self.b["physics"] & (f["z"] < ground)), ground, f["z"])
        cos, sin = np.cos(f["yaw"]), np.sin(f["yaw"])
        f["pitch"] = np.where(lying, np.arctan(f["slope_x"] * cos + f["slope_y"] * sin), f["pitch"])
        f["roll"] = np.where(lying, -np.arctan(-f["slope_x"] * sin + f["slope_y"] * cos), f["roll"])


def damping(slip_mps: Array, speed_mps: Array, load_stiff: Array, stiff_per_grip: Array) -> Array:
    """A tyre's sideways newtons for each m/s that it slips: linear for a little slip, never more than its grip."""
    speed = np.maximum(np.abs(speed_mps), SLOW_MPS)
    share = stiff_per_grip * slip_mps / speed
    damped: Array = load_stiff / (speed * np.sqrt(1 + share * share))
    return damped


def gear_row(values: list[float], reverse: float) -> Array:
    row = np.zeros(MOST_GEARS + 2)
    row[0] = reverse
    row[2 : 2 + len(values)] = values
    return row


def sampled(curve: tuple[Vector2D, ...], most: float) -> Array:
    points = sorted((point.x, point.y) for point in curve)
    at = np.linspace(0.0, most, CURVE_POINTS)
    sampled_at: Array = np.interp(at, [x for x, _ in points], [y for _, y in points])
    return sampled_at
