"""Dreamer: learn a model of the world from what was seen, and a policy from what it dreams.

    drivetrain train dreamer --env pendulum --output-dir runs/dreamer

Hafner et al. 2023, at a size for a laptop. The model (`models/rssm.py`) learns from sequences of a replay memory to tell what
it sees, earns and whether it goes on. From each state along them the policy then acts `--dream` steps with eyes closed; a
critic learns the lambda-returns of these dreams, as chances of fixed values, and the policy what went better than the critic
thought, by the gradient of its log-probability. Returns are measured by the range from their 5th to their 95th percentile,
where that is above 1. A slow copy of the critic keeps it from running after itself. A time limit is no end: the model learns
that an episode goes on after it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from drivetrain import transforms
from drivetrain.checkpoint import Randomness
from drivetrain.data.replay import Replay
from drivetrain.envs.words import with_options
from drivetrain.envs.worlds import Worlds, make_worlds
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Network
from drivetrain.models.rssm import Size, State, bring_together
from drivetrain.models.world import Dreamer
from drivetrain.run import Run
from drivetrain.sample import ACTION, restart
from drivetrain.training.flat import Adam, Flat

LOW, HIGH, SLOWLY = 0.05, 0.95, 0.01  # percentiles of returns, and how fast their range follows


@dataclass(frozen=True)
class Config:
    env: str = "pendulum"  # a name of `drivetrain list envs`, with options after a colon
    steps: int = 20_000  # steps in the worlds, all together
    worlds: int = 1  # worlds side by side
    capacity: int = 200_000  # observations the replay memory holds
    warmup: int = 500  # steps at random before learning begins
    train_every: int = 5  # steps of all worlds between rounds of learning
    updates: int = 1  # gradient steps per round
    batch_size: int = 16  # sequences per gradient step
    length: int = 32  # steps of each
    lr: float = 6e-4  # learning rate of the model
    actor_lr: float = 3e-4  # learning rate of actor and critic
    free: float = 1.0  # nats that prior and posterior may be apart for nothing
    of_prior: float = 1.0  # weight of bringing the prior to the posterior
    of_posterior: float = 0.1  # weight of bringing the posterior to the prior
    dream: int = 15  # steps with eyes closed
    gamma: float = 0.997  # how much the next step counts
    gae_lambda: float = 0.95  # between one-step (0) and whole (1) returns
    entropy_weight: float = 3e-4
    tau: float = 0.02  # share of the critic that flows into its slow copy at each step
    max_grad_norm: float = 100.0  # gradients are scaled down to this
    frame_stack: int = 1  # so many observations in one (adds `stack` to the env)
    size: Size = field(default_factory=Size)
    network: Network = field(default_factory=lambda: Network(state_layers=(128,), activation="silu"))
    seed: int = 0


DEBUG = Config(
    steps=96, worlds=2, capacity=400, warmup=32, train_every=2, batch_size=3, length=5, dream=3, free=0.0,
    size=Size(16, 3, 4, 16), network=Network(state_layers=(8,), activation="silu"),
)  # fmt: skip
CHECKPOINT_EVERY = 2_000


class Learner:
    """The model, the actor in it, the critic and its slow copy, and how wide returns are."""

    def __init__(self, policy: Dreamer, config: Config, random: Randomness):
        self.policy, self.world, self.config, self.random = policy, policy.world, config, random
        self.critic = policy.critic
        self.slow = copy.deepcopy(self.critic).requires_grad_(False)
        self.model_row = Flat(self.world.parameters())
        self.actor_row, self.critic_row = Flat(policy.actor.parameters()), Flat(self.critic.parameters())
        self.model_optimizer = Adam(self.model_row, config.lr)
        self.actor_optimizer, self.critic_optimizer = (
            Adam(self.actor_row, config.actor_lr),
            Adam(self.critic_row, config.actor_lr),
        )
        self.range = torch.zeros(2)  # the percentiles, followed slowly

    def parts(self) -> dict[str, Any]:
        names = ("policy", "slow", "model_optimizer", "actor_optimizer", "critic_optimizer")
        return {**{name: getattr(self, name) for name in names}, "range": self}

    def state_dict(self) -> dict[str, Tensor]:
        return {"range": self.range}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.range.copy_(state["range"])

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The model first, then actor and critic from what it dreams."""
        parts, state, alive = losses(self, batch)
        self.model_row.backward(_total(parts))
        self.model_row.clip(self.config.max_grad_norm)
        self.model_optimizer.step()
        dreamed = dream_losses(self, state, alive)
        for row, optimizer, name in (
            (self.actor_row, self.actor_optimizer, "actor"),
            (self.critic_row, self.critic_optimizer, "critic"),
        ):
            row.backward(dreamed[f"loss/{name}"])
            row.clip(self.config.max_grad_norm)
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.slow.parameters()), list(self.critic.parameters()), self.config.tau)
        parts |= dreamed
        return {"loss": _total(parts), **parts}


def _total(parts: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for name, value in parts.items() if name.startswith("loss/")]).sum()


def losses(learner: Learner, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], State, Tensor]:
    """Of the model, along recorded windows: T actions, T + 1 observations. Then the states that it came by, [B * (T + 1)] rows,
    and which of them are no end."""
    world, config = learner.world, learner.config
    done = world.done(batch[ACTION])
    before = torch.cat([torch.zeros_like(done[:, :1]), done], 1)
    first = batch["is_first"]
    seen = world.look({key: batch[key] for key in world.keys}, before, first, learner.random.torch)
    features = seen.state.features
    known = (~first[:, 1:] & batch["valid"]).float()  # of an episode's first step it is not known what led there
    reward = world.reward.unlikely(world.reward(features[:, 1:]), batch["reward"])
    on = F.binary_cross_entropy_with_logits(
        world.goes_on(features[:, 1:])[..., 0], (~batch["terminated"]).float(), reduction="none"
    )
    parts = {
        "loss/seen": world.unlike(features, batch).mean(),
        "loss/reward": (reward * known).sum() / known.sum().clamp(min=1),
        "loss/goes_on": (on * known).sum() / known.sum().clamp(min=1),
        **bring_together(seen, config.free, config.of_prior, config.of_posterior),
    }
    ends = batch["terminated"] & batch["valid"]
    alive = torch.cat([torch.ones_like(ends[:, :1]), ~ends], 1).flatten()
    return parts, State(*(part.detach().flatten(0, 1) for part in seen.state)), alive


def lambda_returns(reward: Tensor, value: Tensor, discount: Tensor, gae_lambda: float) -> Tensor:
    """[H, N] of rewards and discounts of the steps taken, and values [H + 1, N] of the states at both ends of them."""
    found, onward = [], value[-1]
    for t in range(len(reward) - 1, -1, -1):
        onward = reward[t] + discount[t] * ((1 - gae_lambda) * value[t + 1] + gae_lambda * onward)
        found.append(onward)
    return torch.stack(found[::-1])


class Dream(NamedTuple):
    features: Tensor  # [H + 1, N, F]
    log_prob: Tensor  # [H, N], of what was done; the actor learns through this and the next, and asks no second time
    entropy: Tensor  # [H, N]


def dreamed(learner: Learner, state: State) -> Dream:
    """The actor goes on from there, eyes closed."""
    features, likely, entropy = [state.features], [], []
    for _ in range(learner.config.dream):
        chances = learner.policy.actor(features[-1])
        with torch.no_grad():
            action = chances.sample(learner.random.torch)
            state = learner.world.rssm.dream(state, learner.world.done(action), learner.random.torch)
            features.append(state.features)
        likely.append(chances.log_prob(action))
        entropy.append(chances.entropy())
    return Dream(torch.stack(features), torch.stack(likely), torch.stack(entropy))


def dream_losses(learner: Learner, state: State, alive: Tensor) -> dict[str, Tensor]:
    """Of actor and critic, in dreams that begin at these states; what follows an end counts for nothing."""
    world, config = learner.world, learner.config
    features, likely, entropy = dreamed(learner, state)
    said = learner.critic(features)
    with torch.no_grad():
        reward = world.reward.mean(features[1:])
        goes_on = world.goes_on(features[1:])[..., 0].sigmoid()
        discount = config.gamma * goes_on
        values = learner.critic.of(said.exp())
        returns = lambda_returns(reward, values, discount, config.gae_lambda)
        weight = torch.cat([alive.float().unsqueeze(0), discount[:-1]]).cumprod(0)
        spread = torch.quantile(returns.flatten(), torch.tensor([LOW, HIGH]))
        learner.range.lerp_(spread, SLOWLY) if learner.range.any() else learner.range.copy_(spread)
        ahead = (returns - values[:-1]) / (learner.range[1] - learner.range[0]).clamp(min=1.0)
        slow = learner.slow.mean(features[:-1])
    gain = likely * ahead + config.entropy_weight * entropy
    unlikely = learner.critic.unlikely(said[:-1], returns, slow)
    return {
        "loss/actor": -(weight * gain).mean(),
        "loss/critic": (weight * unlikely).mean(),
        "watch/dreamed_return": returns.mean(),
        "watch/entropy": entropy.mean().detach(),
    }


class Explorer:
    """Acts by the policy's own chance, and remembers actions as they were drawn."""

    def __init__(self, worlds: Worlds, replay: Replay, config: Config, random: Randomness):
        self.worlds, self.replay, self.config, self.random = worlds, replay, config, random

    def rebuild(self, policy: Dreamer, step: int) -> None:
        self.observation = self.worlds.rebuild(self.config.seed, step)
        self.memory = self.start = policy.initial(self.worlds.count)

    def step(self, policy: Dreamer, at_random: bool) -> None:
        action, self.memory, info = policy.act(self.observation, self.memory, greedy=False, generator=self.random.torch)
        raw = info["raw"]
        if at_random:
            count, spec = self.worlds.count, policy.spec
            raw = (
                torch.randint(spec.action.choices, (count,), generator=self.random.torch)
                if spec.discrete
                else torch.rand((count, spec.action.size), generator=self.random.torch) * 2 - 1
            )
            action, self.memory = policy.to_world(raw), {**self.memory, "done": policy.world.done(raw)}
        went = self.worlds.step(action)
        self.replay.add(self.observation, raw.numpy(), went.reward, went.terminated, went.truncated, went.final)
        self.observation = went.observation
        self.memory = restart(self.memory, self.start, went.ended)


def refuse(config: Config) -> None:
    """Settings by which there would be nothing to learn from."""
    if min(config.dream, config.length, config.train_every) < 1:
        got = f"{config.dream}, {config.length} and {config.train_every}"
        raise BadConfig(f"BadConfig: --dream, --length and --train-every must be 1 or more, got {got}")
    if config.warmup < (enough := config.worlds * (config.length + 1)):
        raise BadConfig(
            f"BadConfig: learning begins when each world has a window of {config.length} steps; "
            f"--warmup {config.warmup} is too few for {config.worlds} worlds, say {enough} or more"
        )


def train(config: Config, run: Run) -> Dreamer:
    refuse(config)
    random = Randomness(config.seed)
    env = with_options(config.env, stack=config.frame_stack) if config.frame_stack > 1 else config.env
    worlds = make_worlds(env, config.worlds)
    spec = worlds.sample_spec
    policy = Dreamer(spec, config.network, config.size, transforms.bounded_action(spec.action), config.gamma)
    learner = Learner(policy, config, random)
    replay = Replay(
        spec,
        config.capacity,
        config.worlds,
        run.folder / "replay",
        gamma=config.gamma,
        length=config.length,
        keep=run.keep + 1,
    )
    explorer = Explorer(worlds, replay, config, random)
    for step in run.steps(config.steps, by=config.worlds, **learner.parts(), replay=replay, random=random):
        if run.fresh:
            explorer.rebuild(policy, step)
        explorer.step(policy, at_random=step < config.warmup)
        run.log_episodes(step, worlds.finished())
        run.log(step, {"watch/remembered": len(replay)})
        rounds = step // config.train_every - (step - config.worlds) // config.train_every  # due since the step before
        if step < config.warmup:
            continue
        for _ in range(config.updates * rounds):
            drawn = {
                key: torch.from_numpy(value) for key, value in replay.batch(config.batch_size, random.numpy).items()
            }
            run.log(step, {key: value.detach() for key, value in learner.update(drawn).items()})
    worlds.close()
    return policy.eval()
