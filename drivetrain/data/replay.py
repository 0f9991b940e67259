"""Replay memory: a ring per world, in which an episode is stored as it was seen (T actions, T + 1 observations).

A slot holds an observation and what was done there; the slot after it always holds what came of it, because an episode's
last observation has a slot of its own (`final`, no action). So nothing is stored twice, and a batch of windows

    observation.*  [B, T+1, ...]     action, reward, terminated, ended, discount  [B, T, ...]     is_first  [B, T+1]

is a plain lookup. With `n_step` above 1 (T = 1 only) the second observation is the n-th, or the last one of the episode
where that came sooner: never a step of another episode, and a truncated episode still bootstraps from its end.

Exact resume: a ring that has gone on overwriting cannot be what it was. So each checkpoint appends the slots written since
the one before to a journal under `journal/`, the checkpoint keeps only cursors, and a resumed ring is filled from the
journal. Large rings are memory-mapped scratch files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from drivetrain.checkpoint import write_synced
from drivetrain.errors import BadCheckpoint, BadConfig
from drivetrain.sample import ACTION, Sample, Spec

REWARD, TERMINATED, ENDED, FINAL, FIRST = "reward", "terminated", "ended", "final", "is_first"


@dataclass(frozen=True)
class Priority:
    """Prioritised replay (Schaul et al. 2016): draw in proportion to error ** alpha, correct by weights ** beta."""

    alpha: float = 0.6
    beta: float = 0.4
    floor: float = 1e-6  # added to every error, so that nothing is drawn never


class Replay:
    """`capacity` slots in all, shared equally by `worlds` rings."""

    def __init__(
        self,
        spec: Spec,
        capacity: int,
        worlds: int,
        folder: Path,
        *,
        gamma: float,
        n_step: int = 1,
        length: int = 1,
        priority: Priority | None = None,
        in_memory_bytes: int = 4 << 30,
        keep: int = 3,
    ):
        if n_step > 1 and length > 1:
            raise BadConfig("BadConfig: n_step and sequences of several steps do not go together; set one of them to 1")
        if capacity // worlds < length + n_step + 2:
            raise BadConfig(f"BadConfig: {capacity} slots over {worlds} worlds is too few; raise the capacity")
        self.size, self.worlds, self.folder = capacity // worlds, worlds, folder
        self.gamma, self.n_step, self.length = gamma, n_step, length
        self._layout = _layout(spec)
        self._in_memory_bytes = in_memory_bytes
        self.arrays = self._allocate()
        self.written = np.zeros(worlds, dtype=np.int64)  # slots ever written, per world
        self._open = np.zeros(worlds, dtype=bool)  # whether an episode is under way
        self._led_to: Sample = {}  # what the latest actions led to
        self._files: list[tuple[str, list[int]]] = []  # the journal: names, and `written` at the end of each
        self._keep = keep
        self.tree = SumTree(worlds * self.size) if priority else None
        self.priority = priority

    def _allocate(self) -> dict[str, np.ndarray]:
        shapes = {key: (self.worlds, self.size, *shape) for key, (shape, _) in self._layout.items()}
        total = sum(prod(shapes[k]) * np.dtype(d).itemsize for k, (_, d) in self._layout.items())
        if total <= self._in_memory_bytes:
            return {k: np.zeros(shapes[k], dtype) for k, (_, dtype) in self._layout.items()}
        ring = self.folder / "ring"
        ring.mkdir(parents=True, exist_ok=True)
        return {
            k: np.memmap(ring / f"{k}.bin", dtype=dtype, mode="w+", shape=shapes[k])
            for k, (_, dtype) in self._layout.items()
        }

    def add(
        self,
        observation: Sample,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        final: Sample,
    ) -> None:
        """One step of every world; `final` is what the action led to."""
        worlds = np.arange(self.worlds)
        ended = terminated | truncated
        self._put(
            worlds, observation, first=~self._open, action=action, reward=reward, terminated=terminated, ended=ended
        )
        self._open, self._led_to = ~ended, final
        if ended.any():
            at = np.flatnonzero(ended)
            self._put(at, {k: v[at] for k, v in final.items()}, final=True)

    def cut(self) -> None:
        """Worlds are about to be rebuilt: open episodes end here, as truncated."""
        at = np.flatnonzero(self._open)
        if len(at):
            self.arrays[ENDED][at, (self.written[at] - 1) % self.size] = True
            self._put(at, {k: v[at] for k, v in self._led_to.items()}, final=True)
            self._open[:] = False

    def _put(
        self,
        worlds: np.ndarray,
        observation: Sample,
        *,
        first: Any = False,
        action: Any = 0,
        reward: Any = 0.0,
        terminated: Any = False,
        ended: Any = False,
        final: bool = False,
    ) -> None:
        slot = self.written[worlds] % self.size
        told = {ACTION: action, REWARD: reward, TERMINATED: terminated, ENDED: ended, FINAL: final, FIRST: first}
        for key, array in self.arrays.items():
            array[worlds, slot] = told[key] if key in told else observation[key]
        self.written[worlds] += 1
        if self.tree:
            self._set_priority(worlds, slot, final)

    @property
    def window_bytes(self) -> int:
        """About how much one window takes."""
        return (self.length + 1) * sum(prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self._layout.values())

    def __len__(self) -> int:
        return int(np.minimum(self.written, self.size).sum())

    def batch(self, size: int, generator: np.random.Generator) -> Sample:
        """`size` windows, a `weight` for each [B], and with priorities the `index` [B] that `reprioritise` wants."""
        world, slot, weight = self._draw(size, generator)
        batch = self._n_step(world, slot) if self.n_step > 1 else self._windows(world, slot)
        batch["weight"] = weight
        if self.tree:
            batch["index"] = world * self.size + slot
        return batch

    def _draw(self, size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.tree:
            return self._draw_by_priority(size, generator)
        world, slot = self._candidates(size, generator)
        while (bad := self.arrays[FINAL][world, slot]).any():
            world[bad], slot[bad] = self._candidates(int(bad.sum()), generator)
        return world, slot, np.ones(size, dtype=np.float32)

    def _candidates(self, size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Slots that have `length` successors already; among them may be final ones."""
        held = np.minimum(self.written, self.size)
        room = np.maximum(held - self.length, 0)
        assert room.any(), f"nothing to draw from: {held} slots held"
        edges = np.cumsum(room)
        draw = generator.integers(edges[-1], size=size)
        world = np.searchsorted(edges, draw, side="right")
        offset = draw - (edges[world] - room[world])
        return world, (self.written[world] - held[world] + offset) % self.size

    def _windows(self, world: np.ndarray, slot: np.ndarray) -> Sample:
        at = (slot[:, None] + np.arange(self.length + 1)) % self.size  # [B, T+1]
        rows = world[:, None]
        batch = {key: self.arrays[key][rows, at] for key in self._layout if key.startswith("observation.")}
        for key in (ACTION, REWARD, TERMINATED, ENDED):
            batch[key] = self.arrays[key][rows, at[:, :-1]]
        batch["discount"] = np.full(batch[REWARD].shape, self.gamma, dtype=np.float32)
        batch["valid"] = ~self.arrays[FINAL][rows, at[:, :-1]]
        batch[FIRST] = self.arrays[FIRST][rows, at]
        batch[FIRST][:, 0] = True
        return batch

    def _n_step(self, world: np.ndarray, slot: np.ndarray) -> Sample:
        newest = (self.written[world] - 1) % self.size
        at, going = slot.copy(), np.ones(len(slot), dtype=bool)
        reward, discount = np.zeros(len(slot), np.float32), np.ones(len(slot), np.float32)
        terminated, ended = np.zeros(len(slot), bool), np.zeros(len(slot), bool)
        for _ in range(self.n_step):
            reward[going] += discount[going] * self.arrays[REWARD][world[going], at[going]]
            terminated[going] = self.arrays[TERMINATED][world[going], at[going]]
            ended[going] = self.arrays[ENDED][world[going], at[going]]
            discount[going] *= self.gamma
            at[going] = (at[going] + 1) % self.size
            going &= ~ended & (at != newest)
        pair = np.stack([slot, at], axis=1)
        batch = {k: self.arrays[k][world[:, None], pair] for k in self._layout if k.startswith("observation.")}
        batch[ACTION] = self.arrays[ACTION][world, slot][:, None]
        for key, value in ((REWARD, reward), (TERMINATED, terminated), (ENDED, ended), ("discount", discount)):
            batch[key] = value[:, None]
        batch["valid"], batch[FIRST] = np.ones((len(slot), 1), bool), np.ones((len(slot), 2), bool)
        return batch

    def _set_priority(self, worlds: np.ndarray, slot: np.ndarray, final: bool) -> None:
        """A slot can be drawn once its successors are there; until then, and where it is final, it weighs nothing."""
        assert self.tree
        index = worlds * self.size
        self.tree.set(index + slot, np.zeros(len(slot)))
        ready = (slot - self.length) % self.size
        usable = (self.written[worlds] > self.length) & ~self.arrays[FINAL][worlds, ready]
        self.tree.set((index + ready)[usable], np.full(int(usable.sum()), self.tree.largest))

    def _draw_by_priority(self, size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert self.tree and self.priority
        index = self.tree.draw(generator.random(size))
        share = self.tree.leaves[index] / self.tree.total
        weight = (share * len(self)) ** -self.priority.beta
        return index // self.size, index % self.size, (weight / weight.max()).astype(np.float32)

    def reprioritise(self, index: np.ndarray, errors: np.ndarray) -> None:
        assert self.tree and self.priority
        self.tree.set(index, (np.abs(errors) + self.priority.floor) ** self.priority.alpha)

    def state_dict(self) -> dict[str, Any]:
        """Ends open episodes, appends what is new to the journal, and tells the cursors."""
        self.cut()
        before = np.array(self._files[-1][1]) if self._files else np.zeros(self.worlds, dtype=np.int64)
        start = np.maximum(before, self.written - self.size)
        news = {"start": start}
        for w in range(self.worlds):
            at = np.arange(start[w], self.written[w]) % self.size
            news |= {f"{w}/{key}": np.ascontiguousarray(self.arrays[key][w, at]) for key in self._layout}
        name = f"{int(self.written.sum()):012d}.safetensors"
        if not self._files or self._files[-1][0] != name:
            self._append(name, news)
        state: dict[str, Any] = {"written": self.written.copy(), "files": self._files}
        if self.tree:
            state |= {"leaves": self.tree.leaves.copy(), "largest": self.tree.largest}
        return state

    def _append(self, name: str, news: dict[str, np.ndarray]) -> None:
        journal = self.folder / "journal"
        journal.mkdir(parents=True, exist_ok=True)
        write_synced(journal / f".{name}", save(news))
        (journal / f".{name}").replace(journal / name)
        self._files = [*self._files, (name, self.written.tolist())]
        oldest = np.array(self._files[-self._keep :][0][1])  # of the checkpoints that may still be resumed
        needed = [any(end > oldest - self.size) for _, end in self._files]
        for (old, _), wanted in zip(self._files, needed, strict=True):
            if not wanted:
                (journal / old).unlink(missing_ok=True)
        self._files = [file for file, wanted in zip(self._files, needed, strict=True) if wanted]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        journal = self.folder / "journal"
        self.written, self._files = state["written"].copy(), [(name, ends) for name, ends in state["files"]]
        names = [name for name, _ in self._files]
        for later in journal.glob("*.safetensors"):
            if later.name not in names:  # written by steps that a kill took back
                later.unlink()
        for news in _remembered(journal, state, self.size):
            self._replay(news)
        if self.tree:
            self.tree.restore(state["leaves"], state["largest"])

    def _replay(self, news: dict[str, np.ndarray]) -> None:
        for w in range(self.worlds):
            start, count = int(news["start"][w]), len(news[f"{w}/{REWARD}"])
            at = np.arange(start, start + count) % self.size
            for key in self._layout:
                self.arrays[key][w, at] = news[f"{w}/{key}"]


def _layout(spec: Spec) -> dict[str, tuple[tuple[int, ...], str]]:
    layout = {key: (feature.shape, feature.dtype) for key, feature in spec.observations.items()}
    layout[ACTION] = (spec.action.shape, spec.action.dtype)
    flags: dict[str, tuple[tuple[int, ...], str]] = dict.fromkeys((TERMINATED, ENDED, FINAL, FIRST), ((), "bool"))
    return layout | {REWARD: ((), "float32")} | flags


def _remembered(journal: Path, state: dict[str, Any], size: int) -> Iterator[dict[str, np.ndarray]]:
    """The journal's files that a checkpoint's memory of `size` steps a world needs; the others may be gone."""
    for name, ends in state["files"]:
        if not (np.array(ends) > state["written"] - size).any():
            continue  # all of it was overwritten by then
        try:
            yield load_file(journal / name)
        except (OSError, SafetensorError) as error:
            raise BadCheckpoint(
                f"BadCheckpoint: the replay journal {journal / name} cannot be read ({error}); start the run anew"
            ) from error


def recalled(journal: Path, state: dict[str, Any], capacity: int) -> Iterator[Sample]:
    """The episodes [T, ...] that a checkpoint's memory holds, world by world and oldest first; the files are only read.

    The oldest of each world may begin half-way: what came before it was overwritten.
    """
    worlds = len(state["written"])
    size = capacity // worlds
    for world in range(worlds):
        pieces: dict[str, list[np.ndarray]] = {}
        for held in _remembered(journal, state, size):
            for key in (k.partition("/")[2] for k in held if k.startswith(f"{world}/")):
                pieces.setdefault(key, []).append(held[f"{world}/{key}"])
        arrays = {key: np.concatenate(parts)[-size:] for key, parts in pieces.items()}
        begin = 0
        for end in np.flatnonzero(arrays[FINAL]).tolist() if arrays else ():
            if end > begin:
                yield {key: values[begin:end] for key, values in arrays.items()}
            begin = end + 1


class SumTree:
    """Draws an index in proportion to its leaf, and changes leaves, in log time and by whole arrays."""

    def __init__(self, size: int):
        self.width = 1 << max(size - 1, 1).bit_length()
        self.nodes = np.zeros(2 * self.width)
        self.size, self.largest = size, 1.0

    @property
    def leaves(self) -> np.ndarray:
        return self.nodes[self.width : self.width + self.size]

    @property
    def total(self) -> float:
        return float(self.nodes[1])

    def set(self, index: np.ndarray, value: np.ndarray) -> None:
        if len(index) == 0:
            return
        self.largest = max(self.largest, float(value.max()))
        at = np.asarray(index) + self.width
        self.nodes[at] = value
        while at[0] > 1:
            at = np.unique(at // 2)
            self.nodes[at] = self.nodes[2 * at] + self.nodes[2 * at + 1]

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """One index for each number in [0, 1), stratified over the batch."""
        target = (np.arange(len(uniform)) + uniform) / len(uniform) * self.total
        at = np.ones(len(uniform), dtype=np.int64)
        while at[0] < self.width:
            left = self.nodes[2 * at]
            right = (target >= left) & (self.nodes[2 * at + 1] > 0)
            target = np.where(right, target - left, target)
            at = 2 * at + right
        return at - self.width

    def restore(self, leaves: np.ndarray, largest: float) -> None:
        self.nodes[:] = 0
        self.nodes[self.width : self.width + self.size] = leaves
        for level in range(self.width.bit_length() - 2, -1, -1):
            at = np.arange(1 << level, 2 << level)
            self.nodes[at] = self.nodes[2 * at] + self.nodes[2 * at + 1]
        self.largest = largest
