"""How fast the embedded CARLA server goes, through the official client, every picture freshly drawn.

    python bench/sim.py [--ticks 600] [--rounds 3]        a table, and bench/results/sim.json
    python bench/sim.py --memory 100000                    the server's memory over so many ticks

Synchronous, 20 vehicles of the server's own traffic, 0.05 s a tick. The cameras ride on a vehicle of the client's that
stands; each tick waits for every sensor's message of that tick. Gymnasium's CarRacing is stepped in the same run. Needs
the `carla` extra.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parent / "results" / "sim.json"
TRAFFIC = 20
WARM = 30
Sensors = list[tuple[str, dict[str, str]]]
SMALL: Sensors = [("sensor.camera.rgb", {"image_size_x": "160", "image_size_y": "90"})]
MEDIUM = {"image_size_x": "320", "image_size_y": "180"}
FOUR: Sensors = [
    ("sensor.camera.rgb", MEDIUM),
    ("sensor.camera.depth", MEDIUM),
    ("sensor.camera.semantic_segmentation", MEDIUM),
    ("sensor.lidar.ray_cast", {"channels": "32", "range": "50"}),
]
CASES: dict[str, tuple[Sensors, float]] = {
    "nothing listened to": ([], 0.0),
    "RGB 160x90": (SMALL, 400.0),
    "RGB, depth and labels 320x180, LiDAR of 32 channels": (FOUR, 100.0),
}


def serve(*flags: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "drivetrain", "sim", "--port", "0", *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    return server, int(line.split(" (streams")[0].rpartition(":")[2])


def connect(port: int) -> tuple[Any, Any]:
    import carla

    client = carla.Client("127.0.0.1", port)
    client.set_timeout(60)
    world = client.get_world()
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
    world.apply_settings(settings)
    return client, world


def mount(world: Any, sensors: Sensors) -> list[tuple[Any, queue.Queue[Any]]]:
    import carla

    library, heard = world.get_blueprint_library(), []
    car = next(
        filter(
            None,
            (
                world.try_spawn_actor(library.find("vehicle.lincoln.mkz_2020"), p)
                for p in world.get_map().get_spawn_points()
            ),
        )
    )
    for name, settings in sensors:
        blueprint = library.find(name)
        for key, value in settings.items():
            blueprint.set_attribute(key, value)
        sensor = world.spawn_actor(blueprint, carla.Transform(carla.Location(x=1.0, z=1.8)), attach_to=car)
        messages: queue.Queue[Any] = queue.Queue()
        sensor.listen(messages.put)
        heard.append((sensor, messages))
    return heard


def tick(world: Any, heard: list[tuple[Any, queue.Queue[Any]]]) -> None:
    frame = world.tick()
    for _, messages in heard:
        while messages.get(timeout=30).frame < frame:
            pass


def rate(town: str, sensors: Sensors, ticks: int) -> dict[str, Any]:
    server, port = serve("--town", town, "--traffic", str(TRAFFIC))
    try:
        _, world = connect(port)
        heard = mount(world, sensors)
        for _ in range(WARM):
            tick(world, heard)
        spent_s, start = cpu_s(server.pid), time.perf_counter()
        for _ in range(ticks):
            tick(world, heard)
        wall_s = time.perf_counter() - start
        moving = sum(actor.get_velocity().length() > 0.5 for actor in world.get_actors().filter("vehicle.*"))
        found = {
            "ticks_per_s": ticks / wall_s,
            "server_cpu_ms": (cpu_s(server.pid) - spent_s) / ticks * 1000,
            "moving": moving,
        }
        for sensor, _ in heard:
            sensor.stop()
        return found
    finally:
        server.kill()
        server.wait()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def carracing(steps: int) -> float:
    import gymnasium

    env = gymnasium.make("CarRacing-v3")
    env.reset(seed=0)
    start = time.perf_counter()
    for _ in range(steps):
        if any(env.step(env.action_space.sample())[2:4]):
            env.reset()
    return steps / (time.perf_counter() - start)


def over_time(ticks: int) -> dict[str, Any]:
    """Memory of the server, at ten places over so many ticks, one camera on."""
    server, port = serve("--traffic", str(TRAFFIC))
    try:
        _, world = connect(port)
        heard = mount(world, SMALL)
        for _ in range(1000):
            tick(world, heard)
        found = [memory_mb(server.pid)]
        for _ in range(10):
            for _ in range(ticks // 10):
                tick(world, heard)
            found.append(memory_mb(server.pid))
            print(f"{found[-1]:.1f} MB", flush=True)
        return {
            "ticks": ticks,
            "megabytes": [round(value, 1) for value in found],
            "grew_mb": round(found[-1] - found[0], 1),
        }
    finally:
        server.kill()
        server.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ticks", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--town", default="grid")
    parser.add_argument("--memory", type=int, default=0, metavar="TICKS")
    options = parser.parse_args()
    report = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if options.memory:
        report["memory"] = over_time(options.memory)
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
        return 0 if report["memory"]["grew_mb"] < 20 else 3
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
    racing = []
    for _ in range(options.rounds):
        for name, (sensors, _) in CASES.items():
            rounds[name].append(rate(options.town, sensors, options.ticks))
            print(f"{name}: {rounds[name][-1]}", flush=True)
        racing.append(carracing(300))
    report["town"], report["traffic"] = options.town, TRAFFIC
    report["gymnasium_carracing_steps_per_s"] = statistics.median(racing)
    report["cases"] = {
        name: {
            "ticks_per_s": statistics.median(one["ticks_per_s"] for one in found),
            "rounds": found,
            "wanted": CASES[name][1],
        }
        for name, found in rounds.items()
    }
    report["passed"] = all(case["ticks_per_s"] >= case["wanted"] for case in report["cases"].values())
    RESULT.write_text(json.dumps(report, indent=1) + "\n")
    for name, case in report["cases"].items():
        print(f"{name}: {case['ticks_per_s']:.0f} ticks/s (wanted {case['wanted']:.0f})")
    print(f"Gymnasium's CarRacing: {report['gymnasium_carracing_steps_per_s']:.0f} steps/s")
    return 0 if report["passed"] else 3


if __name__ == "__main__":
    sys.exit(main())
