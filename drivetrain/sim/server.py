"""The server: one thread, one loop, and the two ports of CARLA's protocol.

    with Server(maps, Config(port=2000)) as server:
        server.begin()
        server.serve()

Everything that touches the world happens in the loop, one call at a time, so nothing needs a lock and the order of calls
is the order of what happens. Nothing in it waits for a client. When no client steps the world (asynchronous mode), the
loop does, `free_run_hz` times a second; CARLA itself would go as fast as the machine allows.
"""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drivetrain.sim.blueprints import library
from drivetrain.sim.errors import PortTaken, SimError
from drivetrain.sim.maps import Maps
from drivetrain.sim.orders import Orders
from drivetrain.sim.protocol import structs as s
from drivetrain.sim.protocol.binary import Address, local_host, token
from drivetrain.sim.protocol.codec import Codec
from drivetrain.sim.protocol.rpc import Methods, RpcConnection
from drivetrain.sim.protocol.streams import Streams
from drivetrain.sim.protocol.versions import find
from drivetrain.sim.sensors import Renderer
from drivetrain.sim.world import STATE_STREAM, World, tell_stderr

REAP_S = 1.0
MOST_BEHIND_S = 0.25  # a free run that is later than this starts counting anew
HUSH_S = 0.05  # see `load`


@dataclass(frozen=True)
class Config:
    town: str = ""  # the map to begin with; the first there is, where not said
    host: str = "127.0.0.1"  # who may connect: 0.0.0.0 is everybody, and nothing here asks for a password
    port: int = 2000  # of the calls; the streams are on the next one. 0: any two that are free
    release: str = "0.9.16"  # the CARLA that clients are told they speak to
    free_run_hz: float = 60.0  # ticks per second of the clock in asynchronous mode


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error
    listener.setblocking(False)
    return listener


def listen_twice(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    calls = listen(host, port)
    try:
        return calls, listen(host, port + 1 if port else 0)
    except PortTaken:
        calls.close()
        raise


class Server:
    def __init__(
        self,
        maps: Maps,
        config: Config | None = None,
        *,
        renderer: Renderer | None = None,
        tell: Callable[[str], None] = tell_stderr,
    ):
        self.config, self.tell = config or Config(), tell
        release = find(self.config.release)
        self.listener, streams = listen_twice(self.config.host, self.config.port)
        self.port: int = self.listener.getsockname()[1]
        self.stream_port: int = streams.getsockname()[1]
        self.streams = Streams(streams)
        self.world = World(maps, self.streams, release, renderer=renderer, tell=tell)
        self.orders = Orders(self.world)
        self.managers: dict[int, tuple[str, int]] = {}
        codec = Codec(release.commands, release.field_order)
        self.methods = Methods(release, codec, self.handlers())
        self.reached_at = "127.0.0.1"
        self.clients: dict[int, RpcConnection] = {}
        self.selector = selectors.DefaultSelector()
        self.waker, self.woken = socket.socketpair()
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.selector.register(self.streams, selectors.EVENT_READ, self.pump)
        self.selector.register(self.woken, selectors.EVENT_READ, self.wake)
        self.running, self.next_tick_s = True, 0.0

    def begin(self) -> None:
        """Loads the first map."""
        self.world.load(self.config.town or self.world.maps.names()[0])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def serve(self) -> None:
        """Until `stop`, which any thread may call."""
        self.next_tick_s = next_reap_s = time.monotonic()
        while self.running:
            now = time.monotonic()
            if now >= next_reap_s:
                self.streams.reap()
                next_reap_s = now + REAP_S
            wait_s = next_reap_s - now
            if not self.world.settings.synchronous_mode:
                if now >= self.next_tick_s:
                    self.world.tick()
                    self.world.show()
                    late = time.monotonic() - self.next_tick_s > MOST_BEHIND_S
                    self.next_tick_s = (time.monotonic() if late else self.next_tick_s) + 1 / self.config.free_run_hz
                wait_s = min(wait_s, self.next_tick_s - time.monotonic())
            for key, events in self.selector.select(max(0.0, wait_s)):
                key.data(events)

    def stop(self) -> None:
        self.running = False
        self.waker.send(b"x")

    def close(self) -> None:
        for client in list(self.clients.values()):
            self.drop(client)
        self.streams.shut()
        self.selector.close()
        for one in (self.listener, self.waker, self.woken):
            one.close()

    def wake(self, events: int) -> None:
        self.woken.recv(64)

    def pump(self, events: int) -> None:
        self.streams.pump(0.0)

    def accept(self, events: int) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError as error:  # most of all: no descriptor left
            self.tell(f"a client could not be let in: {error.strerror}")
            time.sleep(0.01)
            return
        client = RpcConnection(connection, self.methods, self.tell)
        self.clients[connection.fileno()] = client
        host = local_host(connection)

        def serve(events: int) -> None:
            self.reached_at = host
            self.serve_client(client, events)

        self.selector.register(connection, selectors.EVENT_READ, serve)

    def serve_client(self, client: RpcConnection, events: int) -> None:
        alive = client.writable() if events & selectors.EVENT_WRITE else True
        if alive and events & selectors.EVENT_READ:
            alive = client.readable()
            self.world.show()
        if not alive:
            self.drop(client)
            return
        key = self.selector.get_key(client.socket)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.wants_to_write() else 0)
        if key.events != wanted:
            self.selector.modify(client.socket, wanted, key.data)

    def drop(self, client: RpcConnection) -> None:
        self.selector.unregister(client.socket)
        del self.clients[client.socket.fileno()]
        client.close()

    def token(self, stream: int) -> s.Token:
        self.streams.expect(stream)
        return s.Token(self.token_bytes(stream))

    def token_bytes(self, stream: int) -> bytes:
        return token(stream & 0xFFFFFFFF, Address(self.reached_at, self.stream_port)) if stream else b""

    def load(self, name: str, reset_settings: bool, layers: object) -> None:
        """Nothing is sent for a moment before the answer and after it. The official client drops its old episode on the
        answer: where its streaming thread then still handles a state, both threads change one table of subscriptions,
        and the process dies. (CARLA takes seconds to load, so nobody sees it there.)"""
        time.sleep(HUSH_S)
        self.world.load(name, reset_settings=reset_settings)
        self.next_tick_s = time.monotonic() + HUSH_S

    def tick(self) -> int:
        self.streams.wait_for_expected()
        return self.world.tick()

    def batch(self, commands: tuple[s.Command, ...], do_tick: bool) -> list[s.BatchAnswer]:
        answers = self.orders.batch(commands)
        if do_tick:
            self.tick()
        return answers

    def actor(self, actor: int) -> s.ActorInfo:
        found = self.world.registry.find(actor)
        return self.world.actor_info(found, self.token_bytes(found.stream))

    def actors(self, ids: tuple[int, ...]) -> list[s.ActorInfo]:
        return [self.actor(one) for one in ids if one in self.world.registry.live]

    def spawn(self, description: s.ActorDescription, transform: s.Transform) -> s.ActorInfo:
        return self.actor(self.world.spawn(description, transform).id)

    def spawn_with_parent(
        self,
        description: s.ActorDescription,
        transform: s.Transform,
        parent: int,
        attachment: s.Attachment,
        socket: str,
    ) -> s.ActorInfo:
        if socket:
            self.tell(f"the socket {socket!r:.60} has no place on a vehicle here; attached to its origin")
        return self.actor(self.world.spawn(description, transform, self.orders.find(parent), attachment).id)

    def destroy(self, actor: int) -> bool:
        found = self.world.registry.find(actor)
        if found.alive:
            self.world.destroy(found)
        return True

    def physics(self, actor: int) -> s.PhysicsControl:
        return self.orders.physics(s.ActorId(actor))

    def wheel_steer_deg(self, actor: int, wheel: int) -> float:
        slot = self.orders.slot(self.orders.vehicle(actor))
        return math.degrees(self.world.fleet.steer_rad()[slot]) if slot is not None and wheel in (0, 1) else 0.0

    def light_states(self) -> list[tuple[int, int]]:
        live = self.world.registry.live
        return [(one, live[one].light_flags) for one in self.world.fleet.ids]

    def add_manager(self, where: tuple[str, int]) -> bool:
        host, port = where
        if port in self.managers:
            return False
        self.managers[port] = (host, port)
        return True

    def manager(self, port: int) -> tuple[str, int]:
        if port not in self.managers:
            raise SimError(f"no TrafficManager is registered on port {port}")
        return self.managers[port]

    def remove_manager(self, port: int) -> bool:
        return self.managers.pop(port, None) is not None

    def set_weather(self, weather: s.Weather) -> None:
        self.world.weather = weather

    def set_imu_gravity(self, gravity_mps2: float) -> None:
        self.world.imu_gravity_mps2 = gravity_mps2

    def light(self, actor: int) -> Any:
        found = self.world.registry.find(actor).light
        if found is None:
            raise SimError(f"actor {actor} is no traffic light")
        return found

    def set_light_time(self, name: str) -> Callable[[int, float], None]:
        return lambda actor, seconds: setattr(self.light(actor), name, max(0.0, seconds))

    def freeze(self, actor: int, frozen: bool) -> None:
        self.light(actor).frozen = frozen

    def freeze_all(self, frozen: bool) -> None:
        for light in self.world.lights.by_actor.values():
            light.frozen = frozen

    def light_group(self, actor: int) -> list[int]:
        return [light.actor for light in self.world.lights.group_of(self.light(actor)).lights()]

    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        world, orders = self.world, self.orders
        episode: dict[str, Callable[..., Any]] = {
            "version": lambda: world.release.name,
            "get_episode_info": lambda: s.EpisodeInfo(world.episode, self.token(STATE_STREAM)),
            "get_sensor_token": self.token,
            "get_episode_settings": lambda: world.settings,
            "set_episode_settings": world.change_settings,
            "get_required_files": lambda folder: (),
            "query_lights_state": lambda client: (),
            "get_map_info": lambda: s.MapInfo(world.map.name, world.spawn_points),
            "get_map_data": lambda: world.map.xodr,
            "get_available_maps": lambda: [f"/Game/Carla/Maps/{name}" for name in world.maps.names()],
            "get_actor_definitions": lambda: library().definitions,
            "get_spectator": lambda: self.actor(world.spectator.id),
            "tick_cue": self.tick,
            "load_new_episode": self.load,
            "copy_opendrive_to_file": world.generate,
            "get_weather_parameters": lambda: world.weather,
            "set_weather_parameters": self.set_weather,
            "get_imui_gravity": lambda: world.imu_gravity_mps2,
            "set_imui_gravity": self.set_imu_gravity,
            "apply_batch": self.batch,
            "is_traffic_manager_running": lambda port: port in self.managers,
            "get_traffic_manager_running": self.manager,
            "add_traffic_manager_running": self.add_manager,
            "destroy_traffic_manager": self.remove_manager,
        }
        actors: dict[str, Callable[..., Any]] = {
            "get_actors_by_id": self.actors,
            "spawn_actor": self.spawn,
            "spawn_actor_with_parent": self.spawn_with_parent,
            "destroy_actor": self.destroy,
            "get_actor_bounding_box": lambda actor: orders.find(actor).box,
            "set_actor_transform": orders.set_transform,
            "set_actor_location": orders.set_location,
            "set_actor_target_velocity": orders.set_velocity,
            "set_actor_target_angular_velocity": orders.set_spin,
            "enable_actor_constant_velocity": orders.hold_velocity,
            "disable_actor_constant_velocity": orders.release_velocity,
            "add_actor_impulse": orders.add_impulse,
            "add_actor_force": orders.add_force,
            "add_actor_angular_impulse": orders.add_spin_impulse,
            "add_actor_torque": orders.add_torque,
            "set_actor_simulate_physics": orders.set_simulated,
            "set_actor_enable_gravity": orders.set_gravity,
            "set_actor_collisions": orders.set_solid,
            "apply_control_to_vehicle": orders.control_vehicle,
            "apply_control_to_walker": orders.control_walker,
            "apply_ackermann_control_to_vehicle": orders.control_ackermann,
            "apply_ackermann_controller_settings": orders.set_ackermann,
            "get_ackermann_controller_settings": lambda actor: orders.vehicle(actor).ackermann.settings,
            "get_physics_control": self.physics,
            "apply_physics_control": orders.set_physics,
            "get_vehicle_light_state": lambda actor: s.LightState(orders.vehicle(actor).light_flags),
            "get_vehicle_light_states": self.light_states,
            "set_vehicle_light_state": lambda actor, state: orders.set_lights(actor, state.flags),
            "get_wheel_steer_angle": self.wheel_steer_deg,
        }
        lights: dict[str, Callable[..., Any]] = {
            "set_traffic_light_state": orders.set_traffic_light,
            "set_traffic_light_green_time": self.set_light_time("green_s"),
            "set_traffic_light_yellow_time": self.set_light_time("yellow_s"),
            "set_traffic_light_red_time": self.set_light_time("red_s"),
            "freeze_traffic_light": self.freeze,
            "freeze_all_traffic_lights": self.freeze_all,
            "reset_traffic_light_group": lambda actor: world.lights.group_of(self.light(actor)).reset(),
            "reset_all_traffic_lights": lambda: world.lights.reset(),
            "get_group_traffic_lights": self.light_group,
            "get_light_boxes": lambda actor: self.light(actor).place.boxes,
        }
        return episode | actors | lights
