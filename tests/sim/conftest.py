"""A served world, and the official client beside it."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # so that `serving` and `town` can be imported

from serving import served


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
