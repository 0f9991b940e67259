"""LeRobot v3 data sets, which are also this project's own: read with pyarrow and PyAV, no LeRobot needed.

    data = open_lerobot("data/carracing")
    writer = Writer("data/carracing", env.sample_spec)      # see recording.py

What `Writer` wrote comes back equal, pictures from images bit for bit, pictures from video nearly. A set made by
LeRobot itself has no `meta/spec.json`; its Spec is then told from `meta/info.json`:

    observation.image    is called observation.images.image
    next.*               of shape (1,) are plain numbers
    action               of shape (1,) and integer is a choice below the greatest seen + 1
    next.terminated      where missing is next.success, or next.done where that is missing too
    next.truncated       where missing is the last frame of each episode that is not terminated

`next.reward` is not made up; `Episodes.require` refuses a set without it. Text columns but the task are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from drivetrain.data.columns import INDEX, OUTCOMES, Column, columns_of, from_picture, read_table, stored, to_numpy
from drivetrain.data.episodes import Episodes, Pictures
from drivetrain.data.joining import Limits, compact
from drivetrain.data.layout import CODEBASE_VERSION, COLLECTION, INFO, SPEC, TASKS, WAITING, read_json, waiting
from drivetrain.data.recording import Writer
from drivetrain.data.video import decode
from drivetrain.errors import BadData
from drivetrain.sample import ACTION, TERMINATED, TRUNCATED, Feature, Spec, is_image

__all__ = ["Limits", "Writer", "compact", "open_lerobot"]

DONE, SUCCESS = "next.done", "next.success"


@dataclass(frozen=True)
class Source:
    """A folder, its `info.json`, its table of episodes, and its frames, one Arrow table per data file."""

    root: Path
    info: dict[str, Any]
    episodes: list[dict[str, Any]]
    tables: dict[Path, pa.Table]

    @property
    def lengths(self) -> np.ndarray:
        return np.array([row["length"] for row in self.episodes])

    @property
    def episode_of(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.episodes)), self.lengths)

    def column(self, key: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """[N, *shape], finite."""
        parts, before = [], 0
        for path, table in self.tables.items():
            values = to_numpy(table[key], dtype, shape, f"{path}: {key}")
            bad = (
                ~np.isfinite(values).reshape(len(values), -1).all(1) if values.dtype.kind == "f" else np.zeros(1, bool)
            )
            if bad.any():
                where = f"{path}: {key}: episode {self.episode_of[before + int(bad.argmax())]}"
                raise BadData(
                    f"BadData: {where}: got NaN or infinity, expected finite numbers; mend it or collect again"
                )
            parts.append(values)
            before += len(values)
        return np.concatenate(parts)


def open_lerobot(root: str | Path) -> Episodes:
    """The whole data set; pictures from images are decoded when first asked for, videos now."""
    source = read_source(Path(root))
    own = source.root / SPEC
    if own.exists():
        spec = Spec.from_json(read_json(own))
        video = any(feature["dtype"] == "video" for feature in source.info["features"].values())
        columns = columns_of(spec, video)
        return _episodes(source, spec, columns, stored(spec))
    columns = [column for key, told in source.info["features"].items() for column in _told(key, told)]
    features = {c.source: Feature(_shape(c), "uint8" if c.picture else c.dtype, names=c.names) for c in columns}
    features = {k: _coloured(f) if is_image(k) else f for k, f in features.items()}
    data = _episodes(source, Spec({}, "", float(source.info["fps"])), columns, features)
    return _adopted(data, features)


def read_source(root: Path) -> Source:
    """Everything but the pictures, its parts agreeing with each other."""
    info = _read_info(root)
    paths = sorted(root.glob("meta/episodes/*/*.parquet"))
    rows = [row for path in paths for row in _episode_rows(path)]
    frames = sum(row["length"] for row in rows)
    if len(rows) != info["total_episodes"] or frames != info["total_frames"] or not rows:
        raise BadData(
            f"BadData: {root / 'meta/episodes'}: got {len(rows)} episodes of {frames} frames, {root / INFO} says "
            f"{info['total_episodes']} of {info['total_frames']}; restore the missing files or collect again"
        )
    rows.sort(key=lambda row: row["episode_index"])
    tables: dict[Path, pa.Table] = {}
    for row in rows:
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        path = root / info["data_path"].format(**place)
        tables[path] = tables[path] if path in tables else read_table(path)
    source = Source(root, info, rows, tables)
    _check_columns(source)
    _check_lengths(source)
    return source


def _read_info(root: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise BadData(f"BadData: there is no folder {root}; give the folder of a data set, or collect one into it")
    if not (root / INFO).exists():
        if (root / WAITING / COLLECTION).exists():
            count = len(list(waiting(root)))
            raise BadData(
                f"BadData: {root} holds {count} episodes of an interrupted collection; resume it to finish it"
            )
        raise BadData(f"BadData: {root} has no {INFO}, so it is no LeRobot data set; give the folder that holds meta/")
    info = read_json(root / INFO)
    if info.get("codebase_version") != CODEBASE_VERSION:
        raise BadData(
            f"BadData: {root / INFO}: got version {info.get('codebase_version')}, expected {CODEBASE_VERSION}; "
            "convert it with LeRobot's convert_dataset_v21_to_v30"
        )
    needed = ("total_episodes", "total_frames", "fps", "features", "data_path")
    if missing := [key for key in needed if key not in info]:
        raise BadData(f"BadData: {root / INFO} lacks {', '.join(missing)}; restore it")
    return info


def _episode_rows(path: Path) -> list[dict[str, Any]]:
    table = read_table(path)
    kept = [name for name in table.column_names if not name.startswith("stats/")]
    needed = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    if missing := [name for name in needed if name not in kept]:
        raise BadData(f"BadData: {path}: got no column {', '.join(missing)}; restore the file or collect again")
    return table.select(kept).to_pylist()


def _check_columns(source: Source) -> None:
    told = source.info["features"]
    wanted = [key for key in told if told[key]["dtype"] != "video"] + [c.key for c in INDEX if c.key not in told]
    for path, table in source.tables.items():
        if missing := [key for key in wanted if key not in table.column_names]:
            raise BadData(f"BadData: {path}: got no column {', '.join(missing)}; restore the file or collect again")


def _check_lengths(source: Source) -> None:
    """The frames must be those the table of episodes speaks of, in its order."""
    got = source.column("episode_index", "int64", (1,))[:, 0]
    place = source.column("frame_index", "int64", (1,))[:, 0]
    lengths = source.lengths
    wanted = source.episode_of
    steps = np.arange(len(wanted)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    shared = min(len(got), len(wanted))
    wrong = np.flatnonzero((got[:shared] != wanted[:shared]) | (place[:shared] != steps[:shared]))
    if len(wrong) or len(got) != len(wanted):
        episode = int(wanted[min(wrong[0] if len(wrong) else shared, len(wanted) - 1)])
        count = int((got == episode).sum())
        raise BadData(
            f"BadData: {source.root / 'data'}: episode_index: episode {episode}: got {count} frames "
            f"(of {len(got)} in all), expected {lengths[episode]} in order (of {len(wanted)}); "
            "restore the files or collect again"
        )


def _episodes(source: Source, spec: Spec, columns: list[Column], features: Mapping[str, Feature]) -> Episodes:
    arrays: dict[str, np.ndarray | Pictures] = {}
    for key, feature in features.items():
        mine = [column for column in columns if column.source == key]
        if missing := [c.key for c in mine if c.key not in source.info["features"]]:
            raise BadData(
                f"BadData: {source.root / INFO}: features lack {', '.join(missing)}; restore it or collect again"
            )
        if is_image(key):
            arrays[key] = _pictures(source, mine, feature.shape)
            continue
        for column in mine:
            shape = feature.shape if column.key == key else ()
            arrays[column.key] = source.column(column.key, column.dtype, column.shape).reshape(-1, *shape)
    index = source.column("task_index", "int64", (1,))[:, 0]
    tasks = _tasks(source.root)
    if index.min() < 0 or index.max() >= len(tasks):
        raise BadData(
            f"BadData: {source.root / TASKS}: got {len(tasks)} tasks, the frames name task {index.max()}; restore it"
        )
    return Episodes(spec, arrays, source.lengths, tasks=tasks, task_index=index)


def _tasks(root: Path) -> list[str]:
    """The instructions by number; LeRobot keeps them as the index of a pandas table."""
    table = read_table(root / TASKS)
    texts = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    if not texts or "task_index" not in table.column_names:
        raise BadData(
            f"BadData: {root / TASKS}: got columns {table.column_names}, expected task_index and a text; restore it"
        )
    numbered = zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True)
    return [text for _, text in sorted(numbered)]


def _pictures(source: Source, columns: list[Column], shape: tuple[int, ...]) -> np.ndarray | Pictures:
    if columns[0].dtype == "video":
        frames = np.empty((len(source.episode_of), *shape), np.uint8)
        for column in columns:
            _decode_videos(source, column, column.part(frames))
        return frames
    files = list(source.tables)
    firsts = np.cumsum([0] + [len(table) for table in source.tables.values()])
    held = [[source.tables[path][column.key] for path in files] for column in columns]

    def picture(row: int) -> np.ndarray:
        file = int(np.searchsorted(firsts, row, side="right")) - 1
        parts = []
        for column, chunks in zip(columns, held, strict=True):
            where = f"{files[file]}: {column.key}: episode {source.episode_of[row]}"
            parts.append(_picture(chunks[file][row - firsts[file]].as_py(), column.shape, where))
        return np.concatenate(parts, axis=-1)

    return Pictures(picture, int(firsts[-1]), shape)


def _picture(stored: dict[str, Any] | None, shape: tuple[int, ...], where: str) -> np.ndarray:
    data = (stored or {}).get("bytes")
    if data is None:
        raise BadData(
            f"BadData: {where}: got no bytes, expected a picture inside the file; export it with pictures embedded"
        )
    try:
        pixels = from_picture(data, shape[-1])
    except (OSError, SyntaxError, ValueError) as error:
        raise BadData(
            f"BadData: {where}: a picture cannot be read ({error}); restore the file or collect again"
        ) from error
    if pixels.shape != shape:
        raise BadData(f"BadData: {where}: got a picture of {list(pixels.shape)}, expected {list(shape)}; collect again")
    return pixels


def _decode_videos(source: Source, column: Column, out: np.ndarray) -> None:
    """Into `out` [N, H, W, C], file by file; episodes in one file lie one after another."""
    fps, key = float(source.info["fps"]), column.key
    files: dict[Path, list[int]] = {}
    for number, row in enumerate(source.episodes):
        if f"videos/{key}/from_timestamp" not in row or not source.info.get("video_path"):
            raise BadData(
                f"BadData: {source.root / 'meta/episodes'}: got no column videos/{key}/from_timestamp; restore it"
            )
        place = {"chunk_index": row[f"videos/{key}/chunk_index"], "file_index": row[f"videos/{key}/file_index"]}
        files.setdefault(source.root / source.info["video_path"].format(video_key=key, **place), []).append(number)
    ends = np.cumsum(source.lengths)
    for path, numbers in files.items():
        if not path.exists():
            raise BadData(f"BadData: {path} is missing; episode {numbers[0]} needs it: restore it or collect again")
        times = [
            source.episodes[n][f"videos/{key}/from_timestamp"] + np.arange(source.lengths[n]) / fps for n in numbers
        ]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), numbers
        first, last = ends[numbers[0]] - source.lengths[numbers[0]], ends[numbers[-1]]
        where = [f"{key}: episode {n}" for n in numbers for _ in range(source.lengths[n])]
        decode(path, np.concatenate(times), fps, out[first:last], where)


def _told(key: str, told: dict[str, Any]) -> list[Column]:
    """The column that `info.json` tells of, if it holds something for a sample."""
    shape, dtype = tuple(told["shape"]), told["dtype"]
    if key in {column.key for column in INDEX} or dtype in ("string", "language"):
        return []
    names = told.get("names")
    if dtype in ("image", "video"):
        if names and str(names[0]).startswith("channel"):
            shape = (*shape[1:], shape[0])
        return [Column(key, "observation.images.image" if key == "observation.image" else key, dtype, shape)]
    flat = [n for part in names.values() for n in part] if isinstance(names, dict) else list(names or [])
    fits = len(flat) == int(np.prod(shape))
    return [Column(key, key, dtype, shape, tuple(str(n) for n in flat) if fits and shape != (1,) else ())]


def _shape(column: Column) -> tuple[int, ...]:
    scalar = column.shape == (1,) and (
        column.key.startswith("next.") or (column.key == ACTION and "int" in column.dtype)
    )
    return () if scalar else column.shape


def _coloured(feature: Feature) -> Feature:
    return Feature(feature.shape, feature.dtype, colour="rgb" if feature.shape[-1] == 3 else "")


def _adopted(data: Episodes, features: Mapping[str, Feature]) -> Episodes:
    """A foreign set in our words: outcomes for each frame, a choice for an action that is one."""
    arrays, last = dict(data.arrays), np.zeros(len(data), dtype=bool)
    last[data.ends - 1] = True
    done = arrays.pop(DONE, np.zeros(len(data), dtype=bool))
    success = arrays.pop(SUCCESS, done)
    arrays.setdefault(TERMINATED, np.asarray(success[:], dtype=bool))
    arrays.setdefault(TRUNCATED, last & ~np.asarray(arrays[TERMINATED][:]))
    kept = {k: f for k, f in features.items() if k in arrays and k not in OUTCOMES}
    if (action := kept.get(ACTION)) and action.shape == () and "int" in action.dtype:
        kept[ACTION] = Feature((), action.dtype, choices=int(np.max(arrays[ACTION][:])) + 1)
    task = data.tasks[0] if len(data.tasks) == 1 else ""
    return Episodes(Spec(kept, task, data.spec.fps), arrays, data.lengths, tasks=data.tasks, task_index=data.task_index)
