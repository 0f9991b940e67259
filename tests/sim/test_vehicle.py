"""The vehicle's physics against what can be worked out by hand, and against itself."""

import math

import numpy as np
import pytest
from worlds import bits

from drivetrain.sim.catalogue import MODELS, physics_of
from drivetrain.sim.protocol.structs import Transform, Vector3D, VehicleControl
from drivetrain.sim.vehicle import FLOATS, GRAVITY_MPS2, Fleet

MODEL = MODELS["vehicle.tesla.model3"]


def flat(x_m, y_m):
    return 0.0


def fleet(height_m=flat, model=MODEL, count=1, z_m=0.0):
    made = Fleet(lambda points, below_m: np.array([height_m(x, y) for x, y in points]))
    for number in range(count):
        made.add(number + 1, model, physics_of(model), Transform(Vector3D(0.0, 10.0 * number, z_m)))
    return made


def drive(made, seconds, dt_s=0.05, substeps=5, slot=0, **control):
    made.set_control(slot, VehicleControl(**control))
    for _ in range(round(seconds / dt_s)):
        made.step(dt_s, substeps)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.id)
def test_every_model_drives_turns_and_stops(model):
    made = fleet(model=model)
    drive(made, 8.0, throttle=0.7)
    assert made.f["v"][0] > 3.0
    drive(made, 2.0, throttle=0.3, steer=0.2)
    assert made.f["yaw"][0] > 0.02
    drive(made, 8.0, brake=1.0)
    assert made.f["v"][0] == 0.0
    assert all(np.isfinite(made.f[name]).all() for name in FLOATS)


def test_a_car_reaches_100_kmh_as_one_does():
    made, seconds = fleet(), 0.0
    while made.f["v"][0] < 100 / 3.6:
        drive(made, 0.05, throttle=1.0)
        seconds += 0.05
    assert 6.0 < seconds < 10.0


def test_it_brakes_as_hard_as_its_brakes_say():
    made = fleet()
    made.set_velocity(0, 20.0, 0.0, 0.0)
    drive(made, 0.3, brake=1.0)
    before = float(made.f["v"][0])
    drive(made, 0.5, brake=1.0)
    assert (before - made.f["v"][0]) / 0.5 == pytest.approx(9.3, abs=0.6)


def test_a_slow_circle_has_the_radius_of_the_wheels_geometry():
    made = fleet()
    for _ in range(100):
        made.set_velocity(0, 2.0 * math.cos(made.f["yaw"][0]), 2.0 * math.sin(made.f["yaw"][0]), 0.0)
        made.set_control(0, VehicleControl(steer=0.2))
        made.step(0.05, 5)
    expected = 2.0 / MODEL.wheelbase_m * math.tan(float(made.steer_rad()[0]))
    assert made.f["w"][0] == pytest.approx(expected, rel=0.05)


def test_tyres_never_pull_more_than_their_grip():
    made = fleet()
    made.set_velocity(0, 30.0, 0.0, 0.0)
    for _ in range(60):
        drive(made, 0.05, throttle=0.5, steer=1.0)
        assert math.hypot(made.f["ax"][0], made.f["ay"][0]) < 1.2 * 1.75 * GRAVITY_MPS2


@pytest.mark.parametrize(("dt_s", "substeps"), [(0.1, 1), (0.05, 1), (0.01, 1), (0.05, 10)])
@pytest.mark.parametrize("speed_mps", [0.0, 0.3, 15.0, -5.0])
def test_any_step_length_is_stable_at_any_speed(dt_s, substeps, speed_mps):
    made = fleet()
    made.set_velocity(0, speed_mps, 0.0, 0.0)
    made.f["w"][0] = 1.0
    drive(made, 5.0, dt_s, substeps)
    assert abs(made.f["w"][0]) < 0.2
    assert abs(made.f["u"][0]) < 0.2


def test_what_falls_lands():
    made = fleet(z_m=5.0)
    drive(made, 0.5)
    assert made.f["z"][0] == pytest.approx(5.0 - GRAVITY_MPS2 * 0.5**2 / 2, abs=0.1)
    drive(made, 2.0)
    assert made.f["z"][0] == 0.0
    assert made.f["vz"][0] == 0.0


def test_a_slope_tips_the_body_rolls_it_down_and_the_brake_holds_it():
    made = fleet(lambda x, y: 0.1 * x)
    drive(made, 1.0, hand_brake=True)
    assert math.tan(made.f["pitch"][0]) == pytest.approx(0.1)
    assert abs(made.f["v"][0]) < 1e-6
    drive(made, 3.0)
    assert made.f["v"][0] < -0.5
    assert made.f["z"][0] == pytest.approx(0.1 * made.f["x"][0], abs=1e-6)


def test_reverse_goes_backwards_in_gear_minus_one():
    made = fleet()
    drive(made, 3.0, throttle=0.5, reverse=True)
    assert made.f["v"][0] < -1.0
    assert made.f["gear"][0] == -1


def test_a_gear_chosen_by_hand_is_kept():
    made = fleet()
    drive(made, 5.0, throttle=1.0, manual_gear_shift=True, gear=1)
    assert made.f["gear"][0] == 1
    drive(made, 2.0, throttle=1.0)
    assert made.f["gear"][0] > 1


def test_one_does_not_feel_the_others():
    alone, among = fleet(), fleet(count=20)
    for made in (alone, among):
        drive(made, 5.0, throttle=0.8, steer=0.1)
    for name in ("x", "y", "yaw", "v", "w"):
        assert alone.f[name][0] == pytest.approx(among.f[name][0], rel=1e-12)


def test_the_same_controls_give_the_same_bytes():
    made = [fleet(count=5), fleet(count=5)]
    for one in made:
        for slot in range(5):
            one.set_control(slot, VehicleControl(throttle=0.2 * slot, steer=0.3 - 0.1 * slot))
        for _ in range(400):
            one.step(0.05, 5)
    assert bits(made[0].f) == bits(made[1].f)
