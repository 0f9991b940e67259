"""What the trainings of vision-language models share: batches, a gradient step, checks before the first, and measures after.

Rows are conversations about pictures (`Talk`). A batch is a function of step and seed, and holds rows of like length.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from drivetrain.data.episodes import drawn
from drivetrain.errors import BadConfig, SelfCheckFailed
from drivetrain.models.chat import IGNORED, IMAGE, Ids, tokenise
from drivetrain.models.vlm import PARTS, VLM, Batch

SHOWN = 12  # answers in a run's samples
GROUP = 16  # batches among which rows are sorted by length


@dataclass(frozen=True)
class Talk:
    """A conversation about one picture, or about none; with what an evaluation wants to know of it."""

    turns: tuple[tuple[str, str], ...]
    picture: np.ndarray | None
    kind: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """How the weights are moved."""

    lr: float = 1e-3  # learning rate, after a warm-up and before a cosine fall
    warmup: float = 0.03  # share of the run over which the learning rate rises
    floor: float = 0.0  # share of the learning rate that is left at the end
    weight_decay: float = 0.01
    beta2: float = 0.98  # of AdamW
    max_grad_norm: float = 1.0  # gradients are scaled down to this
    bf16: bool = False  # compute in bfloat16, keep the weights in float32
    checkpointing: bool = False  # compute activations anew in the backward pass, to save memory


def batches(data: Sequence[Any], size: int, seed: int, at: int, length: Callable[[int], int]) -> np.ndarray:
    """The rows of batch `at`: of GROUP batches together, those of like length, in an order of their own."""
    group, place = divmod(at, GROUP)
    rows = drawn(len(data), size * GROUP, at=group, seed=seed)
    by_length = rows[np.argsort([length(int(row)) for row in rows], kind="stable")]
    order = np.random.default_rng((seed, group)).permutation(GROUP)
    return by_length.reshape(GROUP, size)[order[place]]


def collate(vlm: VLM, talks: Sequence[Talk]) -> Batch:
    pictures = [talk.picture for talk in talks if talk.picture is not None]
    rows: list[Ids] = [tokenise(vlm.style, talk.turns, int(talk.picture is not None)) for talk in talks]
    if not vlm.style.pictures_in_text and len(pictures) < len(talks):
        raise BadConfig(
            f"BadConfig: {vlm.name} cannot learn from rows without a picture; leave them out, or use a LLaVA"
        )
    return vlm.collate(rows, vlm.pixels(pictures) if pictures else None)


class Learner:
    """The weights that learn, in AdamW's hands."""

    def __init__(self, vlm: VLM, schedule: Schedule, steps: int):
        self.vlm, self.schedule, self.steps = vlm, schedule, steps
        named = [(name, p) for name, p in vlm.model.named_parameters() if p.requires_grad]
        flat = [p for _, p in named if p.dim() < 2]  # biases and norms are not decayed
        deep = [p for _, p in named if p.dim() >= 2]
        groups = [{"params": deep, "weight_decay": schedule.weight_decay}, {"params": flat, "weight_decay": 0.0}]
        betas = (0.9, schedule.beta2)
        self.optimizer = torch.optim.AdamW(
            groups, lr=schedule.lr, betas=betas, fused=vlm.device.type in ("cpu", "cuda")
        )
        self.parameters = [p for _, p in named]
        self.names = [name for name, _ in named]
        if schedule.checkpointing:
            vlm.spare_memory()

    def step(self, step: int, losses: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """One gradient step along the sum of what `losses` calls loss/...; returns all it gave."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr * rate(step, self.steps, self.schedule)
        self.optimizer.zero_grad()
        with precision(self.vlm, self.schedule.bf16):
            found = losses()
        sum(value for name, value in found.items() if name.startswith("loss/")).backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(self.parameters, self.schedule.max_grad_norm)
        self.optimizer.step()
        return {name: value.detach() for name, value in found.items()}

    def state_dict(self) -> dict[str, Any]:
        """What learns, and the optimizer; all else comes from where the model came from."""
        weights = {name: p.detach() for name, p in zip(self.names, self.parameters, strict=True)}
        return {"weights": weights, "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, p in zip(self.names, self.parameters, strict=True):
            p.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])


def rate(step: int, steps: int, schedule: Schedule) -> float:
    """Up along a line, then down along a cosine."""
    rising = max(schedule.warmup * steps, 1.0)
    if step < rising:
        return (step + 1) / (rising + 1)
    done = (step - rising) / max(steps - rising, 1)
    return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def precision(vlm: VLM, bf16: bool) -> Any:
    return torch.autocast(vlm.device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


def check(vlm: VLM, talks: Sequence[Talk], learning: Sequence[str]) -> None:
    """Before the first step, what has spoiled such trainings in silence. Leaves weights and gradients as they were."""
    batch = collate(vlm, talks)
    check_mask(vlm, talks, batch)
    check_pictures(vlm, batch)
    check_loss(vlm, batch)
    check_gradients(vlm, batch, learning)


def check_mask(vlm: VLM, talks: Sequence[Talk], batch: Batch) -> None:
    """The loss covers the answers and what ends each, and nothing else."""
    for row, talk in zip(batch["labels"], talks, strict=True):
        learned = row[row != IGNORED].tolist()
        wanted = [token for _, answer in talk.turns for token in vlm.style.answer(answer)]
        if learned != wanted:
            got, expected = (vlm.tokenizer.decode(ids) for ids in (learned, wanted))
            raise SelfCheckFailed(
                f"SelfCheckFailed: the loss covers {got!r}, expected the answers {expected!r}; mend the chat template's mask"
            )


def check_pictures(vlm: VLM, batch: Batch) -> None:
    """As many places for pictures among the tokens as the tower gives."""
    if not vlm.style.pictures_in_text or "pixel_values" not in batch:
        return
    places = int((batch["input_ids"] == vlm.core.config.image_token_id).sum())
    with torch.no_grad():
        seen = vlm.core.get_image_features(pixel_values=batch["pixel_values"]).pooler_output
    features = sum(len(one) for one in seen)
    if places != features:
        raise SelfCheckFailed(
            f"SelfCheckFailed: {places} image tokens for {features} image features; "
            "the processor's patch size and feature strategy must be the vision tower's"
        )


def check_loss(vlm: VLM, batch: Batch) -> None:
    """A new model knows nothing: log(vocabulary). One that knows something is below. 0 means that nothing is learned."""
    with torch.no_grad():
        loss = float(vlm.loss(batch))
    most = math.log(vlm.core.get_output_embeddings().weight.shape[0])
    if not 1e-6 < loss < 1.5 * most + 1:
        raise SelfCheckFailed(
            f"SelfCheckFailed: the first loss is {loss:.4g}, expected above 0 and near or below log(vocabulary) = {most:.2f}: "
            "0 means that the mask hides every answer, much more that weights and tokenizer do not belong together"
        )


def check_gradients(vlm: VLM, batch: Batch, learning: Sequence[str]) -> None:
    """Every part that is to learn receives gradient, and no other."""
    vlm.loss(batch).backward()
    try:
        for part in PARTS:
            parameters = [p for module in vlm.part(part) for p in module.parameters()]
            moved = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in parameters)
            if part in learning and parameters and not moved:
                raise SelfCheckFailed(
                    f"SelfCheckFailed: the {part} is to learn and receives no gradient; is it frozen?"
                )
            if part not in learning and moved and not tied(vlm, part, learning):
                raise SelfCheckFailed(
                    f"SelfCheckFailed: the {part} is to stay as it is and receives gradient; freeze it"
                )
    finally:
        vlm.model.zero_grad(set_to_none=True)


def tied(vlm: VLM, part: str, learning: Sequence[str]) -> bool:
    """Whether a part shares its weights with one that learns, as head and embeddings often do."""
    others = {id(p) for name in learning for module in vlm.part(name) for p in module.parameters()}
    return all(id(p) in others for module in vlm.part(part) for p in module.parameters() if p.grad is not None)


@torch.no_grad()
def examine(vlm: VLM, talks: Sequence[Talk], batch_size: int = 32, *, blind: bool = False) -> dict[str, dict[str, Any]]:
    """By kind of question: how often the best-scored choice is right, or how numbers correlate with the truth."""
    vlm.eval()
    found: dict[str, dict[str, Any]] = {}
    for kind, rows in grouped(talks).items():
        pictures = [talk.picture for talk in rows]
        if blind:
            pictures = [pictures[i] for i in np.random.default_rng(0).permutation(len(pictures))]
        answers = [talk.turns[-1][1] for talk in rows]
        if rows[0].choices:
            found[kind] = choices_right(vlm, rows, pictures, answers, batch_size)
        else:
            found[kind] = numbers_right(vlm, rows, pictures, answers, batch_size)
    return found


def grouped(talks: Sequence[Talk]) -> dict[str, list[Talk]]:
    groups: dict[str, list[Talk]] = {}
    for talk in talks:
        groups.setdefault(talk.kind, []).append(talk)
    return dict(sorted(groups.items()))


def portions(rows: Sequence[Any], size: int) -> Iterator[slice]:
    for start in range(0, len(rows), size):
        yield slice(start, start + size)


def choices_right(vlm: VLM, rows: Any, pictures: Any, answers: list[str], size: int) -> dict[str, float]:
    choices = list(rows[0].choices)
    best: list[int] = []
    for part in portions(rows, size):
        asked = [talk.turns[-1][0] for talk in rows[part]]
        best += vlm.score(pictures[part], asked, choices).argmax(-1).tolist()
    right = np.mean([choices[i] == answer for i, answer in zip(best, answers, strict=True)])
    commonest = max(answers.count(choice) for choice in choices) / len(answers)
    return {"right": float(right), "chance": commonest, "asked": len(rows)}


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
        "correlation": correlation(numbers[known], truth[known]),
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


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """0 where either is constant: one answer for everything tells nothing."""
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def finish(vlm: VLM, run: Any, talks: Sequence[Talk], found: dict[str, Any]) -> None:
    """The model in the hub's layout, what it can do, and some of its answers beside their pictures."""
    vlm.eval()
    vlm.save(run.folder / "model")
    (run.folder / "examination.json").write_text(json.dumps(found, indent=1) + "\n")
    show(vlm, run.folder, talks[:SHOWN])


def show(vlm: VLM, folder: Path, talks: Sequence[Talk]) -> None:
    """samples.md: pictures, what was asked, what was answered and what is true."""
    pictures = folder / "samples"
    pictures.mkdir(exist_ok=True)
    lines = ["# What it says", "", "| picture | question | its answer | the truth |", "|---|---|---|---|"]
    for i, talk in enumerate(talks):
        question, truth = talk.turns[0]
        said = vlm.generate(None if talk.picture is None else [talk.picture], [question], most=24)[0]
        if talk.picture is not None:
            Image.fromarray(talk.picture).save(pictures / f"{i}.png")
        cells = [f"![](samples/{i}.png)", question.replace(IMAGE, "").strip(), said, truth]
        lines.append("| " + " | ".join(" ".join(cell.split()) for cell in cells) + " |")
    (folder / "samples.md").write_text("\n".join(lines) + "\n")


@torch.no_grad()
def held_out_loss(vlm: VLM, talks: Sequence[Talk], size: int) -> float:
    vlm.eval()
    found = [vlm.losses(collate(vlm, talks[i : i + size])) for i in range(0, len(talks), size)]
    vlm.train()
    return float(torch.cat(found).mean())
