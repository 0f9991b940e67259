"""Conversations on disk as what trainings take their batches from, and what an examination asks of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from drivetrain.data.captions import Captions, open_captions
from drivetrain.data.instructions import Instructions, open_instructions
from drivetrain.errors import BadConfig, BadData
from drivetrain.training.language import Talk

PROMPT = "What should the vehicle do in this scenario?"


Set = Instructions | Captions


class Talks(Sequence[Talk]):
    """Rows of one or several data sets as talks; pictures are read when a row is asked for. A blind one deals them out to
    other rows."""

    def __init__(self, rows: Sequence[tuple[Set, int]], prompt: str = PROMPT, *, blind: bool = False):
        self.rows, self.prompt = list(rows), prompt
        self.dealt = np.random.default_rng(0).permutation(len(rows)) if blind else np.arange(len(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self.read(index)
        picture = row["image"]
        if picture is not None and self.dealt[index] != index:
            picture = self.read(int(self.dealt[index]))["image"]
        turns = ((self.prompt, row["caption"]),) if "caption" in row else tuple(row["turns"])
        return Talk(turns, None if picture is None else np.asarray(picture))

    def read(self, index: int) -> dict[str, Any]:
        data, row = self.rows[index]
        return data[row]

    def length(self, index: int) -> int:
        """About how long a row is, its picture not looked at."""
        data, row = self.rows[index]
        return sum(len(q) + len(a) for q, a in data.rows[row].turns) if isinstance(data, Instructions) else 0


def open_talks(
    paths: str, images: str, held_out: float, *, captions: bool = False, blind: bool = False
) -> tuple[Talks, Talks]:
    """Those to learn from and those held out, of data sets with commas between: a set's own split where it has one, else a
    share of its rows."""
    parts = [split(path, images, held_out, captions) for path in named(paths)]
    learn, apart = ([row for part in parts for row in part[side]] for side in (0, 1))
    return Talks(learn, blind=blind), Talks(apart)


def named(paths: str) -> list[str]:
    found = [path.strip() for path in paths.split(",") if path.strip()]
    if not found:
        raise BadConfig("BadConfig: no data set is named; give its file or folder")
    return found


def split(path: str, images: str, held_out: float, captions: bool) -> tuple[list[tuple[Set, int]], ...]:
    folder = Path(path)
    opened: Any = open_captions if captions else open_instructions
    if folder.is_dir() and any(folder.glob("held_out.*")):
        sides = (opened(path, images=images, split=name) for name in ("train", "held_out"))
        return tuple([(data, row) for row in range(len(data))] for data in sides)
    data = opened(path, images=images)
    order = np.random.default_rng(0).permutation(len(data))
    cut = round(len(data) * held_out)
    if not 0 < cut < len(data):
        raise BadData(
            f"BadData: {path}: a share of {held_out} of {len(data)} rows leaves nothing on one side; give more rows"
        )
    return tuple([(data, row) for row in sorted(part.tolist())] for part in (order[cut:], order[:cut]))


def questions(paths: str, talks: Talks, most: int) -> list[Talk]:
    """Held-out first questions, with kind and choices where the set tells them in facts.jsonl."""
    told = {image: about for path in named(paths) for image, about in kinds(Path(path)).items()}
    found: list[Talk] = []
    for index in np.random.default_rng(0).permutation(len(talks))[:most].tolist():
        data, row = talks.rows[index]
        source = data.sources[row] if isinstance(data, Instructions) else None
        about = told.get(str(source))
        talk = talks[index]
        if about and talk.picture is not None and about["answer"] == talk.turns[0][1]:
            found.append(replace(talk, turns=talk.turns[:1], kind=about["kind"], choices=tuple(about["choices"])))
    return found


def kinds(folder: Path) -> dict[str, Any]:
    """By picture, what its first question is: of which world and kind."""
    path = folder / "facts.jsonl"
    if not path.is_file():
        return {}
    rows = (json.loads(line) for line in path.read_text().splitlines())
    first = {str(folder / row["image"]): (row["env"], row["questions"][0]) for row in rows if row.get("questions")}
    return {image: {**question, "kind": f"{env}/{question['kind']}"} for image, (env, question) in first.items()}
