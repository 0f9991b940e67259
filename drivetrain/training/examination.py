"""After a vision-language training: what the model can do, by kind of question, and some of its answers to look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from drivetrain import stats
from drivetrain.models.chat import IMAGE
from drivetrain.models.vlm import VLM, load_vlm
from drivetrain.run import Run
from drivetrain.training import together
from drivetrain.training.language import LOOKED_AT, Learner, Talk

SHOWN = 12  # answers in a run's samples


@torch.no_grad()
def examine(vlm: VLM, talks: Sequence[Talk], batch_size: int = 32) -> dict[str, Any]:
    """By kind of question, how often the best-scored choice is right, or how numbers correlate with the truth: with the
    pictures as they are, and dealt to other rows, which shows what is known without seeing."""
    vlm.eval()
    found: dict[str, Any] = {"seen": {}, "shuffled": {}}
    for kind, rows in grouped(talks).items():
        measure = choices_right if rows[0].choices else numbers_right
        answers = [talk.turns[-1][1] for talk in rows]
        pictures = [talk.picture for talk in rows]
        dealt = [pictures[i] for i in np.random.default_rng(0).permutation(len(pictures))]
        found["seen"][kind] = measure(vlm, rows, pictures, answers, batch_size)
        found["shuffled"][kind] = measure(vlm, rows, dealt, answers, batch_size)
    return found


def grouped(talks: Sequence[Talk]) -> dict[str, list[Talk]]:
    groups: dict[str, list[Talk]] = {}
    for talk in talks:
        groups.setdefault(talk.kind, []).append(talk)
    return dict(sorted(groups.items()))


def portions(rows: Sequence[Any], size: int) -> Iterator[slice]:
    for start in range(0, len(rows), size):
        yield slice(start, start + size)


def choices_right(vlm: VLM, rows: Any, pictures: Any, answers: list[str], size: int) -> dict[str, Any]:
    choices = list(rows[0].choices)
    best: list[int] = []
    for part in portions(rows, size):
        asked = [talk.turns[-1][0] for talk in rows[part]]
        best += vlm.score(pictures[part], asked, choices).argmax(-1).tolist()
    right = sum(choices[i] == answer for i, answer in zip(best, answers, strict=True))
    commonest = max(answers.count(choice) for choice in choices) / len(answers)
    return {"right": stats.wilson(right, len(rows)).to_json(), "chance": commonest, "asked": len(rows)}


def numbers_right(vlm: VLM, rows: Any, pictures: Any, answers: list[str], size: int) -> dict[str, Any]:
    said: list[str] = []
    for part in portions(rows, size):
        said += vlm.generate(pictures[part], [talk.turns[-1][0] for talk in rows[part]], most=6)
    truth = np.array([float(answer) for answer in answers])
    read = [as_number(text) for text in said]
    known = np.array([number is not None for number in read])
    numbers = np.array([0.0 if number is None else number for number in read])
    error = float(np.abs(numbers - truth)[known].mean()) if known.any() else None
    return {
        "correlation": stats.correlation(numbers[known], truth[known]).to_json() if known.any() else None,
        "error": error,
        "distinct": float(len(set(said))),
        "unread": float((~known).mean()),
        "asked": len(rows),
    }


def as_number(text: str) -> float | None:
    try:
        return float(text.replace(" ", ""))
    except ValueError:
        return None


def finish(
    learner: Learner, run: Run, talks: Sequence[Talk], size: int, judge: Callable[[VLM], dict[str, Any]]
) -> None:
    """The model in the hub's layout, what it can do, and some of its answers beside their pictures."""
    loss = learner.held_out_loss(talks[:LOOKED_AT], size)
    folder, vlm = run.folder / "model", learner.vlm
    spread = any(map(together.sharded, learner.parameters))
    weights = together.whole(vlm.model.state_dict()) if spread else None
    if not run.first:
        return
    vlm.save(folder, weights)
    if spread:
        vlm = load_vlm(str(folder), device=together.place(vlm.device.type))
    vlm.eval()
    (run.folder / "examination.json").write_text(json.dumps({**judge(vlm), "loss": loss}, indent=1) + "\n")
    show(vlm, run.folder, talks[:SHOWN])


def show(vlm: VLM, folder: Path, talks: Sequence[Talk]) -> None:
    """samples.md: pictures, what was asked, what was answered and what is true."""
    pictures = folder / "samples"
    pictures.mkdir(exist_ok=True)
    lines = ["## What it says", "", "| picture | question | its answer | the truth |", "|---|---|---|---|"]
    for i, talk in enumerate(talks):
        question, truth = talk.turns[0]
        said = vlm.generate(None if talk.picture is None else [talk.picture], [question], most=24)[0]
        if talk.picture is not None:
            Image.fromarray(talk.picture).save(pictures / f"{i}.png")
        cells = [f"![](samples/{i}.png)", question.replace(IMAGE, "").strip(), said, truth]
        lines.append("| " + " | ".join(" ".join(cell.split()) for cell in cells) + " |")
    (folder / "samples.md").write_text("\n".join(lines) + "\n")
