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
from drivetrain.errors import BadData
from drivetrain.training.language import Talk

PROMPT = "What should the vehicle do in this scenario?"


class Talks(Sequence[Talk]):
    """Rows of a data set as talks; pictures are read when a row is asked for. A blind one deals them to other rows."""

    def __init__(
        self, data: Instructions | Captions, rows: Sequence[int], prompt: str = PROMPT, *, blind: bool = False
    ):
        self.data, self.rows, self.prompt = data, rows, prompt
        self.dealt = np.random.default_rng(0).permutation(len(rows)) if blind else np.arange(len(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self.data[self.rows[index]]
        picture = row["image"]
        if picture is not None and self.dealt[index] != index:
            picture = self.data[self.rows[self.dealt[index]]]["image"]
        turns = ((self.prompt, row["caption"]),) if "caption" in row else tuple(row["turns"])
        return Talk(turns, None if picture is None else np.asarray(picture))

    def length(self, index: int) -> int:
        """About how long a row is, its picture not looked at."""
        if isinstance(self.data, Instructions):
            return sum(len(q) + len(a) for q, a in self.data.rows[self.rows[index]].turns)
        return 0


def open_talks(
    path: str, images: str, held_out: float, *, captions: bool = False, blind: bool = False
) -> tuple[Talks, Talks]:
    """Those to learn from and those held out: the set's own split where it has one, else a share of the rows."""
    folder = Path(path)
    opened: Any = open_captions if captions else open_instructions
    if folder.is_dir() and any(folder.glob("held_out.*")):
        learn, apart = (opened(path, images=images, split=split) for split in ("train", "held_out"))
        return Talks(learn, range(len(learn)), blind=blind), Talks(apart, range(len(apart)))
    data = opened(path, images=images)
    order = np.random.default_rng(0).permutation(len(data))
    cut = round(len(data) * held_out)
    if not 0 < cut < len(data):
        raise BadData(
            f"BadData: {path}: a share of {held_out} of {len(data)} rows leaves nothing on one side; give more rows"
        )
    return Talks(data, sorted(order[cut:].tolist()), blind=blind), Talks(data, sorted(order[:cut].tolist()))


def questions(path: str, talks: Talks, most: int) -> list[Talk]:
    """Held-out first questions, with kind and choices where the set tells them in facts.jsonl."""
    told = kinds(Path(path))
    found: list[Talk] = []
    for index in range(min(len(talks), most)):
        talk = talks[index]
        if talk.picture is None or not isinstance(talks.data, Instructions):
            continue
        about = told.get(talks.data.rows[talks.rows[index]].image)
        if about and about["answer"] == talk.turns[0][1]:
            found.append(replace(talk, turns=talk.turns[:1], kind=about["kind"], choices=tuple(about["choices"])))
    return found


def kinds(folder: Path) -> dict[str, Any]:
    """By picture, what its first question is."""
    path = folder / "facts.jsonl"
    if not path.is_file():
        return {}
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return {row["image"]: row["questions"][0] for row in rows if row.get("questions")}
