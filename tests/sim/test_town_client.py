"""The official client in a town of ours: what `drivetrain sim` serves, sensor by sensor, with known values."""

import contextlib
import queue
import subprocess
import sys

import numpy as np
import pytest

carla = pytest.importorskip("carla")

SERVE = [sys.executable, "-m", "drivetrain", "sim", "--port", "0"]
PICTURE = {"image_size_x": "64", "image_size_y": "48", "fov": "90"}


@pytest.fixture(scope="module")
def port():
    process = subprocess.Popen([*SERVE, "--traffic", "6"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()
        assert "grid, 6 vehicles of traffic" in said, said + process.stderr.read()
        yield int(said.split(" (streams")[0].rpartition(":")[2])
        assert process.poll() is None, "the server died"
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def client(port):
    client = carla.Client("127.0.0.1", port)
    client.set_timeout(30)
    return client


@pytest.fixture(scope="module")
def world(client):
    world = client.get_world()
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
    world.apply_settings(settings)
    return world


@pytest.fixture
def spot(world):
    """A free place on a straight lane, with 30 m free ahead."""
    town = world.get_map()
    taken = [a.get_location() for a in world.get_actors().filter("vehicle.*")]
    for point in town.get_spawn_points():
        ahead = town.get_waypoint(point.location).next(15.0)[0].transform
        bend = (ahead.rotation.yaw - point.rotation.yaw + 180) % 360 - 180
        if abs(bend) < 0.5 and all(point.location.distance(other) > 45 for other in taken):
            return point
    raise AssertionError("no free place")


class Ear:
    def __init__(self, world, name, transform, parent=None, **settings):
        blueprint = world.get_blueprint_library().find(name)
        for key, value in settings.items():
            blueprint.set_attribute(key, str(value))
        self.world, self.messages = world, queue.Queue()
        self.sensor = world.spawn_actor(blueprint, transform, attach_to=parent)
        self.sensor.listen(self.messages.put)

    def hear(self):
        """Of the next tick; of one more where the server had not heard yet that somebody listens."""
        for _ in range(10):
            frame = self.world.tick()
            with contextlib.suppress(queue.Empty):
                while (message := self.messages.get(timeout=6)).frame < frame:
                    pass
                return message
        raise AssertionError("nothing comes")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sensor.stop()
        self.sensor.destroy()


def up(transform, z, forward=0.0):
    ahead = transform.get_forward_vector()
    place = transform.location + carla.Location(ahead.x * forward, ahead.y * forward, z)
    return carla.Transform(place, carla.Rotation(yaw=transform.rotation.yaw))


def pixels(message):
    return np.frombuffer(message.raw_data, np.uint8).reshape(message.height, message.width, 4)


@pytest.fixture
def container(world, spot):
    """Its near side is 18.75 m ahead of the place."""
    prop = world.spawn_actor(world.get_blueprint_library().find("static.prop.container"), up(spot, -0.5, 20.0))
    world.tick()
    yield prop
    prop.destroy()
    world.tick()


def test_the_towns_are_listed_and_the_traffic_moves(client, world):
    assert {name.rpartition("/")[2] for name in client.get_available_maps()} == {
        "grid",
        "roundabout",
        "highway",
        "rural",
    }
    for _ in range(60):
        world.tick()
    cars = world.get_actors().filter("vehicle.*")
    assert len(cars) == 6
    assert max(car.get_velocity().length() for car in cars) > 2.0


def test_a_vehicle_knows_its_speed_limit(world, spot):
    car = world.spawn_actor(world.get_blueprint_library().find("vehicle.tesla.model3"), spot)
    for _ in range(len(world.get_actors().filter("vehicle.*")) + 1):
        world.tick()
    limit = car.get_speed_limit()
    car.destroy()
    assert limit in (40.0, 50.0)


def test_depth(world, spot, container):
    with Ear(world, "sensor.camera.depth", up(spot, 1.0), **PICTURE) as ear:
        bgra = pixels(ear.hear()).astype(float)
    metres = (bgra[..., 2] + bgra[..., 1] * 256 + bgra[..., 0] * 65536) / (2**24 - 1) * 1000
    assert metres[24, 32] == pytest.approx(18.75, abs=0.02)


def test_labels_convert_with_the_clients_own_palette(world, spot, container):
    with Ear(world, "sensor.camera.semantic_segmentation", up(spot, 1.0), **PICTURE) as ear:
        message = ear.hear()
    raw = pixels(message)
    assert raw[24, 32, 2] == 21, "dynamic"
    assert raw[45, 32, 2] in (1, 24), "road or its paint"
    assert raw[1, 32, 2] == 11, "sky"
    message.convert(carla.ColorConverter.CityScapesPalette)
    assert tuple(pixels(message)[1, 32, 2::-1]) == (70, 130, 180)


def test_a_red_car_is_red(world, spot):
    blueprint = world.get_blueprint_library().find("vehicle.mercedes.sprinter")
    blueprint.set_attribute("color", "255,0,0")
    across = up(spot, -0.5, 8.0)
    across.rotation.yaw += 90
    car = world.spawn_actor(blueprint, across)
    with Ear(world, "sensor.camera.rgb", up(spot, 0.5), **PICTURE) as ear:
        picture = pixels(ear.hear())[25:27, 30:34, :3].reshape(-1, 3).mean(0)
    car.destroy()
    assert picture[2] > 60
    assert picture[2] > 2 * max(picture[0], picture[1])


def test_lidar_and_labelled_lidar(world, spot, container):
    settings = {
        "channels": 4,
        "range": 50,
        "points_per_second": 16000,
        "rotation_frequency": 20,
        "upper_fov": 0,
        "lower_fov": -20,
    }
    with Ear(world, "sensor.lidar.ray_cast", up(spot, 1.0), dropoff_general_rate=0, **settings) as ear:
        message = ear.hear()
    points = np.frombuffer(message.raw_data, np.float32).reshape(-1, 4)
    assert message.channels == 4
    assert sum(message.get_point_count(i) for i in range(4)) == len(points)
    level = points[np.abs(points[:, 2]) < 0.01]
    ahead = level[np.abs(np.arctan2(level[:, 1], level[:, 0])) < 0.04]
    assert ahead[:, 0] == pytest.approx(18.75, abs=0.01)
    with Ear(world, "sensor.lidar.ray_cast_semantic", up(spot, 1.0), **settings) as ear:
        rows = list(ear.hear())
    assert container.id in {row.object_idx for row in rows}
    assert {row.object_tag for row in rows if row.object_idx == container.id} == {21}


def test_radar(world, spot, container):
    with Ear(
        world, "sensor.other.radar", up(spot, 1.0), horizontal_fov=4, vertical_fov=1, points_per_second=2000
    ) as ear:
        found = list(ear.hear())
    assert len(found) > 20
    for echo in found:
        assert echo.depth * np.cos(echo.azimuth) * np.cos(echo.altitude) == pytest.approx(18.75, abs=0.02)
        assert echo.velocity == pytest.approx(0.0, abs=1e-4)


def test_the_obstacle_detector(world, spot, container):
    with Ear(world, "sensor.other.obstacle", up(spot, 1.0), distance=30, hit_radius=0.2) as ear:
        event = ear.hear()
    assert event.other_actor.id == container.id
    assert event.distance == pytest.approx(18.75, abs=0.01)


@pytest.mark.parametrize("kind", ["instance_segmentation", "normals", "optical_flow"])
def test_the_other_cameras_speak(world, spot, container, kind):
    with Ear(world, f"sensor.camera.{kind}", up(spot, 1.0), **PICTURE) as ear:
        message = ear.hear()
    if kind == "optical_flow":
        flow = np.frombuffer(message.raw_data, np.float32).reshape(48, 64, 2)
        assert np.abs(flow).max() < 1e-3, "nothing moves"
    elif kind == "instance_segmentation":
        blue, green, red = pixels(message)[24, 32, :3].astype(int)
        assert (green + 256 * blue, red) == (container.id & 0xFFFF, 21)
    else:
        ahead = world.get_map().get_waypoint(spot.location).transform.get_forward_vector()
        normal = pixels(message)[24, 32, 2::-1].astype(float) / 127.5 - 1
        assert normal @ (ahead.x, ahead.y, ahead.z) == pytest.approx(-1.0, abs=0.03)


def test_events_are_heard_when_something_appears(world, spot):
    with Ear(world, "sensor.camera.dvs", up(spot, 1.0), **PICTURE) as ear:
        quiet = [len(ear.hear()) for _ in range(2)]
        prop = world.spawn_actor(world.get_blueprint_library().find("static.prop.container"), up(spot, -0.5, 12.0))
        loud = len(ear.hear())
        prop.destroy()
    assert max(quiet) < loud / 3
    assert loud > 20


def test_a_lane_is_invaded(world, spot):
    car = world.spawn_actor(world.get_blueprint_library().find("vehicle.tesla.model3"), spot)
    world.tick()
    invaded = queue.Queue()
    sensor = world.spawn_actor(
        world.get_blueprint_library().find("sensor.other.lane_invasion"), carla.Transform(), attach_to=car
    )
    sensor.listen(invaded.put)
    car.apply_control(carla.VehicleControl(throttle=0.7, steer=-0.25))
    for _ in range(60):
        world.tick()
    sensor.stop()
    sensor.destroy()
    car.destroy()
    assert invaded.get(timeout=60).crossed_lane_markings


def test_a_pole_is_a_collision_with_something_static(world, spot):
    car = world.spawn_actor(world.get_blueprint_library().find("vehicle.tesla.model3"), spot)
    light = world.get_actors().filter("traffic.traffic_light")[0].get_transform()
    with Ear(world, "sensor.other.collision", carla.Transform(), car) as ear:
        world.tick()
        before = light.transform(carla.Location(x=8.0))
        car.set_transform(carla.Transform(before, carla.Rotation(yaw=light.rotation.yaw + 180)))
        car.enable_constant_velocity(carla.Vector3D(10, 0, 0))
        for _ in range(30):
            world.tick()
        event = ear.messages.get(timeout=60)
    car.destroy()
    assert event.other_actor.type_id == "static.pole"
    assert event.normal_impulse.length() > 100


def test_a_town_of_carlas_has_a_stand_in_and_others_are_refused(client):
    world = client.load_world("Town03")
    assert world.get_map().name == "roundabout"
    assert len(world.get_actors().filter("vehicle.*")) == 6
    assert client.load_world("Random-12").get_map().name == "Random-12"
    with pytest.raises(RuntimeError, match="there is no town called 'Atlantis'"):
        client.load_world("Atlantis")
    client.load_world("grid")


def test_a_map_with_errors_is_named_with_its_element(client):
    text = client.get_world().get_map().to_opendrive()
    with pytest.raises(RuntimeError, match="geometry"):
        client.generate_opendrive_world(
            text.replace("<line />", "<wiggle />", 1), carla.OpendriveGenerationParameters()
        )
    world = client.generate_opendrive_world(text, carla.OpendriveGenerationParameters())
    assert len(world.get_map().get_spawn_points()) > 50
    client.load_world("grid")


@pytest.mark.slow
def test_mistakes_on_the_command_line_are_one_line_each(port):
    for flags, said in (
        (["--town", "Atlantis"], "there is no town called 'Atlantis'"),
        (["--port", str(port)], f"cannot listen on 127.0.0.1:{port}"),
        (["--traffic", "-3"], "traffic"),
        (["--release", "0.8.4"], "0.8.4"),
    ):
        run = subprocess.run([*SERVE[:4], *flags], capture_output=True, text=True, timeout=300)
        assert run.returncode == 2, run.stderr
        assert said in run.stderr
        assert run.stderr.count("\n") == 1, run.stderr
