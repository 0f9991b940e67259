"""Conservative Q-learning: critics that speak low of what the data does not show, and a policy that believes them.

    drivetrain train cql --dataset data/hopper-replay --output-dir runs/cql

Kumar et al. 2020, as CORL has it. Beside the usual loss, critics are pushed down on actions that are drawn (a third at random,
a third by the policy here, a third by the policy as it would act in the next state, each corrected by how likely it was to be
drawn) and up on the data's own. The policy is SAC's, the critics' targets hold no entropy. What was seen is looked at once, and
repeated as features. Nearly all of the time goes into critics of drawn actions: `--precision bfloat16` lets them multiply
coarsely between their first and their last layer. With choices it is simpler: a value for each, pushed down on all by their
soft maximum, and the policy takes the best; a slow copy values what the fast one would choose.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drivetrain.checkpoint import Randomness
from drivetrain.data.transitions import NEXT
from drivetrain.errors import BadConfig, UnknownName
from drivetrain.models.driver import Driver, Network
from drivetrain.models.heads import TwinQ
from drivetrain.run import Run
from drivetrain.training.flat import Adam, Flat
from drivetrain.training.offline_rl.acting import Experience
from drivetrain.training.offline_rl.given import features, given, go_on, seeing
from drivetrain.training.start import finished


@dataclass(frozen=True)
class Config:
    dataset: str = "data/hopper-replay"  # a data set folder, or a catalog name
    env: str = ""  # where to act afterwards; empty is where the data came from
    policy: str = ""  # a run or checkpoint to start from; of this algorithm its critics come along; empty starts anew
    steps: int = 20_000  # gradient steps by the data set
    acting: int = 0  # steps in the world after those, each with a gradient step
    batch_size: int = 256
    lr: float = 3e-4  # learning rate of the critics
    actor_lr: float = 1e-4  # learning rate of the policy and of its temperature
    gamma: float = 0.99  # how much the next step counts
    tau: float = 0.005  # share of the critics that flows into their targets
    conservative: float = 5.0  # weight of speaking low
    drawn: int = 10  # actions of each kind that are spoken low of
    clone: int = 0  # steps at first in which the policy clones instead of climbing
    stray: float = 0.05  # share of choices at random, where it acts and its actions are choices
    entropy_share: float = 1.0  # the entropy held to is minus this times the number of actions
    scale_rewards: bool = False  # by 1000 over the spread of the data's returns
    precision: str = "float32"  # of the critics' inner products; bfloat16 is faster on processors with units for it
    frame_stack: int = 1  # so many observations in one
    network: Network = field(default_factory=lambda: Network(hidden=(256, 256, 256), activation="relu"))
    seed: int = 0


DEBUG = Config(
    dataset="fake", env="pendulum", steps=12, batch_size=8, network=Network(hidden=(16, 16), activation="relu")
)
OF_NUMBERS = ("actor_lr", "drawn", "clone", "entropy_share", "precision")
CHECKPOINT_EVERY = 5_000
COARSE = "bfloat16"
PRECISIONS = ("float32", COARSE)


class Learner:
    """With numbers: the policy, its twin critics, their slow copies, and the temperature."""

    def __init__(self, policy: Driver, config: Config, random: Randomness):
        self.policy, self.config, self.random = policy, config, random
        self.actions = policy.spec.action.size
        self.critics = TwinQ(policy.width, self.actions, config.network.hidden, coarse=config.precision == COARSE)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.temperature = nn.ParameterDict({"log_alpha": nn.Parameter(torch.zeros(()))})
        self.critic_row = Flat([*self.critics.parameters(), *seeing(policy)])
        self.actor_row, self.alpha_row = Flat(policy.head.parameters()), Flat(self.temperature.parameters())
        self.critic_optimizer, self.actor_optimizer = (
            Adam(self.critic_row, config.lr),
            Adam(self.actor_row, config.actor_lr),
        )
        self.alpha_optimizer = Adam(self.alpha_row, config.actor_lr)

    def parts(self) -> dict[str, Any]:
        optimizers = ("critic_optimizer", "actor_optimizer", "alpha_optimizer")
        return {name: getattr(self, name) for name in ("policy", "critics", "targets", "temperature", *optimizers)}

    def update(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        parts = losses(self, batch, cloning=step < self.config.clone)
        self.critic_row.backward(parts["loss/critics"] + parts["loss/conservative"])
        self.actor_row.backward(parts["loss/actor"])
        self.alpha_row.backward(parts["loss/temperature"])
        for optimizer in (self.critic_optimizer, self.actor_optimizer, self.alpha_optimizer):
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.targets.parameters()), list(self.critics.parameters()), self.config.tau)
        return {key: value.detach() for key, value in parts.items()}


def losses(learner: Learner, batch: dict[str, Tensor], cloning: bool = False) -> dict[str, Tensor]:
    config, policy, generator = learner.config, learner.policy, learner.random.torch
    log_alpha = learner.temperature["log_alpha"]
    alpha, now = log_alpha.detach().exp(), features(policy, batch, "")
    with torch.no_grad():
        after = features(policy, batch, NEXT)
        next_action, _ = policy.head(after).sample_with_log_prob(generator)
        onward = learner.targets(after, next_action).amin(0)
        target = batch["reward"] + config.gamma * onward * ~batch["terminated"]
    known = learner.critics(now, batch["action"])  # [2, B]
    soft = soft_maximum(learner, now, after)  # [2, B]
    chosen, log_prob = policy.head(now.detach()).sample_with_log_prob(generator)
    climb = (
        policy.head(now.detach()).log_prob(batch["action"])
        if cloning
        else learner.critics.held(now.detach(), chosen).amin(0)
    )
    gap = (log_prob.detach() - config.entropy_share * learner.actions).mean()
    return {
        "loss/critics": (known - target).square().mean(1).sum(),
        "loss/conservative": config.conservative * (soft - known).mean(1).sum(),
        "loss/actor": (alpha * log_prob - climb).mean(),
        "loss/temperature": -log_alpha * gap,
        "watch/known": known.detach().mean(),
        "watch/alpha": alpha,
    }


def soft_maximum(learner: Learner, now: Tensor, after: Tensor) -> Tensor:
    """Of each critic over drawn actions, [2, B]: log of the mean of exp(Q) / density, by importance."""
    head, count, generator = learner.policy.head, learner.config.drawn, learner.random.torch
    rows = now.repeat_interleave(count, 0)  # [B * n, D]
    with torch.no_grad():
        anything = torch.rand(len(rows), learner.actions, generator=generator) * 2 - 1
        drawn = [(anything, torch.full((len(rows),), learner.actions * math.log(0.5)))]
        drawn += [head(x).repeated(count).sample_with_log_prob(generator) for x in (now, after)]
    said = [
        learner.critics(rows, action).unflatten(1, (-1, count)) - log_density.unflatten(0, (-1, count))
        for action, log_density in drawn
    ]  # [2, B, n] each
    return torch.cat(said, 2).logsumexp(2) - math.log(3 * count)


class Chooser:
    """With choices: the policy's own values, and a slow copy of them."""

    def __init__(self, policy: Driver, config: Config):
        self.policy, self.config = policy, config
        self.slow = copy.deepcopy(policy).requires_grad_(False)
        self.row = Flat(policy.parameters())
        self.optimizer = Adam(self.row, config.lr)

    def parts(self) -> dict[str, Any]:
        return {"policy": self.policy, "slow": self.slow, "optimizer": self.optimizer}

    def update(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        parts = choice_losses(self, batch)
        self.row.backward(parts["loss/values"] + parts["loss/conservative"])
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.slow.parameters()), list(self.policy.parameters()), self.config.tau)
        return {key: value.detach() for key, value in parts.items()}


def choice_losses(chooser: Chooser, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    config, policy = chooser.config, chooser.policy
    values = policy.head(features(policy, batch, "")).values  # [B, K]
    known = values.gather(1, batch["action"][:, None]).squeeze(1)
    with torch.no_grad():
        best = policy.head(features(policy, batch, NEXT)).values.argmax(1, keepdim=True)
        onward = chooser.slow.head(features(chooser.slow, batch, NEXT)).values.gather(1, best).squeeze(1)
        target = batch["reward"] + config.gamma * onward * ~batch["terminated"]
    return {
        "loss/values": F.smooth_l1_loss(known, target),
        "loss/conservative": config.conservative * (values.logsumexp(1) - known).mean(),
        "watch/known": known.detach().mean(),
    }


def train(config: Config, run: Run) -> Driver:
    if config.precision not in PRECISIONS:
        raise UnknownName("precision", config.precision, PRECISIONS)
    random = Randomness(config.seed)
    policy, data = given(config, "squashed", "q")
    plain = Config()
    if policy.spec.discrete and (odd := [n for n in OF_NUMBERS if getattr(config, n) != getattr(plain, n)]):
        flag = odd[0].replace("_", "-")
        raise BadConfig(
            f"BadConfig: --{flag} is for actions that are numbers, {config.dataset} has choices; leave it out"
        )
    learner = Chooser(policy, config) if policy.spec.discrete else Learner(policy, config, random)
    go_on(learner.parts(), config.policy, "cql")
    experience = Experience(config, policy, data, run, random)
    for step in run.steps(experience.total, **learner.parts(), **experience.parts()):
        parts = learner.update(experience.batch(step), step)
        total = torch.stack([value for name, value in parts.items() if name.startswith("loss/")]).sum()
        run.log(step, {"loss": total, **parts})
    experience.close()
    return finished(policy, run)
