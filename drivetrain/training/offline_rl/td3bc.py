"""TD3+BC: the policy climbs its critic, and is held near the data by cloning.

    drivetrain train td3bc --dataset data/hopper-replay --output-dir runs/td3bc

Fujimoto & Gu 2021: TD3 (twin critics, a target policy whose actions are blurred, a policy that moves at every second step) and
one term more: the squared distance from the data's action. The critic's part is divided by its own mean size, through which no
gradient goes, so that one weight fits all tasks. States are normalised, and the checkpoint says how. Actions must be numbers.
An encoder learns from the policy, whose cloning shows it what matters sooner than critics would, and they take what it sees.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from drivetrain.checkpoint import Randomness
from drivetrain.data.transitions import NEXT
from drivetrain.errors import BadConfig
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
    steps: int = 50_000  # gradient steps by the data set
    acting: int = 0  # steps in the world after those, each with a gradient step
    batch_size: int = 256
    lr: float = 3e-4  # learning rate of critics and policy
    gamma: float = 0.99  # how much the next step counts
    tau: float = 0.005  # share of the networks that flows into their targets
    climb: float = 2.5  # weight of the critic's word against cloning
    blur: float = 0.2  # deviation of the noise on the target policy's actions
    blur_most: float = 0.5  # which goes no further than this
    stray: float = 0.1  # deviation of the noise on what it does, where it acts
    delay: int = 2  # steps of the critics for one of the policy
    scale_rewards: bool = False  # by 1000 over the spread of the data's returns
    frame_stack: int = 1  # so many observations in one
    network: Network = field(default_factory=lambda: Network(hidden=(256, 256), activation="relu"))
    seed: int = 0


DEBUG = Config(
    dataset="fake", env="pendulum", steps=12, batch_size=8, network=Network(hidden=(16, 16), activation="relu")
)
CHECKPOINT_EVERY = 10_000


class Learner:
    """The policy, its critics, and a slow copy of each."""

    def __init__(self, policy: Driver, config: Config, random: Randomness):
        self.policy, self.config, self.random = policy, config, random
        self.critics = TwinQ(policy.width, policy.spec.action.size, config.network.hidden)
        self.slow_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.slow_head = copy.deepcopy(policy.head).requires_grad_(False)
        self.critic_row = Flat(self.critics.parameters())
        self.actor_row = Flat([*policy.head.parameters(), *seeing(policy)])
        self.critic_optimizer, self.actor_optimizer = Adam(self.critic_row, config.lr), Adam(self.actor_row, config.lr)

    def parts(self) -> dict[str, Any]:
        names = ("policy", "critics", "slow_critics", "slow_head", "critic_optimizer", "actor_optimizer")
        return {name: getattr(self, name) for name in names}

    def update(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        moves = step % self.config.delay == self.config.delay - 1
        with torch.set_grad_enabled(moves):
            now = features(self.policy, batch, "")
        parts = critic_losses(self, batch, now)
        self.critic_row.backward(parts["loss/critics"])
        self.critic_optimizer.step()
        if moves:
            of_actor = actor_losses(self, batch, now)
            self.actor_row.backward(of_actor["loss/climb"] + of_actor["loss/clone"])
            self.actor_optimizer.step()
            parts |= of_actor
            with torch.no_grad():
                for slow, fast in ((self.slow_critics, self.critics), (self.slow_head, self.policy.head)):
                    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), self.config.tau)
        return {key: value.detach() for key, value in parts.items()}


def critic_losses(learner: Learner, batch: dict[str, Tensor], now: Tensor) -> dict[str, Tensor]:
    config = learner.config
    with torch.no_grad():
        after = features(learner.policy, batch, NEXT)
        noise = torch.empty_like(batch["action"]).normal_(generator=learner.random.torch) * config.blur
        action = learner.slow_head(after).mode() + noise.clamp(-config.blur_most, config.blur_most)
        onward = learner.slow_critics(after, action.clamp(-1, 1)).amin(0)
        target = batch["reward"] + config.gamma * onward * ~batch["terminated"]
    return {"loss/critics": (learner.critics(now.detach(), batch["action"]) - target).square().mean(1).sum()}


def actor_losses(learner: Learner, batch: dict[str, Tensor], now: Tensor) -> dict[str, Tensor]:
    action = learner.policy.head(now).mode()
    (worth,) = learner.critics.held(now.detach(), action, 1)
    return {
        "loss/climb": -learner.config.climb * worth.mean() / worth.detach().abs().mean(),
        "loss/clone": F.mse_loss(action, batch["action"]),
    }


def losses(learner: Learner, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    now = features(learner.policy, batch, "")
    return critic_losses(learner, batch, now) | actor_losses(learner, batch, now)


def train(config: Config, run: Run) -> Driver:
    random = Randomness(config.seed)
    policy, data = given(config, "deterministic")
    if policy.spec.discrete:
        raise BadConfig(
            f"BadConfig: td3bc needs actions that are numbers, {config.dataset} has choices; use iql or cql"
        )
    learner = Learner(policy, config, random)
    go_on(learner.parts(), config.policy, "td3bc")
    experience = Experience(config, policy, data, run, random)
    for step in run.steps(experience.total, **learner.parts(), **experience.parts()):
        parts = learner.update(experience.batch(step), step)
        run.log(step, {"loss": parts["loss/critics"], **parts})
    experience.close()
    return finished(policy, run)
