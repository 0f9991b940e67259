"""Pictures with a caption each: CSV, JSONL, and whatever Hugging Face `datasets` opens.

    data = open_captions("data/cartpole-captions")        # a folder of ours, a .csv, .jsonl or .parquet, a name of the hub
    data[0]                                               # {"image": uint8 [H, W, 3], "caption": "Turn left."}
    csv_to_jsonl("actions.csv", "captions.jsonl")

A CSV has the columns filename and action_text, a JSONL the keys image and text; other common names are recognised, and
any can be named. Image names are looked up in the folder of images that is given, else beside the file, in `images/`
beside it, and as paths from here. Rows without an image or a caption are left out and said in one line;
those of Hugging Face are opened only when asked for, and a broken one then gives way to the next.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

from drivetrain.data.images import Skipped, Source, find, first_whole, trouble
from drivetrain.data.layout import INFO
from drivetrain.errors import BadConfig, BadData, MissingExtra

CSV_COLUMNS, JSONL_COLUMNS = ("filename", "action_text"), ("image", "text")
IMAGE_NAMES = ("image", "filename", "file_name", "image_path")
CAPTION_NAMES = ("text", "action_text", "caption")


class Row(NamedTuple):
    image: str  # as it is written in the file
    caption: str


class Captions:
    """Rows of a picture and a caption; pictures are read when asked for."""

    def __init__(self, sources: Sequence[Source], captions: Sequence[str], names: Sequence[str], skipped: Skipped):
        if not len(captions):
            why = f" ({skipped})" if len(skipped) else ""
            raise BadData(
                f"BadData: {skipped.where}: got no row with both picture and caption{why}; expected one or more"
            )
        self.sources, self.captions, self.names, self.skipped = sources, captions, names, skipped

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One whose picture breaks off half-way gives way to the next."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row, picture = first_whole(self.sources, index % len(self), self.names, self.skipped)
        return {"image": picture, "caption": self.captions[row]}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))


def open_captions(
    name_or_path: str | Path,
    *,
    images: str = "",
    image_column: str = "",
    caption_column: str = "",
    split: str = "train",
) -> Captions:
    """The captions of a split; see the top of this file."""
    path = Path(name_or_path)
    columns = image_column, caption_column
    if path.is_dir():
        path = next(
            (p for name in (split, "metadata") for s in (".jsonl", ".csv") if (p := path / f"{name}{s}").is_file()),
            path,
        )
    if path.suffix in READERS:
        return _from_rows(path, Path(images) if images else None, columns)
    return _from_hugging_face(str(name_or_path), images, columns, split)


def _from_rows(path: Path, images: Path | None, columns: tuple[str, str]) -> Captions:
    skipped = Skipped(str(path))
    folders = folders_of(path, images)
    sources, rows = [], []
    for row in read_captions(path, *columns, skipped=skipped):
        source = find(row.image, folders)
        if why := trouble(source):
            skipped.add(row.image, why)
        else:
            sources.append(source)
            rows.append(row)
    skipped.report()
    return Captions(sources, [row.caption for row in rows], [row.image for row in rows], skipped)


def folders_of(path: Path, images: Path | None) -> list[Path]:
    """Where the images that a file names are looked for."""
    return [images] if images else [path.parent, path.parent / "images", Path()]


def read_captions(path: Path, image_column: str = "", caption_column: str = "", *, skipped: Skipped) -> Iterator[Row]:
    """The rows of a CSV or JSONL that have both; the others are skipped."""
    if not path.is_file():
        raise BadData(f"BadData: there is no file {path}; give a .csv or .jsonl of images and captions")
    columns: tuple[str, str] | None = None
    for number, (got, broken) in enumerate(_reader(path)(path), start=1):
        if broken:
            skipped.add(f"row {number}", broken)
            continue
        columns = columns or _columns(str(path), list(got), image_column, caption_column)
        image, caption = (got.get(column) for column in columns)
        if isinstance(image, str) and isinstance(caption, str) and image.strip() and caption.strip():
            yield Row(image.strip(), caption.strip())
        else:
            skipped.add(f"row {number}", "no caption" if image else "no image named")


def _csv_rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                yield row, "more fields than columns" if None in row else ""
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadData(f"BadData: {path} is no CSV in UTF-8 ({error}); expected a header and a row per image") from error


def _jsonl_rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    for line in filter(None, map(bytes.strip, path.read_bytes().splitlines())):
        try:
            row = json.loads(line)
        except ValueError:  # of bad UTF-8 too
            row = None
        yield (row, "") if isinstance(row, dict) else ({}, "no JSON object")


READERS = {".csv": _csv_rows, ".jsonl": _jsonl_rows}


def _reader(path: Path) -> Any:
    if path.suffix not in READERS:
        raise BadConfig(f"BadConfig: captions are kept as {' or '.join(READERS)}, got {path}")
    return READERS[path.suffix]


def _columns(where: str, have: list[str], image: str, caption: str) -> tuple[str, str]:
    """What was asked for, or the first of the usual names that is there."""
    found = []
    for asked, usual, what in ((image, IMAGE_NAMES, "image"), (caption, CAPTION_NAMES, "caption")):
        name = next((name for name in ([asked] if asked else usual) if name in have), "")
        if not name:
            wanted = asked or " or ".join(usual)
            raise BadData(
                f"BadData: {where}: got the columns {', '.join(map(str, have))}, expected {wanted}; name the {what} column"
            )
        found.append(name)
    return found[0], found[1]


def write_captions(path: Path, rows: Iterable[tuple[str, str]]) -> int:
    """Rows of image and caption as CSV or JSONL, by the ending of `path`; how many."""
    _reader(path)
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        if path.suffix == ".csv":
            table.writerow(CSV_COLUMNS)
        for row in rows:
            count += 1
            if path.suffix == ".csv":
                table.writerow(row)
            else:
                file.write(json.dumps(dict(zip(JSONL_COLUMNS, row, strict=True)), ensure_ascii=False) + "\n")
    return count


def csv_to_jsonl(
    source: str | Path, target: str | Path, *, images: str = "", image_column: str = "", caption_column: str = ""
) -> int:
    """The rows of a CSV as JSONL, their images named from where that lies; how many. Rows without either are said."""
    source, target = Path(source), Path(target)
    skipped, folders = Skipped(str(source)), folders_of(source, Path(images) if images else None)
    rows = list(read_captions(source, image_column, caption_column, skipped=skipped))
    skipped.report()
    return write_captions(target, ((_named_from(target.parent, row.image, folders), row.caption) for row in rows))


def _named_from(folder: Path, image: str, folders: Sequence[Path]) -> str:
    if Path(image).is_absolute():
        return image
    return Path(os.path.relpath(find(image, folders), folder)).as_posix()


def _from_hugging_face(name: str, images: str, columns: tuple[str, str], split: str) -> Captions:
    """Images stay as the files or bytes they are until they are asked for."""
    table = _load(name, split)
    image, caption = _columns(name, table.column_names, *columns)
    datasets = _datasets(name)
    if isinstance(table.features[image], datasets.Image):
        table = table.cast_column(image, datasets.Image(decode=False))
    skipped, captions = Skipped(name), list(table[caption])
    kept = []
    for i, text in enumerate(captions):
        if isinstance(text, str) and text.strip():
            kept.append(i)
        else:
            skipped.add(f"row {i}", "no caption")
    skipped.report()
    local = Path(name)
    folders = [Path(images)] if images else [local if local.is_dir() else local.parent, Path()]
    sources = Cells(table, image, kept, folders)
    return Captions(sources, [captions[i].strip() for i in kept], [f"row {i}" for i in kept], skipped)


class Cells(Sequence[Source]):
    """One column of a table that stays on disk: its rows `kept`, as sources of images."""

    def __init__(self, table: Any, column: str, kept: Sequence[int], folders: Sequence[Path]):
        self.table, self.column, self.kept, self.folders = table, column, kept, folders

    def __len__(self) -> int:
        return len(self.kept)

    @overload
    def __getitem__(self, index: int) -> Source: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Source]: ...
    def __getitem__(self, index: int | slice) -> Source | Sequence[Source]:
        if isinstance(index, slice):
            return Cells(self.table, self.column, self.kept[index], self.folders)
        cell = self.table[self.kept[index]][self.column]
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return cell
        if not isinstance(cell, str):
            raise ValueError(f"an image is a file name or bytes, got {type(cell).__name__}")
        return find(cell, self.folders)


def _load(name: str, split: str) -> Any:
    """A parquet file, a folder saved by `datasets` or laid out as it likes, or a name of the hub."""
    path = Path(name)
    parts = path.parts
    if not path.exists() and (len(parts) > 2 or (len(parts) == 2 and path.parent.is_dir())):
        raise BadData(
            f"BadData: {name} does not exist; give a .csv, .jsonl or .parquet, a folder, or OWNER/NAME of the hub"
        )
    datasets = _datasets(name)
    if (path / INFO).is_file():
        raise BadData(
            f"BadData: {name} holds episodes, not pictures with words; make those of it first: "
            f"drivetrain collect --as captions --dataset {name} --output-dir data/captions"
        )
    try:
        if path.suffix == ".parquet":
            return datasets.load_dataset("parquet", data_files=str(path), split="train")
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            saved = datasets.load_from_disk(name)
            return saved[split] if isinstance(saved, datasets.DatasetDict) else saved
        return datasets.load_dataset(name, split=split)
    except Exception as error:  # it raises whatever its many readers do
        said = " ".join(str(error).split()) or type(error).__name__
        raise BadData(
            f"BadData: {name} cannot be opened as a data set, split {split!r}: {said}; check the name"
        ) from error


def _datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        purpose = f"opening {name}, which is no .csv or .jsonl and holds none,"
        raise MissingExtra("datasets", "data", purpose) from error
    return datasets
