"""Pictures of the pendulum in any state, with what is true of them: how far it leans, in Gymnasium's own drawing.

    drivetrain collect --as instructions --env pendulum --scenes 1000 --output-dir data/pendulum-questions

The arrow of the last torque is drawn or not, of any size, and says nothing about the angle. Facts:

    angle_deg       from upright, positive to the right; 180 hangs down
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np

UPRIGHT_SHARE, UPRIGHT_DEG = 0.12, 20.0  # so many are near upright, where a degree matters most
CLEAR_DEG = 20.0  # at difficulty 0 it leans about to a side, up or down, within this
MOST_TORQUE, ARROW_SHARE = 2.0, 0.8


class Scenes:
    """Pictures [500, 500, 3] and their facts."""

    def __init__(self) -> None:
        self.env: Any = gym.make("Pendulum-v1", render_mode="rgb_array", disable_env_checker=True).unwrapped

    def draw(self, random: np.random.Generator, difficulty: float) -> tuple[np.ndarray, dict[str, float]]:
        """At difficulty 0 it points about straight up, down or to a side; at 1 anywhere."""
        assert 0 <= difficulty <= 1, f"difficulty is {difficulty}"
        if random.random() < difficulty:
            near = random.random() < UPRIGHT_SHARE
            angle_deg = random.uniform(-1, 1) * (UPRIGHT_DEG if near else 180.0)
        else:
            angle_deg = 90.0 * int(random.integers(4)) + random.uniform(-1, 1) * CLEAR_DEG
        angle_deg = math.remainder(angle_deg, 360.0)
        self.env.state = np.array([-math.radians(angle_deg), 0.0])
        self.env.last_u = random.uniform(-MOST_TORQUE, MOST_TORQUE) if random.random() < ARROW_SHARE else None
        return np.asarray(self.env.render()), {"angle_deg": angle_deg}

    @staticmethod
    def facts(info: dict[str, Any]) -> dict[str, float]:
        """The same of a world that is played."""
        return {"angle_deg": -math.degrees(math.remainder(float(info["privileged.angle_rad"]), 2 * math.pi))}
