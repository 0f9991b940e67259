"""What a collected data set says of itself: how it was made, what its episodes returned, and a hash of what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drivetrain.data.layout import read_json, write_json
from drivetrain.data.lerobot import open_lerobot
from drivetrain.errors import BadData

CARD = "meta/card.json"


def refuse_thinned(dataset: str) -> None:
    """Refuse a set whose steps do not follow one another, for whoever learns from what comes after what."""
    for part in dataset.split(","):
        path = Path(part.strip()) / CARD
        if path.is_file() and (every := read_json(path)["made"].get("every", 1)) > 1:
            raise BadData(
                f"BadData: {part.strip()} has one step in {every}, and what comes before and after a step is not in it; give a "
                "whole set, or learn by bc or gail from single steps"
            )


def thinned(dataset: str) -> tuple[int, int]:
    """How many steps each of a set stands for, and how many of its episodes ended by themselves; of a whole set 1 and 0, for
    that one tells its ends itself."""
    paths = [Path(part.strip()) / CARD for part in dataset.split(",")]
    made = [read_json(path)["made"] if path.is_file() else {} for path in paths]
    if max(one.get("every", 1) for one in made) == 1:
        return 1, 0
    if len(made) > 1:
        raise BadData(f"BadData: of {dataset} one has a step in many, and they do not weigh alike; give that one alone")
    if "ends" not in made[0]:
        raise BadData(f"BadData: {dataset} does not say how many of its episodes ended by themselves; make it anew")
    return made[0]["every"], made[0]["ends"]


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
