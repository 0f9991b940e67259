"""What a world model dreams, beside what came: a film, and how far off it is, beside saying that nothing changes.

    drivetrain dream runs/dreamer --episodes 10 --video dream.mp4

The run's policy plays fresh episodes. From every `--every`-th step on, the model shuts its eyes and is told for `--horizon`
steps only what was done. Errors are squared; of numbers and rewards in parts of their variance, so that 1 is as good as always
saying the mean, of pictures between black (0) and white (1). "Copied" is the error of what was seen last. In the film the eyes
are open for `--context` steps and shut for `--horizon`, in turn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drivetrain import stats, transforms
from drivetrain.beside import Chart, beside
from drivetrain.checkpoint import load_policy, resolve
from drivetrain.envs.rollout import Episode, rollout
from drivetrain.envs.words import spec_of
from drivetrain.errors import BadConfig, BadData
from drivetrain.evaluate import watched
from drivetrain.film import write_film
from drivetrain.models.rssm import State, symexp
from drivetrain.models.world import Dreamer
from drivetrain.sample import ACTION, REWARD, Spec, is_image


@dataclass(frozen=True)
class Config:
    episodes: int = 10
    seed: int = 5_000  # the first episode's; the others count on from it
    env: str = ""  # another env than the one it was trained in; it must give the same observations
    horizon: int = 15  # steps with eyes shut
    every: int = 5  # steps between two beginnings of a dream
    context: int = 5  # steps that are seen before the first
    draws: int = 8  # dreams from each beginning; what they tell is averaged
    video: str = ""  # film the first episode, and the dream of it, into this .mp4
    json: bool = False  # one JSON object on stdout, and nothing else
    save: str = ""  # keep that object in this file as well


Told = dict[str, Tensor]  # what is seen, by name, and the reward that came with it: [T, ...]


def dream(path: str, config: Config) -> dict[str, Any]:
    """Everything `drivetrain dream` has to say, as one object."""
    if min(config.episodes, config.horizon, config.every, config.draws, config.context) < 1 or config.seed < 0:
        raise BadConfig(
            "BadConfig: episodes, horizon, every, draws and context must be 1 or more and seed 0 or more; "
            f"got {config.episodes}, {config.horizon}, {config.every}, {config.draws}, {config.context} and {config.seed}"
        )
    if config.video and Path(config.video).suffix != ".mp4":
        raise BadConfig(f"BadConfig: a film is an .mp4 file, got {config.video}; rename it")
    if config.save and not Path(config.save).absolute().parent.is_dir():
        raise BadConfig(f"BadConfig: there is no folder for --save {config.save}; make it first")
    policy = load_policy(resolve(path))
    if not isinstance(policy, Dreamer):
        raise BadConfig(f"BadConfig: {path} has no world model to dream in; `drivetrain train dreamer` makes one")
    env = config.env or policy.spec.env
    policy.spec.require(spec_of(env))
    generator = torch.Generator().manual_seed(config.seed)
    seeds = range(config.seed, config.seed + config.episodes)
    film = (config.seed,) if config.video else ()
    going = rollout(policy, env, list(seeds), generator=generator, keep=True, film=film)
    episodes = {episode.seed: episode for episode in watched(going, len(seeds), config.json)}
    told = [recorded(policy, episodes[seed]) for seed in seeds]
    errors = [open_loop(policy, *one, config, generator) for one in told]
    kept = [error for error in errors if error]
    if not kept:
        longest = max(len(one[1]) for one in told)
        raise BadData(
            f"BadData: no episode is longer than {config.context + config.horizon} steps, the longest has {longest}; "
            "shorten --horizon or --context"
        )
    said = {"name": path, "env": env, "seeds": list(seeds), "errors": summed(kept, scales(measured(policy), told))}
    if config.video:
        write_film(Path(config.video), filmed(policy, episodes[config.seed], told[0], config), spec_of(env).fps)
    if config.save:
        Path(config.save).write_text(json.dumps(said, indent=1) + "\n")
    return said


def recorded(policy: Dreamer, episode: Episode) -> tuple[Told, Tensor]:
    """What was seen, and with it the reward that came; then what was done, as the model takes it [T, A]."""
    rows = episode.samples
    seen = {key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in policy.keys}
    earned = torch.tensor([float(row[REWARD]) for row in rows])
    action = np.stack([np.asarray(row[ACTION], dtype=policy.spec.action.dtype) for row in rows])
    raw = transforms.apply(policy.transforms, {ACTION: torch.from_numpy(action)})[ACTION]
    return {**seen, REWARD: torch.cat([earned[:1] * 0, earned[:-1]])}, policy.world.done(raw)


def measured(policy: Dreamer) -> list[str]:
    """What errors are told of: choices have none."""
    return [*(key for key in policy.keys if key not in policy.world.choices), REWARD]


def followed(policy: Dreamer, seen: Told, done: Tensor, generator: torch.Generator | None) -> State:
    """The states along an episode with eyes open: [T, ...]."""
    first = torch.zeros(1, len(done), dtype=torch.bool)
    first[0, 0] = True
    before = torch.cat([torch.zeros_like(done[:1]), done[:-1]])
    found = policy.world.look({key: seen[key][None] for key in policy.keys}, before[None], first, generator)
    return State(*(part[0] for part in found.state))


def in_units(policy: Dreamer, state: State) -> Told:
    """What the model tells of a state, as the world would show it; pictures between 0 and 1."""
    told = policy.world.told(state.features)
    shown = {key: told[key].clamp(0, 1) if is_image(key) else symexp(told[key]) for key in measured(policy)[:-1]}
    return {**shown, REWARD: policy.world.reward.mean(state.features)}


def pictured(key: str, value: Tensor) -> Tensor:
    return value.float() / 255 if is_image(key) else value


@torch.no_grad()
def open_loop(
    policy: Dreamer, seen: Told, done: Tensor, config: Config, generator: torch.Generator
) -> dict[str, dict[str, Tensor]]:
    """Squared errors by name, of what was dreamed and of what was copied: [H, D], means over the beginnings; empty where the
    episode is too short."""
    begins = torch.tensor(range(config.context, len(done) - config.horizon, config.every), dtype=torch.long)
    if not len(begins):
        return {}
    states = followed(policy, seen, done, generator)
    state = State(*(part[begins].repeat_interleave(config.draws, 0) for part in states))
    found: dict[str, dict[str, list[Tensor]]] = {key: {"dreamed": [], "copied": []} for key in measured(policy)}
    for k in range(1, config.horizon + 1):
        state = policy.world.rssm.dream(state, done[begins + k - 1].repeat_interleave(config.draws, 0), generator)
        for key, told in in_units(policy, state).items():
            now, last = pictured(key, seen[key][begins + k]), pictured(key, seen[key][begins])
            said = told.unflatten(0, (len(begins), config.draws)).mean(1)
            for how, value in (("dreamed", said), ("copied", last)):
                apart = (value - now).square().flatten(1) if now.ndim > 1 else (value - now).square()[:, None]
                found[key][how].append((apart.mean(1, keepdim=True) if is_image(key) else apart).mean(0))
    return {key: {how: torch.stack(rows) for how, rows in both.items()} for key, both in found.items()}


def scales(keys: Sequence[str], told: Sequence[tuple[Told, Tensor]]) -> dict[str, Tensor]:
    """What errors are measured by: the variance of each number; 1 for pictures."""
    found = {key: torch.ones(1) for key in keys}
    for key in keys:
        if not is_image(key):
            values = torch.cat([seen[key].float().reshape(len(seen[key]), -1) for seen, _ in told])
            found[key] = values.var(0, unbiased=False).clamp(min=1e-6)
    return found


def summed(errors: Sequence[Mapping[str, Mapping[str, Tensor]]], scale: Mapping[str, Tensor]) -> dict[str, Any]:
    """Of each name: the error at each step, and over all of them with an interval over episodes."""
    found: dict[str, Any] = {}
    for key, by in scale.items():
        each = {how: np.array([(e[key][how] / by).mean(1).tolist() for e in errors]) for how in ("dreamed", "copied")}
        steps = {how: rows.mean(0).tolist() for how, rows in each.items()}
        means = {how: stats.summary(rows.mean(1)).to_json() for how, rows in each.items()}
        pair = stats.paired(each["copied"].mean(1), each["dreamed"].mean(1)).to_json()
        found[key] = {"by_step": steps, "mean": means, "paired": pair}
    return found


@torch.no_grad()
def filmed(policy: Dreamer, episode: Episode, told: tuple[Told, Tensor], config: Config) -> list[np.ndarray]:
    """What came on the left, what the model held it to be on the right."""
    seen, done = told
    generator = torch.Generator().manual_seed(config.seed)
    states = followed(policy, seen, done, generator)
    state = State(*(part[:1] for part in states))
    said, shut = [in_units(policy, state)], [False]
    for t in range(1, len(done)):
        closed = t % (config.context + config.horizon) >= config.context
        state = (
            policy.world.rssm.dream(state, done[t - 1 : t], generator)
            if closed
            else State(*(part[t : t + 1] for part in states))
        )
        said.append(in_units(policy, state))
        shut.append(closed)
    both = {key: torch.cat([one[key] for one in said]) for key in measured(policy)}
    pictures = [key for key in both if is_image(key)]
    if not pictures:
        chart = Chart(named({key: seen[key] for key in both}, policy.spec), named(both, policy.spec), shut)
        return [beside(episode.frames[t], chart(t), closed) for t, closed in enumerate(shut)]
    dreamt = both[pictures[0]]
    return [beside(episode.frames[t], picture(dreamt[t]), closed) for t, closed in enumerate(shut)]


def named(told: Told, spec: Spec) -> dict[str, np.ndarray]:
    """Every number by a name of its own: [T] each."""
    found: dict[str, np.ndarray] = {}
    for key, value in told.items():
        columns = value.float().flatten(1).unbind(1) if value.ndim > 1 else [value]
        name = key.rpartition(".")[2]
        known = spec.observations[key].names if key in spec.observations else ()
        names = known or ([f"{name} {i}" for i in range(len(columns))] if len(columns) > 1 else [name])
        found |= {one: column.numpy() for one, column in zip(names, columns, strict=True)}
    return found


def picture(value: Tensor) -> np.ndarray:
    """The newest of what may be several stacked pictures."""
    return (value[..., -3:].numpy() * 255).astype(np.uint8)


def in_words(said: dict[str, Any]) -> str:
    lines = [f"{said['name']} dreaming of {said['env']}, {len(said['seeds'])} episodes, seeds {said['seeds'][0]} on"]
    for key, found in said["errors"].items():
        steps = found["by_step"]["dreamed"], found["by_step"]["copied"]
        mean, pair = found["mean"], found["paired"]
        lines.append(
            f"  {key}: error over {len(steps[0])} steps {mean['dreamed']['mean']:.4f}, copied {mean['copied']['mean']:.4f} "
            f"({pair['verdict']}, p = {pair['p']:.3g}); at the last step {steps[0][-1]:.4f} and {steps[1][-1]:.4f}"
        )
    return "\n".join(lines)
