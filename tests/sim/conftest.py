"""A served world for tests, in a process of its own, and the official client beside it."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

TOWN = Path(__file__).with_name("town.py")


@contextlib.contextmanager
def served(*options):
    """(pid, port of the calls, port of the streams) of a server that dies with the block."""
    process = subprocess.Popen([sys.executable, str(TOWN), *options], stdout=subprocess.PIPE, text=True)
    try:
        port, stream_port = map(int, process.stdout.readline().split())
        yield process.pid, port, stream_port
        assert process.poll() is None, "the server died"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server():
    with served("--renderer") as found:
        yield found


@pytest.fixture
def client(server):
    carla = pytest.importorskip("carla")
    client = carla.Client("127.0.0.1", server[1])
    client.set_timeout(10.0)
    client.load_world("Line")
    return client


@pytest.fixture
def world(client):
    """A synchronous world of 0.05 s a tick."""
    world = client.get_world()
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
    world.apply_settings(settings)
    yield world
    settings.synchronous_mode, settings.fixed_delta_seconds = False, None
    world.apply_settings(settings)
