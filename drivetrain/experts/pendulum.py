"""Swings Pendulum up by its energy and holds it there: no more torque than there is, and no plan.

    drivetrain collect --env pendulum --by pendulum --noise 0.3 --episodes 50 --output-dir data/pendulum

Far from upright it pushes the way the pendulum turns until it has the energy of standing still above; near upright it pulls
it back like a damped spring.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from drivetrain.sample import STATE, Memory, Sample, Spec

GRAVITY = 10.0  # m/s2; mass and length are 1, and a rod's inertia a third
TORQUE_NM = 2.0
NEAR_RAD = 0.6
SPRING, DAMPING = 12.0, 3.0  # Nm per rad, Nm per rad/s
PUMP = 2.0  # Nm per joule that is missing


class Expert:
    privileged = False

    def __init__(self, spec: Spec):
        self.spec = spec

    def initial(self, batch_size: int) -> Memory:
        return {}

    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: Any
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        cosine, sine, rate = np.asarray(observation[STATE], dtype=np.float64).T
        angle = np.arctan2(sine, cosine)  # [B], 0 is upright
        missing = GRAVITY / 2 * (1 - cosine) - rate**2 / 6  # joules, until it would come to rest upright
        onward = np.where(np.abs(rate) > 1e-3, np.sign(rate), 1.0)
        pump = PUMP * missing * onward
        hold = -SPRING * angle - DAMPING * rate
        torque = np.where(np.abs(angle) < NEAR_RAD, hold, pump)
        return np.clip(torque, -TORQUE_NM, TORQUE_NM).astype(np.float32)[:, None], memory, {}
