"""What goes wrong outside must not go wrong inside: garbage, stalls, deaths and crowds."""

import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import pytest
from serving import Raw
from town import Lines

from drivetrain.sim.errors import PortTaken
from drivetrain.sim.server import Config, Server

SYNC = [True, False, [True, 0.05], True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True]


@pytest.fixture
def raw(server):
    raw = Raw(server[1])
    yield raw
    raw.close()


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def settled(measure, expected, seconds=60.0):
    until = time.monotonic() + seconds
    while measure() != expected and time.monotonic() < until:
        time.sleep(0.02)
    return measure()


def camera(raw, size=(800, 600)):
    attributes = [["image_size_x", 2, str(size[0])], ["image_size_y", 2, str(size[1])]]
    _, actor = raw.call("spawn_actor", [0, "sensor.camera.rgb", attributes], [[0, 0, 2], [0, 0, 0]])[0]
    return actor


def subscribe(stream_port, stream):
    reader = socket.create_connection(("127.0.0.1", stream_port), timeout=60)
    reader.sendall(struct.pack("<I", stream))
    return reader


def test_unknown_calls_and_wrong_arguments_are_named(raw):
    assert "has no call 'make_coffee'" in raw.call("make_coffee")
    assert raw.call("get_actor_bounding_box") == [[0, ["get_actor_bounding_box: got 0 arguments, expected 1"]]]
    assert "expected a whole number" in raw.call("get_actor_bounding_box", "x")[0][1][0]
    nan = [float("nan"), 0.0, 0.0]
    assert "expected a finite number" in raw.call("set_actor_location", 1, nan)[0][1][0]
    assert "there is no actor 999999" in raw.call("get_actor_bounding_box", 999999)[0][1][0]
    assert raw.call("version") == [[1, "0.9.16"]]


def test_garbage_ends_its_connection_and_no_other(server, raw):
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xc1" * 100, b"\xdd\xff\xff\xff\xff", msgpack.packb({"a": 1})):
        with socket.create_connection(("127.0.0.1", server[1]), timeout=60) as other:
            other.sendall(garbage)
            assert other.recv(100) == b""
    assert raw.call("version") == [[1, "0.9.16"]]


def test_half_a_message_waits_for_the_other_half(server, raw):
    message = msgpack.packb([0, 7, "version", [[False]]])
    with socket.create_connection(("127.0.0.1", server[1]), timeout=60) as other:
        for byte in message:
            other.sendall(bytes([byte]))
        assert msgpack.unpackb(other.recv(100))[3] == [[1, "0.9.16"]]
        other.sendall(message[:3])
    assert raw.call("version") == [[1, "0.9.16"]]


def test_ten_thousand_fuzzed_messages(server, raw):
    """Half of them valid calls with wild arguments, half of them bytes changed at random."""
    chance = random.Random(0)
    methods = "get_actor_bounding_box spawn_actor apply_batch set_episode_settings set_actor_transform destroy_actor"
    methods = [
        *methods.split(),
        "apply_control_to_vehicle",
        "get_sensor_token",
        "apply_physics_control",
        "freeze_traffic_light",
    ]
    wild = [
        None,
        True,
        -1,
        0,
        1,
        2**63,
        1e300,
        float("inf"),
        "",
        "vehicle.tesla.model3",
        b"\0",
        [],
        [[]],
        [0, [1]],
        {"a": 1},
    ]
    fuzzer, sent = None, 0
    while sent < 10_000:
        if fuzzer is None:
            fuzzer = Raw(server[1])
            fuzzer.socket.settimeout(2)
        burst = b""
        for _ in range(chance.randint(1, 200)):
            args = [[False], *(chance.choice(wild) for _ in range(chance.randint(0, 4)))]
            message = bytearray(msgpack.packb([0, sent, chance.choice(methods), args]))
            if chance.random() < 0.005:
                message[chance.randrange(len(message))] = chance.randrange(256)
            burst += message
            sent += 1
        try:
            fuzzer.socket.sendall(burst)
            if chance.random() < 0.2:
                fuzzer.close()
                fuzzer = None
        except OSError:
            fuzzer = None
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", server[2]), timeout=60) as reader:
            reader.sendall(bytes(chance.randrange(256) for _ in range(chance.randint(0, 12))))
    assert raw.call("version") == [[1, "0.9.16"]]
    assert raw.call("load_new_episode", "Line", True, 0) == [[False]]
    assert raw.call("set_episode_settings", SYNC)[0][0] == 1
    assert raw.call("tick_cue")[0][0] == 1


def test_a_reader_that_never_reads_delays_nobody(server, raw):
    raw.call("load_new_episode", "Line", True, 0)
    raw.call("set_episode_settings", SYNC)
    token = camera(raw)[5]
    reader = subscribe(server[2], struct.unpack_from("<I", token)[0])
    raw.call("tick_cue")
    longest = 0.0
    for _ in range(60):  # 115 MB in all
        start = time.monotonic()
        raw.call("tick_cue")
        longest = max(longest, time.monotonic() - start)
    assert longest < 10, "who waits for that reader waits for ever; a stalled machine does not"
    with open(f"/proc/{server[0]}/status") as status:
        kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert kilobytes < 200_000
    reader.close()


def test_what_a_slow_reader_gets_is_whole(server, raw):
    """The oldest go, never half of one."""
    raw.call("load_new_episode", "Line", True, 0)
    raw.call("set_episode_settings", SYNC)
    reader = subscribe(server[2], struct.unpack_from("<I", camera(raw)[5])[0])
    last = 0
    for _ in range(60):
        last = raw.call("tick_cue")[0][1]
    frames = []
    while not frames or frames[-1] < last:
        length = struct.unpack("<I", exactly(reader, 4))[0]
        body = exactly(reader, length)
        assert length == 48 + 12 + 800 * 600 * 4
        frames.append(struct.unpack_from("<QQ", body)[1])
    assert frames == sorted(set(frames))
    assert len(frames) < 60
    reader.close()


def exactly(reader, count):
    data = bytearray()
    while len(data) < count:
        part = reader.recv(count - len(data))
        assert part
        data += part
    return data


def test_200_clients_leave_no_thread_and_no_descriptor(server, raw):
    before = settled(lambda: descriptors(server[0]), -1, 0.5), threads(server[0])
    for _ in range(200):
        other = Raw(server[1])
        other.call("version")
        stream = subscribe(server[2], 1)
        other.close()
        stream.close()
    assert settled(lambda: descriptors(server[0]), before[0]) == before[0]
    assert threads(server[0]) == before[1]


def test_thousands_of_connections_come_and_go(server, raw):
    before = settled(lambda: descriptors(server[0]), -1, 0.5)
    for _ in range(3000):
        socket.create_connection(("127.0.0.1", server[1]), timeout=60).close()
    assert settled(lambda: descriptors(server[0]), before) == before
    assert raw.call("version") == [[1, "0.9.16"]]


def test_ghosts_are_silent_and_end(server):
    from drivetrain.sim.protocol import streams as module

    a, b = socket.socket(), None
    a.bind(("127.0.0.1", 0))
    a.listen(8)
    streams = module.Streams(a)
    try:
        b = socket.create_connection(a.getsockname())
        b.sendall(struct.pack("<I", 4242))
        for _ in range(3):
            streams.pump(0.1)
        (ghost,) = streams.subscribers
        assert ghost.stream == 4242
        streams.reap()
        assert streams.subscribers
        ghost.since_s -= module.GHOST_S + 1
        streams.reap()
        assert not streams.subscribers
        assert b.recv(1) == b""
    finally:
        streams.shut()
        if b:
            b.close()


def test_a_port_that_is_taken_is_one_clear_error():
    with (
        Server(Lines(), Config(port=0)) as first,
        pytest.raises(PortTaken, match=f"{first.port}: Address already in use"),
    ):
        Server(Lines(), Config(port=first.port))


def test_only_this_machine_may_connect(server):
    listening = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        host, port = words[1].split(":")
        if words[3] == "0A" and int(port, 16) in server[1:]:
            listening.add(host)
    assert listening == {"0100007F"}


def test_the_server_stops_when_told():
    server = Server(Lines(), Config(port=0))
    server.begin()
    thread = threading.Thread(target=server.serve)
    thread.start()
    raw = Raw(server.port)
    raw.call("version")
    server.stop()
    thread.join(5)
    assert not thread.is_alive()
    server.close()
    raw.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


KILLED = """
import carla, sys
client = carla.Client("127.0.0.1", int(sys.argv[1]))
client.set_timeout(5)
world = client.get_world()
settings = world.get_settings()
settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
world.apply_settings(settings)
camera = world.spawn_actor(world.get_blueprint_library().find("sensor.camera.rgb"), carla.Transform())
camera.listen(lambda image: None)
world.tick()
print("ticking", flush=True)
while True:
    world.tick()
"""


def test_a_client_killed_in_the_middle_of_a_tick(server, raw):
    """And who comes after finds the world as it was left: synchronous, waiting."""
    carla = pytest.importorskip("carla")
    before = settled(lambda: descriptors(server[0]), -1, 0.5)
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(server[1])], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ticking\n"
        time.sleep(0.1)
        child.kill()
        child.communicate()
    assert settled(lambda: descriptors(server[0]), before) == before
    frame = raw.call("tick_cue")[0][1]
    assert raw.call("tick_cue")[0][1] == frame + 1
    client = carla.Client("127.0.0.1", server[1])
    client.set_timeout(5)
    world = client.get_world()
    assert world.get_settings().synchronous_mode
    assert world.tick() == frame + 2


RELOADS = """
import carla, sys
client = carla.Client("127.0.0.1", int(sys.argv[1]))
client.set_timeout(10)
blueprint = client.get_world().get_blueprint_library().find("vehicle.tesla.model3")
for _ in range(30):
    world = client.load_world("Line2")
    world.spawn_actor(blueprint, world.get_map().get_spawn_points()[0])
    again = client.reload_world()
    assert again.id != world.id or again.get_snapshot() is not None
    assert len(again.get_actors().filter("vehicle.*")) == 0
print("alive", flush=True)
"""


@pytest.mark.slow
def test_sixty_loads_in_a_row_do_not_kill_the_client(server):
    """See `Server.load`: an answer that comes while the client still handles a state would."""
    pytest.importorskip("carla")
    command = [sys.executable, "-c", RELOADS, str(server[1])]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "alive" in said.stdout, said.stderr
