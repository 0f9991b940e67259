"""The official client against the server: what a first program of anybody's does."""

import math
import queue
import time

import numpy as np
import pytest

carla = pytest.importorskip("carla")

MODEL = "vehicle.tesla.model3"


def spawn(world, name=MODEL, at=0, **attributes):
    blueprint = world.get_blueprint_library().find(name)
    for key, value in attributes.items():
        blueprint.set_attribute(key, value)
    return world.spawn_actor(blueprint, world.get_map().get_spawn_points()[at])


def listen(sensor):
    heard = queue.Queue()
    heard.sensor = sensor  # the client stops listening to one that nobody holds
    sensor.listen(heard.put)
    time.sleep(0.3)  # the server hears of it from another thread, and what comes before then is not sent
    return heard


def attach(world, parent, name, transform=None, **attributes):
    blueprint = world.get_blueprint_library().find(name)
    for key, value in attributes.items():
        blueprint.set_attribute(key, str(value))
    return world.spawn_actor(blueprint, transform or carla.Transform(), attach_to=parent)


def test_it_says_which_carla_it_is_and_which_maps_it_has(client):
    assert client.get_server_version() == client.get_client_version() == "0.9.16"
    assert [name.rpartition("/")[2] for name in client.get_available_maps()] == ["Line", "Line2"]


def test_the_client_reads_the_map(world):
    town = world.get_map()
    assert town.name == "Line"
    assert len(town.get_spawn_points()) == 40
    waypoint = town.get_waypoint(carla.Location(50, 2, 0))
    assert (waypoint.road_id, waypoint.lane_id) == (1, -1)
    assert waypoint.transform.location.y == pytest.approx(1.75, abs=1e-3)


def test_the_library_has_vehicles_walkers_sensors_and_props(world):
    library = world.get_blueprint_library()
    assert len(library.filter("vehicle.*")) == 41
    assert len(library.filter("walker.pedestrian.*")) == 52
    assert len(library.filter("static.prop.*")) > 90
    assert library.find("sensor.camera.rgb").get_attribute("image_size_x").as_int() == 800
    car = library.find(MODEL)
    assert car.get_attribute("number_of_wheels").as_int() == 4
    assert "role_name" in {attribute.id for attribute in car}


def test_a_vehicle_is_spawned_and_a_second_in_its_place_is_refused(world):
    spawn(world)
    with pytest.raises(RuntimeError, match="collision at spawn position"):
        spawn(world)
    assert world.try_spawn_actor(world.get_blueprint_library().find(MODEL), world.get_map().get_spawn_points()[1])


def test_an_attribute_that_makes_no_sense_is_refused_by_name(world):
    blueprint = world.get_blueprint_library().find("sensor.camera.depth")
    with pytest.raises(RuntimeError, match=r"sensor\.camera\.depth is not drawn"):
        world.spawn_actor(blueprint, carla.Transform())
    with pytest.raises(RuntimeError, match=r"controller\.ai\.walker is not offered"):
        world.spawn_actor(world.get_blueprint_library().find("controller.ai.walker"), carla.Transform())


def test_a_tick_advances_one_frame_and_one_delta(world):
    before = world.get_snapshot()
    frame = world.tick()
    after = world.get_snapshot()
    assert after.frame == frame == before.frame + 1
    assert after.timestamp.elapsed_seconds == pytest.approx(before.timestamp.elapsed_seconds + 0.05)
    assert after.timestamp.delta_seconds == pytest.approx(0.05)


def test_the_pedal_moves_the_car_and_the_snapshot_says_so(world):
    car = spawn(world)
    car.apply_control(carla.VehicleControl(throttle=1.0))
    start = car.get_location()
    for _ in range(60):
        world.tick()
    assert car.get_velocity().x > 8.0
    assert car.get_location().x > 15.0
    assert start.x == 0.0, "an actor is not in the snapshot before the tick"
    assert car.get_control().throttle == 1.0
    assert world.get_snapshot().find(car.id).get_velocity().x == car.get_velocity().x
    car.apply_control(carla.VehicleControl(brake=1.0))
    for _ in range(60):
        world.tick()
    assert car.get_velocity().length() < 1e-3


def test_steering_to_the_right_turns_to_the_right(world):
    car = spawn(world)
    car.apply_control(carla.VehicleControl(throttle=0.5, steer=0.3))
    for _ in range(60):
        world.tick()
    assert car.get_transform().rotation.yaw > 20.0
    assert car.get_location().y > 3.0
    assert car.get_angular_velocity().z > 10.0
    assert car.get_wheel_steer_angle(carla.VehicleWheelLocation.FL_Wheel) > 10.0


def test_actors_come_and_go(world):
    car = spawn(world)
    world.tick()
    assert {actor.type_id for actor in world.get_actors()} == {"spectator", "traffic.traffic_light", MODEL}
    assert world.get_actor(car.id).attributes["role_name"] == "autopilot"
    assert car.destroy()
    world.tick()
    assert world.get_actors().find(car.id) is None


def test_the_box_is_the_models(world):
    box = spawn(world).bounding_box
    assert (box.extent.x, box.extent.y, box.extent.z) == pytest.approx((2.395, 1.08, 0.745))
    assert box.location.z == pytest.approx(0.745)


def test_transforms_and_velocities_can_be_set(world):
    car = spawn(world)
    car.set_transform(carla.Transform(carla.Location(100, 5.25, 0), carla.Rotation(yaw=90)))
    world.tick()
    assert (car.get_location().x, car.get_transform().rotation.yaw) == pytest.approx((100, 90), abs=0.01)
    car.set_target_velocity(carla.Vector3D(0, 8, 0))
    world.tick()
    assert car.get_velocity().y == pytest.approx(8, abs=0.3)
    car.enable_constant_velocity(carla.Vector3D(5, 0, 0))
    for _ in range(10):
        world.tick()
    assert car.get_velocity().y == pytest.approx(5, abs=1e-3)
    spectator = world.get_spectator()
    spectator.set_transform(carla.Transform(carla.Location(1, 2, 3), carla.Rotation(pitch=-20)))
    world.tick()
    assert spectator.get_transform().rotation.pitch == pytest.approx(-20)


def test_settings_and_weather_come_back_as_they_were_set(world):
    settings = world.get_settings()
    assert (settings.synchronous_mode, settings.fixed_delta_seconds) == (True, 0.05)
    values = [float(n) for n in range(1, 15)]
    world.set_weather(carla.WeatherParameters(*values))
    got = world.get_weather()
    names = "cloudiness precipitation precipitation_deposits wind_intensity sun_azimuth_angle sun_altitude_angle fog_density"
    names += " fog_distance fog_falloff wetness scattering_intensity mie_scattering_scale rayleigh_scattering_scale dust_storm"
    assert got == carla.WeatherParameters(*values)
    assert sorted(getattr(got, name) for name in names.split()) == values


def test_physics_can_be_read_changed_and_read_again(world):
    car = spawn(world)
    world.tick()
    physics = car.get_physics_control()
    assert len(physics.wheels) == 4
    assert len(physics.forward_gears) == 5
    assert physics.wheels[0].position.x > physics.wheels[2].position.x > 0
    physics.mass = 5000.0
    physics.steering_curve = [carla.Vector2D(0, 0.5), carla.Vector2D(100, 0.25)]
    car.apply_physics_control(physics)
    again = car.get_physics_control()
    assert again.mass == 5000.0
    assert again.steering_curve[1].y == 0.25
    assert again.wheels[0].position == physics.wheels[0].position


def test_a_world_is_loaded_and_reloaded(client):
    world = client.load_world("Line2")
    assert world.get_map().name == "Line2"
    old = world.id
    spawn(world)
    again = client.reload_world()
    assert again.id != old
    assert len(again.get_actors().filter("vehicle.*")) == 0
    with pytest.raises(RuntimeError, match="there is no map 'Nowhere'"):
        client.load_world("Nowhere")


def test_a_world_is_made_from_opendrive(client):
    text = client.get_world().get_map().to_opendrive().replace('id="77"', 'id="78"')
    world = client.generate_opendrive_world(text, carla.OpendriveGenerationParameters(wall_height=0.5))
    assert world.get_map().to_opendrive() == text
    with pytest.raises(RuntimeError, match="without the element OpenDRIVE"):
        client.generate_opendrive_world("<nothing/>")


def test_an_asynchronous_world_runs_by_itself(client):
    world = client.get_world()
    first = world.wait_for_tick()
    second = world.wait_for_tick()
    assert second.frame > first.frame
    car = spawn(world)
    car.apply_control(carla.VehicleControl(throttle=1.0))
    for _ in range(90):
        world.wait_for_tick()
    assert car.get_velocity().x > 1.0


def test_two_clients_see_one_world(client, world, server):
    other = carla.Client("127.0.0.1", server[1])
    other.set_timeout(10.0)
    car = spawn(world)
    world.tick()
    theirs = other.get_world().get_actor(car.id)
    theirs.apply_control(carla.VehicleControl(throttle=1.0))
    other.get_world().get_settings()  # a call with an answer, after one without
    for _ in range(40):
        world.tick()
    assert car.get_velocity().x > 3.0
    assert other.get_world().get_actor(car.id).get_velocity().x == pytest.approx(car.get_velocity().x, abs=0.5)


def test_a_call_that_is_left_out_says_its_name(client, world):
    with pytest.raises(RuntimeError, match="get_names_of_all_objects is not offered by this server"):
        world.get_names_of_all_objects()
    with pytest.raises(RuntimeError, match="start_recorder is not offered by this server"):
        client.start_recorder("x.log")


def test_traffic_lights_change_freeze_and_obey(world):
    world.tick()
    light = world.get_actors().filter("traffic.traffic_light")[0]
    assert light.get_opendrive_id() == "77"
    assert light.state == carla.TrafficLightState.Green
    for _ in range(201):
        world.tick()
    assert light.state == carla.TrafficLightState.Yellow
    light.set_state(carla.TrafficLightState.Red)
    light.set_red_time(100.0)
    light.freeze(True)
    for _ in range(100):
        world.tick()
    assert light.state == carla.TrafficLightState.Red
    assert light.is_frozen()
    assert light.get_red_time() == 100.0
    assert [one.id for one in light.get_group_traffic_lights()] == [light.id]
    assert len(light.get_light_boxes()) == 1


def test_a_walker_walks_where_it_is_told(world):
    walker = world.spawn_actor(
        world.get_blueprint_library().find("walker.pedestrian.0001"), carla.Transform(carla.Location(50, 8, 1))
    )
    walker.apply_control(carla.WalkerControl(carla.Vector3D(0, 1, 0), 1.4))
    for _ in range(40):
        world.tick()
    assert walker.get_location().y == pytest.approx(8 + 40 * 0.05 * 1.4, abs=1e-3)
    assert walker.get_location().z == pytest.approx(0.93, abs=1e-3)
    assert walker.get_velocity().y == pytest.approx(1.4)
    assert walker.get_transform().rotation.yaw == pytest.approx(90)
    assert walker.get_control().speed == pytest.approx(1.4)


def test_an_imu_at_rest_reads_gravity_and_its_heading(world):
    car = spawn(world)
    heard = listen(attach(world, car, "sensor.other.imu"))
    for _ in range(20):
        world.tick()
    seen = [heard.get(timeout=60) for _ in range(20)][-1]
    assert (seen.accelerometer.x, seen.accelerometer.y) == pytest.approx((0, 0), abs=1e-4)
    assert seen.accelerometer.z == pytest.approx(9.81, abs=1e-4)
    assert seen.gyroscope.z == 0.0
    assert seen.compass == pytest.approx(math.pi / 2)
    assert seen.frame == world.get_snapshot().frame
    world.set_imui_sensor_gravity(1.62)
    assert world.get_imui_sensor_gravity() == pytest.approx(1.62)
    world.tick()
    assert heard.get(timeout=60).accelerometer.z == pytest.approx(1.62, abs=1e-4)


def test_an_imu_feels_the_turn(world):
    car = spawn(world)
    heard = listen(attach(world, car, "sensor.other.imu"))
    car.apply_control(carla.VehicleControl(throttle=0.5, steer=0.2))
    for _ in range(60):
        world.tick()
    seen = [heard.get(timeout=60) for _ in range(60)][-1]
    spin = math.radians(car.get_angular_velocity().z)
    assert seen.gyroscope.z == pytest.approx(spin, rel=1e-3)
    assert seen.accelerometer.y == pytest.approx(spin * car.get_velocity().length(), rel=0.1)


def test_gnss_agrees_with_the_clients_map(world):
    car = spawn(world)
    car.set_transform(carla.Transform(carla.Location(120, -30, 0), carla.Rotation()))
    heard = listen(attach(world, car, "sensor.other.gnss", carla.Transform(carla.Location(z=2.0))))
    world.tick()
    seen = heard.get(timeout=60)
    expected = world.get_map().transform_to_geolocation(seen.transform.location)
    assert seen.latitude == pytest.approx(expected.latitude, abs=1e-8)
    assert seen.longitude == pytest.approx(expected.longitude, abs=1e-8)
    assert seen.altitude == pytest.approx(2.0, abs=1e-3)


def test_a_sensor_speaks_as_often_as_its_tick_says(world):
    heard = listen(attach(world, spawn(world), "sensor.other.gnss", sensor_tick="0.2"))
    for _ in range(20):
        world.tick()
    frames = [heard.get(timeout=60).frame for _ in range(5)]
    assert np.diff(frames).tolist() == [4, 4, 4, 4]
    assert heard.empty()


def test_a_collision_is_told_to_both_with_opposite_impulses(world):
    first, second = spawn(world, at=0), spawn(world, at=2)
    heard = [listen(attach(world, car, "sensor.other.collision")) for car in (first, second)]
    first.enable_constant_velocity(carla.Vector3D(10, 0, 0))
    world.tick()
    first.disable_constant_velocity()
    for _ in range(30):
        world.tick()
    ours, theirs = (one.get(timeout=60) for one in heard)
    assert (ours.actor.id, ours.other_actor.id) == (first.id, second.id)
    assert theirs.other_actor.type_id == MODEL
    assert ours.normal_impulse.x == -theirs.normal_impulse.x
    assert ours.normal_impulse.x == pytest.approx(-1.1 * 1845 * 10 / 2, rel=0.1)
    assert second.get_location().x > 24.0


def test_a_camera_gives_what_the_renderer_drew(world):
    car = spawn(world)
    camera = attach(
        world, car, "sensor.camera.rgb", carla.Transform(carla.Location(x=1.5, z=2)), image_size_x=160, image_size_y=90
    )
    heard = listen(camera)
    frame = world.tick()
    seen = heard.get(timeout=60)
    assert (seen.frame, seen.width, seen.height, seen.fov) == (frame, 160, 90, 90.0)
    assert np.frombuffer(seen.raw_data, np.uint8).reshape(90, 160, 4)[45, 80].tolist() == [30, 20, 10, 255]
    assert seen.transform.location.z == pytest.approx(2.0, abs=0.01 + 0.3)


def test_lane_invasion_is_worked_out_by_the_client(world):
    car = spawn(world)
    heard = listen(attach(world, car, "sensor.other.lane_invasion"))
    world.tick()
    car.set_target_velocity(carla.Vector3D(0, 5, 0))
    car.set_transform(carla.Transform(carla.Location(60, 1.75, 0), carla.Rotation(yaw=90)))
    for _ in range(20):
        world.tick()
    assert heard.get(timeout=60).crossed_lane_markings[0].type == carla.LaneMarkingType.Solid


def test_a_prop_stands_and_an_attached_one_moves_along(world):
    car = spawn(world)
    prop = attach(world, car, "static.prop.briefcase", carla.Transform(carla.Location(z=2)))
    car.enable_constant_velocity(carla.Vector3D(10, 0, 0))
    for _ in range(20):
        world.tick()
    assert prop.get_location().x == pytest.approx(car.get_location().x, abs=1e-3)
    assert prop.parent.id == car.id


def test_ackermann_control_reaches_its_speed(world):
    car = spawn(world)
    car.apply_ackermann_control(carla.VehicleAckermannControl(steer=0.0, speed=8.0, acceleration=3.0))
    for _ in range(300):
        world.tick()
    assert car.get_velocity().x == pytest.approx(8.0, abs=1.0)
    assert car.get_ackermann_controller_settings().speed_kp == pytest.approx(0.15)


def test_the_gone_are_remembered(client, world):
    car = spawn(world)
    world.tick()
    box, physics = car.bounding_box, car.get_physics_control()
    client.apply_batch_sync([carla.command.DestroyActor(car.id)])
    assert car.bounding_box.extent.x == box.extent.x
    assert car.get_physics_control().mass == physics.mass
    car.apply_control(carla.VehicleControl(throttle=1.0))
    world.tick()


def test_a_car_knows_the_light_it_stands_at(world):
    car = spawn(world)
    world.tick()
    assert not car.is_at_traffic_light()
    light = world.get_actors().filter("traffic.traffic_light")[0]
    light.set_state(carla.TrafficLightState.Red)
    light.freeze(True)
    car.set_location(carla.Location(140, 1.75, 0))
    world.tick()
    assert car.is_at_traffic_light()
    assert car.get_traffic_light_state() == carla.TrafficLightState.Red
    assert car.get_traffic_light().id == light.id
    assert light.trigger_volume.extent.y == pytest.approx(3.5)


def test_a_walker_in_the_way_is_hit_and_pushed(world):
    car = spawn(world)
    walker = world.spawn_actor(
        world.get_blueprint_library().find("walker.pedestrian.0001"), carla.Transform(carla.Location(30, 1.75, 1))
    )
    heard = listen(attach(world, car, "sensor.other.collision"))
    car.enable_constant_velocity(carla.Vector3D(10, 0, 0))
    for _ in range(50):
        world.tick()
    assert heard.get(timeout=60).other_actor.id == walker.id
    assert walker.get_location().x > 31
