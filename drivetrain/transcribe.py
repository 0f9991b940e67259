"""What was played already, written as a data set: what a learner remembers, or another's file format.

    drivetrain collect --as replay --by runs/sac --output-dir data/hopper-replay
    drivetrain collect --as subset --dataset data/hopper --episodes 4 --every 20 --output-dir data/hopper-4x50
    drivetrain collect --as d4rl --dataset data/hopper-replay --output-dir hopper-replay.hdf5
    drivetrain collect --as minari --dataset data/hopper-replay --output-dir hopper-replay

A replay is everything that a run of dqn or sac remembered at a checkpoint: what D4RL calls medium-replay where that run was
stopped half-way. `--by RUN/checkpoints/000100000` is an earlier one, where --keep left it. A subset has some episodes, and of
them every so many steps: what imitation from few pairs is measured on. Its steps no longer follow one another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drivetrain import checkpoint
from drivetrain.data.card import refuse_thinned, write_card
from drivetrain.data.lerobot import Writer
from drivetrain.data.minari import write_d4rl, write_minari
from drivetrain.data.open import open_dataset
from drivetrain.data.replay import ENDED, recalled
from drivetrain.data.replay import REWARD as GAINED
from drivetrain.data.replay import TERMINATED as OVER
from drivetrain.envs.words import newest, spec_of, with_options
from drivetrain.errors import BadConfig, BadData
from drivetrain.run import read_config
from drivetrain.sample import ACTION, REWARD, TERMINATED, TRUNCATED, Spec

REMEMBER = ("dqn", "sac")  # algorithms whose memory holds the world's own rewards


@dataclass(frozen=True)
class Recall:
    by: str = "runs/sac"  # a run of dqn or sac, or one of its checkpoints
    output_dir: str = "data/replay"


@dataclass(frozen=True)
class Copy:
    dataset: str = ""  # a data set: a folder, a file, or several with commas between
    env: str = ""  # the world it is from, where the data set does not say
    output_dir: str = ""  # the folder, or for D4RL the file, to write


@dataclass(frozen=True)
class Subset:
    dataset: str = ""  # a data set: a folder, a file, or several with commas between
    env: str = ""  # the world it is from, where the data set does not say
    episodes: int = 4  # so many of its episodes, the first
    every: int = 20  # one step in so many; where it begins is drawn for each episode
    seed: int = 0
    output_dir: str = "data/subset"


def recall(config: Recall) -> str:
    """Every episode that a checkpoint's memory holds; one line about what was written."""
    place = checkpoint.resolve(config.by)
    run = place.parent.parent
    if (algorithm := read_config(run)["algorithm"]) not in REMEMBER:
        raise BadConfig(f"BadConfig: {config.by} is a run of {algorithm}; give one of {' or '.join(REMEMBER)}")
    if (reward := read_config(run)["config"].get("reward", "world")) != "world":
        raise BadConfig(
            f"BadConfig: {config.by} remembers what {reward} rewarded and ended, not the world; give another run"
        )
    state = checkpoint.read(place, "replay")
    policy: Any = checkpoint.load_policy(place)
    capacity = read_config(run)["config"]["capacity"]
    spec = replace(spec_of(with_options(policy.spec.env, stack=1)), env=policy.spec.env)
    writer = Writer(Path(config.output_dir), spec)
    for episode in recalled(run / "replay" / "journal", state, capacity):
        actions = policy.to_world(torch.from_numpy(episode[ACTION]))
        count = len(actions)
        for i in range(count):
            over = bool(episode[OVER][i])
            cut = i == count - 1 and not over
            assert over or bool(episode[ENDED][i]) == cut, "only the last step of an episode ends it"
            seen = {key: episode[key][i] for key in spec.observations}
            done = {ACTION: actions[i], REWARD: episode[GAINED][i], TERMINATED: over, TRUNCATED: cut}
            writer.add(newest({**seen, **done}, spec))
        writer.end_episode()
    if not writer.episodes:
        raise BadData(f"BadData: the memory of {place} holds no episode; train on, and take a later checkpoint")
    writer.finish()
    made = {"replay": str(config.by), "step": checkpoint.read_manifest(place)["step"]}
    card = write_card(Path(config.output_dir), made)
    mean = card["returns"]["mean"]
    return f"{card['episodes']} episodes, {card['frames']} frames, mean return {mean:.1f}: {config.output_dir}"


def _spec(env: str) -> Spec | None:
    """Of single observations, as data sets hold them."""
    return spec_of(with_options(env, stack=1)) if env else None


def copy(form: str, config: Copy) -> str:
    """The same episodes in Minari's or D4RL's files; one line about what was written."""
    for name in ("dataset", "output_dir"):
        if not getattr(config, name):
            raise BadConfig(
                f"BadConfig: --as {form} needs --dataset and --output-dir, got no --{name.replace('_', '-')}"
            )
    place = Path(config.output_dir)
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise BadConfig(f"BadConfig: {place} is there already; name another --output-dir, or remove it")
    refuse_thinned(config.dataset)
    data = open_dataset(config.dataset, _spec(config.env))
    if form == "d4rl":
        if place.suffix not in (".hdf5", ".h5"):
            raise BadConfig(f"BadConfig: --as d4rl writes one .hdf5 file, got --output-dir {place}; name it so")
        write_d4rl(data, place)
        return f"{data.episodes} episodes, {len(data)} frames: {place}"
    episodes, steps = write_minari(data, place, name=place.name)
    return f"{episodes} episodes, {steps} frames: {place}"


def subset(config: Subset) -> str:
    """Some episodes, and of them some steps; one line about what was written."""
    if not config.dataset:
        raise BadConfig("BadConfig: --as subset needs --dataset; name the data set to take from")
    if min(config.episodes, config.every) < 1:
        got = f"{config.episodes} and {config.every}"
        raise BadConfig(f"BadConfig: --episodes and --every must be 1 or more, got {got}")
    refuse_thinned(config.dataset)
    data = open_dataset(config.dataset, _spec(config.env))
    if data.episodes < config.episodes:
        raise BadData(f"BadData: {config.dataset} has {data.episodes} episodes, --episodes asks for {config.episodes}")
    writer = Writer(Path(config.output_dir), replace(data.spec, fps=data.spec.fps / config.every))
    random, ends = np.random.default_rng(config.seed), 0
    for number in range(config.episodes):
        episode = data.episode(number)
        length = len(episode[ACTION])
        ends += int(episode[TERMINATED][-1])
        kept = np.arange(random.integers(min(config.every, length)), length, config.every)
        for i in kept:
            step = {key: values[i] for key, values in episode.items()}
            over = bool(step[TERMINATED]) and i == length - 1
            writer.add({**step, TERMINATED: over, TRUNCATED: i == kept[-1] and not over})
        writer.end_episode()
    writer.finish()
    made = {"dataset": config.dataset, "episodes": config.episodes, "every": config.every, "seed": config.seed}
    made["ends"] = ends  # whose steps are left out, for the most part
    card = write_card(Path(config.output_dir), made)
    return f"{card['episodes']} episodes, {card['frames']} frames: {config.output_dir}"


FORMS: dict[str, tuple[type[Any], Callable[[Any], str]]] = {
    "replay": (Recall, recall),
    "subset": (Subset, subset),
    "d4rl": (Copy, lambda config: copy("d4rl", config)),
    "minari": (Copy, lambda config: copy("minari", config)),
}
