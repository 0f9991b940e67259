"""A world without sockets, for tests: what it says is kept."""

from dataclasses import replace

import numpy as np

from drivetrain.sim.places import Places
from drivetrain.sim.protocol.structs import Transform
from drivetrain.sim.protocol.versions import find
from drivetrain.sim.render.renderer import Render
from drivetrain.sim.traffic import Traffic, inhabit
from drivetrain.sim.world import World


class Heard:
    """An outlet on which somebody listens to everything."""

    def __init__(self):
        self.messages = []

    def open(self, stream): ...
    def close(self, stream): ...

    def has_listeners(self, stream):
        return True

    def publish(self, stream, body, *, keep=False, later=False):
        self.messages.append((stream, body))


def world(town="grid", traffic=0, seed=0, renderer=False, places=None):
    made = World(
        places or Places(), Heard(), find("0.9.16"), renderer=Render() if renderer else None, clock=lambda: 0.0
    )
    inhabit(made, traffic, seed)
    made.load(town)
    made.settings = replace(made.settings, synchronous_mode=True, fixed_delta_seconds=0.05)
    return made


def traffic_of(made) -> Traffic:
    return made.before_moving[0].__closure__[0].cell_contents[0]


def tick(made, count=1):
    for _ in range(count):
        made.tick()
        made.show()


def lifted(transform: Transform, by_m: float) -> Transform:
    return replace(transform, location=replace(transform.location, z=transform.location.z + by_m))


def bits(cars):
    """Every value of every car, and none of the gaps between them."""
    return b"".join(np.ascontiguousarray(cars[name]).tobytes() for name in cars.dtype.names)
