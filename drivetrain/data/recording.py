"""Writing a LeRobot v3 data set, one episode at a time, so that a kill loses at most the episode in progress.

    writer = Writer("data/carracing", env.sample_spec, resume=True)
    writer.add(sample)  # once per frame: observations, action, next.reward, next.terminated, next.truncated
    writer.end_episode()
    writer.finish()

An episode is first written to a folder of its own under `.episodes/`, which appears there whole or not at all. `finish`
joins these into LeRobot's few large files next to where they will lie, moves those into place, `meta/` (and with it
`info.json`) last, and only then deletes `.episodes/`; whenever it is cut short, it can start again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from drivetrain.data import summary
from drivetrain.data.columns import INDEX, Column, columns_of, schema, stored, to_arrow, write_table
from drivetrain.data.joining import Limits, compact
from drivetrain.data.layout import (
    COLLECTION,
    FRAMES,
    INFO,
    RECORD,
    SPEC,
    WAITING,
    read_json,
    settle,
    waiting,
    write_json,
)
from drivetrain.data.video import encode
from drivetrain.errors import BadData
from drivetrain.sample import TASK, TERMINATED, TRUNCATED, Feature, Sample, Spec, is_image


class Writer:
    """A data set folder that grows by whole episodes."""

    def __init__(
        self, root: str | Path, spec: Spec, *, robot_type: str = "drivetrain", video: bool = False, resume: bool = False
    ):
        self.root, self.spec, self.columns = Path(root), spec, columns_of(spec, video)
        self._features = stored(spec)
        self._frames: list[Sample] = []
        self._check_spec(video)
        self.finished = (self.root / INFO).exists()
        if not resume:
            self._check_vacant()
        collection = {"spec": spec.to_json(), "robot_type": robot_type, "video": video}
        self._check_same(collection)
        records = [] if self.finished else [record for _, record in waiting(self.root)]
        self.episodes = read_json(self.root / INFO)["total_episodes"] if self.finished else len(records)
        self.frames = sum(record["length"] for record in records)
        self._tasks = list(dict.fromkeys(task for record in records for task in record["tasks"]))
        if not self.finished:
            (self.root / WAITING).mkdir(parents=True, exist_ok=True)
            write_json(self.root / WAITING / COLLECTION, collection)

    def add(self, sample: Sample) -> None:
        """One frame of the episode in progress."""
        if self.finished:
            raise BadData(f"BadData: {self.root} was finished with {self.episodes} episodes; collect into a new folder")
        allowed = {TASK} | set(self._features) | {f"{k}.count" for k, f in self._features.items() if f.ragged}
        if unknown := sorted(set(sample) - allowed):
            raise BadData(
                f"BadData: got {', '.join(unknown)}, the spec has no such feature; leave it out or name it there"
            )
        frame: Sample = {TASK: str(sample.get(TASK, self.spec.task))}
        for key, feature in self._features.items():
            frame |= self._checked(key, feature, sample)
        self._frames.append(frame)

    def discard(self) -> None:
        """Forget the frames added since the last whole episode."""
        self._frames = []

    def end_episode(self) -> None:
        """Write the episode in progress; it is safe once this returns."""
        if not self._frames:
            raise BadData(f"BadData: episode {self.episodes} has no frame; add one before it ends")
        arrays = {key: np.stack([frame[key] for frame in self._frames]) for key in self._frames[0] if key != TASK}
        ended = np.flatnonzero((arrays[TERMINATED] | arrays[TRUNCATED])[:-1])
        if len(ended):
            raise BadData(
                f"BadData: episode {self.episodes} ended at frame {ended[0]}, got {len(self._frames)} frames; "
                "end_episode() belongs after the frame that is terminated or truncated"
            )
        names = [frame[TASK] for frame in self._frames]
        self._tasks = list(dict.fromkeys([*self._tasks, *names]))
        self._save(arrays, names)
        self.episodes += 1
        self.frames += len(names)
        self._frames = []

    def finish(self, limits: Limits | None = None) -> None:
        """Join the episodes into LeRobot's files; frames of an episode that has not ended are dropped."""
        self.discard()
        compact(self.root, limits)
        self.finished = True

    def _save(self, arrays: dict[str, np.ndarray], names: list[str]) -> None:
        length = len(names)
        index: dict[str, np.ndarray] = {
            "timestamp": (np.arange(length) / self.spec.fps).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, self.episodes),
            "index": np.arange(self.frames, self.frames + length),
            "task_index": np.array([self._tasks.index(name) for name in names]),
        }
        half_written = self.root / WAITING / "half-written"
        shutil.rmtree(half_written, ignore_errors=True)
        half_written.mkdir()
        filled = [(c, c.part(arrays[c.source]) if c.picture else arrays[c.key]) for c in self.columns]
        filled += [(c, index[c.key]) for c in INDEX]
        columns = [to_arrow(column, values) for column, values in filled if column.dtype != "video"]
        table = pa.Table.from_arrays(columns, schema=schema(column for column, _ in filled))
        write_table(table, half_written / FRAMES)
        for column, values in filled:
            if column.dtype == "video":
                encode(half_written / f"{column.key}.mp4", values, self.spec.fps)
        stats = {c.key: summary.serial(self._summary(c, values, arrays)) for c, values in filled}
        record = {"length": length, "tasks": list(dict.fromkeys(names)), "stats": stats}
        write_json(half_written / RECORD, record)
        settle(half_written, self.root / WAITING / f"{self.episodes:06d}")

    def _summary(self, column: Column, values: np.ndarray, arrays: dict[str, np.ndarray]) -> summary.Summary:
        if column.picture:
            return summary.of_pictures(values)
        feature = self._features.get(column.key)
        if feature and feature.ragged:
            there = np.arange(feature.shape[0]) < arrays[f"{column.key}.count"][:, None]
            return summary.of_numbers(values[there], len(values))
        return summary.of_numbers(values)

    def _checked(self, key: str, feature: Feature, sample: Sample) -> Sample:
        """One feature of a frame in its shape and dtype, and its row count where it is ragged."""
        where = f"{key} of frame {len(self._frames)} in episode {self.episodes}"
        if key not in sample:
            raise BadData(f"BadData: {where} is missing, got {', '.join(sorted(sample))}; add it to each frame")
        value = np.asarray(sample[key])
        fits = value.shape == feature.shape
        if feature.ragged:
            fits = value.shape[1:] == feature.shape[1:] and len(value) <= feature.shape[0]
        if not fits or not np.can_cast(value.dtype, feature.dtype, "same_kind"):
            raise BadData(
                f"BadData: {where}: got {value.dtype} {list(value.shape)}, expected {feature.dtype} "
                f"{list(feature.shape)}; give it as the spec says"
            )
        value = value.astype(feature.dtype)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise BadData(
                f"BadData: {where}: got {value[~np.isfinite(value)][0]}, expected a finite number; mend the source"
            )
        if feature.choices and not (value.min() >= 0 and value.max() < feature.choices):
            raise BadData(f"BadData: {where}: got {value}, expected 0 to {feature.choices - 1}; mend the source")
        if not feature.ragged:
            return {key: value}
        count = int(sample.get(f"{key}.count", len(value)))
        padded = np.zeros(feature.shape, feature.dtype)
        padded[:count] = value[:count]
        return {key: padded, f"{key}.count": np.int64(count)}

    def _check_spec(self, coded: bool) -> None:
        if self.spec.fps <= 0:
            raise BadData(
                f"BadData: the spec says {self.spec.fps} frames per second, expected more than 0; set its fps"
            )
        for key, feature in self.spec.features.items():
            if is_image(key) and (feature.dtype != "uint8" or len(feature.shape) != 3):
                got = f"{feature.dtype} {list(feature.shape)}"
                raise BadData(f"BadData: {key}: got {got}, expected uint8 [H, W, C]; convert the pictures")
            if coded and is_image(key) and (feature.shape[0] % 2 or feature.shape[1] % 2):
                size = f"{feature.shape[0]}x{feature.shape[1]}"
                raise BadData(
                    f"BadData: {key}: got {size}, video needs even sides; resize, or keep images (video=False)"
                )

    def _check_vacant(self) -> None:
        if self.finished:
            raise BadData(f"BadData: {self.root} already holds a finished data set; choose another folder or delete it")
        if (self.root / WAITING / COLLECTION).exists():
            count = len(list(waiting(self.root)))
            raise BadData(
                f"BadData: {self.root} holds {count} episodes of an interrupted collection; delete it, or go on with --resume"
            )
        others = [path for path in self.root.iterdir() if path.name != WAITING] if self.root.is_dir() else []
        if others or (self.root.exists() and not self.root.is_dir()):
            raise BadData(f"BadData: {self.root} is not an empty folder; choose another")

    def _check_same(self, collection: dict[str, Any]) -> None:
        begun = self.root / (SPEC if self.finished else f"{WAITING}/{COLLECTION}")
        if not begun.exists():
            if self.root.exists():
                self._check_vacant()
            return
        earlier = read_json(begun)
        mine = collection["spec"] if self.finished else collection
        asked = json.loads(json.dumps(mine))  # tuples become lists
        if changed := [key for key in asked if earlier.get(key) != asked[key]]:
            raise BadData(
                f"BadData: {self.root} was begun with another {', '.join(changed)}; "
                "resume with the same or choose another folder"
            )
