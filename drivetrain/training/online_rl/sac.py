"""Soft actor-critic: act to earn, and stay as unpredictable as that allows.

    drivetrain train sac --env pendulum --output-dir runs/sac

Haarnoja et al. 2018, with the learned temperature, the smaller of twin critics, and the squashing corrected in the form that
does not overflow. Episodes cut by a time limit bootstrap, terminated ones do not. From pictures the encoder is trained by
the critics alone and the actor takes its features as they are (Yarats et al. 2021); pictures are shifted at random by a few
pixels. The target critics look through the online encoder.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Generator, Tensor, nn

from drivetrain.checkpoint import Randomness
from drivetrain.data.replay import Replay
from drivetrain.envs.worlds import Worlds
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Driver, Network, build_policy
from drivetrain.models.heads import TwinQ
from drivetrain.run import Run
from drivetrain.sample import Sample, is_image, restart
from drivetrain.training.flat import Adam, Flat
from drivetrain.training.judged import Judging, log_judge, taught_by, worlds_for
from drivetrain.training.start import finished, start_from, undropped, unfed


@dataclass(frozen=True)
class Config:
    env: str = "pendulum"  # a name of `drivetrain list envs`; its actions must be numbers
    reward: str = "world"  # who rewards: world, or vlm, a judge that looks at the frames
    judge: Judging = field(default_factory=Judging)  # that judge
    policy: str = ""  # a run or checkpoint to start from; its head must be squashed; empty starts anew
    steps: int = 20_000  # steps in the worlds, all together
    worlds: int = 1  # worlds side by side
    capacity: int = 1_000_000  # observations the replay memory holds
    warmup: int = 100  # steps at random before learning begins
    updates: int = 1  # gradient steps per step of all worlds
    batch_size: int = 256
    lr: float = 1e-3  # learning rate of critics and temperature
    actor_lr: float = 1e-3  # learning rate of the actor
    anneal: bool = False  # learning rates fall to 0 over the run, so that the last policy is a settled one
    gamma: float = 0.99  # how much the next step counts
    tau: float = 0.005  # share of the critics that flows into their targets at each update
    alpha: float = 1.0  # where the temperature begins
    entropy_share: float = 1.0  # the entropy held to is minus this times the number of actions
    n_step: int = 1  # rewards summed before bootstrapping
    length: int = 8  # steps of a sequence, where the policy has memory
    shift: int = 4  # pictures are shifted by up to so many pixels in learning; 0 leaves them
    network: Network = field(default_factory=lambda: Network(hidden=(256, 256), activation="relu"))
    seed: int = 0


DEBUG = Config(
    steps=96, worlds=2, capacity=400, warmup=32, batch_size=8, network=Network(hidden=(16, 16), activation="relu")
)
CHECKPOINT_EVERY = 10_000


class Learner:
    """The actor, its critics and the temperature, and one step of learning for all three."""

    def __init__(self, policy: Driver, config: Config, random: Randomness):
        self.policy, self.config, self.random = policy, config, random
        actions = policy.spec.action.size
        self.critics = TwinQ(policy.width, actions, config.network.hidden)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(float(np.log(config.alpha))))
        self.target_entropy = -config.entropy_share * actions
        encoder = [p for name, p in policy.named_parameters() if not name.startswith("head.")]
        self.critic_row, self.actor_row = Flat([*self.critics.parameters(), *encoder]), Flat(policy.head.parameters())
        self.alpha_row = Flat([self.log_alpha])
        self.critic_optimizer, self.alpha_optimizer = (
            Adam(row, config.lr) for row in (self.critic_row, self.alpha_row)
        )
        self.actor_optimizer = Adam(self.actor_row, config.actor_lr)

    def parts(self) -> dict[str, object]:
        return {
            "policy": self.policy,
            "critics": self.critics,
            "targets": self.targets,
            "temperature": self,
            "critic_optimizer": self.critic_optimizer,
            "actor_optimizer": self.actor_optimizer,
            "alpha_optimizer": self.alpha_optimizer,
        }

    def state_dict(self) -> dict[str, Tensor]:
        return {"log_alpha": self.log_alpha.detach()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.log_alpha.data.copy_(state["log_alpha"])

    def anneal(self, step: int) -> None:
        left = 1 - step / self.config.steps if self.config.anneal else 1.0
        self.critic_optimizer.lr = self.alpha_optimizer.lr = self.config.lr * left
        self.actor_optimizer.lr = self.config.actor_lr * left

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        parts = losses(self, batch)
        self.critic_row.backward(parts["loss/critics"])
        self.actor_row.backward(parts["loss/actor"])
        self.alpha_row.backward(parts["loss/temperature"])
        for optimizer in (self.critic_optimizer, self.actor_optimizer, self.alpha_optimizer):
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.targets.parameters()), list(self.critics.parameters()), self.config.tau)
        return {key: value.detach() for key, value in parts.items()}


def losses(learner: Learner, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Critics, actor and temperature. Windows of [B, T] steps are laid end to end: [B * T] rows."""
    policy, generator = learner.policy, learner.random.torch
    alpha = learner.log_alpha.detach().exp()
    now, after = features(policy, batch, slice(0, -1)), _no_grad_features(policy, batch, slice(1, None))
    valid, action = batch["valid"].flatten(), batch["action"].flatten(0, 1)
    reward, discount, terminated = (batch[k].flatten() for k in ("reward", "discount", "terminated"))
    with torch.no_grad():
        next_action, next_log_prob = policy.head(after).sample_with_log_prob(generator)
        onward = learner.targets(after, next_action).amin(0) - alpha * next_log_prob
        target = reward + discount * onward * ~terminated
    critic_loss = _mean((learner.critics(now, action) - target).square().sum(0) / 2, valid)
    chosen, log_prob = policy.head(now.detach()).sample_with_log_prob(generator)
    worth = learner.critics.held(now.detach(), chosen).amin(0)
    actor_loss = _mean(alpha * log_prob - worth, valid)
    gap = _mean((log_prob + learner.target_entropy).detach(), valid)
    return {
        "loss/critics": critic_loss,
        "loss/actor": actor_loss,
        "loss/temperature": -learner.log_alpha * gap,
        "watch/alpha": alpha,
    }


def features(policy: Driver, batch: dict[str, Tensor], steps: slice) -> Tensor:
    """[B * T, D]. Without memory only the wanted steps are looked at; with memory all of them, from an empty one."""
    look = slice(None) if policy.recurrent else steps
    seen = {key: batch[key][:, look] for key in policy.keys}
    found, _ = policy.features(seen, policy.initial(len(batch["reward"])), batch["is_first"][:, look])
    return (found[:, steps] if policy.recurrent else found).flatten(0, 1)


@torch.no_grad()
def _no_grad_features(policy: Driver, batch: dict[str, Tensor], steps: slice) -> Tensor:
    return features(policy, batch, steps)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    return (values * valid).sum() / valid.sum()


def shifted(pictures: Tensor, by: int, generator: Generator) -> Tensor:
    """Each picture [B, T, H, W, C] moved by up to `by` pixels, its border repeated; one shift for all of a window."""
    count, _, height, width, _ = pictures.shape
    offsets = torch.randint(0, 2 * by + 1, (2, count, 1, 1), generator=generator) - by
    rows = (torch.arange(height).view(1, height, 1) + offsets[0]).clamp(0, height - 1)  # [B, H, 1]
    columns = (torch.arange(width).view(1, 1, width) + offsets[1]).clamp(0, width - 1)  # [B, 1, W]
    return pictures.transpose(0, 1)[:, torch.arange(count).view(-1, 1, 1), rows, columns].transpose(0, 1)


class Explorer:
    """Acts in the worlds, by the policy's own chance, and remembers actions as they were drawn: in [-1, 1]."""

    def __init__(self, worlds: Worlds, replay: Replay, config: Config, random: Randomness):
        self.worlds, self.replay, self.config, self.random = worlds, replay, config, random

    def rebuild(self, policy: Driver, step: int) -> None:
        self.observation = self.worlds.rebuild(self.config.seed, step)
        self.is_first = np.ones(self.worlds.count, dtype=bool)
        self.memory = self.start = policy.initial(self.worlds.count)

    def step(self, policy: Driver, at_random: bool) -> None:
        raw = self._choose(policy, at_random)
        went = self.worlds.step(policy.to_world(raw))
        self.replay.add(self.observation, raw.numpy(), went.reward, went.terminated, went.truncated, went.final)
        self.observation, self.is_first = went.observation, went.ended

    def _choose(self, policy: Driver, at_random: bool) -> Tensor:
        if at_random:
            shape = (self.worlds.count, *policy.spec.action.shape)
            return torch.rand(shape, generator=self.random.torch) * 2 - 1
        self.memory = restart(self.memory, self.start, self.is_first)
        _, self.memory, info = policy.act(self.observation, self.memory, greedy=False, generator=self.random.torch)
        return info["raw"]


def train(config: Config, run: Run) -> Driver:
    random = Randomness(config.seed)
    worlds = worlds_for(config.env, config.worlds, config, run.folder)
    policy = begin(config, worlds)
    learner = Learner(policy, config, random)
    replay = Replay(
        worlds.sample_spec,
        config.capacity,
        config.worlds,
        run.folder / "replay",
        gamma=config.gamma,
        keep=run.keep + 1,
        n_step=config.n_step,
        length=config.length if policy.recurrent else 1,
    )
    explorer = Explorer(worlds, replay, config, random)
    kept = {**learner.parts(), "replay": replay, "random": random, **taught_by(worlds)}
    for step in run.steps(config.steps, by=config.worlds, **kept):
        if run.fresh:
            explorer.rebuild(policy, step)
        explorer.step(policy, at_random=step < config.warmup and not config.policy)
        run.log_episodes(step, worlds.finished())
        log_judge(worlds, run, step)
        if step < config.warmup:
            continue
        learner.anneal(step)
        for _ in range(config.updates):
            parts = learner.update(tensors(replay.batch(config.batch_size, random.numpy), config, random))
        run.log(step, {"loss": parts["loss/critics"] + parts["loss/actor"], **parts})
    worlds.close()
    return finished(policy, run)


def begin(config: Config, worlds: Worlds) -> Driver:
    if worlds.sample_spec.discrete:
        raise BadConfig(f"BadConfig: sac needs actions that are numbers, {config.env} has choices; use dqn or ppo")
    unfed(config.network)
    undropped(config.network, "sac", "its targets would be of other networks")
    if not config.policy:
        return build_policy(worlds.sample_spec, config.network, "squashed")
    policy = start_from(config.policy, worlds.sample_spec, config.network)
    if policy.head_name != "squashed":
        raise BadConfig(
            f"BadConfig: sac needs a policy with the head 'squashed', {config.policy} has {policy.head_name!r}; "
            "train it with --head squashed"
        )
    return policy


def tensors(drawn: Sample, config: Config, random: Randomness) -> dict[str, Tensor]:
    batch = {key: torch.from_numpy(value) for key, value in drawn.items()}
    for key in [k for k in batch if is_image(k)] if config.shift else []:
        batch[key] = shifted(batch[key], config.shift, random.torch)
    return batch
