"""The client's TrafficManager drives cars of ours. It listens on all addresses, so it only runs where nobody can call."""

import subprocess
import sys
from pathlib import Path

import pytest
from alone import INSIDE, alone

pytest.importorskip("carla")

HERE = Path(__file__).parent
DRIVE = """
import carla, subprocess, sys, time
from drivetrain.envs.carla.alarm import Alarm
server = subprocess.Popen([sys.executable, sys.argv[1]], stdout=subprocess.PIPE, text=True)
try:
    client = carla.Client("127.0.0.1", int(server.stdout.readline().split()[0]))
    client.set_timeout(10)
    world = client.get_world()
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
    world.apply_settings(settings)
    manager = client.get_trafficmanager(8000)
    manager.set_synchronous_mode(True)
    manager.set_random_device_seed(1)
    alarm = Alarm(manager.get_port())

    def tick():
        with alarm:  # or the client may wait for itself
            world.tick()

    blueprint = world.get_blueprint_library().find("vehicle.tesla.model3")
    points = world.get_map().get_spawn_points()
    cars = [world.spawn_actor(blueprint, points[i]) for i in (0, 2, 4, 1)]
    tick()
    for car in cars:
        car.set_autopilot(True, 8000)
    light = world.get_actors().filter("traffic.traffic_light")[0]
    start, begun = cars[0].get_location().x, time.time()
    for _ in range(200):
        tick()
    moved = cars[0].get_location().x - start
    print("seconds", time.time() - begun, file=sys.stderr)
    cars[3].destroy()
    for _ in range(100):
        tick()
    print("moved", moved, "speed", max(car.get_velocity().length() for car in cars[:3]), flush=True)
    client.apply_batch_sync([carla.command.DestroyActor(car.id) for car in cars[:3]])
    for _ in range(20):
        tick()
    print("alive", world.get_snapshot().frame, flush=True)
    manager.set_synchronous_mode(False)
    settings.synchronous_mode = False
    world.apply_settings(settings)
finally:
    server.kill()
    server.wait()
"""


@pytest.mark.slow
def test_the_traffic_manager_drives(tmp_path):
    words = alone()
    if not words:
        pytest.skip("no loopback-only network namespace can be made here (unshare -n, ip link set lo up)")
    script = tmp_path / "drive.py"
    script.write_text(DRIVE)
    said = subprocess.run(
        [*words, "sh", "-c", INSIDE, "sh", sys.executable, str(script), str(HERE / "town.py")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert said.returncode in (0, -6), said.stderr  # the client may abort as its interpreter ends
    words = said.stdout.split()
    assert float(words[words.index("moved") + 1]) > 20.0, said.stdout + said.stderr
    assert float(words[words.index("speed") + 1]) < 60 / 3.6
    assert "alive" in words


TWENTY = """
import carla, random, subprocess, sys
from drivetrain.envs.carla.alarm import Alarm
server = subprocess.Popen([sys.executable, "-m", "drivetrain", "sim", "--port", "0"], stdout=subprocess.PIPE, text=True)
try:
    port = int(server.stdout.readline().split(" (streams")[0].rpartition(":")[2])
    client = carla.Client("127.0.0.1", port)
    client.set_timeout(60)
    world = client.get_world()
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
    world.apply_settings(settings)
    manager = client.get_trafficmanager(8000)
    manager.set_synchronous_mode(True)
    manager.set_random_device_seed(1)
    alarm = Alarm(manager.get_port())

    def tick():
        with alarm:  # or the client may wait for itself
            world.tick()

    points = world.get_map().get_spawn_points()
    random.Random(0).shuffle(points)
    blueprint = world.get_blueprint_library().find("vehicle.tesla.model3")
    spawn = carla.command.SpawnActor
    batch = [
        spawn(blueprint, point).then(carla.command.SetAutopilot(carla.command.FutureActor, True, 8000))
        for point in points[:20]
    ]
    answers = client.apply_batch_sync(batch, True)
    assert not any(answer.error for answer in answers), [answer.error for answer in answers]
    cars = [world.get_actor(answer.actor_id) for answer in answers]
    bumps = []
    listening = []
    for car in cars:
        sensor = world.spawn_actor(
            world.get_blueprint_library().find("sensor.other.collision"), carla.Transform(), attach_to=car
        )
        sensor.listen(lambda event: bumps.append((event.actor.id, event.other_actor.type_id)))
        listening.append(sensor)
    tick()
    moved, before = [0.0] * 20, [car.get_location() for car in cars]
    for number in range(6000):
        tick()
        if number % 20 == 0:
            now = [car.get_location() for car in cars]
            moved = [m + a.distance(b) for m, a, b in zip(moved, now, before)]
            before = now
    print("moved", min(moved), sum(moved) / 20, "bumps", len(bumps), flush=True)
    for sensor in listening:
        sensor.stop()
    manager.set_synchronous_mode(False)
    settings.synchronous_mode = False
    world.apply_settings(settings)
    print("done, woken", alarm.rung, flush=True)
finally:
    server.kill()
    server.wait()
"""


@pytest.mark.slow
def test_it_drives_twenty_cars_for_five_minutes(tmp_path):
    words = alone()
    if not words:
        pytest.skip("no loopback-only network namespace can be made here (unshare -n, ip link set lo up)")
    script = tmp_path / "twenty.py"
    script.write_text(TWENTY)
    said = subprocess.run(
        [*words, "sh", "-c", INSIDE, "sh", sys.executable, str(script)], capture_output=True, text=True, timeout=900
    )
    assert said.returncode in (0, -6), said.stderr  # the client may abort as its interpreter ends
    assert "done" in said.stdout, said.stdout + said.stderr
    found = said.stdout.split()
    assert float(found[1]) > 100.0, "everybody gets on"
    assert float(found[2]) > 500.0, said.stdout
    assert int(found[4]) < 40, said.stdout
