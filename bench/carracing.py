"""How fast is our drawing of CarRacing, beside Gymnasium's own and EnvPool's? And is every picture the same?

    python bench/carracing.py            writes bench/results/carracing_speed.json, in some three minutes
    python bench/carracing.py --json     the same, and prints it

One run, in rounds: each round all three play the same actions from the same seed, at frame skip 1 and 4, in an order
that is drawn anew. Counted are steps of the game per second of processor time (of all threads), after a first second of
play, tracks not included. A ratio is taken within its round, where a busy machine slows both sides alike, and its
interval is over rounds. Pictures are compared while no clock runs; EnvPool's tracks are other ones, so they cannot be.

Gymnasium plays through its own `gym.make`, a skip being steps in a row; ours through `make_env`, our wrappers included;
EnvPool eight worlds side by side, as `pool.py` trains with, because it is not made for one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

STEPS = 400  # of the game, per contender, skip and round
WARM = 60  # the camera has zoomed in by then
SKIPS = (1, 4)
POOLED = 8  # EnvPool's worlds
WANTED = {1: 2.0, 4: 6.0}  # times Gymnasium's speed

Play = tuple[float, list[np.ndarray]]  # steps per second of processor time, and what was seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="print the whole report")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "carracing_speed.json")
    options = parser.parse_args()
    report = measure(options.rounds)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1) if options.json else in_words(report))
    return 0 if report["passed"] else 3


def measure(rounds: int) -> dict[str, Any]:
    contenders: dict[str, Callable[[int, int], Play]] = {"gymnasium": play_gymnasium, "fast": play_fast}
    if pool_is_there():
        contenders["envpool"] = play_envpool
    rates: dict[tuple[str, int], list[float]] = {(name, skip): [] for name in contenders for skip in SKIPS}
    compared = unequal = 0
    for number in range(rounds):
        seen: dict[tuple[str, int], list[np.ndarray]] = {}
        for name, skip in np.random.default_rng(number).permutation(list(rates)).tolist():
            rate, seen[name, int(skip)] = contenders[name](int(skip), number)
            rates[name, int(skip)].append(rate)
        for skip in SKIPS:
            pairs = list(zip(seen["gymnasium", skip], seen["fast", skip], strict=True))
            compared, unequal = compared + len(pairs), unequal + sum(not np.array_equal(*pair) for pair in pairs)
    report: dict[str, Any] = {
        f"skip_{skip}": {name: told(rates[name, skip], rates["gymnasium", skip]) for name in contenders}
        for skip in SKIPS
    }
    enough = all(report[f"skip_{skip}"]["fast"]["times_gymnasium"]["low"] >= WANTED[skip] for skip in SKIPS)
    return {
        **report,
        "pictures": {"compared": compared, "unequal": unequal},
        "wanted_times_gymnasium": {f"skip_{skip}": times for skip, times in WANTED.items()},
        "passed": enough and unequal == 0,
        "rounds": rounds,
        "steps_per_round": STEPS,
        "unit": "steps of the game per second of processor time; intervals are 95%, over rounds",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("gymnasium", "pygame-ce", "numpy", "envpool") if installed(name)},
    }


def told(rates: list[float], gymnasium: list[float]) -> dict[str, Any]:
    from drivetrain.stats import mean_interval

    ratios = [mine / theirs for mine, theirs in zip(rates, gymnasium, strict=True)]
    return {
        "steps_per_s": {key: round(value) for key, value in mean_interval(rates).to_json().items()},
        "times_gymnasium": {key: round(value, 2) for key, value in mean_interval(ratios).to_json().items()},
    }


def play_gymnasium(skip: int, seed: int) -> Play:
    import gymnasium as gym

    env = gym.make("CarRacing-v3")
    env.reset(seed=seed)

    def act(action: np.ndarray) -> np.ndarray:
        for _ in range(skip):
            picture, _, terminated, truncated, _ = env.step(action)
            assert not terminated, "the actions are meant to keep the car on the road"
            assert not truncated, f"{WARM + STEPS} steps are meant to be less than an episode"
        return picture

    return timed(act, skip, seed)


def play_fast(skip: int, seed: int) -> Play:
    from drivetrain.envs.words import make_env
    from drivetrain.sample import FRONT

    env = make_env(f"carracing-continuous:drawing=fast,repeat={skip}")
    env.reset(seed=seed)
    return timed(lambda action: env.step(action)[0][FRONT], skip, seed)


def play_envpool(skip: int, seed: int) -> Play:
    from drivetrain.envs.worlds import make_worlds
    from drivetrain.sample import FRONT

    worlds = make_worlds(f"carracing-continuous:drawing=envpool,repeat={skip}", POOLED)
    worlds.rebuild(seed)
    rate, seen = timed(lambda action: worlds.step(np.stack([action] * POOLED)).observation[FRONT], skip, seed)
    worlds.close()
    return rate * POOLED, seen


def timed(act: Callable[[np.ndarray], np.ndarray], skip: int, seed: int) -> Play:
    actions = driven(seed)[::skip]
    for action in actions[: WARM // skip]:
        act(action)
    rest, seen = actions[WARM // skip :], []
    began = time.process_time()
    for action in rest:
        seen.append(act(action))
    return len(rest) * skip / (time.process_time() - began), seen


@lru_cache(maxsize=1)
def driven(seed: int) -> np.ndarray:
    """What keeps a car on that seed's road at town speed, [WARM + STEPS, 3]; EnvPool's cars swerve over their fields."""
    from drivetrain.envs.words import make_env

    env: Any = make_env("carracing-continuous")
    _, info = env.reset(seed=seed)
    actions = []
    for _ in range(WARM + STEPS):
        line, here = info["privileged.track"], info["privileged.position_m"]
        nearest = int(np.linalg.norm(line[: info["privileged.tiles"], :2] - here, axis=1).argmin())
        ahead = line[nearest + 4, :2] - here
        off = math.remainder(math.atan2(ahead[1], ahead[0]) - info["privileged.heading_rad"], 2 * math.pi)
        gas = 0.3 if info["privileged.speed_mps"] < 25 else 0.0
        actions.append(np.array([np.clip(-2 * off, -1, 1), gas, 0.0], dtype=np.float32))
        *_, info = env.advance(actions[-1])
    return np.stack(actions)


def pool_is_there() -> bool:
    from drivetrain.envs.worlds import make_worlds
    from drivetrain.errors import MissingExtra

    try:
        make_worlds("carracing-continuous:drawing=envpool", 1).close()
    except MissingExtra as lack:
        print(f"without EnvPool: {lack}", file=sys.stderr)
        return False
    return True


def installed(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def in_words(report: dict[str, Any]) -> str:
    lines = []
    for skip in SKIPS:
        lines.append(f"frame skip {skip}:")
        for name, row in report[f"skip_{skip}"].items():
            speed, times = row["steps_per_s"], row["times_gymnasium"]
            lines.append(
                f"  {name:<10} {speed['value']:>6} steps/s   {times['value']:>6.2f} times Gymnasium's "
                f"({times['low']} to {times['high']})"
            )
    pictures = report["pictures"]
    lines.append(f"{pictures['compared']} pictures compared with Gymnasium's, {pictures['unequal']} differ")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
