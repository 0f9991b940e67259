"""Drives a lap of CarRacing from the track's geometry, with pedals and wheel or by labels.

    drivetrain collect --env carracing-continuous --by carracing --episodes 20 --output-dir data/carracing
    drivetrain collect --env carracing:repeat=2 --by carracing --episodes 20 --output-dir data/carracing

The wheels point along the circle through a place ahead on the centre line (pure pursuit, Coulter 1992). The speed is what
the sharpest bend in sight allows, with the way there to brake. Labels are one thing at a time: brake where too fast, else
steer where the wheels would have to turn, less what the car turns already, else accelerate. The thresholds of labels are
wide, so that whoever learns from pictures can tell them. `python bench/carracing_policy.py experts` says what both return.

It obeys orders where the world gives them (`order=any`): slowly, at the left or right edge, stop.
In one of its `SENTENCES` it says where the road goes over the next 31 m, how fast the car is, and what it does about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from drivetrain.sample import EXPERT_WORDS, INSTRUCTION, Memory, Sample, Spec

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
LABELS = Manner(4.7, 0.3, 1.5, 0.3, 190.0, 50.0, 90.0, 90.0, 5)

GAS_PER_MPS, GAS_LESS_PER_RAD = 0.11, 2.5
LEAST_SHARE = 0.1  # of the gas, however far the wheels are turned: who stands must set off
BRAKE_PER_MPS, MOST_BRAKE = 0.05, 0.62  # at 0.9 the wheels lock
BRAKE_ABOVE_MPS, STEER_ABOVE_RAD, STEER_ABOVE_MPS = 3.9, 0.08, 17.0  # of labels; one that steers cannot set off

SLOWLY_MPS = 25.0  # who is told to goes so fast at most;
EDGE_M, EDGE_MPS = 3.5, 45.0  # or so far from the middle, and not faster than one can keep there

COURSES = ("is straight", "bends left", "bends right")  # ahead
BEND_RAD, BEND_TILES = 0.25, 9  # what turns by more over so many tiles is a bend
PACES = {"slow": 30.0, "neither slow nor fast": 65.0, "fast": np.inf}  # up to so many m/s
DEEDS = {
    "nothing": "do nothing",
    "accelerate": "accelerate",
    "left": "turn left",
    "right": "turn right",
    "brake": "brake",
}
SENTENCES = tuple(
    f"The road {course} ahead and the car is {pace}: {deed}."
    for course, pace, deed in product(COURSES, PACES, DEEDS.values())
)
BRAKES_FROM, TURNS_FROM, GAS_FROM = 0.1, 0.15, 0.1  # of controls, to be worth a word


class Expert:
    privileged = True
    sentences = SENTENCES

    def __init__(self, spec: Spec):
        self.labels = {name: choice for choice, name in enumerate(spec.action.names)} if spec.discrete else {}
        self.manner = LABELS if spec.discrete else PEDALS
        orders = spec.features[INSTRUCTION].names if INSTRUCTION in spec.features else ()
        words = [order.lower().rstrip(".").split() for order in orders]
        self.slow = np.array(["slowly" in order for order in words])
        self.stop = np.array(["stop" in order for order in words])
        self.edge_m = np.array([EDGE_M * (("left" in order) - ("right" in order)) for order in words])

    def initial(self, batch_size: int) -> Memory:
        return {}

    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: Any
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        order = np.asarray(observation[INSTRUCTION]) if len(self.slow) else None
        left_rad, wanted_mps = plan(observation, self.manner, 0.0 if order is None else self.edge_m[order])
        speed_mps = np.asarray(observation["privileged.speed_mps"])
        stop = np.zeros(len(speed_mps), bool)
        if order is not None:
            stop = self.stop[order]
            most_mps = np.select([stop, self.slow[order], self.edge_m[order] != 0], [0.0, SLOWLY_MPS, EDGE_MPS], np.inf)
            wanted_mps = np.minimum(wanted_mps, most_mps)
        if self.labels:
            name = labels(left_rad, speed_mps, wanted_mps)
            name = np.where(stop, "brake", name)  # also where it stands: that cannot be seen well enough to be a border
            action = np.vectorize(self.labels.get, [np.int64])(name)
        else:
            action = controls(left_rad, speed_mps, wanted_mps)
            action[stop, 2] = MOST_BRAKE
        return action, memory, {EXPERT_WORDS: self.explain(observation, action)}

    def explain(self, observation: Sample, action: np.ndarray) -> np.ndarray:
        """The number of the sentence that is true there of somebody who does that; [B]."""
        course, pace = seen(observation)
        deed = np.array([*self.labels])[action] if self.labels else in_a_word(action)
        return (course * len(PACES) + pace) * len(DEEDS) + np.vectorize([*DEEDS].index, [np.int64])(deed)


def seen(observation: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Where the road goes and how fast the car is: numbers of COURSES and of PACES, [B] each."""
    turn_rad = bend_rad(observation)
    course = np.where(np.abs(turn_rad) < BEND_RAD, 0, np.where(turn_rad > 0, 1, 2))
    return course, np.searchsorted([*PACES.values()], np.asarray(observation["privileged.speed_mps"]))


def bend_rad(observation: Sample) -> np.ndarray:
    """How far the road turns to the left from here to BEND_TILES on; [B]."""
    track, tiles, position_m = (
        np.asarray(observation[f"privileged.{key}"]) for key in ("track", "tiles", "position_m")
    )
    here = np.linalg.norm(track[..., :2] - position_m[:, None], axis=-1).argmin(-1)
    rows = np.stack([here, (here + BEND_TILES) % tiles])  # [2, B]
    start, end = track[np.arange(len(here)), rows, 2]
    return wrapped(end - start)


def in_a_word(controls: np.ndarray) -> np.ndarray:
    """The label that comes nearest to steer, gas and brake; [B] of [B, 3]."""
    steer, gas, brake = controls.T
    side = np.where(steer < 0, "left", "right")
    return np.select(
        [brake > BRAKES_FROM, np.abs(steer) > TURNS_FROM, gas > GAS_FROM], ["brake", side, "accelerate"], "nothing"
    )


def plan(observation: Sample, manner: Manner, edge_m: float | np.ndarray = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """How far to the left the wheels should point, and how fast to go, so far to the left of the middle; [B] each."""
    track, tiles, position_m, heading_rad, turn_radps, speed_mps = (
        np.asarray(observation[f"privileged.{key}"])
        for key in ("track", "tiles", "position_m", "heading_rad", "turn_radps", "speed_mps")
    )  # [B, 512, 3], [B], [B, 2], and [B] each
    here = np.linalg.norm(track[..., :2] - position_m[:, None], axis=-1).argmin(-1)  # [B], below `tiles`

    def ahead(rows: np.ndarray) -> np.ndarray:
        """The track so many rows on: [B, K, 3] of [B or 1, K]."""
        return np.take_along_axis(track, ((here[:, None] + rows) % tiles[:, None])[..., None], axis=1)

    whole, rest = np.divmod((manner.reach_m + manner.reach_s * speed_mps) / TILE_M, 1)
    pair = ahead(whole.astype(np.int64)[:, None] + [0, 1])
    leftwards = np.stack([-np.sin(pair[:, 0, 2]), np.cos(pair[:, 0, 2])], -1) * np.reshape(edge_m, (-1, 1))
    way = pair[:, 0, :2] + rest[:, None] * (pair[:, 1, :2] - pair[:, 0, :2]) + leftwards - position_m
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
