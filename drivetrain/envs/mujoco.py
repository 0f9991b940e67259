"""Three of Gymnasium's MuJoCo runners, version 5: half-cheetah, hopper and walker.

    pip install 'drivetrain[mujoco]' && drivetrain train sac --env halfcheetah

An action entry is the share of the joint motor's full torque. Videos need OpenGL: on a Linux machine without
a screen EGL's, unless MUJOCO_GL says otherwise. Training and evaluation draw nothing.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import gymnasium as gym

from drivetrain.envs.classic import from_numbers
from drivetrain.errors import MissingExtra
from drivetrain.sample import Feature, Sample


def halfcheetah() -> gym.Env[Sample, Any]:
    return runner(
        "HalfCheetah-v5", "back_thigh back_shin back_foot front_thigh front_shin front_foot", "Run forward.", 20.0
    )


def hopper() -> gym.Env[Sample, Any]:
    return runner("Hopper-v5", "thigh leg foot", "Hop forward.", 125.0)


def walker2d() -> gym.Env[Sample, Any]:
    return runner("Walker2d-v5", "thigh leg foot left_thigh left_leg left_foot", "Walk forward.", 125.0)


def runner(gym_id: str, joints: str, task: str, fps: float) -> gym.Env[Sample, Any]:
    """A planar body: height, pitch and joint angles, then their rates with the forward speed first."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco
    except ImportError as missing:
        raise MissingExtra("mujoco", "mujoco", f"the env {gym_id}") from missing
    mujoco.set_mju_user_warning(told)
    motors = tuple(joints.split())
    where = ("height_m", "pitch_rad", *(f"{joint}_rad" for joint in motors))
    how_fast = ("speed_mps", "climb_mps", "pitch_rate_radps", *(f"{joint}_rate_radps" for joint in motors))
    numbers = Feature((len(where) + len(how_fast),), names=where + how_fast)
    torque = Feature((len(motors),), low=-1.0, high=1.0, names=tuple(f"{motor}_torque_share" for motor in motors))
    return from_numbers(gym_id, numbers, torque, task, fps)


def told(text: str) -> None:
    """MuJoCo's warnings as Python's, not as a file in the working folder; one is about Gymnasium's model."""
    if "settotalmass" not in text:
        warnings.warn(f"MuJoCo: {text}", stacklevel=2)
