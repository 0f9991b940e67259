"""A linear controller that never drops CartPole's pole, from its privileged state.

    drivetrain collect --env cartpole-pixels --by cartpole --episodes 100 --output-dir data/cartpole

It leans the pole towards the middle of the track and pushes the cart under it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from drivetrain.sample import Memory, Sample, Spec

GAINS = np.array([0.3, 0.5, 6.0, 1.0])  # of position_m, speed_mps, tilt_rad, tilt_rate_radps


class Expert:
    privileged = True

    def __init__(self, spec: Spec):
        self.spec = spec

    def initial(self, batch_size: int) -> Memory:
        return {}

    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: Any
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        action = (np.asarray(observation["privileged.state"]) @ GAINS > 0).astype(np.int64)  # [B]
        return action, memory, {}
