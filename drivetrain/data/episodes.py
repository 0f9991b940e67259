"""Episodes in memory: what every reader gives, and what training takes its batches from.

    data = open_dataset("data/carracing")
    batch = data.batch(32, at=step, seed=0, length=8)  # arrays [B, T, ...], `is_first` and `valid` [B, T]
    train, held_out = data.split(0.9, seed=0)  # by episode: neighbouring frames are almost copies of one another

A batch is a function of (size, length, seed, at) and nothing else. Batch `at` takes the frames at*size and on of an
endless row of permutations, one per epoch, so that an epoch shows every frame once. A window never leaves its episode:
what lies past the end repeats the last frame and has `valid` false.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from drivetrain.errors import BadData
from drivetrain.sample import ACTION, EXPERT_ACTED, EXPERT_ACTION, REWARD, TASK, Feature, Sample, Spec

IS_FIRST = "is_first"
VALID = "valid"
PICTURES_HASHED = 256  # frames of each picture feature that the fingerprint reads


@lru_cache(maxsize=8)
def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits `count` frames."""
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch)))).permutation(count)
    order.flags.writeable = False
    return order


def drawn(count: int, size: int, *, at: int, seed: int) -> np.ndarray:
    """The `size` frames, of `count`, that batch `at` is made of."""
    epochs, places = np.divmod(at * size + np.arange(size), count)
    chosen = np.empty(size, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = permutation(count, seed, int(epoch))[places[here]]
    return chosen


def moments(values: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, standard deviation, least and greatest over the first axis."""
    wide = values.astype(np.float64)
    parts = {"mean": wide.mean(0), "std": wide.std(0), "min": wide.min(0), "max": wide.max(0)}
    return {name: value.astype(np.float32) for name, value in parts.items()}


class Pictures:
    """uint8 [N, H, W, C] that is decoded frame by frame when first asked for, and kept."""

    dtype = np.dtype(np.uint8)

    def __init__(self, decode: Callable[[int], np.ndarray], count: int, shape: tuple[int, ...]):
        self.shape = (count, *shape)
        self._decode = decode
        self._frames = np.empty(self.shape, np.uint8)
        self._known = np.zeros(count, dtype=bool)

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, where: Any) -> np.ndarray:
        rows = np.arange(len(self))[where]
        for row in np.unique(rows):
            if not self._known[row]:
                self._frames[row] = self._decode(int(row))
                self._known[row] = True
        return self._frames[rows]


class Chain:
    """Arrays end to end without a copy: what each holds, and has decoded, stays with it."""

    def __init__(self, parts: Sequence[np.ndarray | Pictures | Chain]):
        self.parts = tuple(parts)
        self.edges = np.cumsum([len(part) for part in parts])  # row after the last of each part
        self.shape: tuple[int, ...] = (int(self.edges[-1]), *parts[0].shape[1:])
        self.dtype: np.dtype[Any] = parts[0].dtype

    def __len__(self) -> int:
        return int(self.edges[-1])

    def __getitem__(self, where: Any) -> np.ndarray:
        rows = np.asarray(np.arange(len(self))[where])
        found = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        owner = np.searchsorted(self.edges, rows, side="right")
        for i in np.unique(owner):
            mine = owner == i
            found[mine] = self.parts[i][rows[mine] - (self.edges[i] - len(self.parts[i]))]
        return found


class Episodes:
    """Frames of many episodes end to end, and where each episode starts; a split shares the arrays of its source."""

    def __init__(
        self,
        spec: Spec,
        arrays: Mapping[
            str, np.ndarray | Pictures | Chain
        ],  # [rows, ...] each, ragged features with their `<key>.count`
        lengths: Sequence[int] | np.ndarray,
        *,
        starts: Sequence[int] | np.ndarray | None = None,
        tasks: Sequence[str] | None = None,
        task_index: np.ndarray | None = None,  # [rows], which of `tasks` each frame belongs to
    ):
        self.spec = spec
        self.arrays = dict(arrays)
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths if starts is None else np.asarray(starts, dtype=np.int64)
        self.tasks = tuple(tasks) if tasks is not None else (spec.task,)
        rows = len(next(iter(self.arrays.values()))) if self.arrays else 0
        self.task_index = np.zeros(rows, dtype=np.int64) if task_index is None else task_index
        self._check(rows)
        self.ends = self.starts + self.lengths  # row after the last of each episode
        self.episode_of = np.repeat(np.arange(len(self.lengths)), self.lengths)  # [N]
        offsets = np.cumsum(self.lengths) - self.lengths
        self.rows = np.arange(len(self)) - offsets[self.episode_of] + self.starts[self.episode_of]  # [N], frame -> row
        self._stack = 1

    def __len__(self) -> int:
        return int(self.lengths.sum())

    @property
    def episodes(self) -> int:
        return len(self.lengths)

    def batch(self, size: int, *, at: int, seed: int, length: int = 1) -> Sample:
        """Windows of `length` frames, as arrays [B, T, ...]; `task` is each window's first instruction."""
        return self.windows(drawn(len(self), size, at=at, seed=seed), length)

    def windows(self, frames: np.ndarray, length: int = 1) -> Sample:
        """The windows that start at these frames, 0 <= frame < len(self)."""
        first = self.rows[frames]
        wanted = first[:, None] + np.arange(length)  # [B, T]
        starts, ends = (edge[self.episode_of[frames]][:, None] for edge in (self.starts, self.ends))
        rows = np.minimum(wanted, ends - 1)
        sample: Sample = {key: values[rows] for key, values in self.arrays.items()}
        for key in self.spec.stackable if self._stack > 1 else ():
            older = [self.arrays[key][np.maximum(rows - back, starts)] for back in range(self._stack - 1, 0, -1)]
            sample[key] = np.concatenate([*older, sample[key]], axis=-1)
        sample[VALID] = wanted < ends
        sample[IS_FIRST] = np.broadcast_to(np.arange(length) == 0, wanted.shape).copy()
        sample[TASK] = [self.tasks[index] for index in self.task_index[first]]
        return sample

    def episode(self, index: int) -> Sample:
        """One whole episode, as arrays [T, ...]; `task` is a list of T instructions."""
        rows = np.arange(self.starts[index], self.ends[index])
        sample: Sample = {key: values[rows] for key, values in self.arrays.items()}
        return sample | {TASK: [self.tasks[i] for i in self.task_index[rows]]}

    def values(self, key: str) -> np.ndarray:
        """[N, ...] of every frame, episode after episode."""
        return self.arrays[key][self.rows]

    def select(self, episodes: Sequence[int] | np.ndarray) -> Episodes:
        """Only these episodes, in this order, without a copy."""
        assert self._stack == 1, "stack after selecting"
        chosen = np.asarray(episodes, dtype=np.int64)
        return Episodes(
            self.spec,
            self.arrays,
            self.lengths[chosen],
            starts=self.starts[chosen],
            tasks=self.tasks,
            task_index=self.task_index,
        )

    def split(self, fraction: float, seed: int) -> tuple[Episodes, Episodes]:
        """`fraction` of the episodes to train on, and the rest to judge by; neither is empty."""
        if self.episodes < 2 or not 0 < fraction < 1:
            raise BadData(
                f"BadData: cannot split {self.episodes} episodes at {fraction}; "
                "it takes two episodes or more and a fraction between 0 and 1"
            )
        order = permutation(self.episodes, seed, 0)
        first = min(max(round(fraction * self.episodes), 1), self.episodes - 1)
        return self.select(np.sort(order[:first])), self.select(np.sort(order[first:]))

    def stack(self, count: int) -> Episodes:
        """The same episodes, in whose windows each observation is the last `count` in one (see `envs.words.Stack`)."""
        other = self.select(np.arange(self.episodes))
        other.spec, other._stack = self.spec.stacked(count), count
        return other

    def as_meant(self) -> Episodes:
        """With what an expert would have done as the action, where that was written."""
        if EXPERT_ACTION not in self.arrays:
            return self
        other = self.select(np.arange(self.episodes))
        other.arrays[ACTION] = other.arrays.pop(EXPERT_ACTION)
        other.arrays.pop(EXPERT_ACTED, None)
        features = {key: f for key, f in self.spec.features.items() if key not in (EXPERT_ACTION, EXPERT_ACTED)}
        other.spec = replace(self.spec, features=features)
        return other

    def require(self, *keys: str) -> None:
        """Refuse to go on without these arrays."""
        for key in keys:
            if key not in self.arrays:
                raise BadData(
                    f"BadData: needed {key}, the data set has {', '.join(self.arrays)}; use one that holds it"
                )

    def statistics(self) -> dict[str, dict[str, np.ndarray]]:
        """mean, std, min and max of every float feature, per entry; of a ragged one per column, over its true rows."""
        floats = {k: f for k, f in self.spec.features.items() if f.dtype.startswith("float")}
        found = {key: moments(self._true_rows(key, feature)) for key, feature in floats.items() if key in self.arrays}
        for key in found.keys() & self.spec.stackable.keys():
            found[key] = {name: np.concatenate([value] * self._stack, -1) for name, value in found[key].items()}
        return found

    def returns(self) -> np.ndarray:
        """The sum of each episode's rewards, in the world's own units."""
        self.require(REWARD)
        sums = np.cumsum(np.concatenate([[0.0], self.values(REWARD).astype(np.float64)]))
        ends = np.cumsum(self.lengths)
        return sums[ends] - sums[ends - self.lengths]

    def fingerprint(self) -> str:
        """A hash of the spec, every number, the instructions and some evenly spaced pictures."""
        digest = hashlib.sha256(json.dumps(self.spec.to_json(), sort_keys=True).encode())
        digest.update(json.dumps([self.tasks[i] for i in self.task_index[self.rows]]).encode())
        digest.update(self.lengths.tobytes())
        for key in sorted(self.arrays):
            values = self.arrays[key]
            rows = self.rows
            if values.dtype == np.uint8:
                rows = rows[np.unique(np.linspace(0, len(rows) - 1, PICTURES_HASHED).astype(np.int64))]
            digest.update(f"{key} {values.dtype} {values.shape[1:]}".encode())
            digest.update(np.ascontiguousarray(values[rows]).tobytes())
        return digest.hexdigest()[:16]

    def _true_rows(self, key: str, feature: Feature) -> np.ndarray:
        values = self.values(key)
        if not feature.ragged:
            return values
        counts = self.values(f"{key}.count")
        there = values[np.arange(feature.shape[0]) < counts[:, None]]
        return there if len(there) else np.zeros((1, *feature.shape[1:]))

    def _check(self, rows: int) -> None:
        if not len(self.lengths) or self.lengths.min() < 1:
            raise BadData("BadData: got an empty data set or episode, expected at least one frame; collect again")
        for key, feature in self.spec.features.items():
            if key not in self.arrays:
                raise BadData(f"BadData: the spec names {key}, the data has {', '.join(self.arrays)}; use another spec")
            values = self.arrays[key]
            if values.shape[1:] != tuple(feature.shape) or values.dtype != np.dtype(feature.dtype):
                raise BadData(
                    f"BadData: {key}: got {values.dtype} {list(values.shape[1:])}, "
                    f"expected {feature.dtype} {list(feature.shape)}; use the spec the data was collected with"
                )
        held = {key: len(values) for key, values in self.arrays.items()} | {"task_index": len(self.task_index)}
        for key, count in held.items():
            if count != rows or count < int((self.starts + self.lengths).max()):
                needed = int((self.starts + self.lengths).max())
                raise BadData(f"BadData: {key}: got {count} rows, the episodes need {needed}; lengths do not add up")


def together(parts: Sequence[Episodes]) -> Episodes:
    """The episodes of all parts, in their order; pictures are not copied. Stack afterwards."""
    first = parts[0]
    for part in parts:
        assert part._stack == 1, "stack what is together"
        first.spec.require(part.spec, who="the first part", by="another")
    rows = np.cumsum([len(part.task_index) for part in parts])
    before = rows - [len(part.task_index) for part in parts]
    tasks = list(dict.fromkeys(task for part in parts for task in part.tasks))
    numbers = [np.array([tasks.index(task) for task in part.tasks])[part.task_index] for part in parts]
    return Episodes(
        first.spec,
        {key: _end_to_end([part.arrays[key] for part in parts]) for key in first.arrays},
        np.concatenate([part.lengths for part in parts]),
        starts=np.concatenate([part.starts + start for part, start in zip(parts, before, strict=True)]),
        tasks=tasks,
        task_index=np.concatenate(numbers),
    )


def _end_to_end(arrays: Sequence[np.ndarray | Pictures | Chain]) -> np.ndarray | Chain:
    return Chain(arrays) if len(arrays[0].shape) > 2 else np.concatenate([array[:] for array in arrays])
