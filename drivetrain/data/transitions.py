"""Episodes as single steps and what came of each: what offline reinforcement learning takes its batches from.

    data = Transitions(open_dataset("data/hopper"), policy_transforms)
    batch = data.batch(256, at=step, seed=0)      # observation.* and next.observation.*, action, reward, terminated: [B, ...]

The last step of an episode that a time limit cut has nothing after it in a data set, and is left out: what it was worth
cannot be said. That of one that terminated stays, for nothing comes after it. A batch is a function of size, seed and `at`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from drivetrain import transforms
from drivetrain.data.episodes import Episodes, drawn
from drivetrain.errors import BadData
from drivetrain.sample import ACTION, REWARD, TERMINATED, Sample
from drivetrain.transforms import Transform

NEXT = "next."


class Transitions:
    def __init__(self, data: Episodes, changes: Sequence[Transform] = (), reward_scale: float = 1.0):
        data.require(ACTION, REWARD, TERMINATED)
        self.data = data
        self.keys = list(data.spec.observations)
        ends = np.cumsum(data.lengths) - 1
        last = np.zeros(len(data), dtype=bool)
        last[ends] = True
        self.terminated = np.asarray(data.values(TERMINATED), dtype=bool)
        self.frames = np.flatnonzero(~last | self.terminated)
        if not len(self.frames):
            raise BadData(
                "BadData: no step of the data set has anything after it; episodes must be longer than one frame"
            )
        self.reward_scale = reward_scale
        self.reward = np.asarray(data.values(REWARD), dtype=np.float32) * np.float32(reward_scale)
        self.action = self._prepared(changes, ACTION, np.asarray(data.values(ACTION)))
        self.flat = {
            key: torch.from_numpy(np.ascontiguousarray(data.values(key)))
            for key in self.keys
            if len(data.spec.observations[key].shape) < 2 and data._stack == 1
        }
        self.reward_, self.terminated_ = torch.from_numpy(self.reward), torch.from_numpy(self.terminated)

    @staticmethod
    def _prepared(changes: Sequence[Transform], key: str, values: np.ndarray) -> Tensor:
        found: Sample = transforms.apply(changes, {key: values})
        return torch.from_numpy(np.ascontiguousarray(found[key]))

    def __len__(self) -> int:
        return len(self.frames)

    def batch(self, size: int, *, at: int, seed: int) -> dict[str, Tensor]:
        """Observations [B, 1, ...] here and after; all else [B, ...]. Actions are as heads give them."""
        frames = self.frames[drawn(len(self), size, at=at, seed=seed)]
        rows = torch.from_numpy(frames)
        after = torch.from_numpy(np.minimum(frames + 1, len(self.data) - 1))  # of a terminated one it does not count
        found = {"action": self.action[rows], "reward": self.reward_[rows], "terminated": self.terminated_[rows]}
        for key, values in self.flat.items():
            found[key], found[NEXT + key] = values[rows].unsqueeze(1), values[after].unsqueeze(1)
        if len(self.flat) < len(self.keys):
            windows = self.data.windows(frames, 2)
            for key in self.keys:
                if key not in self.flat:
                    pair = torch.from_numpy(windows[key])
                    found[key], found[NEXT + key] = pair[:, :1], pair[:, 1:]
        return found
