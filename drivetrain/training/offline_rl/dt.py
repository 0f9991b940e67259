"""Decision Transformer: clone whole episodes, told of each step how much return came after it; then ask for a high one.

    drivetrain train dt --dataset data/hopper-medium,data/hopper-expert --output-dir runs/dt
    drivetrain eval runs/dt --env hopper:aim=1800

Chen et al. 2021. Nothing is bootstrapped and nothing is valued: a transformer reads the last steps, each as the return that was
still to come, what was seen and what was done, and learns which action came next. Acting, the return still wanted stands where
the return to come stood; each reward is taken off it. Without `--aim` it asks for the best return of its data; another
evaluation can ask for another. Episodes are drawn as often as they are long. Choices work too, and pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drivetrain import transforms
from drivetrain.checkpoint import Randomness
from drivetrain.data.card import refuse_thinned
from drivetrain.data.episodes import VALID, Episodes
from drivetrain.data.open import open_dataset
from drivetrain.envs.words import aimed, spec_of, split_name, stack_of, with_options
from drivetrain.errors import BadConfig, SpecMismatch
from drivetrain.models.decision import Attention, DecisionTransformer
from drivetrain.models.driver import Driver, Network
from drivetrain.run import Run
from drivetrain.sample import ACTION, AIM, REWARD, Sample
from drivetrain.training.start import finished, start_from, unfed

STEP = "step"  # of its episode, from 0


@dataclass(frozen=True)
class Config:
    dataset: str = "data/hopper-medium,data/hopper-expert"  # a data set, or several with commas between
    env: str = ""  # where to act afterwards; empty is where the data came from
    policy: str = ""  # a run or checkpoint to start from; empty starts anew
    aim: str = "best"  # the return to ask for afterwards; "best" is the best of the data
    steps: int = 10_000  # gradient steps
    batch_size: int = 64  # windows of as many steps as the transformer looks back on
    lr: float = 1e-3  # learning rate, risen to along a line
    warmup: int = 500  # steps of that rise
    weight_decay: float = 1e-4
    max_grad_norm: float = 0.25
    attention: Attention = field(default_factory=Attention)
    network: Network = field(default_factory=lambda: Network(hidden=(), activation="relu"))
    seed: int = 0


DEBUG = Config(
    dataset="fake", env="pendulum", steps=8, batch_size=4, warmup=4, attention=Attention(context=3, width=16, layers=1)
)
CHECKPOINT_EVERY = 2_000


def with_aims(data: Episodes) -> Episodes:
    """The same episodes, each step with the return that came from it on, and which step of its episode it is."""
    data.require(ACTION, REWARD)
    found = data.select(np.arange(data.episodes))
    rewards = np.asarray(data.arrays[REWARD], dtype=np.float64)
    aims, steps = np.zeros((len(rewards), 1), np.float32), np.zeros(len(rewards), np.int64)
    for start, end in zip(data.starts, data.ends, strict=True):
        aims[start:end, 0] = rewards[start:end][::-1].cumsum()[::-1]
        steps[start:end] = np.arange(end - start)
    found.arrays |= {AIM: aims, STEP: steps}
    found.spec = aimed(data.spec)
    return found


def given(config: Config) -> tuple[DecisionTransformer, Episodes]:
    """The policy, in the shape of its data and asking for `aim`, and the data."""
    unfed(config.network)
    if "aim" in split_name(config.env)[1]:
        raise BadConfig(f"BadConfig: the aim of dt is --aim, got --env {config.env}; take it out of the env's name")
    env = with_options(config.env, stack=1) if config.env else ""
    refuse_thinned(config.dataset)
    data = open_dataset(config.dataset, spec_of(env) if env else None)
    best = float(data.returns().max())
    try:
        wanted = best if config.aim == "best" else float(config.aim)
    except ValueError:
        raise BadConfig(
            f'BadConfig: --aim is a return, or "best" for the best of the data, got {config.aim!r}'
        ) from None
    shown = {key: f for key, f in data.spec.features.items() if not key.startswith(("expert.", "privileged."))}
    where = config.env or data.spec.env
    single = {"stack": 1} if where and stack_of(where) > 1 else {}  # it remembers by itself
    where = with_options(where, **single, aim=f"{wanted:.6g}") if where else ""
    data.spec = replace(data.spec, features=shown, env=where)
    data = with_aims(data)
    if config.policy:
        started = start_from(config.policy, data.spec, config.network)
        if not isinstance(started, DecisionTransformer):
            raise SpecMismatch(
                f"SpecMismatch: {config.policy} is no Decision Transformer; start from a run of dt, or anew"
            )
        if config.attention not in (Attention(), started.attention):
            raise BadConfig(
                f"BadConfig: --attention is {config.attention}, and that of {config.policy} {started.attention}, which stays; "
                "leave it out"
            )
        started.spec = data.spec
        return started, data
    changes = transforms.from_statistics(data.spec, data.statistics())
    reader = None
    if config.network.backbone:
        from drivetrain.models.driver import reader_for

        reader = reader_for(data.spec, config.network, ())
    head = "categorical" if data.spec.discrete else "deterministic"
    longest = max(int(data.lengths.max()), config.attention.context)
    policy = DecisionTransformer(
        data.spec, config.network, head, changes, reader, attention=config.attention, longest=longest
    )
    return policy, data


def losses(policy: DecisionTransformer, batch: Sample) -> dict[str, Tensor]:
    """How unlikely the actions of the data were at each valid step, the mean; of numbers, their squared error."""
    action = transforms.apply(policy.transforms, {ACTION: batch[ACTION]})[ACTION]
    sight, aim = policy.encode({key: batch[key] for key in policy.keys})
    unlikely = -policy.head(policy.attend(sight, aim, action, batch[STEP])).log_prob(action)
    if not policy.spec.discrete:
        unlikely = unlikely / policy.spec.action.size
    valid = batch[VALID]
    return {"loss/action": (unlikely * valid).sum() / valid.sum()}


def tensors(batch: Sample) -> Sample:
    return {key: torch.from_numpy(np.ascontiguousarray(v)) for key, v in batch.items() if isinstance(v, np.ndarray)}


def train(config: Config, run: Run) -> Driver:
    random = Randomness(config.seed)
    policy, data = given(config)
    policy.train()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    for step in run.steps(config.steps, policy=policy, optimizer=optimizer, random=random):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min((step + 1) / max(config.warmup, 1), 1.0)
        batch = tensors(data.batch(config.batch_size, at=step, seed=config.seed, length=policy.attention.context))
        parts = losses(policy, batch)
        optimizer.zero_grad()
        parts["loss/action"].backward()
        nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        optimizer.step()
        said: dict[str, Any] = {name: value.detach() for name, value in parts.items()}
        run.log(step, {"loss": said["loss/action"], **said})
    return finished(policy, run)
