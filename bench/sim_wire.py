"""How much of a tick the wire costs: the official client ticks a server whose pictures cost nothing.

    python bench/sim_wire.py [--ticks 1000]

Needs the `carla` extra. A line of JSON per case: cameras of one colour, and cars that do nothing but roll.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TOWN = Path(__file__).resolve().parents[1] / "tests" / "sim" / "town.py"
CASES = (
    {"cars": 0, "cameras": 0, "size": (160, 90)},
    {"cars": 0, "cameras": 1, "size": (160, 90)},
    {"cars": 0, "cameras": 4, "size": (160, 90)},
    {"cars": 0, "cameras": 1, "size": (800, 600)},
    {"cars": 20, "cameras": 1, "size": (160, 90)},
)


def measure(port: int, ticks: int, cars: int, cameras: int, size: tuple[int, int]) -> dict[str, Any]:
    import carla

    client = carla.Client("127.0.0.1", port)
    client.set_timeout(20)
    world = client.load_world("Line")
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
    world.apply_settings(settings)
    library = world.get_blueprint_library()
    for point in world.get_map().get_spawn_points()[:cars]:
        world.spawn_actor(library.find("vehicle.tesla.model3"), point)
    blueprint = library.find("sensor.camera.rgb")
    blueprint.set_attribute("image_size_x", str(size[0]))
    blueprint.set_attribute("image_size_y", str(size[1]))
    heard: list[tuple[Any, queue.Queue[Any]]] = []
    for _ in range(cameras):
        heard.append((world.spawn_actor(blueprint, carla.Transform()), queue.Queue()))
        heard[-1][0].listen(heard[-1][1].put)
    for _ in range(20):
        tick(world, heard)
    start = time.perf_counter()
    for _ in range(ticks):
        tick(world, heard)
    rate = ticks / (time.perf_counter() - start)
    for sensor, _ in heard:
        sensor.destroy()
    return {"cars": cars, "cameras": cameras, "size": list(size), "ticks_per_s": round(rate)}


def tick(world: Any, heard: list[tuple[Any, queue.Queue[Any]]]) -> None:
    """One tick, and every camera's picture of it."""
    frame = world.tick()
    for _, pictures in heard:
        while pictures.get(timeout=10).frame < frame:
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=1000)
    ticks = parser.parse_args().ticks
    server = subprocess.Popen([sys.executable, str(TOWN), "--renderer"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().split()[0])
        for case in CASES:
            print(json.dumps(measure(port, ticks, **case)), flush=True)  # type: ignore[arg-type]
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
