"""Group relative policy optimisation, for control: play the same beginning several times, and do more of what went better.

    drivetrain train grpo --env cartpole --output-dir runs/grpo
    drivetrain train grpo --env carracing:repeat=2 --policy runs/bc --groups 2 --lr 2e-4 --anchor 0.02 --freeze

Shao et al. 2024, as it is done for policies that act (SimpleVLA-RL and others, 2025). There is no value: the members of a group
begin in the same state, and an episode's advantage at each of its steps is how far its return is from the group's mean, in
deviations of the group. Groups whose members all returned the same teach nothing and are dropped, and so are those of which a
member's world broke before its end. All members are played by
one version of the policy, and what it gave each action is reckoned again by the pass that learns, so that the first ratio is
exactly 1. Losses are divided by the same number of steps whatever the episodes' lengths, or short failures would count more
than long ones. The ratio may rise a little further than it may fall. With `--horizon` an episode is cut after so many steps
and keeps what it returned by then. `--freeze` leaves everything but the head as it is. Policies have no memory here.
"""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from drivetrain.checkpoint import Randomness
from drivetrain.envs.words import make_env, spec_of
from drivetrain.envs.worlds import Finished, stack
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Driver, Network, build_policy
from drivetrain.run import Run
from drivetrain.sample import Spec
from drivetrain.training.flat import Adam, Flat
from drivetrain.training.start import finished, same_head, start_from, undropped

EVEN = 1e-6  # a group whose returns differ by no more is dropped


@dataclass(frozen=True)
class Config:
    env: str = "cartpole"  # a name of `drivetrain list envs`, with options after a colon
    policy: str = ""  # a run or checkpoint to start from; empty starts anew
    steps: int = 300_000  # steps in the worlds, all together
    groups: int = 4  # beginnings that are played before the policy learns
    members: int = 8  # episodes from each
    horizon: int = 0  # cut an episode after so many steps; 0 lets it go on
    epochs: int = 4  # passes over what was played
    minibatch: int = 512  # steps per gradient step
    lr: float = 3e-3  # learning rate
    anneal: bool = True  # the learning rate falls to 0 over the run
    clip_low: float = 0.2  # how far the ratio may fall below 1
    clip_high: float = 0.28  # and rise above it
    by_deviation: bool = True  # divide advantages by the group's deviation
    anchor: float = 0.0  # weight of the divergence from the policy it started from
    freeze: bool = False  # only the head learns: what the encoders give is computed once for each step
    entropy_weight: float = 0.0  # of the entropy bonus
    max_grad_norm: float = 0.5  # gradients are scaled down to this
    head: str = "auto"  # categorical; gaussian for numbers
    log_std: float = 0.0  # where the gaussian head's log deviation begins
    network: Network = field(default_factory=Network)
    seed: int = 0


DEBUG = Config(steps=512, groups=2, members=3, horizon=20, epochs=2, minibatch=16)
CHECKPOINT_EVERY = 10_240


class Played(NamedTuple):
    """Every step of every episode, one after another: S steps of G * M episodes."""

    observation: dict[str, Tensor]  # [S, ...]; or, where no encoder learns,
    features: Tensor | None  # [S, D]
    action: Tensor  # [S, ...] as drawn
    episode: Tensor  # [S], which episode
    returns: np.ndarray  # [G, M]
    lengths: np.ndarray  # [G, M]
    lost: np.ndarray  # [G, M], whose world broke


class Beginnings:
    """Worlds that are begun together, the members of a group from the same seed."""

    def __init__(self, env: str, groups: int, members: int):
        self.groups, self.members = groups, members
        self.envs = [make_env(env) for _ in range(groups * members)]
        self.sample_spec: Spec = self.envs[0].sample_spec  # type: ignore[attr-defined]
        waits = getattr(self.envs[0].unwrapped, "waits", False)  # for a server: then all wait together
        self._each: Any = ThreadPoolExecutor(len(self.envs), thread_name_prefix="world").map if waits else map

    def play(
        self, policy: Driver, seeds: np.ndarray, horizon: int, generator: torch.Generator, freeze: bool = False
    ) -> Played:
        """An episode in each, by chance; `seeds` [G] are of the beginnings."""
        count = len(self.envs)
        each = np.repeat(seeds, self.members)
        now = list(self._each(lambda env, seed: env.reset(seed=int(seed))[0], self.envs, each))
        going, returns, lengths = np.arange(count), np.zeros(count), np.zeros(count, dtype=int)
        lost = np.zeros(count, dtype=bool)
        seen, features, done, whose = [], [], [], []
        while len(going):
            batch = stack([now[i] for i in going])
            action, _, info = policy.act(batch, {}, greedy=False, generator=generator)
            if freeze:
                features.append(info["features"])
            else:
                seen.append({key: torch.from_numpy(batch[key]) for key in policy.keys})
            done.append(info["raw"])
            whose.append(torch.from_numpy(going.copy()))
            on = np.ones(len(going), dtype=bool)
            went = list(self._each(lambda i, done: self.envs[i].step(done), going, action))
            for row, i in enumerate(going):
                now[i], reward, terminated, truncated, told = went[row]
                returns[i] += float(reward)
                lengths[i] += 1
                lost[i] |= bool(told.get("lost"))
                on[row] = not (terminated or truncated or lengths[i] == horizon)
            going = going[on]
        observation = {key: torch.cat([step[key] for step in seen]) for key in policy.keys if seen}
        whole = [values.reshape(self.groups, self.members) for values in (returns, lengths, lost)]
        kept = torch.cat(features) if freeze else None
        return Played(observation, kept, torch.cat(done), torch.cat(whose), *whole)

    def close(self) -> None:
        for env in self.envs:
            env.close()


def advantages(played: Played, by_deviation: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of each episode [G, M] within its group, and which groups [G] teach anything."""
    apart = played.returns - played.returns.mean(1, keepdims=True)
    spread = played.returns.std(1, keepdims=True)
    teaches = (spread[:, 0] > EVEN) & ~played.lost.any(1)
    return (apart / np.maximum(spread, EVEN) if by_deviation else apart) * teaches[:, None], teaches


class Batch(NamedTuple):
    observation: dict[str, Tensor]  # [B, ...]; or, where no encoder learns,
    features: Tensor | None  # [B, D]
    action: Tensor  # [B, ...]
    advantage: Tensor  # [B]
    log_prob: Tensor  # [B]
    start: Tensor | None  # [B, ...], the numbers of the first policy's distribution
    share: float  # of a step in the loss, whatever the episodes' lengths


def losses(policy: Driver, batch: Batch, config: Config) -> dict[str, Tensor]:
    """What is summed into the loss; beside it `log_ratio`."""
    chances = policy.head(looked(policy, batch.observation, batch.features))
    log_ratio = chances.log_prob(batch.action) - batch.log_prob
    ratio, ahead = log_ratio.exp(), batch.advantage > 0
    kept = torch.where(ahead, ratio.clamp(max=1 + config.clip_high), ratio.clamp(min=1 - config.clip_low))
    parts = {"loss/policy": -(batch.advantage * kept).sum() * batch.share}
    if batch.start is not None:
        parts["loss/anchor"] = config.anchor * chances.divergence(chances.of(batch.start)).sum() * batch.share
    if config.entropy_weight:
        parts["loss/entropy"] = -config.entropy_weight * chances.entropy().sum() * batch.share
    return {**parts, "log_ratio": log_ratio.detach()}


def looked(policy: Driver, observation: dict[str, Tensor], features: Tensor | None) -> Tensor:
    """What goes into the head [B, D]."""
    if features is not None:
        return features
    sequence = {key: value.unsqueeze(1) for key, value in observation.items()}
    count = len(next(iter(sequence.values())))
    found, _ = policy.features(sequence, {}, torch.zeros(count, 1, dtype=torch.bool))
    return found[:, 0]


def batches(
    policy: Driver, first: Driver | None, played: Played, config: Config, generator: torch.Generator
) -> list[Batch]:
    """What was played by groups that teach, in pieces; each with what the policy, as it is, gave its actions."""
    advantage, teaches = advantages(played, config.by_deviation)
    told = torch.from_numpy(np.repeat(teaches, config.members))[played.episode]
    rows = told.nonzero().flatten()
    rows = rows[torch.randperm(len(rows), generator=generator)]
    each = torch.from_numpy(advantage.flatten()).float()[played.episode]
    found = []
    for at in rows.split(config.minibatch) if len(rows) else ():
        seen = {key: value[at] for key, value in played.observation.items()}
        features = None if played.features is None else played.features[at]
        with torch.no_grad():
            log_prob = policy.head(looked(policy, seen, features)).log_prob(played.action[at])
            start = first.head(looked(first, seen, features)).numbers() if first else None
        found.append(Batch(seen, features, played.action[at], each[at], log_prob, start, 1 / config.minibatch))
    return found


def update(
    policy: Driver, flat: Flat, optimizer: Adam, pieces: list[Batch], config: Config, generator: Any
) -> dict[str, Tensor]:
    """Several passes over what was played; the parts of the last gradient step, and how far the policy went."""
    said: dict[str, Tensor] = {}
    for number in range(config.epochs):
        for i in torch.randperm(len(pieces), generator=generator).tolist():
            parts = losses(policy, pieces[i], config)
            log_ratio = parts.pop("log_ratio")
            if not said:
                strayed = float(log_ratio.abs().max())
                assert number == 0 and strayed < 1e-4, f"the first ratio is off by {strayed}"
            total = torch.stack(list(parts.values())).sum()
            flat.backward(total)
            flat.clip(config.max_grad_norm)
            optimizer.step()
            away = log_ratio.exp() - 1
            said = {
                "loss": total.detach(),
                **{k: v.detach() for k, v in parts.items()},
                "watch/kl": (away - log_ratio).mean(),
            }
    return said


def begin(config: Config, spec: Spec) -> Driver:
    head = ("categorical" if spec.discrete else "gaussian") if config.head == "auto" else config.head
    undropped(config.network, "grpo", "dropout makes the first ratio differ from 1")
    if config.groups < 1 or config.members < 2:
        got = f"{config.groups} and {config.members}"
        raise BadConfig(f"BadConfig: grpo needs one group or more of two members or more, got {got}")
    if config.anchor and not config.policy:
        raise BadConfig("BadConfig: --anchor keeps near the policy it starts from, and there is none; add --policy RUN")
    if config.policy:
        policy = start_from(config.policy, spec, config.network)
        same_head(config.policy, policy, config.head)
        if config.log_std:
            raise BadConfig(
                f"BadConfig: --log-std is where a new head begins, and that of {config.policy} stays; leave it out"
            )
    else:
        policy = build_policy(spec, config.network, head)
        policy.head.net.orthogonal(last_gain=0.01)
        if head == "gaussian":
            torch.nn.init.constant_(policy.head.log_std, config.log_std)  # type: ignore[arg-type]
    if config.freeze and config.network.normalise and not config.policy:
        raise BadConfig("BadConfig: --freeze keeps the normaliser as it is, and a new one knows nothing; leave one out")
    if policy.recurrent:
        raise BadConfig(
            "BadConfig: grpo's policies have no memory; leave --network.memory out, or use stack=4 in the env"
        )
    if policy.head_name not in ("categorical", "gaussian"):
        raise BadConfig(f"BadConfig: grpo needs a categorical or gaussian head, got {policy.head_name!r}; use another")
    return policy


def train(config: Config, run: Run) -> Driver:
    random = Randomness(config.seed)
    policy = begin(config, spec_of(config.env))
    first = copy.deepcopy(policy).requires_grad_(False) if config.anchor else None
    if config.freeze:
        policy.requires_grad_(False)
        policy.head.requires_grad_(True)
    worlds = Beginnings(config.env, config.groups, config.members)
    flat = Flat(policy.parameters())
    optimizer = Adam(flat, config.lr, eps=1e-5)
    parts: dict[str, Any] = {
        "policy": policy,
        "optimizer": optimizer,
        "random": random,
        **({"first": first} if first else {}),
    }
    for step in run.steps(config.steps, **parts):
        optimizer.lr = config.lr * (1 - step / config.steps if config.anneal else 1.0)
        seeds = np.random.SeedSequence((config.seed, step)).generate_state(config.groups)
        played = worlds.play(policy, seeds, config.horizon, random.torch, config.freeze)
        run.took(int(played.lengths.sum()))
        ended = zip(played.returns.flat, played.lengths.flat, strict=True)
        run.log_episodes(step, [Finished(float(total), int(length)) for total, length in ended])
        pieces = batches(policy, first, played, config, random.torch)
        learned = update(policy, flat, optimizer, pieces, config, random.torch) if pieces else {"loss": 0.0}
        teaches = advantages(played, config.by_deviation)[1]
        run.log(step, {**learned, "watch/dropped": 1 - teaches.mean()})
        if policy.network.normalise and not config.freeze:
            policy.observe(played.observation)
    worlds.close()
    return finished(policy, run)
