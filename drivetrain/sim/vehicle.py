"""Vehicles: a dynamic bicycle each, with engine, gears, brakes and tyres that slide; all vehicles in one compiled loop.

The tyres' sideways forces are solved implicitly in the two unknowns that they make stiff (sideways speed and yaw rate), as
Ge et al. 2021 (Numerically stable dynamic bicycle model) do, so that any step length and any speed, zero and reverse included,
is stable. Their stiffness is the secant of a curve that saturates at the grip left over by braking and driving.

Left out: suspension (a body lies on the plane of the ground under it), load transfer, differential and clutch slip.
Lengths in metres, angles in radians, x forward and y to the right, so that yaw grows to the right.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from drivetrain.sim.catalogue import Model
from drivetrain.sim.protocol.structs import PhysicsControl, Rotation, Transform, Vector2D, Vector3D, VehicleControl
from drivetrain.sim.squares import OFTEN

Array = np.ndarray
GRAVITY_MPS2 = 9.81
GRIP_PER_FRICTION = 0.5  # CARLA's tyres grip more than real ones: its TrafficManager takes a right angle at 10 m/s
ROLLING = 0.015  # of the weight
AIR_KGPM3 = 1.2
ENGINE_BRAKE_SHARE = 0.2  # of CARLA's damping, the clutch slipping: a car coasts down at some 1 m/s2 at 10 m/s
IDLE_RPM = 800.0
SLOW_MPS = 0.5  # below it tyres act as dampers
PEDAL_UP_PER_S, PEDAL_DOWN_PER_S, STEER_PER_S = 6.0, 10.0, 10.0  # how fast the vehicle follows the control
MOST_GEARS = 10
CURVE_POINTS = 33
CURVE_KMH = 200.0
LIMIT_KMH = 30.0  # until the road has been asked
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
LAW = ("limit_kmh",)
HELD = ("held_v", "held_u")  # the body's speed forward and right, where `constant`
FLOATS = STATE + FOLLOWED + WISH + BODY + TYRES + ENGINE + GROUND + EXTRA + HELD + LAW
COUNTS = ("gear", "target_gear", "want_gear", "gears")
SWITCHES = ("want_reverse", "want_manual", "autobox", "physics", "gravity", "solid", "constant")
CAR = np.dtype(
    [
        *((name, np.float64) for name in FLOATS),
        *((name, np.int64) for name in COUNTS),
        *((name, np.bool_) for name in SWITCHES),
        *((name, np.float64, MOST_GEARS + 2) for name in ("ratio", "up", "down")),  # by gear + 1
        ("torque", np.float64, CURVE_POINTS),  # over 0 to max_rpm
        ("steer_share", np.float64, CURVE_POINTS),  # over 0 to CURVE_KMH
    ],
    align=True,
)


class Fleet:
    """All vehicles, a row each. `slot` is a row; it changes when a vehicle before it goes."""

    def __init__(self, heights_m: Callable[[Array, Array], Array]):
        self.heights_m = heights_m  # of the ground under points [N, 2], no higher than [N]
        self.ids: list[int] = []
        self.f = np.zeros(0, CAR)

    def __len__(self) -> int:
        return len(self.ids)

    def slot(self, actor: int) -> int:
        return self.ids.index(actor)

    def add(self, actor: int, model: Model, physics: PhysicsControl, transform: Transform) -> int:
        self.ids.append(actor)
        self.f = np.append(self.f, np.zeros(1, CAR))
        slot = len(self.ids) - 1
        car = self.f[slot]
        car["half_length"], car["half_width"], car["half_height"] = (
            model.length_m / 2,
            model.width_m / 2,
            model.height_m / 2,
        )
        car["base"] = model.wheelbase_m
        car["limit_kmh"] = LIMIT_KMH
        for name in ("physics", "gravity", "solid"):
            car[name] = True
        self.set_physics(slot, physics)
        self.place(slot, transform)
        return slot

    def remove(self, actor: int) -> None:
        slot = self.slot(actor)
        del self.ids[slot]
        self.f = np.delete(self.f, slot)

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
        f["autobox"][slot] = physics.use_gear_autobox
        f["gears"][slot] = len(physics.forward_gears)
        f["ratio"][slot] = gear_row([gear.ratio for gear in physics.forward_gears], -physics.forward_gears[0].ratio)
        f["up"][slot] = gear_row([gear.up_ratio for gear in physics.forward_gears], np.inf)
        f["down"][slot] = gear_row([gear.down_ratio for gear in physics.forward_gears], -np.inf)
        f["torque"][slot] = sampled(physics.torque_curve, physics.max_rpm)
        f["steer_share"][slot] = sampled(physics.steering_curve, CURVE_KMH)

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
        f["want_reverse"][slot], f["want_manual"][slot] = control.reverse, control.manual_gear_shift
        f["want_gear"][slot] = min(MOST_GEARS, max(-1, control.gear))

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
        f, before = self.f, self.velocity()
        advance(f, dt_s, substeps)
        far = np.hypot(f["x"] - f["ground_x"], f["y"] - f["ground_y"]) > PLANE_M
        if far.any():
            self.look_at_ground(np.flatnonzero(far))
        lie_down(f)
        f["ax"], f["ay"], f["az"] = ((self.velocity() - before) / dt_s).T

    def steer_rad(self) -> Array:
        """Of the front wheels."""
        return np.array([steered(car) for car in self.f])


@OFTEN
def looked_up(table, place):  # type: ignore[no-untyped-def]
    """Between the points of a curve, at 0 to 1 of its length."""
    at = min(max(place, 0.0), 1.0) * (CURVE_POINTS - 1)
    low = min(int(at), CURVE_POINTS - 2)
    return table[low] + (table[low + 1] - table[low]) * (at - low)


@OFTEN
def steered(car):  # type: ignore[no-untyped-def]
    return car.steer * car.max_steer * looked_up(car.steer_share, abs(car.v) * 3.6 / CURVE_KMH)


@OFTEN
def towards(value, wish, down, up):  # type: ignore[no-untyped-def]
    return value + min(max(wish - value, -down), up)


@OFTEN
def change_gears(car, dt_s):  # type: ignore[no-untyped-def]
    car.shifting_s -= dt_s
    arrived = car.shifting_s <= 0
    if arrived:
        car.gear = car.target_gear
    wheel = abs(car.v) / car.radius * car.final * RPM_PER_RADPS
    car.rpm = min(max(wheel * abs(car.ratio[car.gear + 1]), IDLE_RPM), car.max_rpm)
    share = car.rpm / car.max_rpm
    wish = max(car.gear, 1)
    if car.autobox:
        if share > car.up[wish + 1] and wish < car.gears and car.gear > 0:
            wish += 1
        if share < car.down[wish + 1] and wish > 1:
            wish -= 1
    if car.want_reverse:
        wish = -1
    if car.want_manual:
        wish = min(car.want_gear, car.gears)
    if arrived and wish != car.gear:
        car.target_gear, car.gear, car.shifting_s = wish, 0, car.switch_s
    else:
        car.shifting_s = max(car.shifting_s, 0.0)


@OFTEN
def damping(slip_mps, speed_mps, load_stiff, stiff_per_grip):  # type: ignore[no-untyped-def]
    """A tyre's sideways newtons for each m/s that it slips: linear for a little slip, never more than its grip."""
    speed = max(abs(speed_mps), SLOW_MPS)
    share = stiff_per_grip * slip_mps / speed
    return load_stiff / (speed * math.sqrt(1 + share * share))


@OFTEN
def advance(cars, dt_s, substeps):  # type: ignore[no-untyped-def]
    """Every car by dt_s: its pedals follow the wishes, its gears change, and then it moves, in so many pieces."""
    for i in range(len(cars)):
        car = cars[i]
        down, up, turn = PEDAL_DOWN_PER_S * dt_s, PEDAL_UP_PER_S * dt_s, STEER_PER_S * dt_s
        car.throttle = towards(car.throttle, car.want_throttle, down, up)
        car.brake = towards(car.brake, car.want_brake, down, up)
        car.hand = towards(car.hand, car.want_hand, down, up)
        car.steer = towards(car.steer, car.want_steer, turn, turn)
        change_gears(car, dt_s)

        # what drives forward, and what holds back whichever way it rolls
        weight = car.mass * GRAVITY_MPS2
        limit = car.grip * weight
        gearing = car.ratio[car.gear + 1] * car.final / car.radius
        push = looked_up(car.torque, car.rpm / car.max_rpm) * car.throttle * gearing
        if car.rpm >= car.max_rpm and gearing * car.v > 0:
            push = 0.0
        push = min(max(push, -limit), limit)
        hold = min(car.brake * car.brake_force + car.hand * car.hand_force, limit) + ROLLING * weight
        if abs(car.v) > SLOW_MPS:
            hold += (1 - car.throttle) * car.engine_damping * car.rpm / RPM_PER_RADPS * abs(gearing)

        steer = steered(car)
        cos, sin = math.cos(steer), math.sin(steer)
        used = min((abs(push) + hold) / limit, 0.9)
        stiff_per_grip = car.stiff / max(car.grip * math.sqrt(1 - used * used), 1e-6)
        lf, lr = car.lf, car.lr
        share = lr / (lf + lr)
        load_f, load_r = weight * share * car.stiff, weight * (1 - share) * car.stiff
        step_s = dt_s / substeps
        for _ in range(substeps):
            v, u, w = car.v, car.u, car.w
            ground = car.ground_z + car.slope_x * (car.x - car.ground_x) + car.slope_y * (car.y - car.ground_y)
            standing = 1.0 if car.z <= ground + LANDED_M and car.vz <= 3.0 else 0.0
            front_side = u + lf * w
            damp_f = standing * damping(front_side * cos - v * sin, v * cos + front_side * sin, load_f, stiff_per_grip)
            damp_r = standing * damping(u - lr * w, v, load_r, stiff_per_grip)

            front, heavy, turned = damp_f * cos * cos, car.mass / step_s, car.inertia / step_s
            a21 = lf * front - lr * damp_r
            a11, a12, a22 = heavy + front + damp_r, a21 + car.mass * v, turned + lf * lf * front + lr * lr * damp_r
            turning = damp_f * cos * sin * v
            b1, b2 = heavy * u + turning, turned * w + lf * turning + car.torque_z
            heading_cos, heading_sin = math.cos(car.yaw), math.sin(car.yaw)
            x = car.fx - weight * standing * car.slope_x  # the slope's newtons, and a client's
            y = car.fy - weight * standing * car.slope_y
            ahead = push * standing + x * heading_cos + y * heading_sin
            b1 += y * heading_cos - x * heading_sin
            bottom = a11 * a22 - a12 * a21
            new_u, new_w = (b1 * a22 - a12 * b2) / bottom, (a11 * b2 - a21 * b1) / bottom

            scrub = damp_f * ((new_u + lf * new_w) * cos - v * sin) * sin
            rolled = v + step_s * ((ahead + scrub) / car.mass + new_w * new_u)
            held = step_s * (hold * standing + car.drag * v * v) / car.mass
            slowed = max(abs(rolled) - held, 0.0)
            car.v, car.u, car.w = (slowed if rolled > 0 else -slowed), new_u, new_w
            if car.constant:
                car.v, car.u = car.held_v, car.held_u
            elif not car.physics:
                car.v, car.u = 0.0, 0.0
            if not car.physics:
                car.w = 0.0

            half = car.yaw + car.w * step_s / 2
            heading_cos, heading_sin, side = math.cos(half), math.sin(half), car.u - car.w * car.com
            step_x = (car.v * heading_cos - side * heading_sin) * step_s
            step_y = (car.v * heading_sin + side * heading_cos) * step_s
            car.yaw += car.w * step_s
            if car.physics:
                car.x += step_x
                car.y += step_y
                new_ground = ground + car.slope_x * step_x + car.slope_y * step_y
                pull = GRAVITY_MPS2 if car.gravity else 0.0
                falling = car.vz + (car.fz / car.mass - pull) * step_s
                fallen = car.z + falling * step_s
                if standing > 0 or fallen <= new_ground:
                    car.vz = (new_ground - ground) / step_s if standing > 0 else 0.0
                    car.z = new_ground
                else:
                    car.vz, car.z = falling, fallen
            else:
                car.vz = 0.0
        car.yaw = math.atan2(math.sin(car.yaw), math.cos(car.yaw))
        car.fx, car.fy, car.fz, car.torque_z = 0.0, 0.0, 0.0, 0.0


@OFTEN
def lie_down(cars):  # type: ignore[no-untyped-def]
    """Lays the bodies that stand on the ground along it."""
    for i in range(len(cars)):
        car = cars[i]
        ground = car.ground_z + car.slope_x * (car.x - car.ground_x) + car.slope_y * (car.y - car.ground_y)
        if car.physics and car.z <= ground + LANDED_M:
            car.z = ground
            cos, sin = math.cos(car.yaw), math.sin(car.yaw)
            car.pitch = math.atan(car.slope_x * cos + car.slope_y * sin)
            car.roll = -math.atan(-car.slope_x * sin + car.slope_y * cos)


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
