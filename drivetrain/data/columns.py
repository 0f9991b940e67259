"""A sample's features as LeRobot v3 stores them: which columns there are, and numpy <-> Arrow for each.

A scalar has shape (1,) and a plain column, a vector a fixed-size list, anything larger nested lists. A picture is a PNG
in a struct of bytes and path, or has no column where it is in a video. LeRobot's pictures have three channels, so one
of 3k channels (a stack of k frames) becomes the k columns `<key>.0` .. `<key>.k-1`, and one of k others k grey ones. A
ragged feature has a column more, `<key>.count`.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from drivetrain.errors import BadData
from drivetrain.sample import REWARD, TERMINATED, TRUNCATED, Feature, Spec, is_image

OUTCOMES = {REWARD: Feature(()), TERMINATED: Feature((), "bool"), TRUNCATED: Feature((), "bool")}
PICTURE_NAMES = ["height", "width", "channels"]
PNG_EFFORT = 3  # of 9: a tenth larger than 6 at half the time


@dataclass(frozen=True)
class Column:
    key: str  # its name on disk
    source: str  # the feature it holds, or holds a part of
    dtype: str  # numpy's, or "image", or "video"
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    channel: int = 0  # the first channel of its source that a picture holds

    @property
    def picture(self) -> bool:
        return self.dtype in ("image", "video")

    def part(self, frames: np.ndarray) -> np.ndarray:
        """These channels of [T, H, W, C]."""
        return frames[..., self.channel : self.channel + self.shape[-1]]

    def to_info(self) -> dict[str, Any]:
        names = PICTURE_NAMES if self.picture else list(self.names) or None
        return {"dtype": self.dtype, "shape": list(self.shape), "names": names}


INDEX = [
    Column("timestamp", "", "float32", (1,)),
    *[Column(key, "", "int64", (1,)) for key in ("frame_index", "episode_index", "index", "task_index")],
]


def stored(spec: Spec) -> dict[str, Feature]:
    """The features of a spec, with the outcomes that every frame has."""
    return {**spec.features, **{key: feature for key, feature in OUTCOMES.items() if key not in spec.features}}


def columns_of(spec: Spec, video: bool = False) -> list[Column]:
    """What is stored of a sample, without the index columns."""
    columns: list[Column] = []
    for key, feature in stored(spec).items():
        if is_image(key):
            columns += picture_columns(key, feature, "video" if video else "image")
            continue
        shape = tuple(feature.shape) or (1,)
        names = feature.names if len(feature.names) == feature.size and not feature.choices else ()
        columns.append(Column(key, key, feature.dtype, shape, names))
        if feature.ragged:
            columns.append(Column(f"{key}.count", key, "int64", (1,)))
    return columns


def picture_columns(key: str, feature: Feature, dtype: str) -> list[Column]:
    height, width, channels = feature.shape
    depth = 3 if channels % 3 == 0 else 1
    count = channels // depth
    return [
        Column(key if count == 1 else f"{key}.{i}", key, dtype, (height, width, depth), channel=i * depth)
        for i in range(count)
    ]


def to_arrow(column: Column, values: np.ndarray) -> pa.Array:
    """[T, *shape] as a column."""
    if column.dtype == "image":
        pngs = pa.array([png(frame) for frame in values], pa.binary())
        return pa.StructArray.from_arrays([pngs, pa.nulls(len(pngs), pa.string())], names=["bytes", "path"])
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    if column.shape == (1,):
        return flat
    if len(column.shape) == 1:
        return pa.FixedSizeListArray.from_arrays(flat, column.shape[0])
    for depth in reversed(range(len(column.shape))):
        width = column.shape[depth]
        groups = len(values) * math.prod(column.shape[:depth])
        flat = pa.ListArray.from_arrays(pa.array(np.arange(groups + 1, dtype=np.int32) * width), flat)
    return flat


def to_numpy(array: pa.ChunkedArray, dtype: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    """A column of numbers as [T, *shape]."""
    rows = len(array)
    parts = []
    for chunk in array.chunks:
        flat = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
        while pa.types.is_nested(flat.type) and not pa.types.is_struct(flat.type):
            flat = flat.flatten()
        if flat.null_count:
            raise BadData(
                f"BadData: {where}: got {flat.null_count} empty values, expected none; collect or export again"
            )
        parts.append(flat.to_numpy(zero_copy_only=False))
    values = np.concatenate(parts) if parts else np.empty(0)
    if values.size != rows * math.prod(shape) or not np.can_cast(values.dtype, dtype, "same_kind"):
        raise BadData(
            f"BadData: {where}: got {values.size} values of {values.dtype} in {rows} rows, "
            f"expected {dtype} {list(shape)} in each; restore the file or collect again"
        )
    return values.reshape(rows, *shape).astype(dtype, copy=False)


def png(frame: np.ndarray) -> bytes:
    """[H, W, 3] or [H, W, 1], losslessly."""
    stream = io.BytesIO()
    Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(stream, "PNG", compress_level=PNG_EFFORT)
    return stream.getvalue()


def from_picture(data: bytes, depth: int) -> np.ndarray:
    """The pixels of a PNG or JPEG, as [H, W, depth]."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("L" if depth == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], depth)


def schema(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema, with the note by which Hugging Face's `datasets` knows pictures and array shapes."""
    kept = [column for column in columns if column.dtype != "video"]
    fields = [pa.field(column.key, _type(column)) for column in kept]
    note = {"info": {"features": {column.key: _hugging_face(column) for column in kept}}}
    return pa.schema(fields, metadata={b"huggingface": json.dumps(note).encode()})


def read_table(path: Path) -> pa.Table:
    """A Parquet file, every page checked against its checksum."""
    try:
        return pq.ParquetFile(path, page_checksum_verification=True).read()
    except FileNotFoundError as error:
        raise BadData(f"BadData: {path} is missing; restore it or collect again") from error
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise BadData(f"BadData: {path} cannot be read ({reason}); it is cut short or corrupt: restore it") from error


def write_table(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, write_page_checksum=True)


def _type(column: Column) -> pa.DataType:
    if column.dtype == "image":
        return pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kind = pa.from_numpy_dtype(np.dtype(column.dtype))
    if column.shape == (1,):
        return kind
    if len(column.shape) == 1:
        return pa.list_(kind, column.shape[0])
    for _ in column.shape:
        kind = pa.list_(kind)
    return kind


def _hugging_face(column: Column) -> dict[str, Any]:
    value = {"dtype": column.dtype, "_type": "Value"}
    if column.dtype == "image":
        return {"_type": "Image"}
    if column.shape == (1,):
        return value
    if len(column.shape) == 1:
        return {"feature": value, "length": column.shape[0], "_type": "List"}
    return {"shape": list(column.shape), "dtype": column.dtype, "_type": f"Array{len(column.shape)}D"}
