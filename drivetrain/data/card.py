"""What a collected data set says of itself: how it was made, what its episodes returned, and a hash of what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drivetrain.data.layout import write_json
from drivetrain.data.lerobot import open_lerobot

CARD = "meta/card.json"


def write_card(root: Path, made: dict[str, Any]) -> dict[str, Any]:
    """`meta/card.json`; `made` is how it came to be."""
    data = open_lerobot(root)
    returns = data.returns()
    card = {
        "made": made,
        "env": data.spec.env,
        "episodes": data.episodes,
        "frames": len(data),
        "returns": {"min": float(returns.min()), "mean": float(returns.mean()), "max": float(returns.max())},
        "fingerprint": data.fingerprint(),
    }
    write_json(root / CARD, card)
    return card
