"""Conversations about pictures, in the JSON layout of LLaVA-Pretrain and LLaVA-Instruct-150K.

    data = open_instructions("blip_laion_cc_sbu_558k.json", images="LLaVA-Pretrain")
    data[0]                # {"id": "004539375", "image": uint8 [H, W, 3] or None, "turns": [(human, gpt), ...]}

A file is a list of rows, each an `id`, an `image` (a path below the folder of images; absent where there is none) and
`conversations`: turns of `from` human and gpt in alternation, with their `value`. One human value has `<image>` where
the picture goes, and it stays there. As LLaVA does, an answer before the first question is dropped. Rows that are broken,
or whose image is missing or none, are skipped and said in one line. JSONL with a row per line is read too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivetrain.data.images import Skipped, find, first_whole, trouble
from drivetrain.errors import BadData

IMAGE = "<image>"
HUMAN, GPT = "human", "gpt"
Turn = tuple[str, str]  # what the human says, what is answered


@dataclass(frozen=True)
class Conversation:
    id: str
    turns: tuple[Turn, ...]
    image: str = ""  # a path below the folder of images; empty where it is about text alone


class BrokenRow(Exception):
    """Its text says what is wrong with a row."""


class Instructions:
    """Conversations with their pictures, which are read when asked for."""

    def __init__(self, rows: list[Conversation], sources: list[Path | None], skipped: Skipped):
        if not rows:
            why = f" ({skipped})" if len(skipped) else ""
            raise BadData(f"BadData: {skipped.where}: got no conversation that can be used{why}; expected one or more")
        self.rows, self.sources, self.skipped = rows, sources, skipped
        self.names = [row.image or row.id for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One whose picture breaks off half-way gives way to the next."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index, picture = first_whole(self.sources, index % len(self), self.names, self.skipped)
        row = self.rows[index]
        return {"id": row.id, "image": picture, "turns": list(row.turns)}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))


def open_instructions(path: str | Path, *, images: str = "", split: str = "train") -> Instructions:
    """A .json or .jsonl, or a folder with `<split>.json`; images are below `images`, else beside the file."""
    file = Path(path)
    file = _in_folder(file, split) if file.is_dir() else file
    folders = [Path(images)] if images else [file.parent, file.parent / "images"]
    skipped = Skipped(str(file))
    rows: list[Conversation] = []
    sources: list[Path | None] = []
    for number, row in enumerate(_rows(file)):
        try:
            conversation = parsed(row, number)
            source = find(conversation.image, folders) if conversation.image else None
            if source and (why := trouble(source)):
                skipped.add(conversation.image, why)
                continue
        except BrokenRow as error:
            skipped.add(_name(row, number), str(error))
            continue
        rows.append(conversation)
        sources.append(source)
    skipped.report()
    return Instructions(rows, sources, skipped)


def _in_folder(folder: Path, split: str) -> Path:
    """The split's file, or the only one there is."""
    if (folder / f"{split}.json").is_file():
        return folder / f"{split}.json"
    files = sorted(folder.glob("*.json"))
    if len(files) != 1:
        got = ", ".join(f.name for f in files) or "none"
        raise BadData(f"BadData: {folder}: got {got}, expected {split}.json or a single .json; name the file itself")
    return files[0]


def _rows(path: Path) -> list[Any]:
    if not path.is_file():
        raise BadData(
            f"BadData: there is no file {path}; give the .json of a LLaVA data set (its images unpacked: --images FOLDER)"
        )
    if path.suffix == ".jsonl":
        return [_line(line) for line in path.read_bytes().splitlines() if line.strip()]
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadData(f"BadData: {path} is not JSON ({error}); it is cut short or corrupt: restore it") from error
    if not isinstance(rows, list):
        raise BadData(f"BadData: {path}: got a JSON {type(rows).__name__}, expected a list of conversations")
    return rows


def _line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _name(row: Any, number: int) -> str:
    named = row.get("id") if isinstance(row, dict) else None
    return str(named) if isinstance(named, str | int) else f"row {number}"


def parsed(row: Any, number: int = 0) -> Conversation:
    """A row as a conversation; BrokenRow where it is none."""
    if not isinstance(row, dict):
        raise BrokenRow("no JSON object")
    image = row.get("image") or ""
    if not isinstance(image, str):
        raise BrokenRow("an image that is no path")
    turns = _turns(row.get("conversations"))
    places = sum(human.count(IMAGE) for human, _ in turns)
    if any(IMAGE in gpt for _, gpt in turns):
        raise BrokenRow(f"{IMAGE} in an answer")
    if places != bool(image):
        raise BrokenRow(f"{places} times {IMAGE} with {'an image' if image else 'no image'}")
    return Conversation(_name(row, number), turns, image)


def _turns(said: Any) -> tuple[Turn, ...]:
    if not isinstance(said, list) or not all(isinstance(s, dict) for s in said):
        raise BrokenRow("no conversations")
    said = said[1:] if said and said[0].get("from") == GPT else said
    speakers, values = [s.get("from") for s in said], [s.get("value") for s in said]
    if not said or speakers != [HUMAN, GPT] * (len(said) // 2):
        raise BrokenRow("turns that do not go human, gpt")
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise BrokenRow("a turn without text")
    return tuple(zip(values[::2], values[1::2], strict=True))


def write_instructions(path: str | Path, conversations: Iterable[Conversation]) -> int:
    """The same layout; how many rows."""
    rows = [unparsed(c) for c in conversations]
    Path(path).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(rows)


def unparsed(conversation: Conversation) -> dict[str, Any]:
    said = [
        {"from": who, "value": text}
        for turn in conversation.turns
        for who, text in zip((HUMAN, GPT), turn, strict=True)
    ]
    image = {"image": conversation.image} if conversation.image else {}
    return {"id": conversation.id, **image, "conversations": said}
