"""How fast do we train beside Stable-Baselines3, and how well? Same settings, same threads, in one run.

    python bench/online_rl.py                       PPO and DQN on CartPole, SAC on Pendulum; some 30 minutes
    python bench/online_rl.py --only halfcheetah    SAC on HalfCheetah, 100,000 steps a side; an hour for each round
    ... --rounds 3 --go-on                          keeps the rounds that the result holds already, and adds the missing ones

In rounds: each trains a new seed with ours and with theirs, one after the other, each in a process of its own with one
thread, at the settings that rl-baselines3-zoo tuned for theirs. Steps per second count the whole of training, by processor
time (other work on the machine hardly shows in it) and by the clock. Then both play the same 20 seeds, greedily.
Writes bench/results/online_rl-NAME.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
EVALUATED = range(5_000, 5_020)


@dataclass(frozen=True)
class Case:
    algorithm: str
    env: str  # ours
    gym: str  # theirs
    steps: int
    faster: float  # than theirs, at least
    ours: dict[str, Any]  # where our defaults are others than the zoo's
    theirs: dict[str, Any]
    worlds: int = 1
    rounds: int = 3


CASES = {
    "ppo": Case(
        "ppo", "cartpole", "CartPole-v1", 100_000, 2.0, {},
        {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "ent_coef": 0.0,
         "learning_rate": lambda left: left * 1e-3, "clip_range": lambda left: left * 0.2},
        worlds=8,
    ),
    "dqn": Case(
        "dqn", "cartpole", "CartPole-v1", 50_000, 1.5, {"lr": 2.3e-3, "anneal": False, "n_step": 1},
        {"learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1_000, "gamma": 0.99,
         "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16,
         "exploration_final_eps": 0.04, "policy_kwargs": {"net_arch": [256, 256]}},
    ),
    "sac": Case("sac", "pendulum", "Pendulum-v1", 20_000, 1.3, {}, {"learning_rate": 1e-3}),
    "halfcheetah": Case(
        "sac", "halfcheetah", "HalfCheetah-v5", 100_000, 1.0,
        {"lr": 3e-4, "actor_lr": 3e-4, "warmup": 10_000}, {"learning_starts": 10_000},
    ),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=["ppo", "dqn", "sac"])
    parser.add_argument("--rounds", type=int, default=0, help="0 takes each case's own")
    parser.add_argument("--go-on", action="store_true", help="keep the rounds that are in the result already")
    parser.add_argument("--inside", nargs=3, metavar=("SIDE", "CASE", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        side, name, seed = options.inside
        print(json.dumps({"ours": train_ours, "theirs": train_theirs}[side](CASES[name], int(seed))))
        return 0
    reports = [compare(name, options.rounds or CASES[name].rounds, options.go_on) for name in options.only]
    return 0 if all(report["passed"] for report in reports) else 3


def compare(name: str, rounds: int, go_on: bool) -> dict[str, Any]:
    case, sides = CASES[name], ("ours", "theirs")
    path = HERE / "results" / f"online_rl-{name}.json"
    had = json.loads(path.read_text()) if go_on and path.exists() else {}
    found: dict[str, list[dict[str, Any]]] = {side: had.get(side, []) for side in sides}
    for seed in range(len(found["ours"]), rounds):
        for side in sides if seed % 2 == 0 else sides[::-1]:
            found[side].append(inside(side, name, seed))
            one = found[side][-1]
            mean = sum(one["returns"]) / len(one["returns"])
            print(
                f"{name}, seed {seed}, {side}: {one['steps'] / one['cpu_s']:.0f} steps/s, return {mean:.1f}", flush=True
            )
        path.write_text(json.dumps(judged(name, case, found["ours"], found["theirs"]), indent=1) + "\n")
    report = judged(name, case, found["ours"], found["theirs"])
    print(in_words(report), flush=True)
    return report


def inside(side: str, name: str, seed: int) -> dict[str, Any]:
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--inside", side, name, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads})
    if done.returncode:
        raise SystemExit(f"{side} {name} ended with {done.returncode}:\n{done.stderr}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def judged(name: str, case: Case, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    from drivetrain import stats

    def ratio(clock: str) -> list[float]:
        return [b[clock] / a[clock] for a, b in zip(ours, theirs, strict=True)]

    cpu, wall = stats.mean_interval(ratio("cpu_s")), stats.mean_interval(ratio("wall_s"))
    mine, others = ([x for one in side for x in one["returns"]] for side in (ours, theirs))
    pair = stats.paired([sum(o["returns"]) / 20 for o in ours], [sum(t["returns"]) / 20 for t in theirs])
    not_worse = sum(mine) / len(mine) >= sum(others) / len(others) or pair.low is None or (pair.high or 0) >= 0
    return {
        "case": name,
        "title": f"{case.algorithm.upper()} on {case.gym}, {case.steps:,} steps",
        "steps": case.steps,
        "versions": {p: version(p) for p in ("torch", "stable-baselines3", "gymnasium")},
        "machine": platform.processor() or platform.machine(),
        "ours_steps_per_s": [one["steps"] / one["cpu_s"] for one in ours],
        "theirs_steps_per_s": [one["steps"] / one["cpu_s"] for one in theirs],
        "times_as_fast": cpu.to_json(),
        "times_as_fast_by_the_clock": wall.to_json(),
        "wanted": case.faster,
        "ours_return": stats.summary(mine).to_json(),
        "theirs_return": stats.summary(others).to_json(),
        "return_by_seed": pair.to_json(),
        "passed": cpu.value >= case.faster and not_worse,
        "ours": ours,
        "theirs": theirs,
    }


def in_words(report: dict[str, Any]) -> str:
    speed, mine, theirs = report["times_as_fast"], report["ours_return"], report["theirs_return"]
    sure = f"95% interval {speed['low']:.2f} to {speed['high']:.2f}" if speed["low"] else "one round"
    return (
        f"{report['case']}: {speed['value']:.2f} times as fast ({sure}, wanted {report['wanted']}); "
        f"return {mine['mean']:.1f} against {theirs['mean']:.1f}"
    )


def timed(work: Callable[[], Any]) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


def train_ours(case: Case, seed: int) -> dict[str, Any]:
    import torch

    from drivetrain import catalog, config, evaluate
    from drivetrain.run import Run

    torch.set_num_threads(1)
    algorithm = catalog.find("algorithms", case.algorithm)
    settings = replace(algorithm.Config(), env=case.env, steps=case.steps, seed=seed, **case.ours)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder, checkpoint_every=algorithm.CHECKPOINT_EVERY, log_every=max(case.steps // 1000, 1), quiet=True)
        run.begin(case.algorithm, config.to_json(settings))
        took = timed(lambda: algorithm.train(settings, run))
        said = evaluate.compare(folder, evaluate.Config(len(EVALUATED), EVALUATED.start))
    return {"seed": seed, "steps": case.steps, **took, "returns": said["result"]["returns"]}


def train_theirs(case: Case, seed: int) -> dict[str, Any]:
    import gymnasium
    import stable_baselines3
    import torch
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    worlds = make_vec_env(case.gym, case.worlds, seed=seed)
    learner = getattr(stable_baselines3, case.algorithm.upper())(
        "MlpPolicy", worlds, seed=seed, device="cpu", **case.theirs
    )
    took = timed(lambda: learner.learn(case.steps))
    world = gymnasium.make(case.gym)
    return {"seed": seed, "steps": case.steps, **took, "returns": [play(learner, world, s) for s in EVALUATED]}


def play(learner: Any, world: Any, seed: int) -> float:
    total, over = 0.0, False
    seen, _ = world.reset(seed=seed)
    while not over:
        action, _ = learner.predict(seen, deterministic=True)
        seen, reward, terminated, truncated, _ = world.step(action)
        total, over = total + float(reward), terminated or truncated
    return total


if __name__ == "__main__":
    sys.exit(main())
