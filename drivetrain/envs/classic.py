"""Gymnasium's classic control: pendulum, mountain car (with choices and with a force) and acrobot.

    drivetrain train sac --env pendulum

Their time limits and rewards are Gymnasium's own. `fps` is the rate of the physics; the mountain car knows no seconds,
so its rate of drawing stands there.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np

from drivetrain.envs.words import InWords
from drivetrain.sample import ACTION, STATE, Feature, Sample, Spec

VALLEY = Feature((2,), low=(-1.2, -0.07), high=(0.6, 0.07), names=("position_m", "speed_m_per_step"))


def from_numbers(
    gym_id: str, numbers: Feature, action: Feature, task: str, fps: float, reveal: Any = None
) -> gym.Env[Sample, Any]:
    """A Gymnasium environment that observes one vector, in our words."""
    env = gym.make(gym_id, render_mode="rgb_array", disable_env_checker=True)
    return InWords(env, Spec({STATE: numbers, ACTION: action}, task, fps), in_single_precision, reveal=reveal)


def in_single_precision(raw: np.ndarray, env: gym.Env[Any, Any]) -> Sample:
    return {STATE: raw.astype(np.float32)}


def pendulum() -> gym.Env[Sample, Any]:
    numbers = Feature((3,), low=(-1.0, -1.0, -8.0), high=(1.0, 1.0, 8.0), names=("cosine", "sine", "rate_radps"))
    torque = Feature((1,), low=-2.0, high=2.0, names=("torque_nm",))
    task = "Swing the pendulum up and hold it upright."
    return from_numbers("Pendulum-v1", numbers, torque, task, 20.0, lambda env: {"angle_rad": env.unwrapped.state[0]})


def mountaincar() -> gym.Env[Sample, Any]:
    push = Feature((), "int64", names=("left", "nothing", "right"), choices=3)
    return from_numbers("MountainCar-v0", VALLEY, push, "Drive up to the flag on the right hill.", 30.0)


def mountaincar_continuous() -> gym.Env[Sample, Any]:
    force = Feature((1,), low=-1.0, high=1.0, names=("force_share",))
    task = "Drive up to the flag on the right hill with little force."
    return from_numbers("MountainCarContinuous-v0", VALLEY, force, task, 30.0)


def acrobot() -> gym.Env[Sample, Any]:
    names = ("cosine_1", "sine_1", "cosine_2", "sine_2", "rate_1_radps", "rate_2_radps")
    high = (1.0, 1.0, 1.0, 1.0, 4 * math.pi, 9 * math.pi)
    numbers = Feature((6,), low=tuple(-h for h in high), high=high, names=names)
    torque = Feature((), "int64", names=("torque_minus_1_nm", "torque_0_nm", "torque_plus_1_nm"), choices=3)
    return from_numbers("Acrobot-v1", numbers, torque, "Swing the tip of the arm above the line.", 5.0)
