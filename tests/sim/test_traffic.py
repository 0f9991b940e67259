"""The server's own traffic: it keeps moving, hits nobody, and stops at red."""

import math

import numpy as np
import pytest
from worlds import bits, lifted, tick, traffic_of, world

from drivetrain.sim import world as world_module
from drivetrain.sim.actors import Kind
from drivetrain.sim.orders import Orders
from drivetrain.sim.protocol.structs import ActorDescription, LightColour, Transform, VehicleControl

TOWNS = ["grid", "roundabout", "highway", "rural", "Random-3"]


@pytest.fixture
def hits(monkeypatch):
    found, bump = [], world_module.bump

    def watched(*given):
        met = bump(*given)
        found.extend((a.blueprint, b.blueprint) for a, b, _ in met)
        return met

    monkeypatch.setattr(world_module, "bump", watched)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("town", TOWNS)
def test_it_keeps_moving_and_hits_nobody(town, hits):
    made = world(town, traffic=20)
    distance = np.zeros(20)
    still = longest = np.zeros(20)
    for _ in range(int(150 / 0.05)):
        made.tick()
        speed = made.fleet.f["v"]
        distance = distance + speed * 0.05
        still = np.where(speed < 0.1, still + 0.05, 0.0)
        longest = np.maximum(longest, still)
    assert hits == []
    assert distance.min() > 100, "nobody stands for good"
    assert longest.max() < 100, "a light's round takes a minute"
    assert traffic_of(made).state[:, 2].max() < 1.5, "everybody is in the lane"


@pytest.mark.slow
def test_nobody_passes_a_red_light():
    made = world("grid", traffic=30)
    traffic = traffic_of(made)
    passed = 0
    before = {}
    for _ in range(int(90 / 0.05)):
        made.tick()
        for i, driver in enumerate(traffic.drivers):
            here = traffic.state[i, 0] + driver.actor.box.extent.x
            gate = next((g for g in driver.gates if g.kind == "light" and g.along_m > here - 3.0), None)
            key = (i, gate.along_m) if gate else None
            if gate and before.get(key, math.inf) > 0 >= gate.along_m - here:
                passed += 1
                assert traffic.lights[gate.light].colour is not LightColour.RED
            if gate:
                before[key] = gate.along_m - here
    assert passed > 20


def test_the_same_seed_is_the_same_traffic_and_another_is_not():
    def states(seed):
        made = world("roundabout", traffic=10, seed=seed)
        tick(made, 200)
        return bits(made.fleet.f)

    assert states(1) == states(1)
    assert states(1) != states(2)


@pytest.mark.slow
def test_it_stops_behind_what_stands_in_its_lane(hits):
    made = world("rural", traffic=1)
    traffic = traffic_of(made)
    tick(made, 100)
    index = int(traffic.cursor[0]) + 45
    x, y = traffic.way[0, index, :2]
    ahead = traffic.way[0, index + 1, :2] - traffic.way[0, index, :2]
    lane = made.map.roads.nearest_lane(x, y)
    place = made.map.roads.pose_at(lane.lane, lane.along_m, 0.3)
    parked = made.spawn(
        ActorDescription(0, "vehicle.tesla.model3"),
        Transform(
            type(made.spectator.transform.location)(place.x_m, place.y_m, place.z_m),
            type(made.spectator.transform.rotation)(0.0, math.degrees(math.atan2(ahead[1], ahead[0])), 0.0),
        ),
    )
    Orders(made).control_vehicle(parked.id, VehicleControl(hand_brake=True))  # the road is steep
    tick(made, 900)
    assert hits == []
    assert made.fleet.f["v"][0] < 0.1
    gap = math.hypot(made.fleet.f["x"][0] - x, made.fleet.f["y"][0] - y)
    assert 5.0 < gap < 12.0


def test_a_client_takes_the_wheel_and_the_destroyed_are_let_go():
    made = world("grid", traffic=5)
    traffic = traffic_of(made)
    tick(made, 40)
    mine = traffic.drivers[2].actor
    Orders(made).control_vehicle(mine.id, VehicleControl(throttle=0.0, brake=1.0))
    made.destroy(traffic.drivers[0].actor)
    tick(made, 60)
    assert len(traffic.drivers) == 3
    assert mine not in [driver.actor for driver in traffic.drivers]
    assert made.fleet.f["v"][made.fleet.slot(mine.id)] < 0.01


def test_it_is_there_again_after_a_load():
    made = world("grid", traffic=7)
    made.load("roundabout")
    assert len(list(made.registry.of(Kind.VEHICLE))) == 7
    tick(made, 20)


def test_more_than_there_is_room_for_is_said():
    told = []
    made = world("grid")
    made.tell = told.append
    from drivetrain.sim.traffic import Traffic

    Traffic(made, 10_000)
    assert "has room for" in told[0]


def test_a_house_is_run_into(hits):
    made = world("grid")
    house = next(t for t in made.map.scenery if t.kind == "building" and t.extent_x_m > 6)
    at = made.map.spawn_points()[0]
    yaw = math.radians(house.yaw_deg)
    start = lifted(at, 0.0)
    x = house.x_m - math.sin(yaw) * -(house.extent_y_m + 8.0)
    y = house.y_m + math.cos(yaw) * -(house.extent_y_m + 8.0)
    location = type(start.location)(x, y, house.z_m - house.extent_z_m + 0.6)
    turn = type(start.rotation)(0.0, math.degrees(yaw) + 90.0, 0.0)
    car = made.spawn(ActorDescription(0, "vehicle.tesla.model3"), Transform(location, turn))
    Orders(made).set_velocity(car.id, type(start.location)(-math.sin(yaw) * 12.0, math.cos(yaw) * 12.0, 0.0))
    tick(made, 60)
    assert any("static." in other for pair in hits for other in pair)


@pytest.mark.slow
def test_two_thousand_ticks_twice_are_the_same_bytes():
    """States, pictures, clouds and echoes of a town with traffic."""

    def said():
        made = world("grid", traffic=20, renderer=True)
        car = made.spawn(ActorDescription(0, "vehicle.lincoln.mkz_2020"), free_place(made))
        for name in ("sensor.camera.rgb", "sensor.camera.depth", "sensor.lidar.ray_cast", "sensor.other.radar"):
            from drivetrain.sim.protocol.structs import AttributeType, AttributeValue

            small = [("image_size_x", "80"), ("image_size_y", "45")] if "camera" in name else []
            small += [("points_per_second", "8000")] if "lidar" in name else []
            wish = tuple(AttributeValue(key, AttributeType.INT, value) for key, value in small)
            made.spawn(ActorDescription(0, name, wish), lifted(Transform(), 1.8), car)
        total = hash(())
        for number in range(2000):
            if number % 100 == 0:
                Orders(made).control_vehicle(car.id, VehicleControl(throttle=0.4, steer=0.1 * math.sin(number)))
            made.tick()
            made.show()
            total = hash((total, *(body for _, body in made.outlet.messages)))
            made.outlet.messages.clear()
        return total, bits(made.fleet.f)

    assert said() == said()


def free_place(made):
    from drivetrain.sim.errors import SimError

    for point in made.spawn_points:
        try:
            probe = made.spawn(ActorDescription(0, "vehicle.lincoln.mkz_2020"), point)
        except SimError:
            continue
        made.destroy(probe)
        return point
    raise AssertionError("no place is free")
