"""The words everything speaks: a Sample, the Spec that describes it, and the Policy that acts on it.

A sample is a flat dict whose keys are LeRobot's, the same in memory, on disk and over the wire:

    observation.images.<camera>   uint8 [H, W, 3]        action            float32 [A], or an int64 choice
    observation.state             float32 [D]            next.reward       float32
    observation.lidar.<place>     float32 [N, C]         next.terminated   bool
    task                          str, the instruction   next.truncated    bool

`expert.action`, where a data set has it, is what an expert would have done there; imitation learns it instead of `action`.
`expert.acted` says at which steps it was the expert who did, `expert.words` which of its sentences it would say there.
`observation.instruction` is for worlds that give one of several orders: the number of a text. `observation.aim` is the return
that is still wanted, for policies that act to get what they are asked for; `observation.over` is 1 where the world has ended
and goes on as a place where one stays.

What only an expert or an auditor may see is under `privileged.` in an environment's `info`; no policy reads it.

Shapes in comments everywhere: B batch, T time, N worlds side by side, D features, A action dimensions, H W C a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from drivetrain.errors import SpecMismatch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Sample = dict[str, Any]
Memory = dict[str, "Tensor"]  # what a policy carries from step to step; every tensor is [B, ...]

STATE = "observation.state"
FRONT = "observation.images.front"
INSTRUCTION = "observation.instruction"
AIM = "observation.aim"
OVER = "observation.over"
ACTION = "action"
EXPERT_ACTION = "expert.action"
EXPERT_ACTED = "expert.acted"
EXPERT_WORDS = "expert.words"
REWARD = "next.reward"
TERMINATED = "next.terminated"
TRUNCATED = "next.truncated"
TASK = "task"


def is_image(key: str) -> bool:
    return key.startswith("observation.images.")


@dataclass(frozen=True)
class Feature:
    """One named array of a sample."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: tuple[float, ...] | float | None = None  # smallest value, for all or per entry; None is unbounded
    high: tuple[float, ...] | float | None = None
    names: tuple[str, ...] = ()  # one per entry, with unit and frame: "speed_mps"; per choice where `choices` > 0
    choices: int = 0  # above 0: an integer below this
    colour: str = ""  # "rgb" for pictures, stored height first: [H, W, C]
    ragged: bool = False  # shape[0] is the most rows there can be; the real number is in `<key>.count`

    @property
    def size(self) -> int:
        return int(np.prod(self.shape)) if self.shape else 1

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest value, as arrays of this feature's shape."""
        low = np.full(self.shape, -np.inf if self.low is None else self.low, dtype=np.float32)
        high = np.full(self.shape, np.inf if self.high is None else self.high, dtype=np.float32)
        return low, high

    def stacked(self, count: int) -> Feature:
        """`count` of these in one, along the last axis: channels of pictures, entries of vectors."""

        def tiled(bound: tuple[float, ...] | float | None) -> tuple[float, ...] | float | None:
            return bound * count if isinstance(bound, tuple) else bound

        shape = (*self.shape[:-1], self.shape[-1] * count)
        return replace(self, shape=shape, names=self.names * count, low=tiled(self.low), high=tiled(self.high))

    def difference(self, other: Feature) -> str:
        """What keeps the two apart, in words; empty where a policy made for one can serve the other. Names and bounds that one
        of them does not tell keep nobody apart: others' data sets tell none."""
        for name in ("shape", "dtype", "choices", "colour", "ragged", "names", "low", "high"):
            mine, theirs = getattr(self, name), getattr(other, name)
            unsaid = name in ("names", "low", "high") and (mine in ((), None) or theirs in ((), None))
            if mine != theirs and not unsaid:
                return f"{name} {mine} against {theirs}"
        return ""


@dataclass(frozen=True)
class Spec:
    """The features of a sample by name, the instruction, the rate at which samples come, and the env they come from."""

    features: Mapping[str, Feature] = field(default_factory=dict)
    task: str = ""
    fps: float = 0.0
    env: str = ""  # a name of the catalog with its options; empty where there is none

    def stacked(self, count: int) -> Spec:
        """The spec of `count` observations in one; of what is one of several things the newest stands for all."""
        return replace(
            self, features={k: f.stacked(count) if k in self.stackable else f for k, f in self.features.items()}
        )

    @property
    def stackable(self) -> dict[str, Feature]:
        return {key: feature for key, feature in self.observations.items() if not feature.choices}

    @property
    def observations(self) -> dict[str, Feature]:
        return {key: feature for key, feature in self.features.items() if key.startswith("observation.")}

    @property
    def action(self) -> Feature:
        return self.features[ACTION]

    @property
    def discrete(self) -> bool:
        return self.action.choices > 0

    def require(self, given: Spec, *, who: str = "the policy", by: str = "the env") -> None:
        """Refuse `given` unless it offers every feature this spec names, in the same shape, unit and range."""
        for key, wanted in self.features.items():
            have = given.features.get(key)
            if have is None:
                offered = (
                    ", ".join(k for k in given.features if k.split(".")[0] == key.split(".")[0]) or "none of its kind"
                )
                cure = (
                    f"ask for one: {given.env}:aim=RETURN"
                    if key == AIM and given.env
                    else "use the one it was trained on"
                )
                raise SpecMismatch(f"SpecMismatch: {who} needs {key}, {by} gives {offered}; {cure}")
            if difference := wanted.difference(have):
                raise SpecMismatch(
                    f"SpecMismatch: {key}: {who} and {by} differ in {difference}; use the one it was trained on"
                )

    def to_json(self) -> dict[str, Any]:
        features = {key: asdict(feature) for key, feature in self.features.items()}
        return {"features": features, "task": self.task, "fps": self.fps, "env": self.env}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Spec:
        features = {key: Feature(**{k: _frozen(v) for k, v in f.items()}) for key, f in data["features"].items()}
        return Spec(features, data["task"], data["fps"], data.get("env", ""))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@runtime_checkable
class Policy(Protocol):
    """Every trained thing. `models/driver.py` is the one most runs use."""

    spec: Spec

    def initial(self, batch_size: int) -> Memory:
        """The memory at the start of an episode, for a batch."""

    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: torch.Generator | None
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        """One step for a batch of observations: the action in the env's units, the next memory, and what the learner needs."""

    def features(self, sequence: Sample, memory: Memory, is_first: Tensor) -> tuple[Tensor, Memory]:
        """What algorithms train through: [B, T, D]. Memory starts anew wherever `is_first` [B, T] is true."""


def restart(memory: Memory, initial: Memory, where: Any) -> Memory:
    """`memory` with the rows `where` [B] is true taken from `initial`."""
    if not memory:
        return memory
    import torch

    mask = torch.as_tensor(where, dtype=torch.bool)
    return {
        key: torch.where(mask.view(-1, *[1] * (value.dim() - 1)), initial[key], value) for key, value in memory.items()
    }
