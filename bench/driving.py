"""Driving in CARLA, measured on the embedded server: the expert, data collection, speed, a cloned policy and its deadlines.

    python bench/driving.py expert                 20 routes in built-in towns, 10 in towns drawn at random, 20 other cars
    python bench/driving.py speed                  steps a second of the environment, one world and two side by side
    python bench/driving.py collect                frames a second and bytes a frame, by the expert and by TrafficManager
    python bench/driving.py policy RUN             a policy in a town it has seen, in one it has not, and without its picture
    python bench/driving.py drive RUN              the deadline report at 20 Hz

Each writes its part of bench/results/driving.json. TrafficManager listens on all addresses: `collect` runs it in a network
of its own (unshare -n), and leaves it out where that cannot be made.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).resolve().parent / "results" / "driving.json"
BUILT_IN = "carla:town=grid+roundabout+highway+rural,traffic=20"
DRAWN = "carla:town=Random,traffic=20"
SEED = 40_000
SEEN, UNSEEN = "grid", "Random-501+Random-502+Random-503"
ALONE = 'ip link set lo up && exec "$@"'


def keep(part: str, found: Any) -> None:
    said = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    said[part] = found
    RESULT.write_text(json.dumps(said, indent=1) + "\n")


def brief(said: dict[str, Any]) -> dict[str, Any]:
    """Of a result what a table needs: each episode's score, and the summary."""
    result = said["result"]
    episodes = [{"seed": s, **score} for s, score in zip(result["seeds"], result["scores"], strict=True)]
    return {"env": result["env"], "driving": result["driving"], "episodes": episodes}


def judged(who: str, env: str, episodes: int, seed: int = SEED) -> dict[str, Any]:
    from drivetrain import evaluate

    said = evaluate.compare(who, evaluate.Config(episodes=episodes, seed=seed, env=env, lanes=1))
    print(evaluate.in_words(said), flush=True)
    return brief(said)


def expert(_: str) -> None:
    keep("expert", {"built in": judged("carla", BUILT_IN, 20), "drawn at random": judged("carla", DRAWN, 10)})


def speed(_: str, steps: int = 400) -> None:
    """Half throttle, wherever that leads."""
    from drivetrain.envs.worlds import make_worlds

    found = {}
    for hz in (10, 20):
        for count in (1, 2):
            worlds = make_worlds(f"carla:town=grid,hz={hz}", count)
            worlds.rebuild(SEED)
            action = np.tile(np.array([0.0, 0.4, 0.0], np.float32), (count, 1))
            for _warm in range(20):
                worlds.step(action)
            start = time.perf_counter()
            for _step in range(steps):
                worlds.step(action)
            found[f"{count} at {hz} Hz"] = steps * count / (time.perf_counter() - start)
            worlds.close()
            print(f"{count} world(s), {hz} Hz: {found[f'{count} at {hz} Hz']:.0f} steps/s", flush=True)
    keep("steps_per_s", found)


def collect(_: str) -> None:
    found = {}
    for by, words in (("carla", []), ("autopilot", ["unshare", "-n", "sh", "-c", ALONE, "sh"])):
        if words and subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
            print("no network of its own can be made here: TrafficManager is left out")
            continue
        for sensors in ("", "lidar+radar+imu"):
            with tempfile.TemporaryDirectory() as folder:
                env = "carla:town=grid,traffic=10,length=150,turns=0" + (f",sensors={sensors}" if sensors else "")
                flags = [
                    "--env",
                    env,
                    "--by",
                    by,
                    "--episodes",
                    "3",
                    "--seed",
                    str(SEED),
                    "--output-dir",
                    f"{folder}/set",
                ]
                start = time.perf_counter()
                command = [*words, sys.executable, "-m", "drivetrain", "collect", *flags]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(done.stderr)
                wall_s = time.perf_counter() - start
                frames = int(done.stdout.split(" frames")[0].split()[-1])
                size = sum(path.stat().st_size for path in Path(folder, "set").rglob("*") if path.is_file())
                row = {"frames_per_s": frames / wall_s, "bytes_per_frame": size / frames, "frames": frames}
                found[f"{by}, {sensors or 'camera'}"] = row
                print(f"{by}, {sensors or 'camera'}: {row}", flush=True)
    keep("collect", found)


def policy(run: str, episodes: int = 12) -> None:
    more = "length=300,turns=2,action=path,state=command"
    found = {}
    for name, town, blank in (("seen", SEEN, 0), ("not seen", UNSEEN, 0), ("seen, blank picture", SEEN, 1)):
        found[name] = judged(run, f"carla:town={town},{more},blank={blank}", episodes)
    keep("policy", found)


def drive(run: str) -> None:
    from drivetrain import drive as verb

    more = "town=grid,action=path,state=command"
    said = verb.drive(run, verb.Config(env=f"carla:{more}", hz=20, routes=2, page=False, seed=SEED))
    print(verb.in_words(said))
    keep("drive", said)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("expert", "speed", "collect", "policy", "drive"))
    parser.add_argument("run", nargs="?", default="runs/carla")
    asked = parser.parse_args()
    {"expert": expert, "speed": speed, "collect": collect, "policy": policy, "drive": drive}[asked.part](asked.run)
