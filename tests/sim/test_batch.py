"""Each batch command, through the official client: the right index does the right thing."""

import pytest
from serving import Raw

carla = pytest.importorskip("carla")
command = carla.command

X = carla.Vector3D(1, 0, 0)


@pytest.fixture
def car(world):
    car = world.spawn_actor(
        world.get_blueprint_library().find("vehicle.tesla.model3"),
        carla.Transform(carla.Location(50, 1.75, 0), carla.Rotation()),
    )
    for _ in range(10):
        world.tick()
    return car


@pytest.fixture
def walker(world):
    place = carla.Transform(carla.Location(50, 10, 0.93))
    return world.spawn_actor(world.get_blueprint_library().find("walker.pedestrian.0001"), place)


def do(client, *commands):
    answers = client.apply_batch_sync(list(commands), True)
    assert [answer.error for answer in answers] == [""] * len(commands)
    return answers


def test_spawn_with_what_comes_after_and_destroy(client, world):
    blueprint = world.get_blueprint_library().find("vehicle.audi.tt")
    place = carla.Transform(carla.Location(100, 1.75, 0))
    after = command.ApplyVehicleControl(command.FutureActor, carla.VehicleControl(throttle=1.0))
    (answer,) = do(client, command.SpawnActor(blueprint, place).then(after))
    for _ in range(40):
        world.tick()
    assert world.get_actor(answer.actor_id).get_velocity().x > 3.0
    again = client.apply_batch_sync([command.SpawnActor(blueprint, world.get_actor(answer.actor_id).get_transform())])
    assert "collision at spawn position" in again[0].error
    do(client, command.DestroyActor(answer.actor_id))
    assert world.get_actors().find(answer.actor_id) is None
    assert client.apply_batch_sync([command.DestroyActor(answer.actor_id)])[0].error


def test_spawn_with_a_parent(client, world, car):
    blueprint = world.get_blueprint_library().find("sensor.other.imu")
    (answer,) = do(client, command.SpawnActor(blueprint, carla.Transform(carla.Location(x=1)), car))
    assert world.get_actor(answer.actor_id).parent.id == car.id
    assert world.get_actor(answer.actor_id).get_location().x == pytest.approx(51, abs=1e-3)


def test_controls(client, world, car, walker):
    do(client, command.ApplyVehicleControl(car, carla.VehicleControl(throttle=0.25, steer=-0.5)))
    assert (car.get_control().throttle, car.get_control().steer) == (0.25, -0.5)
    do(client, command.ApplyVehicleAckermannControl(car, carla.VehicleAckermannControl(speed=0.0)))
    assert car.get_control().brake == 1.0
    do(client, command.ApplyWalkerControl(walker, carla.WalkerControl(X, 2.0)))
    assert walker.get_velocity().x == pytest.approx(2.0)
    there = carla.Transform(carla.Location(60, 20, 0.93), carla.Rotation(yaw=90))
    do(client, command.ApplyWalkerState(walker, there, 1.0))
    assert walker.get_location().y == pytest.approx(20.05, abs=1e-3)


def test_physics_control(client, world, car):
    physics = car.get_physics_control()
    physics.mass = 1234.0
    do(client, command.ApplyVehiclePhysicsControl(car, physics))
    assert car.get_physics_control().mass == 1234.0


def test_transform_and_location(client, car):
    do(client, command.ApplyTransform(car, carla.Transform(carla.Location(80, 5, 0), carla.Rotation(yaw=45))))
    assert (car.get_location().x, car.get_transform().rotation.yaw) == pytest.approx((80, 45))


def test_location_which_the_client_cannot_say(server, world, car):
    raw = Raw(server[1])
    assert raw.call("apply_batch", [[[19, [car.id, [90.0, 5.0, 0.0]]]]], False) == [[[1, car.id]]]
    raw.close()
    world.tick()
    assert (car.get_location().x, car.get_transform().rotation.yaw) == pytest.approx((90, 0), abs=1e-3)


def test_velocities(client, car):
    do(client, command.ApplyTargetVelocity(car, carla.Vector3D(6, 0, 0)))
    assert car.get_velocity().x == pytest.approx(6, abs=0.2)
    do(client, command.ApplyTargetAngularVelocity(car, carla.Vector3D(0, 0, 40)))
    assert car.get_angular_velocity().z > 1.0


@pytest.mark.parametrize(("name", "pushes"), [("ApplyImpulse", 1845 * 3.0), ("ApplyForce", 1845 * 3.0 / 0.05)])
def test_pushes(client, car, name, pushes):
    do(client, getattr(command, name)(car, pushes * X))
    assert car.get_velocity().x == pytest.approx(3.0, abs=0.1)


def test_turns(client, car):
    do(client, command.ApplyTargetVelocity(car, carla.Vector3D(20, 0, 0)))
    do(client, command.ApplyAngularImpulse(car, carla.Vector3D(0, 0, 20_000)))
    assert car.get_angular_velocity().z > 1.0
    do(client, command.ApplyTorque(car, carla.Vector3D(0, 0, -5e6)))
    assert car.get_angular_velocity().z < -1.0


def test_physics_and_gravity_switched_off(client, world, car):
    car.set_location(carla.Location(50, 1.75, 30))
    do(client, command.SetEnableGravity(car, False))
    for _ in range(5):
        world.tick()
    assert car.get_location().z == pytest.approx(30, abs=0.1)
    do(client, command.SetEnableGravity(car, True))
    do(client, command.SetSimulatePhysics(car, False))
    height = car.get_location().z
    for _ in range(5):
        world.tick()
    assert car.get_location().z == height
    do(client, command.SetSimulatePhysics(car, True))
    for _ in range(5):
        world.tick()
    assert car.get_location().z < height


def test_lights(server, client, world, car):
    """By id: given the actor, the client takes the flags for a bool."""
    flags = carla.VehicleLightState.LowBeam | carla.VehicleLightState.Brake
    do(client, command.SetVehicleLightState(car.id, flags))
    assert car.get_light_state() == flags
    assert world.get_vehicles_light_states()[car.id] == flags
    light = world.get_actors().filter("traffic.traffic_light")[0]
    raw = Raw(server[1])  # which the client cannot say
    assert raw.call("apply_batch", [[[21, [light.id, 1]]]], True) == [[[1, light.id]]]
    raw.close()
    world.tick()
    assert light.state == carla.TrafficLightState.Yellow


def test_what_is_left_out_says_so(server, car):
    raw = Raw(server[1])
    assert "ShowDebugTelemetry is not" in raw.call("apply_batch", [[[17, [car.id, True]]]], False)[0][0][1][0]
    assert "'stat fps' is not offered" in raw.call("apply_batch", [[[20, ["stat fps"]]]], False)[0][0][1][0]
    assert "expected 0 to 21" in raw.call("apply_batch", [[[22, []]]], False)
    raw.close()


def test_autopilot_is_the_clients(server, car):
    raw = Raw(server[1])
    assert raw.call("apply_batch", [[[16, [car.id, True]]]], False) == [[[1, car.id]]]
    raw.close()
