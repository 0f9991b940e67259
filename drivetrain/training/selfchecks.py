"""Before the first step of a vision-language training: what has spoiled such trainings in silence, each an error by name."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from drivetrain.errors import SelfCheckFailed
from drivetrain.models.chat import IGNORED
from drivetrain.models.vlm import PARTS, VLM, Batch
from drivetrain.training.language import Talk, collate


def check(vlm: VLM, talks: Sequence[Talk], learning: Sequence[str]) -> None:
    """All of them. Weights and gradients are left as they were."""
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
    """A new model knows nothing: log(vocabulary). One that was trained is below; or above, where it is sure of other words."""
    with torch.no_grad():
        loss = float(vlm.loss(batch))
    most = 4 * math.log(vlm.core.get_output_embeddings().weight.shape[0])
    if not 1e-6 < loss < most:
        raise SelfCheckFailed(
            f"SelfCheckFailed: the first loss is {loss:.4g}, expected above 0 and below 4 log(vocabulary) = {most:.1f}: "
            "0 means that the mask hides every answer, more that weights and tokenizer do not belong together"
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
