"""Many small files of episodes into LeRobot's few large ones: the last step of a collection.

The joined files grow beside the place where they will lie and are moved there, `meta/` (and with it `info.json`) last;
only then are the episodes deleted. Whenever this is cut short, it can start again. Columns and pictures are copied as
they are, videos are joined without coding them anew.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drivetrain.data import summary, video
from drivetrain.data.columns import INDEX, Column, columns_of, read_table, write_table
from drivetrain.data.layout import (
    CODEBASE_VERSION,
    COLLECTION,
    DATA_PATH,
    EPISODES_PATH,
    FRAMES,
    INFO,
    JOINING,
    SPEC,
    STATS,
    TASKS,
    VIDEO_PATH,
    WAITING,
    read_json,
    settle,
    waiting,
    write_json,
)
from drivetrain.errors import BadData
from drivetrain.sample import Spec

MEGABYTE = 1024**2
Episode = tuple[Path, dict[str, Any]]  # its folder and its record


@dataclass(frozen=True)
class Limits:
    """How large the joined files may grow; the defaults are LeRobot's."""

    data_mb: float = 100
    video_mb: float = 200
    files_per_chunk: int = 1000


def compact(root: str | Path, limits: Limits | None = None) -> None:
    """Turn the waiting episodes of an interrupted or ended collection into a finished data set."""
    root, limits = Path(root), limits or Limits()
    if not (root / INFO).exists():
        if not (root / WAITING / COLLECTION).exists():
            raise BadData(
                f"BadData: {root} holds neither a data set nor episodes to make one of; collect into it first"
            )
        for name in (JOINING, "data", "videos", "meta"):
            shutil.rmtree(root / name, ignore_errors=True)
        _join(root, root / JOINING, limits)
        for name in ("data", "videos", "meta"):
            if (root / JOINING / name).exists():
                settle(root / JOINING / name, root / name)
    for name in (WAITING, JOINING):
        shutil.rmtree(root / name, ignore_errors=True)


def _join(root: Path, into: Path, limits: Limits) -> None:
    collection = read_json(root / WAITING / COLLECTION)
    spec = Spec.from_json(collection["spec"])
    columns = columns_of(spec, collection["video"])
    episodes = list(waiting(root))
    if not episodes:
        raise BadData(f"BadData: {root} holds no whole episode; collect at least one")
    rows = _rows(episodes)
    _join_data(episodes, rows, into, limits)
    for column in columns:
        if column.dtype == "video":
            _join_videos(column.key, spec.fps, episodes, rows, into, limits)
    stats = [{key: summary.parsed(part) for key, part in record["stats"].items()} for _, record in episodes]
    tasks = list(dict.fromkeys(task for _, record in episodes for task in record["tasks"]))
    _write_tasks(tasks, into / TASKS)
    for row, (_, record) in zip(rows, episodes, strict=True):
        row |= {f"stats/{key}/{name}": v for key, part in record["stats"].items() for name, v in part.items()}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
    write_table(pa.Table.from_pylist(rows), into / EPISODES_PATH.format(chunk_index=0, file_index=0))
    write_json(into / STATS, {key: summary.serial(summary.together([part[key] for part in stats])) for key in stats[0]})
    write_json(into / SPEC, collection["spec"])
    totals = {
        "total_episodes": len(rows),
        "total_frames": rows[-1]["dataset_to_index"],
        "total_tasks": len(tasks),
    }
    write_json(into / INFO, _info(collection, columns, limits) | totals | {"splits": {"train": f"0:{len(rows)}"}})


def _rows(episodes: list[Episode]) -> list[dict[str, Any]]:
    """What `meta/episodes` says of each episode, as far as it does not depend on files."""
    rows, start = [], 0
    for number, (_, record) in enumerate(episodes):
        end = start + record["length"]
        row = {"episode_index": number, "tasks": record["tasks"], "length": record["length"]}
        rows.append({**row, "dataset_from_index": start, "dataset_to_index": end})
        start = end
    return rows


def _groups(sizes: list[int], limit_mb: float) -> list[list[int]]:
    """Neighbours in groups below a size; what is too large is alone."""
    groups: list[list[int]] = []
    total = 0.0
    for number, size in enumerate(sizes):
        if not groups or total + size > limit_mb * MEGABYTE:
            groups.append([])
            total = 0.0
        groups[-1].append(number)
        total += size
    return groups


def _join_data(episodes: list[Episode], rows: list[dict[str, Any]], into: Path, limits: Limits) -> None:
    sizes = [(folder / FRAMES).stat().st_size for folder, _ in episodes]
    for number, group in enumerate(_groups(sizes, limits.data_mb)):
        chunk, file = divmod(number, limits.files_per_chunk)
        path = into / DATA_PATH.format(chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        first = read_table(episodes[group[0]][0] / FRAMES)
        with pq.ParquetWriter(path, first.schema, write_page_checksum=True) as writer:
            for episode in group:
                writer.write_table(read_table(episodes[episode][0] / FRAMES))
                rows[episode] |= {"data/chunk_index": chunk, "data/file_index": file}


def _join_videos(
    key: str,
    fps: float,
    episodes: list[Episode],
    rows: list[dict[str, Any]],
    into: Path,
    limits: Limits,
) -> None:
    clips = [folder / f"{key}.mp4" for folder, _ in episodes]
    for number, group in enumerate(_groups([clip.stat().st_size for clip in clips], limits.video_mb)):
        chunk, file = divmod(number, limits.files_per_chunk)
        path = into / VIDEO_PATH.format(video_key=key, chunk_index=chunk, file_index=file)
        lengths = [rows[episode]["length"] for episode in group]
        video.join([clips[episode] for episode in group], lengths, path, fps)
        ends = np.cumsum(lengths)
        for episode, end, length in zip(group, ends, lengths, strict=True):
            place: dict[str, Any] = {"chunk_index": chunk, "file_index": file}
            place |= {"from_timestamp": float((end - length) / fps), "to_timestamp": float(end / fps)}
            rows[episode] |= {f"videos/{key}/{name}": value for name, value in place.items()}


def _write_tasks(tasks: list[str], path: Path) -> None:
    """The instructions as pandas would store them, as the index of a table of numbers; so LeRobot expects it."""
    names = ["task_index", "__index_level_0__"]
    kinds = [("int64", "int64"), ("unicode", "object")]
    described = [
        {"name": n if n == "task_index" else None, "field_name": n, "pandas_type": p, "numpy_type": t, "metadata": None}
        for n, (p, t) in zip(names, kinds, strict=True)
    ]
    note = {
        "index_columns": names[1:],
        "column_indexes": [],
        "columns": described,
        "creator": {},
        "pandas_version": "2.2.0",
    }
    table = pa.table({names[0]: pa.array(range(len(tasks)), pa.int64()), names[1]: pa.array(tasks, pa.string())})
    write_table(table.replace_schema_metadata({b"pandas": json.dumps(note).encode()}), path)


def _info(collection: dict[str, Any], columns: list[Column], limits: Limits) -> dict[str, Any]:
    fps = collection["spec"]["fps"]
    features = {column.key: column.to_info() for column in [*columns, *INDEX]}
    for column in columns:
        if column.dtype == "video":
            height, width, _ = column.shape
            features[column.key]["info"] = {
                "video.height": height,
                "video.width": width,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": fps,
                "video.channels": 3,
                "has_audio": False,
            }
    return {
        "codebase_version": CODEBASE_VERSION,
        "robot_type": collection["robot_type"],
        "chunks_size": limits.files_per_chunk,
        "data_files_size_in_mb": limits.data_mb,
        "video_files_size_in_mb": limits.video_mb,
        "fps": int(fps) if float(fps).is_integer() else fps,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if collection["video"] else None,
        "features": features,
    }
