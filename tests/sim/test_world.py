"""The world without a wire: what it says over 2,000 ticks is the same twice, byte for byte."""

import hashlib

import pytest
from town import Lines

from drivetrain.sim.errors import SimError
from drivetrain.sim.orders import APPLY, Orders
from drivetrain.sim.protocol.codec import Codec, WireError
from drivetrain.sim.protocol.structs import (
    ActorDescription,
    ApplyTransform,
    Command,
    EpisodeSettings,
    Rotation,
    Spawn,
    Transform,
    Vector3D,
    VehicleControl,
    WalkerControl,
    Weather,
)
from drivetrain.sim.protocol.versions import RELEASES, find
from drivetrain.sim.world import World


class Record:
    """An outlet that keeps a hash of all that was said."""

    def __init__(self):
        self.said, self.count = hashlib.sha256(), 0

    def open(self, stream): ...
    def close(self, stream): ...

    def has_listeners(self, stream):
        return True

    def publish(self, stream, body, *, keep=False, later=False):
        self.said.update(body)
        self.count += 1


def make(outlet):
    world = World(Lines(), outlet, find("0.9.16"), clock=lambda: 0.0)
    world.load("Line")
    world.change_settings(EpisodeSettings(synchronous_mode=True, fixed_delta_seconds=0.05))
    return world


def lived(ticks):
    record = Record()
    world = make(record)
    orders, points = Orders(world), world.spawn_points
    cars = [world.spawn(ActorDescription(0, "vehicle.tesla.model3"), points[2 * i]) for i in range(6)]
    walker = world.spawn(ActorDescription(0, "walker.pedestrian.0001"), Transform(Vector3D(60, 9, 1)))
    for name in ("sensor.other.imu", "sensor.other.gnss", "sensor.other.collision"):
        world.spawn(ActorDescription(0, name), Transform(), cars[0])
    orders.control_walker(walker.id, WalkerControl(Vector3D(0.0, -1.0, 0.0), 1.0))
    for tick in range(ticks):
        for number, car in enumerate(cars):
            steer = 0.1 * ((tick // 40 + number) % 3 - 1)
            orders.control_vehicle(car.id, VehicleControl(0.3 + 0.1 * number, steer, brake=float(tick % 200 > 180)))
        world.tick()
    return record.said.hexdigest(), record.count


@pytest.mark.slow
def test_the_same_life_twice():
    first, second = lived(2000), lived(2000)
    assert first == second
    assert first[1] > 3 * 2000
    assert lived(1999) != first


def test_sensors_without_a_renderer_are_refused_by_name():
    with pytest.raises(SimError, match=r"sensor\.lidar\.ray_cast is not offered by this server: .* without a renderer"):
        make(Record()).spawn(ActorDescription(0, "sensor.lidar.ray_cast"), Transform())
    with pytest.raises(SimError, match=r"sensor\.other\.obstacle is not offered"):
        make(Record()).spawn(ActorDescription(0, "sensor.other.obstacle"), Transform())


def test_structs_survive_the_wire():
    codec = Codec(find("0.9.16").commands)
    for kind, value in (
        (Transform, Transform(Vector3D(1.0, 2.0, 3.0), Rotation(4.0, 5.0, 6.0))),
        (EpisodeSettings, EpisodeSettings(fixed_delta_seconds=0.1)),
        (EpisodeSettings, EpisodeSettings()),
        (Weather, Weather(*map(float, range(14)))),
    ):
        assert codec.decoder(kind)(codec.encoder(kind)(value)) == value


def test_a_spawn_command_with_commands_inside():
    raw = [
        [
            0,
            [
                [1, "vehicle.audi.tt", []],
                [[0, 0, 0], [0, 0, 0]],
                [False],
                200,
                "",
                [[[6, [0, [[1, 2, 3], [0, 0, 0]]]]]],
            ],
        ]
    ]
    command = Codec(find("0.9.16").commands).decoder(Command)(raw)
    assert isinstance(command, Spawn)
    assert command.parent is None
    assert command.do_after == (ApplyTransform(0, Transform(Vector3D(1.0, 2.0, 3.0))),)


@pytest.mark.parametrize("raw", [None, [], [[1, 2], [0, 0, 0]], [[1, 2, "x"], [0, 0, 0]], [[1, 2, 3]], {"a": 1}])
def test_what_is_no_transform_is_refused(raw):
    with pytest.raises(WireError, match="expected"):
        Codec(()).decoder(Transform)(raw)


def test_a_release_may_order_its_fields_otherwise():
    codec = Codec((), {Rotation: ("yaw", "pitch")})
    assert codec.decoder(Rotation)([90, 1]) == Rotation(pitch=1.0, yaw=90.0)
    assert codec.encoder(Rotation)(Rotation(pitch=1.0, yaw=90.0)) == [90.0, 1.0]


def test_every_release_knows_each_command_once():
    for release in RELEASES.values():
        assert len(set(release.commands)) == len(release.commands)
        assert {command.__name__ for command in release.commands} == {one.__name__ for one in Command.__subclasses__()}
        assert set(release.commands) == {Spawn, *APPLY}
    with pytest.raises(SimError, match=r"got CARLA release '0\.8'"):
        find("0.8")
