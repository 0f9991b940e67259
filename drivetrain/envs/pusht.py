"""PushT of gym-pusht, the task diffusion policies made known: push a T-shaped block onto its mark.

    pip install 'drivetrain[pusht]' && pip install --no-deps gym-pusht
    drivetrain train bc --env pusht-pixels --dataset lerobot/pusht

The action is the point the pusher heads for. An episode ends when 95% of the mark is covered, or after 300 steps.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import gymnasium as gym
import numpy as np

from drivetrain.envs.words import InWords
from drivetrain.errors import MissingExtra
from drivetrain.sample import ACTION, FRONT, STATE, Feature, Sample, Spec

TABLE_PX = 512.0
PUSHER = Feature((2,), low=0.0, high=TABLE_PX, names=("pusher_x_px", "pusher_y_px"))
EVERYTHING = Feature(  # without bounds: gym-pusht declares the table's, and a hard push sends the block beyond them
    (5,), names=("pusher_x_px", "pusher_y_px", "block_x_px", "block_y_px", "block_angle_rad")
)
PICTURE = Feature((96, 96, 3), "uint8", colour="rgb")
TARGET = Feature((2,), low=0.0, high=TABLE_PX, names=("target_x_px", "target_y_px"))
TASK = "Push the T-shaped block onto the T-shaped target."
FPS = 10.0


class MissingPusht(MissingExtra):
    def __init__(self) -> None:
        super().__init__("gym_pusht", "pusht", "the env pusht")
        alone = "pip install --no-deps gym-pusht (with its dependencies it would bring a second pygame)"
        self.args = (f"{self.args[0]} && {alone}",)


def state() -> gym.Env[Sample, Any]:
    """Where the pusher and the block are."""
    spec = Spec({STATE: EVERYTHING, ACTION: TARGET}, TASK, FPS)
    return InWords(pusht("state"), spec, lambda raw, env: {STATE: raw.astype(np.float32)}, reveal=reveal)


def pixels() -> gym.Env[Sample, Any]:
    """A picture, and where the pusher is."""
    spec = Spec({FRONT: PICTURE, STATE: PUSHER, ACTION: TARGET}, TASK, FPS)
    return InWords(pusht("pixels_agent_pos"), spec, observe, reveal=reveal)


def observe(raw: dict[str, np.ndarray], env: gym.Env[Any, Any]) -> Sample:
    return {FRONT: raw["pixels"], STATE: raw["agent_pos"].astype(np.float32)}


def reveal(env: gym.Env[Any, Any]) -> dict[str, Any]:
    world: Any = env.unwrapped
    where = (*world.agent.position, *world.block.position, world.block.angle % (2 * math.pi))
    return {"state": np.array(where, dtype=np.float32)}


def pusht(obs_type: str) -> gym.Env[Any, Any]:
    if importlib.util.find_spec("gym_pusht") is None:
        raise MissingPusht
    return gym.make(
        "gym_pusht:gym_pusht/PushT-v0", obs_type=obs_type, render_mode="rgb_array", disable_env_checker=True
    )
