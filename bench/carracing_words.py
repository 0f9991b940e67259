"""What a language model at the wheel of CarRacing makes of words: does it obey, is what it says true, and how quick is it?

    python bench/carracing_words.py orders RUN        of a policy trained where orders are given (order=any)
    python bench/carracing_words.py commentary RUN    of a policy trained with --words
    python bench/carracing_words.py speed RUN         decisions a second on one core, one picture at a time

Prints one JSON object. `bench/carracing_policy.py` runs it and keeps what it says.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from drivetrain import processor, stats
from drivetrain.checkpoint import load_policy
from drivetrain.envs.carracing import ORDERS
from drivetrain.envs.words import make_env, with_options
from drivetrain.envs.worlds import stack
from drivetrain.experts.carracing import (
    BEND_RAD,
    COURSES,
    DEEDS,
    PACES,
    SENTENCES,
    bend_rad,
    in_a_word,
    seen,
)

TRACKS = 190_000
TRIALS, BEFORE_S, AFTER_S, SETTLED_S, STANDS_MPS = 40, 3.0, 6.0, 3.0, 1.0
LAPS, SPEAKS_HZ, LANES = 16, 2.5, 8
BEND_MARGIN_RAD, PACE_MARGIN_MPS = 0.1, 5.0


class Lanes:
    """Several worlds side by side, and the policy in them."""

    def __init__(self, policy: Any, env: str, seeds: Sequence[int]):
        self.policy, self.envs = policy, [make_env(env) for _ in seeds]
        begun = [world.reset(seed=seed) for world, seed in zip(self.envs, seeds, strict=True)]
        self.seen, self.infos = [s for s, _ in begun], [i for _, i in begun]
        self.over = np.zeros(len(seeds), dtype=bool)

    def step(self) -> np.ndarray:
        """What was done in each."""
        action, _, _ = self.policy.act(stack(self.seen), {}, greedy=True, generator=None)
        for i, world in enumerate(self.envs):
            if not self.over[i]:
                self.seen[i], _, terminated, truncated, self.infos[i] = world.step(action[i])
                self.over[i] = terminated or truncated
        return np.asarray(action)

    def told(self) -> dict[str, np.ndarray]:
        keys = [key for key in self.infos[0] if key.startswith("privileged.")]
        return {key: np.stack([np.asarray(info[key]) for info in self.infos]) for key in keys}

    def order(self, names: Sequence[str]) -> None:
        for world, name in zip(self.envs, names, strict=True):
            ordered(world).order = name


def ordered(env: Any) -> Any:
    while not hasattr(env, "order"):
        env = env.env
    return env


def left_m(told: dict[str, np.ndarray]) -> np.ndarray:
    """How far left of the middle of the road, [B]."""
    track, place = told["privileged.track"], told["privileged.position_m"]
    apart = place[:, None] - track[..., :2]
    here = np.linalg.norm(apart, axis=-1).argmin(-1)
    rows = np.arange(len(here))
    heading, off = track[rows, here, 2], apart[rows, here]
    return -off[:, 0] * np.sin(heading) + off[:, 1] * np.cos(heading)


def trials(policy: Any, shown: Sequence[str], seeds: Sequence[int]) -> list[dict[str, float]]:
    """The car drives on, then hears an order: its speed and place once it has had time, and when it stood."""
    env = with_options(policy.spec.env, order="drive")
    lanes = Lanes(policy, env, seeds)
    per_s = policy.spec.fps
    found: dict[str, list[np.ndarray]] = {"speed_mps": [], "left_m": []}
    stood_s = np.full(len(seeds), np.inf)
    for step in range(round((BEFORE_S + AFTER_S) * per_s)):
        if step == round(BEFORE_S * per_s):
            lanes.order(shown)
        lanes.step()
        since_s = step / per_s - BEFORE_S
        told = lanes.told()
        if since_s >= 0:
            stands = (told["privileged.speed_mps"] < STANDS_MPS) & np.isinf(stood_s)
            stood_s[stands] = since_s
        if since_s >= SETTLED_S:
            found["speed_mps"].append(told["privileged.speed_mps"])
            found["left_m"].append(left_m(told))
    means = {key: np.mean(values, 0) for key, values in found.items()}
    return [{**{k: float(v[i]) for k, v in means.items()}, "stood_s": float(stood_s[i])} for i in range(len(seeds))]


def orders(policy: Any) -> dict[str, Any]:
    """By the order that was given; and by labels that are dealt to the same trials at random."""
    names = [name for name in ORDERS for _ in range(TRIALS)]
    rows: list[dict[str, float]] = []
    for at in range(0, len(names), LANES):
        seeds = [TRACKS + i % TRIALS for i in range(at, min(at + LANES, len(names)))]
        rows += trials(policy, names[at : at + LANES], seeds)
    dealt = np.random.default_rng(0).permutation(names).tolist()
    return {"given": by_order(names, rows), "shuffled": by_order(dealt, rows)}


def by_order(names: Sequence[str], rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for order in ORDERS:
        mine = [row for name, row in zip(names, rows, strict=True) if name == order]
        found[order] = {key: stats.summary([row[key] for row in mine]).to_json() for key in ("speed_mps", "left_m")}
        found[order]["stands"] = stats.wilson(sum(row["stood_s"] <= 3.0 for row in mine), len(mine)).to_json()
    normal = found["drive"]["speed_mps"]["mean"]
    for said in found.values():
        said["share_of_normal_speed"] = said["speed_mps"]["mean"] / normal
    return found


def commentary(policy: Any) -> dict[str, Any]:
    """Each claim against the truth of the track, the speed, and what it does itself; and said to pictures of other moments."""
    rows: list[dict[str, Any]] = []
    for at in range(0, LAPS, LANES):
        lanes, step = Lanes(policy, policy.spec.env, range(TRACKS + at, TRACKS + at + LANES)), 0
        while not lanes.over.all():
            now, told, alive = stack(lanes.seen), lanes.told(), ~lanes.over
            action = lanes.step()
            step += 1
            if step % round(policy.spec.fps / SPEAKS_HZ):
                continue
            course, pace = seen(told)
            labels = np.array(policy.spec.action.names)[action] if policy.spec.discrete else in_a_word(action)
            for i in np.flatnonzero(alive):
                truth = int(course[i]), int(pace[i]), list(DEEDS).index(labels[i])
                about = {
                    "lap": at + int(i),
                    "truth": truth,
                    "bend": bend_rad(told)[i],
                    "speed": told["privileged.speed_mps"][i],
                }
                rows.append({**about, "observation": {key: value[i] for key, value in now.items()}})
    dealt = np.random.default_rng(0).permutation(len(rows))
    said = [spoken(policy, [rows[i]["observation"] for i in order]) for order in (np.arange(len(rows)), dealt)]
    return {"seen": checked(said[0], rows), "shuffled": checked(said[1], rows)}


def spoken(policy: Any, observations: Sequence[dict[str, np.ndarray]]) -> list[str]:
    found: list[str] = []
    for at in range(0, len(observations), 32):
        batch = stack(observations[at : at + 32])
        found += policy.reader.say(*policy.looked_at({k: torch.from_numpy(v)[:, None] for k, v in batch.items()}))
    return found


def checked(said: Sequence[str], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares of laps, whose mean has the interval: statements of one lap are no independent ones."""
    known = np.array([SENTENCES.index(text) if text in SENTENCES else -1 for text in said])
    claims = np.stack(np.unravel_index(known.clip(0), (len(COURSES), len(PACES), len(DEEDS))), 1)
    claims[known < 0] = -1
    truth, laps = np.array([row["truth"] for row in rows]), np.array([row["lap"] for row in rows])
    bends, speeds = (np.array([float(row[key]) for row in rows]) for key in ("bend", "speed"))
    borders = [border for border in PACES.values() if np.isfinite(border)]
    clear = {
        "bend": np.abs(np.abs(bends) - BEND_RAD) > BEND_MARGIN_RAD,
        "pace": np.all([np.abs(speeds - border) > PACE_MARGIN_MPS for border in borders], 0),
        "deed": np.ones(len(rows), dtype=bool),
    }
    found: dict[str, Any] = {"statements": len(rows), "well formed": float(np.mean(known >= 0))}
    for column, (what, decided) in enumerate(clear.items()):
        right = claims[:, column] == truth[:, column]
        found[what] = {
            "right": by_lap(right[decided], laps[decided]),
            "right, borderline ones too": by_lap(right, laps),
            "commonest": float(np.bincount(truth[decided, column]).max() / decided.sum()),
        }
    return found


def by_lap(right: np.ndarray, laps: np.ndarray) -> dict[str, Any]:
    said = stats.summary([float(right[laps == lap].mean()) for lap in np.unique(laps)])
    return {"value": said.mean, "low": said.low, "high": said.high}


def speed(policy: Any, decisions: int = 2_000) -> dict[str, Any]:
    """Pixels in, action out, on frames of a drive."""
    env = make_env(policy.spec.env)
    observation, _ = env.reset(seed=TRACKS)
    took = []
    for _ in range(decisions + 50):
        batch = stack([observation])
        start = time.perf_counter()
        action, _, _ = policy.act(batch, {}, greedy=True, generator=None)
        took.append(time.perf_counter() - start)
        observation, _, terminated, truncated, _ = env.step(action[0])
        if terminated or truncated:
            observation, _ = env.reset()
    took_ms = 1e3 * np.array(took[50:])
    return {
        "p50_ms": float(np.percentile(took_ms, 50)),
        "p99_ms": float(np.percentile(took_ms, 99)),
        "per_s": float(1e3 / took_ms.mean()),
        "decisions": decisions,
    }


MEASURES = {"orders": orders, "commentary": commentary, "speed": speed}


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in MEASURES:
        print(__doc__, file=sys.stderr)
        return 2
    processor.use(1)
    print(json.dumps(MEASURES[arguments[0]](load_policy(arguments[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
