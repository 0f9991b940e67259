"""A world, served: what `drivetrain sim` does; `python -m drivetrain.sim.serve` needs nothing of the rest of the package."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass, fields
from typing import Any

from drivetrain.sim.errors import SimError
from drivetrain.sim.places import Places
from drivetrain.sim.protocol.structs import Transform, Vector3D
from drivetrain.sim.render.renderer import Render
from drivetrain.sim.sensors import View
from drivetrain.sim.server import Config, Server
from drivetrain.sim.traffic import inhabit
from drivetrain.sim.world import World, tell_stderr

MOST_TRAFFIC = 500


@dataclass(frozen=True)
class Options:
    town: str = "grid"  # the first map: grid, roundabout, highway, rural or Random-<seed>
    traffic: int = 0  # vehicles of the server's own that drive about
    seed: int = 0  # of the traffic
    host: str = "127.0.0.1"  # who may connect: 0.0.0.0 is everybody, and nothing here asks for a password
    port: int = 2000  # of the calls; streams are on the next one. 0: any two that are free
    release: str = "0.9.16"  # the CARLA that clients are told they speak to
    free_run_hz: float = 60.0  # ticks per second while no client is in synchronous mode
    rendering: bool = True  # cameras, LiDAR and radar; without, clients that ask for one are told so


def serve(options: Options) -> None:
    """Until it is interrupted or ended."""
    if not 0 <= options.traffic <= MOST_TRAFFIC:
        raise SimError(f"got traffic={options.traffic}, expected 0 to {MOST_TRAFFIC}")
    if not 0 < options.free_run_hz <= 1000:
        raise SimError(f"got free_run_hz={options.free_run_hz}, expected more than 0 and at most 1000")
    if not 0 <= options.port < 65535:
        raise SimError(f"got port={options.port}, expected 0 to 65534")
    config = Config(options.town, options.host, options.port, options.release, options.free_run_hz)
    renderer = Render(tell_stderr) if options.rendering else None
    with Server(Places(tell_stderr), config, renderer=renderer) as server:
        inhabit(server.world, options.traffic, options.seed)
        server.begin()
        if renderer is not None:
            warm(renderer, server.world)
        signal.signal(signal.SIGTERM, lambda *_: server.stop())
        world = server.world
        print(
            f"CARLA {options.release} at {options.host}:{server.port} (streams {server.stream_port}):"
            f" {world.map.name}, {len(world.fleet)} vehicles of traffic. Ctrl-C ends it",
            flush=True,
        )
        try:
            server.serve()
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)


def warm(renderer: Render, world: World) -> None:
    """Compiles what draws, or loads it where it has been compiled before, so that no client waits for it."""
    start_s = time.monotonic()
    told = False
    world.state.refresh(world.registry, world.fleet)
    scene = world.scene(0.05)
    at = world.spawn_points[0] if world.spawn_points else Transform()
    size = {"image_size_x": "32", "image_size_y": "18", "fov": "90"}
    lidar = {
        "channels": "2", "range": "20", "points_per_second": "400", "rotation_frequency": "20", "upper_fov": "5",
        "lower_fov": "-20", "horizontal_fov": "360",
    }  # fmt: skip
    for blueprint, settings in (
        *(
            (f"sensor.camera.{name}", size)
            for name in ("rgb", "depth", "semantic_segmentation", "optical_flow", "normals")
        ),
        ("sensor.lidar.ray_cast_semantic", lidar),
    ):
        renderer.render(scene, View(0, 0, blueprint, settings, at, Vector3D()))
        renderer.memory.clear()
        if time.monotonic() - start_s > 3.0 and not told:
            told = True
            print("compiling what draws the world: once, for a minute", file=sys.stderr, flush=True)
    renderer.forget()


def options_from(arguments: list[str]) -> Options:
    """`--name value` for each field; the parser of those who have only this part of the package."""
    values: dict[str, Any] = {}
    known = {field.name: field for field in fields(Options)}
    pairs = list(zip(arguments[::2], arguments[1::2], strict=False))
    for flag, value in pairs:
        name = flag.removeprefix("--").replace("-", "_")
        if name not in known or len(arguments) % 2:
            raise SimError(f"got {flag}, expected pairs of --name value; there are {', '.join(known)}")
        kind = type(getattr(Options(), name))
        values[name] = value.lower() in ("true", "1", "yes") if kind is bool else kind(value)
    return Options(**values)


if __name__ == "__main__":
    try:
        serve(options_from(sys.argv[1:]))
    except SimError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
