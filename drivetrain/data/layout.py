"""Where a LeRobot v3 data set keeps what, where ours waits before it is one, and how files get there whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drivetrain.errors import BadData

CODEBASE_VERSION = "v3.0"
INFO, SPEC, STATS, TASKS = "meta/info.json", "meta/spec.json", "meta/stats.json", "meta/tasks.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
WAITING, JOINING = ".episodes", ".joining"  # whole episodes not yet joined; the joined files not yet in place
FRAMES, RECORD, COLLECTION = "frames.parquet", "episode.json", "collection.json"


def waiting(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The whole episodes that are not yet joined, in order, with their records."""
    for number in range(len(list((root / WAITING).glob("[0-9]*")))):
        folder = root / WAITING / f"{number:06d}"
        if not folder.is_dir():
            raise BadData(f"BadData: {folder} is missing though later episodes are there; restore it or delete those")
        yield folder, read_json(folder / RECORD)


def read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BadData(f"BadData: {path} is missing; restore it or collect again") from error
    except ValueError as error:
        raise BadData(f"BadData: {path} is not JSON ({error}); it is cut short or corrupt: restore it") from error


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(data, indent=1))
    os.replace(new, path)


def settle(source: Path, target: Path) -> None:
    """Move a folder into place once all its files have reached the disk."""
    for path in [p for p in source.rglob("*") if p.is_file()]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    os.rename(source, target)
    folder = os.open(target.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
