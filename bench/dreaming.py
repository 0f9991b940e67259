"""A world that can be dreamed: learned from numbers and from pictures, how far it foresees, and plans made in it.

    python bench/dreaming.py                   all of it, hours of a slow core; finished parts are left alone
    python bench/dreaming.py pendulum-0        one part, with what it stands on; `--list` names them

    pendulum-SEED     Dreamer in 20,000 steps of Pendulum, from angle and rate; 20 episodes
    foresight         errors of 15 steps with eyes shut, beside copying what was seen last
    plan-HOW-SEED     plans of that seed's model instead of its policy: as many dreams for each way
    plan-true         the same search in Pendulum's own equations: what no model can beat by much
    pixels            Dreamer in CartPole from pictures, beside its own beginning on the same seeds
    pixels-foresight  as above, from pictures

All episodes are from seed 95,000 on, which no training draws, at the last checkpoint. Runs go to runs/dreaming/, each part to
bench/results/dreaming/PART.json with its commands and the seconds each took.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from parts import Log, main, minutes
from torch import Tensor

from drivetrain.envs.words import spec_of
from drivetrain.evaluate import Config, evaluate
from drivetrain.models.planner import WAYS, Plan, search
from drivetrain.sample import STATE, Memory, Sample

HERE = Path(__file__).resolve().parent
RESULTS, RUNS = HERE / "results" / "dreaming", Path("runs/dreaming")
SEED, EPISODES = 95_000, 20
PLAN = {"horizon": 20, "candidates": 128, "rounds": 4, "best": 12}
NUMBERS = ["--env", "pendulum", "--steps", "20000"]
PIXELS = ["--env", "cartpole-pixels:stack=1", "--steps", "20000", "--train-every", "10", "--batch-size", "8"]
PIXELS += ["--length", "24"]


def learned(log: Log, seed: int) -> Path:
    return log.train(RUNS / f"pendulum-{seed}", "dreamer", *NUMBERS, "--seed", str(seed))


def seen(log: Log) -> Path:
    return log.train(RUNS / "pixels", "dreamer", *PIXELS)


def judged(log: Log, run: Path, *flags: str) -> dict[str, Any]:
    asked = ["--episodes", str(EPISODES), "--seed", str(SEED), "--json"]
    found: dict[str, Any] = json.loads(log.run("eval", str(run), *asked, *flags))
    return found


def pendulum(seed: int) -> Callable[[Log], dict[str, Any]]:
    def part(log: Log) -> dict[str, Any]:
        run = learned(log, seed)
        return {"minutes": minutes(run), **judged(log, run)}

    return part


def planned(how: str, seed: int) -> Callable[[Log], dict[str, Any]]:
    def part(log: Log) -> dict[str, Any]:
        flags = [word for name, value in PLAN.items() for word in (f"--plan.{name}", str(value))]
        return judged(log, learned(log, seed), "--plan.how", how, *flags)

    return part


class Known:
    """Searches in Pendulum's own equations, from what everybody sees."""

    def __init__(self) -> None:
        self.plan = Plan(how="cem", **PLAN)

    def initial(self, batch_size: int) -> Memory:
        return {"plan": torch.zeros(batch_size, self.plan.horizon, 1)}

    def act(self, observation: Sample, memory: Memory, *, greedy: bool, generator: torch.Generator | None) -> Any:
        cosine, sine, rate = torch.from_numpy(observation[STATE]).double().unbind(-1)
        found = search(
            lambda plans: earned(torch.atan2(sine, cosine), rate, plans), memory["plan"], self.plan, False, generator
        )
        later = torch.cat([found[:, 1:], torch.zeros_like(found[:, :1])], 1)
        return (2 * found[:, 0]).numpy(), {"plan": later}, {}


def earned(angle: Tensor, rate: Tensor, plans: Tensor) -> Tensor:
    """Rewards of plans [B, N, H, 1], torques from -1 to 1, as Gymnasium's Pendulum-v1 gives them."""
    angle, rate = (x.unsqueeze(1).expand(plans.shape[:2]) for x in (angle, rate))
    total = torch.zeros(plans.shape[:2], dtype=torch.double)
    for torque in (2 * plans[..., 0]).double().unbind(-1):
        off = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        total -= off.square() + 0.1 * rate.square() + 0.001 * torque.square()
        rate = (rate + (15 * angle.sin() + 3 * torque) * 0.05).clamp(-8, 8)
        angle = angle + rate * 0.05
    return total


def true_plans(log: Log) -> dict[str, Any]:
    torch.set_num_threads(1)
    assert spec_of("pendulum").action.high == 2.0
    found = evaluate(Known(), "pendulum", Config(episodes=EPISODES, seed=SEED, json=True), name="true equations")
    return {"result": found.to_json()}


def foresight(run: Callable[[Log], Path]) -> Callable[[Log], dict[str, Any]]:
    def part(log: Log) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            log.run("dream", str(run(log)), "--episodes", str(EPISODES), "--seed", str(SEED), "--json")
        )
        return found

    return part


def pixels(log: Log) -> dict[str, Any]:
    run = seen(log)
    return {"minutes": minutes(run), **judged(log, run, "--against", "untrained")}


PARTS: dict[str, Callable[[Log], dict[str, Any]]] = {
    **{f"pendulum-{seed}": pendulum(seed) for seed in range(3)},
    "foresight": foresight(lambda log: learned(log, 0)),
    **{f"plan-{how}-{seed}": planned(how, seed) for seed in range(3) for how in WAYS},
    "plan-true": true_plans,
    "pixels": pixels,
    "pixels-foresight": foresight(seen),
}


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", PARTS, RESULTS))
