"""Implicit Q-learning: learn what the better actions of a data set are worth without ever asking for one that is not in it.

    drivetrain train iql --dataset data/hopper-replay --output-dir runs/iql

Kostrikov et al. 2021. The value is an upper expectile of what the data's own actions are worth, so it leans towards the best
of them; critics bootstrap from that value, never from a maximum; and the policy clones the data's actions, each weighted by
the exponential of its advantage. The policy is a Gaussian whose mean is squashed and whose deviation does not depend on what
is seen (a squashed Gaussian does much worse here). An encoder learns from the policy, which is a plain regression, and critics
take what it sees as it is. Rewards are scaled by the spread of the data's returns, as for the published figures. Choices work
too: critics take them as one of many.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from drivetrain.checkpoint import Randomness
from drivetrain.data.transitions import NEXT
from drivetrain.models.driver import Driver, Network
from drivetrain.models.heads import TwinQ, ValueHead
from drivetrain.run import Run
from drivetrain.training.flat import Adam, Flat
from drivetrain.training.offline_rl.acting import Experience, falling
from drivetrain.training.offline_rl.given import features, given, go_on, seeing, taken
from drivetrain.training.start import finished


@dataclass(frozen=True)
class Config:
    dataset: str = "data/hopper-replay"  # a data set folder, or a catalog name
    env: str = ""  # where to act afterwards; empty is where the data came from
    policy: str = ""  # a run or checkpoint to start from; of this algorithm its critics come along; empty starts anew
    steps: int = 50_000  # gradient steps by the data set
    acting: int = 0  # steps in the world after those, each with a gradient step
    batch_size: int = 256
    lr: float = 3e-4  # learning rate of critics and value
    actor_lr: float = 3e-4  # learning rate of the policy, falling to 0 along a cosine
    gamma: float = 0.99  # how much the next step counts
    tau: float = 0.005  # share of the critics that flows into their targets at each step
    expectile: float = 0.7  # above a half: how far the value leans towards the better actions
    temperature: float = 3.0  # how much an advantage weighs
    most_weight: float = 100.0  # no action weighs more
    scale_rewards: bool = True  # by 1000 over the spread of the data's returns
    frame_stack: int = 1  # so many observations in one
    network: Network = field(default_factory=lambda: Network(hidden=(256, 256), activation="relu"))
    seed: int = 0


DEBUG = Config(
    dataset="fake", env="pendulum", steps=12, batch_size=8, network=Network(hidden=(16, 16), activation="relu")
)
CHECKPOINT_EVERY = 10_000


class Learner:
    """The policy, its value and its critics, and one step of learning for all of them."""

    def __init__(self, policy: Driver, config: Config):
        self.policy, self.config = policy, config
        hidden, activation = config.network.hidden, config.network.activation
        self.actions = policy.spec.action.choices or policy.spec.action.size
        self.critics = TwinQ(policy.width, self.actions, hidden)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.value = ValueHead(policy.width, hidden, activation)
        self.judge_row = Flat([*self.critics.parameters(), *self.value.parameters()])
        self.actor_row = Flat([*policy.head.parameters(), *seeing(policy)])
        self.judge_optimizer, self.actor_optimizer = (
            Adam(self.judge_row, config.lr),
            Adam(self.actor_row, config.actor_lr),
        )

    def parts(self) -> dict[str, Any]:
        names = ("policy", "critics", "targets", "value", "judge_optimizer", "actor_optimizer")
        return {name: getattr(self, name) for name in names}

    def update(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        parts = losses(self, batch)
        self.judge_row.backward(parts["loss/critics"] + parts["loss/value"])
        self.actor_row.backward(parts["loss/actor"])
        self.actor_optimizer.lr = self.config.actor_lr * falling(step, self.config)
        self.judge_optimizer.step()
        self.actor_optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.targets.parameters()), list(self.critics.parameters()), self.config.tau)
        return {key: value.detach() for key, value in parts.items()}


def losses(learner: Learner, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Value, critics and actor; the value leans towards the better of the data's actions, and everything else follows it."""
    config, policy = learner.config, learner.policy
    seen = features(policy, batch, "")
    now = seen.detach()
    action = taken(policy, batch["action"])
    with torch.no_grad():
        worth = learner.targets(now, action).amin(0)
        onward = learner.value(features(policy, batch, NEXT))
        target = batch["reward"] + config.gamma * onward * ~batch["terminated"]
    value = learner.value(now)
    ahead = worth - value
    leaning = torch.where(ahead > 0, config.expectile, 1 - config.expectile)
    weight = (config.temperature * ahead.detach()).exp().clamp(max=config.most_weight)
    chances = policy.head(seen)
    return {
        "loss/value": (leaning * ahead.square()).mean(),
        "loss/critics": (learner.critics(now, action) - target).square().mean(1).sum(),
        "loss/actor": -(weight * chances.log_prob(batch["action"])).mean(),
        "watch/value": value.detach().mean(),
        "watch/weight": weight.mean(),
    }


def train(config: Config, run: Run) -> Driver:
    random = Randomness(config.seed)
    policy, data = given(config, "bounded")
    learner = Learner(policy.train(), config)
    go_on(learner.parts(), config.policy, "iql")
    experience = Experience(config, policy, data, run, random)
    for step in run.steps(experience.total, **learner.parts(), **experience.parts()):
        parts = learner.update(experience.batch(step), step)
        run.log(step, {"loss": parts["loss/critics"] + parts["loss/value"] + parts["loss/actor"], **parts})
    experience.close()
    return finished(policy, run)
