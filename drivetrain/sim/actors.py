"""An actor, as the world keeps it, and the registry of those that live and those that are gone.

The gone are remembered for a while: an error about one of them inside a client's TrafficManager would kill that client.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from drivetrain.sim.ackermann import Ackermann
from drivetrain.sim.errors import SimError
from drivetrain.sim.lights import Light
from drivetrain.sim.protocol.structs import (
    ActorDescription,
    Attachment,
    BoundingBox,
    PhysicsControl,
    Rotation,
    Transform,
    Vector3D,
    VehicleControl,
    WalkerControl,
)
from drivetrain.sim.sensors import Gnss, Imu, needs_renderer

MOST_GONE = 1000
ZERO = Vector3D()


class Kind(IntEnum):
    """In the order in which the state stream lists them."""

    VEHICLE = 0
    WALKER = 1
    LIGHT = 2
    OTHER = 3


@dataclass(eq=False)
class Actor:
    id: int
    kind: Kind
    description: ActorDescription
    settings: Mapping[str, str]
    box: BoundingBox
    transform: Transform  # of vehicles: as of the last tick; the fleet knows better
    tag: int = 0  # CARLA's semantic label
    parent: Actor | None = None
    relative: Transform = field(default_factory=Transform)  # to the parent
    attachment: Attachment = Attachment.RIGID
    stream: int = 0  # of a sensor
    sensor: Imu | Gnss | None = None
    last_sent_s: float = -1e9
    alive: bool = True
    solid: bool = False  # others bump into it
    simulated: bool = True  # a walker moves by its control
    velocity: Vector3D = ZERO
    acceleration: Vector3D = ZERO
    control: VehicleControl = field(default_factory=VehicleControl)
    walk: WalkerControl = field(default_factory=WalkerControl)
    physics: PhysicsControl = field(default_factory=PhysicsControl)
    ackermann: Ackermann = field(default_factory=Ackermann)
    light_flags: int = 0
    in_traffic: bool = True  # what the server's own traffic drives is its own until a client takes the wheel
    light: Light | None = None

    @functools.cached_property
    def drawn(self) -> bool:
        """Whether a renderer makes its messages."""
        return needs_renderer(self.blueprint)

    @property
    def blueprint(self) -> str:
        return self.description.id

    @property
    def sticky(self) -> bool:
        return self.settings.get("sticky_control", "true").lower() != "false"


class Registry:
    def __init__(self) -> None:
        self.live: dict[int, Actor] = {}
        self.gone: OrderedDict[int, Actor] = OrderedDict()
        self.next_id = 1

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def add(self, actor: Actor) -> None:
        self.live[actor.id] = actor

    def remove(self, actor: Actor) -> None:
        del self.live[actor.id]
        actor.alive, actor.sensor, actor.parent = False, None, None
        self.gone[actor.id] = actor
        if len(self.gone) > MOST_GONE:
            self.gone.popitem(last=False)

    def find(self, actor: int) -> Actor:
        """One that lives or has lived."""
        found = self.live.get(actor) or self.gone.get(actor)
        if found is None:
            raise SimError(f"there is no actor {actor}, and there was none of late")
        return found

    def of(self, *kinds: Kind) -> Iterator[Actor]:
        return (actor for actor in self.live.values() if actor.kind in kinds)

    def children(self, parent: Actor) -> list[Actor]:
        return [actor for actor in self.live.values() if actor.parent is parent]


NO_BOX = BoundingBox(ZERO, ZERO, Rotation())
