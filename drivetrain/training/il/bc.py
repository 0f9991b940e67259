"""Behaviour cloning: do what the demonstrator did.

    drivetrain train bc --dataset data/cartpole --output-dir runs/bc

Ross & Bagnell 2010 call the trouble with it compounding error. The data set is split by episode, never by frame, so that the
held-out loss is one. Data sets hold single pictures; `--frame-stack` joins the last so many, as the env does when driving.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from drivetrain import transforms
from drivetrain.checkpoint import Randomness
from drivetrain.data.episodes import Episodes
from drivetrain.data.open import open_dataset
from drivetrain.envs.words import spec_of, with_options
from drivetrain.models.driver import Driver, Network, build_policy
from drivetrain.run import Run
from drivetrain.sample import ACTION, Sample
from drivetrain.training.start import start_from


@dataclass(frozen=True)
class Config:
    dataset: str = "data/cartpole"  # a data set folder, or a catalog name
    env: str = ""  # where to drive afterwards; empty is where the data came from
    policy: str = ""  # a run or checkpoint to start from; empty starts anew
    steps: int = 2_000  # gradient steps
    batch_size: int = 64
    length: int = 16  # steps of a sequence, where the policy has memory
    lr: float = 1e-3  # learning rate, falling to 0 along a cosine
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0  # gradients are scaled down to this
    held_out: float = 0.1  # share of the episodes that is not trained on
    check_every: int = 100  # steps between looks at the held-out episodes
    frame_stack: int = 1  # so many observations in one
    head: str = "auto"  # categorical for choices; deterministic, gaussian, squashed or beta for numbers
    network: Network = field(default_factory=lambda: Network(hidden=(256,), activation="relu"))
    seed: int = 0


DEBUG = Config(dataset="fake", env="cartpole", steps=8, batch_size=4, check_every=4, held_out=0.25)
CHECKPOINT_EVERY = 500
CHECK_BATCHES = 8


def losses(policy: Driver, batch: Sample) -> dict[str, Tensor]:
    """The negative log-likelihood of the demonstrator's actions, over the steps that are no padding."""
    wanted = transforms.apply(policy.transforms, batch)[ACTION]
    seen, _ = policy.features(
        {key: batch[key] for key in policy.keys}, policy.initial(len(wanted)), batch["is_first"]
    )  # [B, T, D]
    unlikely = -policy.head(seen).log_prob(wanted)
    return {"loss/action": (unlikely * batch["valid"]).sum() / batch["valid"].sum()}


@torch.no_grad()
def agreement(policy: Driver, batch: Sample) -> dict[str, Tensor]:
    """How often a choice is the demonstrator's, or how far a number is from it (in parts of half the range)."""
    wanted = transforms.apply(policy.transforms, batch)[ACTION]
    seen, _ = policy.features({key: batch[key] for key in policy.keys}, policy.initial(len(wanted)), batch["is_first"])
    done = policy.head(seen).mode()
    same = (done == wanted).float() if policy.spec.discrete else (done - wanted).abs().mean(-1)
    name = "held_out/same" if policy.spec.discrete else "held_out/error"
    return {name: (same * batch["valid"]).sum() / batch["valid"].sum()}


def tensors(batch: Sample) -> Sample:
    return {key: torch.from_numpy(value) for key, value in batch.items() if key != "task"}


def open_data(config: Config) -> tuple[Episodes, Episodes]:
    """The episodes to train on and those held out, in the shape the policy will see."""
    wanted = spec_of(with_options(config.env, stack=1)) if config.env else None
    data = open_dataset(config.dataset, wanted).as_meant()
    learn, held_out = data.split(1 - config.held_out, config.seed)
    return learn.stack(config.frame_stack), held_out.stack(config.frame_stack)


def begin(config: Config, data: Episodes) -> Driver:
    env = config.env or data.spec.env
    spec = replace(data.spec, env=with_options(env, stack=config.frame_stack) if env else "")
    if config.policy:
        return start_from(config.policy, spec).train()
    head = ("categorical" if spec.discrete else "deterministic") if config.head == "auto" else config.head
    changes = transforms.from_statistics(spec, data.statistics())
    return build_policy(spec, config.network, head, changes)


def train(config: Config, run: Run) -> Driver:
    random = Randomness(config.seed)
    learn, held_out = open_data(config)
    policy = begin(config, learn)
    length = config.length if policy.recurrent else 1
    optimizer = torch.optim.AdamW(policy.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    parts: dict[str, Any] = {"policy": policy, "optimizer": optimizer, "schedule": schedule, "random": random}
    for step in run.steps(config.steps, **parts):
        batch = tensors(learn.batch(config.batch_size, at=step, seed=config.seed, length=length))
        found = losses(policy, batch)
        optimizer.zero_grad()
        found["loss/action"].backward()
        nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        run.log(step, {"loss": found["loss/action"].detach(), "loss/action": found["loss/action"].detach()})
        if (step + 1) % config.check_every == 0:
            run.log(step, check(policy, held_out, config, length))
    return policy.eval()


@torch.no_grad()
def check(policy: Driver, held_out: Episodes, config: Config, length: int) -> dict[str, float]:
    """Loss and agreement on the same held-out frames at every look."""
    policy.eval()
    totals: dict[str, float] = {}
    for at in range(CHECK_BATCHES):
        batch = tensors(held_out.batch(config.batch_size, at=at, seed=config.seed, length=length))
        found = {"held_out/loss": losses(policy, batch)["loss/action"], **agreement(policy, batch)}
        for name, value in found.items():
            totals[name] = totals.get(name, 0.0) + float(value) / CHECK_BATCHES
    policy.train()
    return totals
