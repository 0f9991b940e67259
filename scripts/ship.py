"""Make a trained model one that comes with the package: half-precision weights, and a card that says what it can do.

    python scripts/ship.py tiny-llava runs/vlm_stages/llava-pretrain runs/vlm_stages/llava-align runs/vlm_stages/llava-instruct
    python scripts/ship.py tiny-git runs/vlm_stages/git-pretrain
    python scripts/ship.py carracing-git runs/carracing/continuous-0

The runs are the stages in their order; the last one's model is taken. A backbone is examined as it ships, on held-out pictures
of tracks that no training draws; a policy was judged by bench/carracing_policy.py. Writes drivetrain/backbones/NAME/ or
drivetrain/policies/NAME/.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drivetrain.catalog import POLICIES
from drivetrain.checkpoint import load_policy, pack, read, read_manifest, resolve, save
from drivetrain.models.vlm import load_vlm
from drivetrain.training.examination import examine
from drivetrain.training.pretrain import Config, Scenes

BACKBONES = Path(__file__).resolve().parent.parent / "drivetrain" / "backbones"
ASKED = 3_200
RESULTS = BACKBONES.parents[1] / "bench" / "results" / "carracing_policy"


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(__doc__)
        return 2
    name, *runs = arguments
    return ship_policy(name, Path(runs[-1])) if name in POLICIES else ship_backbone(name, runs)


def ship_policy(name: str, run: Path) -> int:
    """As it was evaluated, to the bit; by the part of bench/results/carracing_policy that bears the run's name."""
    folder = BACKBONES.parent / "policies" / name
    shutil.rmtree(folder, ignore_errors=True)
    result = json.loads((RESULTS / f"{run.name}.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        saved = save(Path(scratch), read_manifest(resolve(run))["step"], {"policy": load_policy(run)})
        shutil.copytree(saved, folder)
    found = result["result"]
    summary, arrays = found["summary"], pack(read(folder, "policy"))[1]
    card = {
        "parameters": sum(value.numel() for value in arrays.values()),
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "skill": f"returns {summary['mean']:.0f} over {len(found['returns'])} tracks "
        f"({summary['low']:.0f} to {summary['high']:.0f})",
        "made_by": [row["command"] for row in result["commands"]],
        "evaluation": found,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(f"{folder}: {card['skill']}")
    return 0


def ship_backbone(name: str, runs: list[str]) -> int:
    folder = BACKBONES / name
    shutil.rmtree(folder, ignore_errors=True)
    load_vlm(f"{runs[-1]}/model", dtype="float16").save(folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    vlm = load_vlm(str(folder))
    found = examine(vlm, Scenes(Config(), unseen=True).held_out(ASKED))
    card = {
        "parameters": sum(p.numel() for p in vlm.parameters()),
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "skill": in_short(found["seen"]),
        "made_by": [command(Path(run)) for run in runs],
        "examination": found,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(f"{folder}: {card['skill']}")
    return 0


def in_short(seen: dict[str, Any]) -> str:
    right = [said["right"]["value"] for said in seen.values() if "right" in said]
    numbers = [said["correlation"]["value"] for said in seen.values() if said.get("correlation")]
    return (
        f"{np.mean(right):.0%} of choices right, numbers correlate at {np.mean(numbers):.2f} with the truth, held out"
    )


def command(run: Path) -> str:
    """As it was started, wherever that was."""
    said: list[str] = json.loads((run / "environment.json").read_text())["command"][1:]
    if "--output-dir" in said:
        at = said.index("--output-dir")
        said = said[:at] + said[at + 2 :]
    return " ".join(["drivetrain", *said]).replace(f"{run.resolve().parent}/", "")


if __name__ == "__main__":
    torch.set_num_threads(2)
    sys.exit(main(sys.argv[1:]))
