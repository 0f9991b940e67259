"""What happens to a sample between the world and the network, and back.

A transform is a small frozen callable with an `undo`. One list of them trains and serves: it is saved in the checkpoint
and applied by the policy itself, so whoever calls `act` hands in the world's units and gets the world's units back.
They work on numpy arrays and torch tensors alike, with any number of leading dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from drivetrain.sample import ACTION, Feature, Sample, Spec


class Transform(Protocol):
    kind: ClassVar[str]

    def __call__(self, sample: Sample) -> Sample: ...
    def undo(self, sample: Sample) -> Sample: ...


@dataclass(frozen=True)
class Normalise:
    """`key` to mean 0 and deviation 1."""

    kind: ClassVar[str] = "normalise"
    key: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, sample: Sample) -> Sample:
        return _changed(sample, self.key, lambda x: (x - _like(self.mean, x)) / _like(self.std, x))

    def undo(self, sample: Sample) -> Sample:
        return _changed(sample, self.key, lambda x: x * _like(self.std, x) + _like(self.mean, x))


@dataclass(frozen=True)
class Rescale:
    """`key` from [low, high] to [-1, 1], entry by entry; `undo` keeps what it returns within bounds."""

    kind: ClassVar[str] = "rescale"
    key: str
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __call__(self, sample: Sample) -> Sample:
        def scaled(x: Any) -> Any:
            low, high = _like(self.low, x), _like(self.high, x)
            return (x - low) / (high - low) * 2 - 1

        return _changed(sample, self.key, scaled)

    def undo(self, sample: Sample) -> Sample:
        def unscaled(x: Any) -> Any:
            low, high = _like(self.low, x), _like(self.high, x)
            return low + (x.clip(-1, 1) + 1) / 2 * (high - low)

        return _changed(sample, self.key, unscaled)


KINDS: dict[str, type[Any]] = {t.kind: t for t in (Normalise, Rescale)}


def apply(transforms: Sequence[Transform], sample: Sample) -> Sample:
    for transform in transforms:
        sample = transform(sample)
    return sample


def undo(transforms: Sequence[Transform], sample: Sample) -> Sample:
    for transform in reversed(transforms):
        sample = transform.undo(sample)
    return sample


def to_json(transforms: Sequence[Transform]) -> list[dict[str, Any]]:
    return [{"kind": t.kind, **asdict(t)} for t in transforms]  # type: ignore[call-overload]


def from_json(data: Sequence[Mapping[str, Any]]) -> tuple[Transform, ...]:
    return tuple(
        KINDS[row["kind"]](**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k != "kind"})
        for row in data
    )


def bounded_action(action: Feature) -> tuple[Transform, ...]:
    """Bounded actions to [-1, 1], where heads live; choices stay as they are."""
    if action.choices:
        return ()
    low, high = action.bounds()
    assert np.isfinite(low).all() and np.isfinite(high).all(), f"an action without bounds: {action}"
    return (Rescale(ACTION, tuple(map(float, low)), tuple(map(float, high))),)


def from_statistics(spec: Spec, statistics: Mapping[str, Mapping[str, Any]]) -> tuple[Transform, ...]:
    """Vectors normalised by a data set's mean and deviation, and the action as above."""
    vectors = [k for k, f in spec.observations.items() if f.dtype == "float32" and not f.ragged and k in statistics]
    normalised = tuple(
        Normalise(k, tuple(map(float, statistics[k]["mean"])), tuple(float(max(s, 1e-3)) for s in statistics[k]["std"]))
        for k in vectors
    )
    return normalised + bounded_action(spec.action)


def _changed(sample: Sample, key: str, change: Any) -> Sample:
    return {**sample, key: change(sample[key])} if key in sample else sample


def _like(values: tuple[float, ...], x: Any) -> Any:
    return torch.tensor(values, dtype=x.dtype) if isinstance(x, torch.Tensor) else np.asarray(values, dtype=x.dtype)
