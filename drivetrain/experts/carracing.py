"""Drives a lap of CarRacing from the track's geometry, with pedals and wheel or by labels.

    drivetrain collect --env carracing-continuous --by carracing --episodes 20 --output-dir data/carracing
    drivetrain collect --env carracing:repeat=2 --by carracing --episodes 20 --output-dir data/carracing

The wheels point along the circle through a place ahead on the centre line (pure pursuit, Coulter 1992). The speed is what
the sharpest bend in sight allows, with the way there to brake. Labels are one thing at a time: brake where too fast, else
steer where the wheels would have to turn, less what the car turns already, else accelerate. On 100 tracks that chose none
of the numbers below, pedals return 930 (907 at the least) at repeat=1 and 2; labels 915, 916 at repeat=1, 894 at repeat=3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from drivetrain.sample import Memory, Sample, Spec

TILE_M = 3.5  # from one row of the track to the next
WHEELBASE_M = 3.24
SIGHT = np.arange(30)  # tiles ahead that matter for the speed

LOST_RAD = 0.8  # who must turn so far has left the road or spun


@dataclass(frozen=True)
class Manner:
    """How somebody drives."""

    reach_m: float  # the place aimed at is so far ahead,
    reach_s: float  # and farther by the way of so many seconds
    sharpness: float  # times the angle of the circle's tangent
    calm: float  # share of the turn under way that is taken off
    grip_mps2: float  # sideways acceleration in bends
    braking_mps2: float
    top_mps: float
    lost_mps: float  # the same for who is lost: at speed a car with gas on the grass goes in circles
    blur: int  # tiles to either side over which a bend is measured


PEDALS = Manner(4.4, 0.33, 2.0, 0.4, 190.0, 48.0, 100.0, 15.0, 3)
LABELS = Manner(4.7, 0.3, 0.9, 0.6, 200.0, 55.0, 90.0, 90.0, 5)

GAS_PER_MPS, GAS_LESS_PER_RAD = 0.11, 2.5
LEAST_SHARE = 0.1  # of the gas, however far the wheels are turned: who stands must set off
BRAKE_PER_MPS, MOST_BRAKE = 0.05, 0.62  # at 0.9 the wheels lock
BRAKE_ABOVE_MPS, STEER_ABOVE_RAD, STEER_ABOVE_MPS = 3.9, 0.022, 17.0  # of labels; one that steers cannot set off


class Expert:
    privileged = True

    def __init__(self, spec: Spec):
        self.labels = {name: choice for choice, name in enumerate(spec.action.names)} if spec.discrete else {}
        self.manner = LABELS if spec.discrete else PEDALS

    def initial(self, batch_size: int) -> Memory:
        return {}

    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: Any
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        left_rad, wanted_mps = plan(observation, self.manner)
        speed_mps = np.asarray(observation["privileged.speed_mps"])
        if not self.labels:
            return controls(left_rad, speed_mps, wanted_mps), memory, {}
        return np.vectorize(self.labels.get, [np.int64])(labels(left_rad, speed_mps, wanted_mps)), memory, {}


def plan(observation: Sample, manner: Manner) -> tuple[np.ndarray, np.ndarray]:
    """How far to the left the wheels should point, and how fast to go; [B] each."""
    track, tiles, position_m, heading_rad, turn_radps, speed_mps = (
        np.asarray(observation[f"privileged.{key}"])
        for key in ("track", "tiles", "position_m", "heading_rad", "turn_radps", "speed_mps")
    )  # [B, 512, 3], [B], [B, 2], and [B] each
    here = np.linalg.norm(track[..., :2] - position_m[:, None], axis=-1).argmin(-1)  # [B], below `tiles`

    def ahead(rows: np.ndarray) -> np.ndarray:
        """The track so many rows on: [B, K, 3] of [B or 1, K]."""
        return np.take_along_axis(track, ((here[:, None] + rows) % tiles[:, None])[..., None], axis=1)

    whole, rest = np.divmod((manner.reach_m + manner.reach_s * speed_mps) / TILE_M, 1)
    pair = ahead(whole.astype(np.int64)[:, None] + [0, 1])[..., :2]
    way = pair[:, 0] + rest[:, None] * (pair[:, 1] - pair[:, 0]) - position_m
    beside_rad = wrapped(np.arctan2(way[:, 1], way[:, 0]) - heading_rad)
    left_rad = manner.sharpness * np.arctan(2 * WHEELBASE_M * np.sin(beside_rad) / np.linalg.norm(way, axis=-1))

    left_rad -= manner.calm * WHEELBASE_M * turn_radps / np.maximum(speed_mps, 1.0)

    turns_rad = wrapped(ahead(SIGHT[None] + manner.blur)[..., 2] - ahead(SIGHT[None] - manner.blur)[..., 2])
    bend_per_m = np.maximum(np.abs(turns_rad) / (2 * manner.blur * TILE_M), 1e-4)
    there = np.minimum(manner.grip_mps2 / bend_per_m, manner.top_mps**2)  # squares of speeds, [B, K]
    allowed_mps = np.sqrt((there + 2 * manner.braking_mps2 * SIGHT * TILE_M).min(-1))
    return left_rad, np.where(np.abs(beside_rad) > LOST_RAD, np.minimum(manner.lost_mps, allowed_mps), allowed_mps)


def controls(left_rad: np.ndarray, speed_mps: np.ndarray, wanted_mps: np.ndarray) -> np.ndarray:
    """Steer (to the right), gas and brake: [B, 3]."""
    gas = np.clip(GAS_PER_MPS * (wanted_mps - speed_mps), 0, 1) * np.clip(
        1 - GAS_LESS_PER_RAD * np.abs(left_rad), LEAST_SHARE, 1
    )
    brake = np.clip(BRAKE_PER_MPS * (speed_mps - wanted_mps), 0, MOST_BRAKE)
    return np.stack((np.clip(-left_rad, -1, 1), gas, brake), -1).astype(np.float32)


def labels(left_rad: np.ndarray, speed_mps: np.ndarray, wanted_mps: np.ndarray) -> np.ndarray:
    """[B] of names."""
    too_fast = speed_mps > wanted_mps + BRAKE_ABOVE_MPS
    steers = (np.abs(left_rad) > STEER_ABOVE_RAD) & (speed_mps > STEER_ABOVE_MPS)
    side = np.where(left_rad > 0, "left", "right")
    return np.select([too_fast, steers, speed_mps < wanted_mps], ["brake", side, "accelerate"], "nothing")


def wrapped(angle_rad: np.ndarray) -> np.ndarray:
    """The same angle from -pi to pi."""
    return (angle_rad + np.pi) % (2 * np.pi) - np.pi
