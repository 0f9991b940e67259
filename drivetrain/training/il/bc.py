"""Behaviour cloning: do what the demonstrator did.

    drivetrain train bc --dataset data/cartpole --output-dir runs/bc

Ross & Bagnell 2010 call the trouble with it compounding error. The data set is split by episode, never by frame, so that the
held-out loss is one. Data sets hold single pictures; `--frame-stack` joins the last so many, as the env does when driving.

    drivetrain train bc --dataset data/carracing --backbone tiny-git --words 0.3 --output-dir runs/bc

A policy whose eyes are a vision-language model may learn to say what its demonstrator said (`expert.words`) in the same pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from drivetrain import transforms
from drivetrain.checkpoint import Randomness
from drivetrain.data.card import refuse_thinned
from drivetrain.data.episodes import Episodes
from drivetrain.data.open import open_dataset
from drivetrain.envs.words import spec_of, split_name, with_options
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Driver, Network, build_policy
from drivetrain.models.reader import UNSAID
from drivetrain.run import Run
from drivetrain.sample import ACTION, EXPERT_WORDS, Sample, Spec
from drivetrain.training.start import finished, same_head, start_from, unfed


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
    smoothing: float = 0.0  # share of a label's weight that is spread over all choices
    words: float = 0.0  # weight of the loss on the expert's own words, which a backbone learns to say
    held_out: float = 0.1  # share of the episodes that is not trained on; 0 trains on all, and looks at none
    as_done: bool = False  # what was done, also where an expert said what it would have done
    check_every: int = 100  # steps between looks at the held-out episodes
    frame_stack: int = 1  # so many observations in one
    head: str = "auto"  # categorical for choices; deterministic, gaussian, squashed or beta for numbers
    network: Network = field(default_factory=lambda: Network(hidden=(256,), activation="relu"))
    seed: int = 0


DEBUG = Config(dataset="fake", env="cartpole", steps=8, batch_size=4, check_every=4, held_out=0.25)
CHECKPOINT_EVERY = 500
CHECK_BATCHES = 8


def losses(policy: Driver, batch: Sample, smoothing: float = 0.0, words: float = 0.0) -> dict[str, Tensor]:
    """The negative log-likelihood of the demonstrator's actions, over the steps that are no padding; and of its words."""
    wanted = transforms.apply(policy.transforms, batch)[ACTION]
    said = torch.where(batch["valid"], batch[EXPERT_WORDS], UNSAID) if words else None
    seen, _, unsaid = policy.features_and_words(
        {key: batch[key] for key in policy.keys}, policy.initial(len(wanted)), batch["is_first"], said
    )  # [B, T, D]
    chances = policy.head(seen)
    unlikely = -chances.log_prob(wanted)
    if smoothing:
        unlikely = (1 - smoothing) * unlikely - smoothing * chances.logits.mean(-1)
    parts = {"loss/action": (unlikely * batch["valid"]).sum() / batch["valid"].sum()}
    return parts if unsaid is None else {**parts, "loss/words": words * unsaid}


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


def open_data(config: Config) -> tuple[Episodes, Episodes | None]:
    """The episodes to train on and those held out, in the shape the policy will see."""
    wanted = spec_of(with_options(config.env, stack=1)) if config.env else None
    if config.frame_stack > 1 or config.network.memory != "none":
        refuse_thinned(config.dataset)
    data = open_dataset(config.dataset, wanted)
    data = data if config.as_done else data.as_meant()
    if not config.held_out:
        return data.stack(config.frame_stack), None
    learn, held_out = data.split(1 - config.held_out, config.seed)
    return learn.stack(config.frame_stack), held_out.stack(config.frame_stack)


def begin(config: Config, data: Episodes) -> Driver:
    env = config.env or data.spec.env
    if config.env and (asked := int(split_name(config.env)[1].get("stack", config.frame_stack))) != config.frame_stack:
        raise BadConfig(
            f"BadConfig: --env stacks {asked} observations, --frame-stack {config.frame_stack}; say the same"
        )
    shown = {key: f for key, f in data.spec.features.items() if not key.startswith(("expert.", "privileged."))}
    spec = replace(data.spec, features=shown, env=with_options(env, stack=config.frame_stack) if env else "")
    sentences = data.spec.features[EXPERT_WORDS].names if EXPERT_WORDS in data.spec.features else ()
    _refuse(config, spec, sentences)
    if config.policy:
        policy = start_from(config.policy, spec, config.network).train()
        same_head(config.policy, policy, config.head)
        _refuse_mute(config, policy.network)
        known = policy.reader.sentences if policy.reader is not None else ()
        if config.words and tuple(known) != tuple(sentences):
            raise BadConfig(
                f"BadConfig: {config.policy} can say {len(known) or 'no'} sentences, and {config.dataset} has others to learn; "
                "leave --words out, or begin anew with --backbone"
            )
        return policy
    unfed(config.network)
    head = ("categorical" if spec.discrete else "deterministic") if config.head == "auto" else config.head
    changes = transforms.from_statistics(spec, data.statistics())
    _refuse_mute(config, config.network)
    return build_policy(spec, config.network, head, changes, sentences).train()


def _refuse_mute(config: Config, network: Network) -> None:
    if config.words and network.tune == "frozen":
        raise BadConfig("BadConfig: a frozen backbone learns no words; leave --words out, or --tune lora or full")


def _refuse(config: Config, spec: Spec, sentences: Sequence[str]) -> None:
    if config.smoothing and not spec.discrete:
        raise BadConfig("BadConfig: --smoothing is for actions that are choices; leave it out")
    if config.words and not sentences:
        raise BadConfig(
            f"BadConfig: {config.dataset} has no {EXPERT_WORDS} to learn; leave --words out, or collect anew"
        )
    if config.words and not (config.network.backbone or config.policy):
        raise BadConfig("BadConfig: words are learned by a vision-language model; add --backbone, or leave --words out")


def optimiser(policy: Driver, config: Config) -> torch.optim.AdamW:
    learning = [p for p in policy.parameters() if p.requires_grad]
    return torch.optim.AdamW(learning, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def improve(
    policy: Driver, optimizer: torch.optim.Optimizer, schedule: Any, batch: Sample, config: Config
) -> dict[str, Tensor]:
    """One gradient step; what was summed into its loss."""
    parts = losses(policy, batch, config.smoothing, config.words)
    optimizer.zero_grad()
    total = torch.stack(list(parts.values())).sum()
    total.backward()
    nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
    optimizer.step()
    schedule.step()
    return {"loss": total.detach(), **{name: value.detach() for name, value in parts.items()}}


def train(config: Config, run: Run) -> Driver:
    random = Randomness(config.seed)
    learn, held_out = open_data(config)
    policy = begin(config, learn)
    length = config.length if policy.recurrent else 1
    optimizer = optimiser(policy, config)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    parts: dict[str, Any] = {"policy": policy, "optimizer": optimizer, "schedule": schedule, "random": random}
    for step in run.steps(config.steps, **parts):
        batch = tensors(learn.batch(config.batch_size, at=step, seed=config.seed, length=length))
        run.log(step, improve(policy, optimizer, schedule, batch, config))
        if held_out is not None and (step + 1) % config.check_every == 0:
            run.log(step, check(policy, held_out, config, length))
    return finished(policy, run)


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
