"""Proximal policy optimisation: take several small steps on each batch of experience, and none too far.

    drivetrain train ppo --env cartpole --output-dir runs/ppo

Schulman et al. 2017, with the details of Huang et al. 2022 ("The 37 implementation details"). Value clipping is left out:
it does not help. Episodes cut by a time limit bootstrap from their true last observation, terminated ones do not. A policy
with memory learns from whole sequences, each begun with the memory it had. The first ratio of every update is asserted to
be 1: dropout, or a forward pass that differs between acting and learning, would spoil it in silence.

    drivetrain train ppo --env carracing:repeat=2 --policy runs/bc --value-warmup 8192 --normalise-returns --anchor 0.05

Going on from an imitation, the value learns alone first, and `--anchor` holds the policy near to where it started. `--freeze`
leaves a large backbone as it is: it looks at each step once, and the heads learn from what it saw.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drivetrain.checkpoint import Randomness
from drivetrain.envs.words import with_options
from drivetrain.envs.worlds import Worlds
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Driver, Network, build_policy
from drivetrain.models.heads import ValueHead
from drivetrain.run import Run
from drivetrain.sample import Memory, Sample, restart
from drivetrain.training.flat import Adam, Flat
from drivetrain.training.judged import Judging, log_judge, taught_by, worlds_for
from drivetrain.training.start import finished, same_head, start_from, undropped


@dataclass(frozen=True)
class Config:
    env: str = "cartpole"  # a name of `drivetrain list envs`, with options after a colon
    reward: str = "world"  # who rewards: world, or vlm, a judge that looks at the frames
    judge: Judging = field(default_factory=Judging)  # that judge
    policy: str = ""  # a run or checkpoint to start from (an imitation, say); empty starts anew
    steps: int = 100_000  # steps in the worlds, all together
    worlds: int = 8  # worlds side by side
    rollout: int = 32  # steps in each world between updates
    epochs: int = 20  # passes over each batch of experience
    minibatch: int = 256  # steps per gradient step; whole worlds are taken where the policy has memory
    lr: float = 1e-3  # learning rate
    anneal: bool = True  # learning rate and clip range fall to 0 over the run
    gamma: float = 0.98  # how much the next step counts
    gae_lambda: float = 0.8  # between one-step (0) and whole-return (1) advantages
    clip: float = 0.2  # how far the ratio may stray from 1
    value_weight: float = 0.5  # of the value loss
    entropy_weight: float = 0.0  # of the entropy bonus
    max_grad_norm: float = 0.5  # gradients are scaled down to this
    target_kl: float = 0.0  # stop the epochs of an update past this divergence; 0 never stops
    normalise_returns: bool = False  # divide rewards by the running deviation of the discounted return
    clip_reward: float = 0.0  # keep rewards within plus or minus this, after normalising; 0 leaves them
    frame_stack: int = 1  # so many observations in one (adds `stack` to the env)
    action_repeat: int = 1  # hold each action for so many steps (adds `repeat` to the env)
    value_warmup: int = 0  # steps during which only the value learns, when starting from a policy
    anchor: float = 0.0  # weight of the divergence from the policy it started from
    freeze: bool = False  # only the heads learn: what the encoders give is computed once for each step
    head: str = "auto"  # categorical; gaussian, beta or squashed for numbers
    log_std: float = 0.0  # where the gaussian head's log deviation begins
    network: Network = field(default_factory=Network)
    seed: int = 0

    @property
    def batch(self) -> int:
        return self.worlds * self.rollout

    @property
    def world(self) -> str:
        options = {"stack": self.frame_stack, "repeat": self.action_repeat}
        return with_options(self.env, **{k: v for k, v in options.items() if v > 1})


DEBUG = Config(steps=256, worlds=2, rollout=16, minibatch=16, epochs=2)
CHECKPOINT_EVERY = 10_240


class Rollout(NamedTuple):
    """Experience of one policy: T steps in each of N worlds."""

    observation: dict[str, Tensor]  # [T, N, ...]
    is_first: Tensor  # [T, N]
    memory: Memory  # before the first step
    action: Tensor  # [T, N, ...] as drawn
    log_prob: Tensor  # [T, N]
    advantage: Tensor  # [T, N]
    returns: Tensor  # [T, N]
    features: Tensor | None = None  # [T, N, D] where no encoder learns
    start: Tensor | None = None  # [T, N, ...] the numbers of the first policy's distribution, where there is an anchor


def advantages(
    reward: np.ndarray,
    value: np.ndarray,
    next_value: np.ndarray,
    terminated: np.ndarray,
    ended: np.ndarray,
    gamma: float,
    gae_lambda: float,
) -> np.ndarray:
    """Generalised advantage estimates [T, N]: no bootstrap past a termination, no sum past any end."""
    delta = reward + gamma * next_value * ~terminated - value
    onward = gamma * gae_lambda * ~ended
    result, running = np.zeros_like(delta), np.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = delta[t] + onward[t] * running
        result[t] = running
    return result


def losses(
    policy: Driver, value: nn.Module, batch: Rollout, config: Config, clip: float, value_only: bool = False
) -> dict[str, Tensor]:
    """What is summed into the loss; beside it `log_ratio`, which tells how far the policy has moved."""
    seen = batch.features
    if seen is None:
        seen, _ = policy.features(batch.observation, batch.memory, batch.is_first)
    seen = seen.flatten(0, 1)  # [B * T, D], as everything else here
    if value_only:
        return {"loss/value": config.value_weight * F.mse_loss(value(seen.detach()), batch.returns)}
    chances = policy.head(seen)
    log_ratio = chances.log_prob(batch.action) - batch.log_prob
    # The ratio counts no further than the clip in the direction that the advantage asks for: the smaller of the two
    # products of Schulman et al., in fewer operations.
    ahead = batch.advantage > 0
    ratio = log_ratio.exp().clamp(torch.where(ahead, 0.0, 1 - clip), torch.where(ahead, 1 + clip, torch.inf))
    parts = {"loss/policy": -(batch.advantage * ratio).mean()}
    parts["loss/value"] = config.value_weight * F.mse_loss(value(seen), batch.returns)
    if batch.start is not None:
        parts["loss/anchor"] = config.anchor * chances.divergence(chances.of(batch.start.flatten(0, 1))).mean()
    if config.entropy_weight:
        parts["loss/entropy"] = -config.entropy_weight * chances.entropy().mean()
    parts["log_ratio"] = log_ratio.detach()
    return parts


def moved(log_ratio: Tensor, clip: float) -> dict[str, Tensor]:
    """How far: the divergence from the policy that acted (Schulman's k3), and the share of steps past the clip."""
    away = log_ratio.exp() - 1
    return {"watch/kl": (away - log_ratio).mean(), "watch/clipped": (away.abs() > clip).float().mean()}


class RewardScale:
    """Divides rewards by the running deviation of the discounted return; the mean is left where it is."""

    def __init__(self, worlds: int, gamma: float):
        self.gamma, self.returns = gamma, np.zeros(worlds)
        self.count, self.mean, self.spread = 1.0, 0.0, 1.0  # as if one return, away by 1, had been seen

    def restart(self) -> None:
        self.returns[:] = 0

    def __call__(self, reward: np.ndarray, ended: np.ndarray) -> np.ndarray:
        self.returns = self.returns * self.gamma + reward
        count = self.count + len(reward)
        shift = self.returns.mean() - self.mean
        self.spread += self.returns.var() * len(reward) + shift**2 * self.count * len(reward) / count
        self.mean, self.count = self.mean + shift * len(reward) / count, count
        self.returns[ended] = 0
        return (reward / np.sqrt(self.spread / self.count + 1e-8)).astype(np.float32)  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": float(self.mean), "spread": float(self.spread)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.mean, self.spread = state["count"], state["mean"], state["spread"]


class Actor:
    """Carries observation and memory from one rollout to the next."""

    def __init__(
        self, worlds: Worlds, config: Config, scale: RewardScale, random: Randomness, first: Driver | None = None
    ):
        self.worlds, self.config, self.scale, self.random = worlds, config, scale, random
        self.first = first  # the policy to stay near to
        self.observation: Sample = {}

    def rebuild(self, policy: Driver, step: int) -> None:
        self.observation = self.worlds.rebuild(self.config.seed, step)
        self.is_first = np.ones(self.worlds.count, dtype=bool)
        self.memory = self.start = policy.initial(self.worlds.count)
        self.scale.restart()

    @torch.no_grad()
    def rollout(self, policy: Driver, value: nn.Module) -> Rollout:
        config, rows, finals = self.config, [], []
        begin = self.memory
        for _ in range(config.rollout):
            self.memory = restart(self.memory, self.start, self.is_first)
            action, self.memory, info = policy.act(
                self.observation, self.memory, greedy=False, generator=self.random.torch
            )
            went = self.worlds.step(action)
            reward = self.scale(went.reward, went.ended) if config.normalise_returns else went.reward
            if config.clip_reward:
                reward = reward.clip(-config.clip_reward, config.clip_reward)
            finals.append(self._value_at_end(policy, value, went.final, went.truncated))
            drawn = (info["raw"], info["chances"].log_prob(info["raw"]), info["features"])
            rows.append((self.observation, self.is_first, drawn, reward, went.terminated, went.ended))
            self.observation, self.is_first = went.observation, went.ended
        observations, first, drawn_at, reward, terminated, ended = zip(*rows, strict=True)
        actions, log_probs, features = (torch.stack(column) for column in zip(*drawn_at, strict=True))
        values = value(features).numpy()  # [T, N]
        next_values = np.concatenate([values[1:], self._value(policy, value, self.observation, self.is_first)[None]])
        for t, (at, last) in enumerate(finals):
            next_values[t, at] = last
        rewards, ends = np.stack(reward), np.stack(ended)
        advantage = advantages(
            rewards, values, next_values, np.stack(terminated), ends, config.gamma, config.gae_lambda
        )
        seen = {key: torch.from_numpy(np.stack([o[key] for o in observations])) for key in policy.keys}
        firsts = torch.from_numpy(np.stack(first))
        return Rollout(
            seen if not config.freeze else {},
            firsts,
            begin,
            actions,
            log_probs,
            torch.from_numpy(advantage),
            torch.from_numpy(advantage + values),
            features if config.freeze else None,
            self._start(seen, features) if self.first else None,
        )

    def _start(self, seen: dict[str, Tensor], features: Tensor) -> Tensor:
        """What the first policy would have drawn from, [T, N, ...]."""
        assert self.first is not None
        if self.config.freeze:
            return self.first.head(features).numbers()  # type: ignore[no-any-return]
        rows = [
            self.first.features({key: x[t].unsqueeze(1) for key, x in seen.items()}, {}, torch.zeros(x.shape[1], 1))[0]
            for t in range(len(features))
            for x in [next(iter(seen.values()))]
        ]
        return self.first.head(torch.stack(rows).squeeze(2)).numbers()  # type: ignore[no-any-return]

    def _value(self, policy: Driver, value: nn.Module, observation: Sample, is_first: np.ndarray) -> np.ndarray:
        sequence = {key: torch.from_numpy(observation[key]).unsqueeze(1) for key in policy.keys}
        memory = restart(self.memory, self.start, is_first)
        seen, _ = policy.features(sequence, memory, torch.zeros(len(is_first), 1, dtype=torch.bool))
        return value(seen[:, 0]).numpy()  # type: ignore[no-any-return]

    def _value_at_end(
        self, policy: Driver, value: nn.Module, final: Sample, truncated: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What lay beyond the episodes that a time limit cut."""
        at = np.flatnonzero(truncated)
        if not len(at):
            return at, np.zeros(0, np.float32)
        return at, self._value(policy, value, final, np.zeros(len(truncated), bool))[at]


def minibatches(data: Rollout, config: Config, recurrent: bool, generator: torch.Generator) -> Iterator[Rollout]:
    """Every epoch's: shuffled steps as [B, 1], or whole worlds as [B, T] where there is memory; rewards' side as [B * T]."""
    steps, worlds = data.log_prob.shape
    if config.minibatch >= steps * worlds and not recurrent:
        everything = _rows(data, lambda x: x.flatten(0, 1).unsqueeze(1), {})  # their order is nothing
        yield from [everything] * config.epochs
        return
    for _ in range(config.epochs):
        if recurrent:
            for at in torch.randperm(worlds, generator=generator).split(max(config.minibatch // steps, 1)):
                memory = {key: value[at] for key, value in data.memory.items()}
                yield _rows(data, lambda x, at=at: x[:, at].transpose(0, 1), memory)
        else:
            for at in torch.randperm(steps * worlds, generator=generator).split(config.minibatch):
                yield _rows(data, lambda x, at=at: x.flatten(0, 1)[at].unsqueeze(1), {})


def _rows(data: Rollout, take: Any, memory: Memory) -> Rollout:
    seen = {key: take(value) for key, value in data.observation.items()}
    action, log_prob, advantage, returns = (
        take(x).flatten(0, 1) for x in (data.action, data.log_prob, data.advantage, data.returns)
    )
    if len(advantage) > 1:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    features, start = (None if x is None else take(x) for x in (data.features, data.start))
    return Rollout(seen, take(data.is_first), memory, action, log_prob, advantage, returns, features, start)


def train(config: Config, run: Run) -> Driver:
    undropped(config.network, "ppo", "dropout makes the first ratio differ from 1")
    random = Randomness(config.seed)
    worlds = worlds_for(config.world, config.worlds, config, run.folder)
    policy, value = begin(config, worlds)
    first = copy.deepcopy(policy).requires_grad_(False) if config.anchor else None
    _refuse(config, policy)
    if config.freeze:
        policy.requires_grad_(False)
        policy.head.requires_grad_(True)
    flat = Flat([*policy.parameters(), *value.parameters()])
    optimizer = Adam(flat, config.lr, eps=1e-5)
    scale = RewardScale(config.worlds, config.gamma)
    actor = Actor(worlds, config, scale, random, first)
    parts = {"policy": policy, "value": value, "optimizer": optimizer, "scale": scale, "random": random}
    parts |= taught_by(worlds) | ({"first": first} if first else {})
    for step in run.steps(config.steps, by=config.batch, **parts):
        if run.fresh:
            actor.rebuild(policy, step)
        left = 1 - step / config.steps if config.anneal else 1.0
        optimizer.lr = config.lr * left
        data = actor.rollout(policy, value)
        run.log_episodes(step, worlds.finished())
        log_judge(worlds, run, step)
        run.log(step, update(policy, value, flat, optimizer, data, config, config.clip * left, step, random.torch))
        if policy.network.normalise and not config.freeze:
            policy.observe({key: x.flatten(0, 1) for key, x in data.observation.items()})
    worlds.close()
    return finished(policy, run)


def _refuse(config: Config, policy: Driver) -> None:
    if config.anchor and not config.policy:
        raise BadConfig("BadConfig: --anchor keeps near the policy it starts from, and there is none; add --policy RUN")
    if config.anchor and (policy.recurrent or policy.head_name not in ("categorical", "gaussian")):
        got = f"{policy.network.memory} and {policy.head_name}"
        raise BadConfig(
            f"BadConfig: --anchor needs a policy without memory whose head is categorical or gaussian, got {got}"
        )
    if policy.head_name in ("deterministic", "q"):
        raise BadConfig(
            f"BadConfig: ppo needs a policy that draws its actions, the head {policy.head_name!r} does not; take gaussian, "
            "beta, squashed or categorical, or a policy trained with one"
        )
    if config.log_std and policy.head_name != "gaussian":
        raise BadConfig(f"BadConfig: --log-std is of a gaussian head, this one is {policy.head_name}; leave it out")
    if config.freeze and config.network.normalise and not config.policy:
        raise BadConfig("BadConfig: --freeze keeps the normaliser as it is, and a new one knows nothing; leave one out")
    if config.freeze and policy.recurrent:
        raise BadConfig("BadConfig: --freeze is for policies without memory; leave it out")


def begin(config: Config, worlds: Worlds) -> tuple[Driver, ValueHead]:
    """A new policy, or the one to start from; and a value of its own."""
    head = ("categorical" if worlds.sample_spec.discrete else "gaussian") if config.head == "auto" else config.head
    if config.policy:
        policy = start_from(config.policy, worlds.sample_spec, config.network)
        same_head(config.policy, policy, config.head)
        if config.log_std:
            raise BadConfig(
                f"BadConfig: --log-std is where a new head begins, and that of {config.policy} stays; leave it out"
            )
    else:
        policy = build_policy(worlds.sample_spec, config.network, head)
        policy.head.net.orthogonal(last_gain=0.01)
        if head == "gaussian":
            nn.init.constant_(policy.head.log_std, config.log_std)  # type: ignore[arg-type]
    value = ValueHead(policy.width, config.network.hidden, config.network.activation)
    value.net.orthogonal(last_gain=1.0)
    return policy, value


def update(
    policy: Driver,
    value: ValueHead,
    flat: Flat,
    optimizer: Adam,
    data: Rollout,
    config: Config,
    clip: float,
    step: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Several epochs over one rollout; returns the parts of the last gradient step."""
    warming, first = step < config.value_warmup, True
    if 0 < config.value_warmup <= step < config.value_warmup + config.batch:
        optimizer.forget()  # of the policy it has met zeros alone, and would take too large steps
    for batch in minibatches(data, config, policy.recurrent, generator):
        parts = losses(policy, value, batch, config, clip, warming)
        if not warming and (first or config.target_kl):
            strayed = float(parts["log_ratio"].abs().max())
            assert not first or strayed < 1e-3, f"the first ratio is off by {strayed}"
            if config.target_kl and moved(parts["log_ratio"], clip)["watch/kl"] > 1.5 * config.target_kl:
                break
        first = False
        flat.backward(_total(parts))
        flat.clip(config.max_grad_norm)
        optimizer.step()
    return _logged(parts, clip)


def _total(parts: dict[str, Tensor]) -> Tensor:
    return functools.reduce(torch.add, [v for k, v in parts.items() if k.startswith("loss/")])


def _logged(parts: dict[str, Tensor], clip: float) -> dict[str, Tensor]:
    watched = moved(parts["log_ratio"], clip) if "log_ratio" in parts else {}
    return {"loss": _total(parts).detach(), **{k: v.detach() for k, v in parts.items() if k != "log_ratio"}, **watched}
