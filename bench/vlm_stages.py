"""What does a small vision-language model learn from nothing, stage by stage, and what would it know without seeing?

    python bench/vlm_stages.py                  all of it; runs that are finished in --folder are taken as they are
    python bench/vlm_stages.py --only llava     the LLaVA: stages 0, 1a and 1b; --only blind, the same on other rows' pictures
    python bench/vlm_stages.py --only git       the GIT: stage 0, then captions by LoRA

Every stage is a `drivetrain` command with one thread, and its wall-clock time is counted, data included. Held-out pictures
are told by the hash of their pixels and are trained on in no stage; the last models are asked about 3,200 of them, on tracks
that no stage drew. Writes bench/results/vlm_stages.json; a new LLaVA's stage
1b and a new GIT's stage 0 are what ships as tiny-llava and tiny-git (`python scripts/ship.py`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROGRAM = [sys.executable, "-m", "drivetrain"]
WORLDS = ("cartpole", "carracing")
SETS = "{folder}/questions-cartpole,{folder}/questions-carracing"
ASKED = "3200"
TUNING = ["--questions", ASKED, "--threads", "1"]

STAGES: dict[str, list[tuple[str, list[str]]]] = {
    "llava": [
        ("pretrain", ["train", "pretrain"]),
        ("align", ["train", "align", "--backbone", "{folder}/llava-pretrain/model", "--new-projector",
                   "--alignment-dataset", SETS, "--steps", "400", "--schedule.lr", "3e-3", *TUNING]),
        ("instruct", ["train", "instruct", "--backbone", "{folder}/llava-align/model", "--instruction-dataset", SETS,
                      "--steps", "1000", *TUNING]),
    ],
    "blind": [
        ("pretrain", ["train", "pretrain", "--blind", "--difficulty", "1"]),
        ("align", ["train", "align", "--blind", "--backbone", "{folder}/blind-pretrain/model", "--new-projector",
                   "--alignment-dataset", SETS, "--steps", "400", "--schedule.lr", "3e-3", *TUNING]),
        ("instruct", ["train", "instruct", "--blind", "--backbone", "{folder}/blind-align/model", "--instruction-dataset", SETS,
                      "--steps", "1000", *TUNING]),
    ],
    "git": [
        ("pretrain", ["train", "pretrain", "--architecture", "git"]),
        ("caption", ["train", "caption", "--backbone", "{folder}/git-pretrain/model", "--dataset", "{folder}/captions",
                     "--steps", "1000", *TUNING]),
    ],
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--folder", default="runs/vlm_stages", help="where runs and data go")
    parser.add_argument("--logits", nargs=2, metavar=("BASE", "ADAPTER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.logits:
        print(json.dumps(logits_by_peft(*options.logits)))
        return 0
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for world in WORLDS:
        collect(folder / f"questions-{world}", "instructions", world, 6_000)
    collect(folder / "captions", "captions", "carracing", 6_000)
    for name in options.only:
        for stage, command in STAGES[name]:
            run(folder / f"{name}-{stage}", [part.format(folder=folder) for part in command])
    report = judged(folder)
    (HERE / "results" / "vlm_stages.json").write_text(json.dumps(report, indent=1) + "\n")
    print(in_words(report))
    return 0 if report["passed"] else 3


def collect(where: Path, form: str, world: str, scenes: int) -> None:
    if not where.is_dir():
        flags = ["--env", world, "--scenes", str(scenes), "--seed", "100", "--output-dir", str(where)]
        clocked(where, ["collect", "--as", form, *flags])


def run(where: Path, command: list[str]) -> None:
    if (where / "examination.json").is_file():
        return
    resume = ["--resume"] if (where / "config.json").is_file() else []
    clocked(where, [*command, "--output-dir", str(where), *resume])


def clocked(where: Path, command: list[str]) -> None:
    """Run it, and keep how long it took beside what it wrote."""
    print("drivetrain", *command, flush=True)
    began = time.monotonic()
    subprocess.run([*PROGRAM, *command], check=True)
    spent = {"seconds": round(time.monotonic() - began, 1), "command": " ".join(["drivetrain", *command])}
    (where / "spent.json").write_text(json.dumps(spent) + "\n")


def judged(folder: Path) -> dict[str, Any]:
    """Of every run that is there: its examination and its time; and of a whole LLaVA whether it is what was wanted."""
    report: dict[str, Any] = {}
    for name, stages in STAGES.items():
        found = {stage: told(folder / f"{name}-{stage}") for stage, _ in stages}
        report[name] = {stage: said for stage, said in found.items() if said}
    for name in ("questions-cartpole", "questions-carracing", "captions"):
        report[name] = json.loads((folder / name / "spent.json").read_text())
    parts = [report["llava"].get(stage, {}).get("seconds", 0) for stage in ("pretrain", "align", "instruct")]
    report["minutes"] = (
        sum([*parts, report["questions-cartpole"]["seconds"], report["questions-carracing"]["seconds"]]) / 60
    )
    models = [folder / f"{name}-instruct" for name in ("llava", "blind")]
    report["kinds"] = side_by_side(*map(asked, models)) if all(told(model) for model in models) else {}
    if report["git"].get("caption"):
        report["captions_right"] = captions(folder)
    report["passed"] = bool(report["kinds"]) and all(kind["passed"] for kind in report["kinds"].values())
    return report


def told(where: Path) -> dict[str, Any]:
    if not (where / "examination.json").is_file():
        return {}
    rows = [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]
    losses = [row["held_out/loss"] for row in rows if "held_out/loss" in row]
    spent = where / "spent.json"
    return {
        **(json.loads(spent.read_text()) if spent.is_file() else {}),
        "examination": json.loads((where / "examination.json").read_text()),
        "held_out_loss": {"first": losses[0], "last": losses[-1]} if losses else {},
    }


def captions(folder: Path) -> dict[str, Any]:
    """Of held-out captions, without and with the adapter; and whether peft opens that to the same logits elsewhere."""
    from drivetrain.models.vlm import load_vlm
    from drivetrain.training.caption import captioned
    from drivetrain.training.conversations import open_talks

    _, talks = open_talks(str(folder / "captions"), "", 0.1, captions=True)
    runs = {"without LoRA": folder / "git-pretrain", "with LoRA": folder / "git-caption"}
    found = {name: captioned(load_vlm(str(run)), talks[:])["seen"]["captions"]["right"] for name, run in runs.items()}
    inside = [sys.executable, __file__, "--logits", *(str(run / "model") for run in runs.values())]
    said = json.loads(subprocess.run(inside, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return {**found, "same_logits_by_peft_in_a_fresh_process": said == logits(load_vlm(str(runs["with LoRA"])))}


def logits(vlm: Any) -> list[list[float]]:
    """To the bit, of what comes after the prompt for a few scenes."""
    import numpy as np
    import torch

    from drivetrain.envs.carracing_scenes import Scenes
    from drivetrain.training.conversations import PROMPT

    scenes = Scenes(tracks=[1_000])
    pictures = np.stack([scenes.draw(np.random.default_rng(i), 1.0)[0] for i in range(4)])
    torch.set_num_threads(1)
    with torch.no_grad():
        found: list[list[float]] = vlm(vlm.inputs(pictures, PROMPT)).logits[:, -1].tolist()
    return found


def logits_by_peft(base: str, adapter: str) -> list[list[float]]:
    from peft import PeftModel

    from drivetrain.models.vlm import load_vlm

    vlm = load_vlm(base)
    vlm.model = PeftModel.from_pretrained(vlm.core, adapter)
    return logits(vlm.eval())


def asked(run: Path) -> dict[str, Any]:
    from drivetrain.models.vlm import load_vlm
    from drivetrain.training.examination import examine
    from drivetrain.training.pretrain import Config, Scenes

    return examine(load_vlm(str(run)), Scenes(Config(), unseen=True).held_out(int(ASKED)))["seen"]


def side_by_side(ours: dict[str, Any], blind: dict[str, Any]) -> dict[str, Any]:
    """By kind of question: the sighted model, the blind one, and whether they are as wanted (85% and 0.9; chance)."""
    found = {}
    for kind in ours:
        measure, wanted = ("right", 0.85) if "right" in ours[kind] else ("correlation", 0.9)
        chance = blind[kind].get("chance", 0.0)
        at_chance = blind[kind][measure]["low"] <= max(chance, 0.1)
        found[kind] = {
            "measure": measure,
            "ours": ours[kind][measure],
            "blind": blind[kind][measure],
            "chance": chance,
            "passed": ours[kind][measure]["value"] >= wanted and at_chance,
        }
    return found


def in_words(report: dict[str, Any]) -> str:
    lines = [f"stages 0, 1a and 1b with their data: {report['minutes']:.1f} minutes of one core"]
    for kind, said in report["kinds"].items():
        ours, blind = said["ours"], said["blind"]
        lines.append(
            f"{kind}: {said['measure']} {ours['value']:.3f} ({ours['low']:.3f} to {ours['high']:.3f}), "
            f"blind {blind['value']:.3f}, chance {said['chance']:.3f}{'' if said['passed'] else ', not as wanted'}"
        )
    for name, right in report.get("captions_right", {}).items():
        lines.append(f"captions {name}: {right['value']:.3f}" if isinstance(right, dict) else f"{name}: {right}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
