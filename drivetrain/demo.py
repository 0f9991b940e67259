"""The whole path in minutes: an expert drives, a network copies it from pictures, reinforcement learning improves the copy.

    drivetrain demo --output-dir runs/demo

CartPole as a camera sees it. Every policy then plays the same episodes, on seeds that no training saw, and `report.md`
tells how they did. A demo that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from drivetrain import collect, evaluate, report
from drivetrain import config as settings
from drivetrain.models.driver import Network
from drivetrain.run import Run, read_metrics
from drivetrain.training.il import bc
from drivetrain.training.online_rl import ppo

ENV = "cartpole-pixels"
FIRST_SEED = 70_000  # of the evaluation; the settings here were chosen on others
STACK = 4  # the pole moves by less than a pixel from one picture to the next


@dataclass(frozen=True)
class Config:
    output_dir: str = "runs/demo"  # data/, bc/, ppo/, drive.mp4 and report.md go here
    episodes: int = 20  # of evaluation, for each policy
    demonstrations: int = 15  # episodes of the expert
    clone_steps: int = 1_500  # gradient steps of behaviour cloning
    ppo_steps: int = 51_200  # steps in the worlds of reinforcement learning
    threads: int = 1  # processor threads for torch; 0 takes all
    seed: int = 0


def demo(config: Config) -> int:
    """Every step in turn; those that are done already are left alone."""
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    folder = Path(config.output_dir)
    gather(config, folder)
    train("bc", bc, cloning(config, folder), folder / "bc")
    train("ppo", ppo, improving(config, folder), folder / "ppo")
    said = judge(config, folder)
    print(f"\n{table(said)}\n\nThe story, with its curves and a film: {tell(config, folder, said)}")
    return 0


def gather(config: Config, folder: Path) -> None:
    wanted = collect.Config(ENV, "cartpole", config.demonstrations, noise=0.3, output_dir=str(folder / "data"))
    if (folder / "data" / "meta" / "info.json").exists():
        print(f"collect: done already -> {wanted.output_dir}", flush=True)
        return
    print(
        f"collect: {wanted.episodes} episodes of the expert, its hand slipping at times -> {wanted.output_dir}",
        flush=True,
    )
    wanted = replace(wanted, resume=(folder / "data").exists())
    for _ in evaluate.watched(collect.collect(wanted), wanted.episodes, quiet=False):
        pass


def cloning(config: Config, folder: Path) -> bc.Config:
    network = Network(camera_channels=(16, 32, 32), hidden=(256,), activation="relu")
    return bc.Config(
        str(folder / "data"), ENV, steps=config.clone_steps, frame_stack=STACK, network=network, seed=config.seed
    )


def improving(config: Config, folder: Path) -> ppo.Config:
    return ppo.Config(
        f"{ENV}:stack={STACK}",
        policy=str(folder / "bc"),
        steps=config.ppo_steps,
        rollout=128,
        epochs=4,
        lr=3e-4,
        gamma=0.99,
        gae_lambda=0.95,
        value_warmup=4_096,
        anneal=False,
        normalise_returns=True,  # so that the value does not drown the policy in the encoder they share
        seed=config.seed,
    )


def train(name: str, algorithm: Any, wanted: Any, folder: Path) -> None:
    """One algorithm's run folder, as `drivetrain train` makes it."""
    rows = read_metrics(folder) if (folder / "metrics.jsonl").exists() else []
    if rows and rows[-1]["step"] >= wanted.steps:
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


def judge(config: Config, folder: Path) -> dict[str, Any]:
    """The copy, and what became of it, each against the same network before it learned anything."""
    print(f"eval: {config.episodes} episodes for each policy, on seeds that no training saw", flush=True)
    wanted = evaluate.Config(config.episodes, FIRST_SEED, against=evaluate.UNTRAINED)
    clone = evaluate.compare(str(folder / "bc"), wanted)
    final = evaluate.compare(str(folder / "ppo"), replace(wanted, video=str(folder / "drive.mp4")))
    gain = evaluate.compare(str(folder / "ppo"), replace(wanted, against=str(folder / "bc")))
    said = {"bc": clone, "ppo": final, "ppo_against_bc": gain}
    (folder / "evaluation.json").write_text(json.dumps(said, indent=1) + "\n")
    return said


def table(said: dict[str, Any]) -> str:
    lines = ["| policy | return | 95% interval | against the untrained one |", "|---|---|---|---|"]
    rows = [
        ("untrained", said["bc"]["against"], ""),
        *((k, said[k]["result"], verdict(said[k])) for k in ("bc", "ppo")),
    ]
    for name, result, word in rows:
        s = result["summary"]
        lines.append(f"| {name} | {s['mean']:.1f} | {s['low']:.1f} to {s['high']:.1f} | {word} |")
    return "\n".join(lines)


def verdict(said: dict[str, Any]) -> str:
    return f"{said['paired']['verdict']} ({said['paired']['difference']:+.1f})"


def tell(config: Config, folder: Path, said: dict[str, Any]) -> Path:
    """report.md, beside the curves of both runs and the film."""
    for name in ("bc", "ppo"):
        shutil.copyfile(folder / name / "curves.png", folder / f"{name}.png")
    seconds = {name: read_metrics(folder / name)[-1]["wall_s"] for name in ("bc", "ppo")}
    words = (
        f"# From pixels to controls\n\nAn expert that sees the true state drove {config.demonstrations} episodes of "
        f"`{ENV}`; its hand slipped at three steps in ten, so that the data show how to recover. A small network copied "
        f"what it meant to do from the last {STACK} pictures ({config.clone_steps} gradient steps, {seconds['bc']:.0f} s). "
        f"PPO improved the copy ({config.ppo_steps} steps, {seconds['ppo']:.0f} s). Then each played the same "
        f"{config.episodes} episodes, seeds {said['ppo']['result']['seeds'][0]} on, which no training saw; 500 is the most "
        f"there is.\n\n{table(said)}\n\nPPO against its own start: {verdict(said['ppo_against_bc'])}.\n\n"
        f"[The first of those episodes, filmed](drive.mp4)\n\n## Cloning\n\n![curves](bc.png)\n\n"
        f"## Reinforcement learning\n\n![curves](ppo.png)\n"
    )
    path = folder / "report.md"
    path.write_text(words)
    return path
