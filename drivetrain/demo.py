"""The main job in minutes: a small vision-language model learns to drive CarRacing, and is judged beside its teacher.

    drivetrain demo --output-dir runs/demo

An expert that knows the track drives a few laps. `tiny-git`, which comes with the package and has never driven, reads "What
should the vehicle do in this scenario?", looks at the picture, and learns what the expert does and says; then it drives itself,
is told what would have been right, and learns from that as well. Everyone drives the same tracks, with the pixels, the physics
and the rewards of Gymnasium's own environment, on seeds that no training saw, and `report.md` tells how they did. A demo that
was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from drivetrain import catalog, collect, evaluate, processor, report
from drivetrain import config as settings
from drivetrain.data.open import open_dataset
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Network
from drivetrain.run import Run, read_config, read_metrics
from drivetrain.training.il import dagger

ENV, EXPERT, BACKBONE = "carracing", "carracing", "tiny-git"
PROMPT = "What should the vehicle do in this scenario?"
SHIPPED = "carracing-git"  # the same training, longer, with wheel and pedals
FIRST_SEED = 70_000  # of the evaluation; the settings here were chosen on others


@dataclass(frozen=True)
class Config:
    output_dir: str = "runs/demo"  # data/, drive/, drive.mp4 and report.md go here
    episodes: int = 4  # tracks of the evaluation, for each driver
    demonstrations: int = 16  # laps of the expert
    steps: int = 1000  # gradient steps
    rounds: int = 2  # of learning; before the second the model drives and is corrected
    laps: int = 6  # that it drives for that
    threads: int = 0  # processor threads for torch; 0 takes all
    seed: int = 0


def demo(config: Config) -> int:
    """Every step in turn; those that are done already are left alone."""
    processor.use(config.threads or os.cpu_count() or 1)
    folder = Path(config.output_dir)
    gather(config, folder)
    train("dagger", dagger, imitating(config, folder), folder / "drive")
    torch.set_num_threads(1)  # a picture at a time is slower on many
    said = judge(config, folder)
    print(f"\n{table(said)}\n\nThe story, with its curves and a film: {tell(config, folder, said)}")
    return 0


def gather(config: Config, folder: Path) -> None:
    wanted = collect.Config(ENV, EXPERT, config.demonstrations, noise=0.1, output_dir=str(folder / "data"))
    if (folder / "data" / "meta" / "info.json").exists():
        if (had := open_dataset(wanted.output_dir).episodes) != config.demonstrations:
            other_settings(folder, f"{had} laps of the expert", f"{config.demonstrations}")
        print(f"collect: done already -> {wanted.output_dir}", flush=True)
        return
    print(
        f"collect: {wanted.episodes} laps of the expert, its hand slipping at times -> {wanted.output_dir}", flush=True
    )
    wanted = replace(wanted, resume=(folder / "data").exists())
    for _ in evaluate.watched(collect.collect(wanted), wanted.episodes, quiet=False):
        pass


def imitating(config: Config, folder: Path) -> dagger.Config:
    return dagger.Config(
        str(folder / "data"),
        steps=config.steps,
        round_steps=-(-config.steps // config.rounds),
        episodes=config.laps,
        beta=0.2,
        lr=6e-4,
        smoothing=0.02,
        words=0.3,
        network=Network(backbone=BACKBONE, prompt=PROMPT, hidden=(256,), activation="relu"),
        seed=config.seed,
    )


def train(name: str, algorithm: Any, wanted: Any, folder: Path) -> None:
    """One algorithm's run folder, as `drivetrain train` makes it."""
    if (folder / "report.md").exists():
        had, asked = read_config(folder)["config"], json.loads(json.dumps(settings.to_json(wanted)))
        for key, value in asked.items():
            if had.get(key) != value:
                other_settings(folder.parent, f"{key}={had.get(key)}", f"{value}")
        print(f"{name}: done already -> {folder}", flush=True)
        return
    print(f"{name}: {wanted.steps} steps -> {folder}", flush=True)
    going_on = (folder / "config.json").exists()
    run = Run(
        folder,
        checkpoint_every=algorithm.CHECKPOINT_EVERY,
        log_every=max(wanted.steps // 100, 1),
        resume=going_on,
    )
    run.begin(name, settings.to_json(wanted))
    algorithm.train(wanted, run)
    report.write_report(folder)


def other_settings(folder: Path, had: str, asked: str) -> None:
    raise BadConfig(f"BadConfig: {folder} holds a demo with {had}, asked for {asked}; name another --output-dir")


def judge(config: Config, folder: Path) -> dict[str, Any]:
    """The model before and after, the one that ships, and the expert; on the same tracks."""
    print(f"eval: {config.episodes} tracks for each driver, which no training saw", flush=True)
    wanted = evaluate.Config(config.episodes, FIRST_SEED, against=evaluate.UNTRAINED, fast=True)
    mine = evaluate.compare(str(folder / "drive"), replace(wanted, video=str(folder / "drive.mp4")))
    others = {}
    for name, env in ((SHIPPED, ""), (EXPERT, ENV)):
        others[name] = evaluate.evaluate_run(name, replace(wanted, env=env, against="")).to_json()
    said = {"trained": mine["result"], "untrained": mine["against"], "paired": mine["paired"], **others}
    (folder / "evaluation.json").write_text(json.dumps(said, indent=1) + "\n")
    return said


def table(said: dict[str, Any]) -> str:
    names = {
        "untrained": "before: tiny-git with a new head",
        "trained": "after these minutes",
        SHIPPED: f"{SHIPPED}, trained longer, by wheel and pedals",
        EXPERT: "the expert, who knows the track",
    }
    lines = ["| driver | return | each track | laps finished |", "|---|---|---|---|"]
    for key, name in names.items():
        result = said[key]
        each = ", ".join(f"{total:.0f}" for total in result["returns"])
        laps = f"{sum(result['laps'])} of {len(result['laps'])}"
        lines.append(f"| {name} | {result['summary']['mean']:.0f} | {each} | {laps} |")
    return "\n".join(lines)


def tell(config: Config, folder: Path, said: dict[str, Any]) -> Path:
    """report.md, beside the curves of the run and the film."""
    shutil.copyfile(folder / "drive" / "curves.png", folder / "curves.png")
    seconds = read_metrics(folder / "drive")[-1]["wall_s"]
    shipped = catalog.about(catalog.POLICIES[SHIPPED])
    words = f"""# From pixels to controls

An expert that knows the track drove {config.demonstrations} laps of `{ENV}`; its hand slipped at one step in ten, so that the
data show how to recover. `{BACKBONE}`, a vision-language model of 1.4 million parameters, read "{PROMPT}", looked, and
learned to do and to say what the expert did and said; before each of {config.rounds - 1} more rounds of learning it drove
{config.laps} laps itself, and the expert said what would have been right ({config.steps} gradient steps in all,
{seconds:.0f} s).

Then everyone drove the same {config.episodes} tracks, seeds {FIRST_SEED} on, which no training saw, with the pixels, the
physics and the rewards of Gymnasium's own environment. 900 is called solved.

{table(said)}

Against itself before: {said["paired"]["verdict"]} ({said["paired"]["difference"]:+.0f}).

[The first of those tracks, filmed](drive.mp4), with what it read, what it said, how likely it held each action, and its return
so far.

![curves](curves.png)

`{SHIPPED}` ships with the package: {shipped}
"""
    path = folder / "report.md"
    path.write_text(words)
    return path
