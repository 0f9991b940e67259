"""Generative adversarial imitation: act so that nobody can tell it from the demonstrations; the world's reward is hidden.

    drivetrain train gail --env halfcheetah --dataset data/cheetah-4x50 --output-dir runs/gail
    drivetrain train gail --env hopper:absorb=5 --dataset data/hopper-4x50 --generator ppo

Ho & Ermon 2016; with `--generator sac` Kostrikov et al. 2019 (DAC). A discriminator learns to tell the demonstrated pairs of
observation and action from those of the policy, and the policy, by SAC or PPO, learns to be taken for the demonstrator. The
pairs need not follow one another: `collect --as subset` makes a set of every twentieth. `--clone 1` clones them beside.

Where episodes end by themselves, a reward that is always positive pays for living and one that is always negative for dying,
whatever the demonstrations show: an expert that always does the same still "teaches" a policy to balance a pole. So such worlds
are refused. `absorb=5` in the env's name makes an end a place where one stays, which the discriminator judges like any other;
`--ends-too` goes on regardless. A time limit is no end.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drivetrain import transforms
from drivetrain.checkpoint import Randomness
from drivetrain.data.card import refuse_thinned, thinned
from drivetrain.data.episodes import Episodes, drawn
from drivetrain.data.open import open_dataset
from drivetrain.data.replay import Replay
from drivetrain.envs.rollout import RandomActor, rollout
from drivetrain.envs.words import spec_of, split_name, stack_of, with_options
from drivetrain.envs.worlds import Step, Worlds
from drivetrain.errors import BadConfig, UnknownName
from drivetrain.models.driver import Driver, Network, build_policy
from drivetrain.models.mlp import MLP
from drivetrain.run import Run
from drivetrain.sample import ACTION, OVER, TERMINATED, Sample, Spec
from drivetrain.training.flat import Adam, Flat
from drivetrain.training.offline_rl.given import taken
from drivetrain.training.online_rl import ppo, sac
from drivetrain.training.start import finished, undropped

GENERATORS = ("sac", "ppo")
REWARDS = ("both", "positive", "negative")
TRIALS = 4  # episodes at random, to see whether a world ends by itself


@dataclass(frozen=True)
class Sac:
    """The generator, where it is SAC: as `train sac` has it."""

    capacity: int = 1_000_000
    warmup: int = 1_000
    updates: int = 1
    batch_size: int = 256
    lr: float = 1e-3
    actor_lr: float = 3e-4
    anneal: bool = False  # all learning rates fall to 0 over the run, the discriminator's too
    tau: float = 0.005
    alpha: float = 0.1


@dataclass(frozen=True)
class Ppo:
    """The generator, where it is PPO: as `train ppo` has it."""

    rollout: int = 256
    epochs: int = 10
    minibatch: int = 256
    lr: float = 3e-4
    anneal: bool = True  # the discriminator's learning rate falls too
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy_weight: float = 0.0
    normalise_returns: bool = True


@dataclass(frozen=True)
class Config:
    dataset: str = "data/halfcheetah-4x50"  # the demonstrations; their rewards are not looked at
    env: str = "halfcheetah"  # where to act; `absorb=5` where its episodes end by themselves
    policy: str = ""  # a run or checkpoint to start from; empty starts anew
    generator: str = "sac"  # who learns to be taken for the demonstrator: sac or ppo
    ends_too: bool = False  # go on where episodes end by themselves, and take what comes of it
    reward: str = "both"  # log D - log(1 - D): both; or the positive part -log(1 - D), or the negative log D
    steps: int = 300_000  # steps in the worlds, all together
    worlds: int = 1  # worlds side by side
    gamma: float = 0.99  # how much the next step counts
    judge_lr: float = 3e-4  # learning rate of the discriminator
    judge_batch: int = 256  # pairs of either side per step of the discriminator
    judge_every: int = 1  # steps in each world between its steps; of ppo it takes them after each rollout
    judge_hidden: tuple[int, ...] = (256, 256)
    clone: float = 0.0  # learning rate of cloning the demonstrations beside, as a share of the generator's; 0 does not
    penalty: float = 1.0  # weight of the gradient penalty, which keeps its slope near 1; DAC's is 10
    sac: Sac = field(default_factory=Sac)
    ppo: Ppo = field(default_factory=Ppo)
    network: Network = field(default_factory=lambda: Network(hidden=(256, 256), activation="relu"))
    seed: int = 0


DEBUG = Config(
    dataset="fake",
    env="pendulum:absorb=2",
    steps=96,
    worlds=2,
    judge_batch=8,
    judge_hidden=(16,),
    clone=0.5,
    sac=Sac(capacity=400, warmup=32, batch_size=8),
    ppo=Ppo(rollout=8, epochs=2, minibatch=8),
    network=Network(hidden=(16, 16), activation="relu"),
)
CHECKPOINT_EVERY = 10_000


class Discriminator(nn.Module):
    """How like the demonstrator's a pair of observation and action is: a number, above 0 where it is thought to be one."""

    def __init__(self, eyes: Driver, hidden: tuple[int, ...]):
        super().__init__()
        self.eyes = eyes  # encoders of its own, with a running normaliser; of its head nothing is used
        self.eyes.head.requires_grad_(False)
        action = eyes.spec.action
        self.net = MLP([eyes.width + (action.choices or action.size), *hidden, 1], "relu")

    def pair(self, seen: Sample, action: Tensor) -> Tensor:
        """What its network takes, [B, D]; where all is over it counts for nothing what is done."""
        features, _ = self.eyes.features(seen, {}, torch.zeros(len(action), 1, dtype=torch.bool))
        done = taken(self.eyes, action)
        if OVER in seen:
            done = done * (1 - torch.as_tensor(seen[OVER]).view(len(done), 1))
        return torch.cat([features[:, 0], done], -1)

    def forward(self, pair: Tensor) -> Tensor:
        found: Tensor = self.net(pair).squeeze(-1)
        return found

    @torch.no_grad()
    def reward(self, seen: Sample, action: Tensor, form: str) -> Tensor:
        logit = self(self.pair(seen, action))
        return {"both": logit, "positive": F.softplus(logit), "negative": -F.softplus(-logit)}[form]


def losses(
    judge: Discriminator, theirs: Tensor, ours: Tensor, config: Config, generator: torch.Generator
) -> dict[str, Tensor]:
    """Of a discriminator that is shown as many pairs of the demonstrator as of the policy, [B, D] each."""
    said = judge(torch.cat([theirs, ours]))
    expert, policy = said.chunk(2)
    between = torch.rand(len(theirs), 1, generator=generator)
    mixed = (between * theirs + (1 - between) * ours).detach().requires_grad_()
    (slope,) = torch.autograd.grad(judge.net.plain(mixed).sum(), mixed, create_graph=True)
    return {
        "loss/judge": (F.softplus(-expert).mean() + F.softplus(policy).mean()) / 2,
        "loss/penalty": config.penalty * (slope.norm(dim=-1) - 1).square().mean(),
        "watch/told_apart": ((expert > 0).float().mean() + (policy < 0).float().mean()).detach() / 2,
    }


class Demonstrations:
    """Pairs of the demonstrator, as a discriminator takes them. After an end the policy is seen `stays` times where all is
    over, and so is the demonstrator; where only one step in `every` was kept, `ends` says how often there was one."""

    def __init__(self, data: Episodes, policy: Driver, spec: Spec, stays: int = 1, every: int = 1, ends: int = 0):
        self.data, self.keys = data, [key for key in spec.observations if key != OVER]
        frames = np.arange(len(data)).repeat(every if ends else 1)
        action = transforms.apply(policy.transforms, {ACTION: np.asarray(data.values(ACTION))})[ACTION]
        self.action, self.over = torch.from_numpy(np.ascontiguousarray(action)), None
        if OVER in spec.observations:
            steps, count = len(frames), ends if every > 1 else int(np.asarray(data.values(TERMINATED)).sum())
            frames = np.concatenate([frames, np.zeros(count * stays, frames.dtype)])  # whichever: nothing is seen of it
            self.over = torch.arange(len(frames)) >= steps
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def batch(self, size: int, *, at: int, seed: int) -> tuple[Sample, Tensor]:
        rows = drawn(len(self), size, at=at, seed=seed)
        windows = self.data.windows(self.frames[rows])
        seen = {key: torch.from_numpy(np.ascontiguousarray(windows[key])) for key in self.keys}
        if self.over is not None:
            over = self.over[rows]
            seen = {key: value * ~over.view(-1, *[1] * (value.dim() - 1)) for key, value in seen.items()}
            seen[OVER] = over.float().view(-1, 1, 1)
        return seen, self.action[self.frames[rows]]


class Hidden(Worlds):
    """Worlds whose reward nobody sees but the log; a judge's may stand in its place."""

    judge: Any = None  # (what was seen, what was done) -> reward [N]
    seen: Sample

    def rebuild(self, *seed: int) -> Sample:
        self.seen = super().rebuild(*seed)
        return self.seen

    def step(self, actions: np.ndarray) -> Step:
        before = self.seen
        went = super().step(actions)
        self.seen = went.observation
        reward = self.judge(before, actions) if self.judge else np.zeros(self.count, np.float32)
        return went._replace(reward=reward)


class Contest:
    """The demonstrations, the policy and the discriminator between them."""

    def __init__(self, config: Config, policy: Driver, demonstrations: Demonstrations, random: Randomness):
        if demonstrations.over is not None and OVER not in policy.keys:
            raise BadConfig(
                f"BadConfig: {config.policy} does not see where all is over, and nor would its judge; start from a run in "
                f"{config.env}, or anew"
            )
        self.config, self.policy, self.demonstrations, self.random = config, policy, demonstrations, random
        network = replace(config.network, normalise=True, dropout=0.0, memory="none")
        head = "categorical" if policy.spec.discrete else "deterministic"
        self.judge = Discriminator(build_policy(policy.spec, network, head), config.judge_hidden)
        self.row = Flat([p for p in self.judge.parameters() if p.requires_grad])
        self.optimizer = Adam(self.row, config.judge_lr)

    def parts(self) -> dict[str, Any]:
        return {"judge": self.judge, "judge_optimizer": self.optimizer}

    def improve(self, seen: Sample, action: Tensor, at: int) -> dict[str, Tensor]:
        """One step of the discriminator on pairs of the policy, [B, 1, ...] and [B, ...]; `at` counts these steps."""
        shown, done = self.demonstrations.batch(len(action), at=at, seed=self.config.seed)
        for side in (shown, seen):
            self.judge.eyes.observe(side)
        theirs, ours = self.judge.pair(shown, done), self.judge.pair(seen, action)
        parts = losses(self.judge, theirs, ours, self.config, self.random.torch)
        self.row.backward(parts["loss/judge"] + parts["loss/penalty"])
        self.optimizer.step()
        return {key: value.detach() for key, value in parts.items()}

    def reward(self, seen: Sample, action: Tensor) -> Tensor:
        return self.judge.reward(seen, action, self.config.reward)

    def unlike(self, at: int) -> Tensor:
        """How far the policy is from what the demonstrator did, where something was to be done."""
        shown, done = self.demonstrations.batch(self.config.judge_batch, at=at, seed=self.config.seed + 1)
        features, _ = self.policy.features(shown, {}, torch.zeros(len(done), 1, dtype=torch.bool))
        chances = self.policy.head(features[:, 0])
        apart = -chances.log_prob(done) if self.policy.spec.discrete else (chances.mode() - done).square().sum(-1)
        meant = 1 - shown[OVER].view(-1) if OVER in shown else torch.ones_like(apart)
        return (apart * meant).sum() / meant.sum().clamp(min=1)


class Cloning:
    """A step towards the demonstrations after each of the discriminator's, where `clone` asks for it. (Jena et al. 2020
    add up both losses; an Adam of its own needs no common scale.)"""

    def __init__(self, contest: Contest, row: Flat, lr: float):
        self.contest, self.row = contest, row
        self.optimizer = Adam(row, contest.config.clone * lr)

    def parts(self) -> dict[str, Any]:
        return {"clone_optimizer": self.optimizer} if self.contest.config.clone else {}

    def step(self, at: int) -> dict[str, Tensor]:
        if not self.contest.config.clone:
            return {}
        loss = self.contest.unlike(at)
        self.row.backward(loss)
        self.optimizer.step()
        return {"loss/clone": loss.detach()}


def shown(config: Config, data: Episodes, policy: Driver, worlds: Worlds) -> Demonstrations:
    stays = int(split_name(config.env)[1].get("absorb", 1))  # steps that an episode goes on after an end
    every, ends = thinned(config.dataset) if OVER in worlds.sample_spec.observations else (1, 0)
    return Demonstrations(data, policy, worlds.sample_spec, stays, every, ends)


def given(config: Config) -> Episodes:
    """The demonstrations, of a world in which imitation by a reward means something."""
    for name, value, known in (("generator", config.generator, GENERATORS), ("reward", config.reward, REWARDS)):
        if value not in known:
            raise UnknownName(name, value, known)
    if config.network.memory != "none":
        raise BadConfig("BadConfig: gail's policy has no memory; leave --network.memory out, or use stack=4 in the env")
    if config.clone < 0:
        raise BadConfig(f"BadConfig: --clone must be 0 or more, got {config.clone}; 0 does not clone beside")
    undropped(config.network, "gail", "its judge would see other networks than act")
    if config.generator == "sac" and spec_of(config.env).discrete:
        raise BadConfig(f"BadConfig: sac acts by numbers, and {config.env} has choices; add --generator ppo")
    name, options = split_name(config.env)
    plain = with_options(name, **{key: value for key, value in options.items() if key != "absorb"} | {"stack": 1})
    if (stack := stack_of(config.env)) > 1:
        refuse_thinned(config.dataset)  # of whose steps those joined do not follow one another
    data = open_dataset(config.dataset, spec_of(plain)).stack(stack)
    data.require(TERMINATED)
    if "absorb" not in options and not config.ends_too:
        trials = rollout(RandomActor(spec_of(plain)), plain, range(TRIALS))
        who = "the demonstrator" if np.asarray(data.values(TERMINATED)).any() else "who acts at random"
        if who == "the demonstrator" or any(trial.terminated for trial in trials):
            raise BadConfig(
                f"BadConfig: in {config.env} episodes end by themselves, as of {who}, and then the sign of the reward teaches "
                "more than the demonstrations; add absorb=5 to --env, or say --ends-too"
            )
    return data


def train(config: Config, run: Run) -> Driver:
    data = given(config)
    random = Randomness(config.seed)
    worlds = Hidden(config.env, config.worlds)
    learn = by_sac if config.generator == "sac" else by_ppo
    policy = learn(config, run, worlds, data, random)
    worlds.close()
    return finished(policy, run)


def by_sac(config: Config, run: Run, worlds: Hidden, data: Episodes, random: Randomness) -> Driver:
    """Off-policy: what is remembered is judged anew whenever it is learned from."""
    settings = sac.Config(env=config.env, policy=config.policy, steps=config.steps, worlds=config.worlds, gamma=config.gamma,
                          network=config.network, seed=config.seed, **asdict(config.sac))  # fmt: skip
    policy = sac.begin(settings, worlds)
    learner = sac.Learner(policy, settings, random)
    contest = Contest(config, policy, shown(config, data, policy, worlds), random)
    replay = Replay(
        worlds.sample_spec,
        settings.capacity,
        config.worlds,
        run.folder / "replay",
        gamma=config.gamma,
        keep=run.keep + 1,
    )
    explorer = sac.Explorer(worlds, replay, settings, random)
    cloning = Cloning(contest, learner.actor_row, settings.actor_lr)
    kept = {**learner.parts(), **contest.parts(), **cloning.parts(), "replay": replay, "random": random}
    for step in run.steps(config.steps, by=config.worlds, **kept):
        if run.fresh:
            explorer.rebuild(policy, step)
        explorer.step(policy, at_random=step < settings.warmup and not config.policy)
        run.log_episodes(step, worlds.finished())
        if step < settings.warmup:
            continue
        learner.anneal(step)
        left = 1 - step / config.steps if settings.anneal else 1.0
        contest.optimizer.lr, cloning.optimizer.lr = config.judge_lr * left, config.clone * settings.actor_lr * left
        at = step // config.worlds
        if at % config.judge_every == 0:
            seen, action = pairs(policy, replay.batch(config.judge_batch, random.numpy))
            turn = at // config.judge_every
            run.log(step, contest.improve(seen, action, turn) | cloning.step(turn))
        for _ in range(settings.updates):
            batch = sac.tensors(replay.batch(settings.batch_size, random.numpy), settings, random)
            batch["reward"] = contest.reward(*pairs(policy, batch)).unsqueeze(1)
            parts = learner.update(batch)
        run.log(
            step, {"loss": parts["loss/critics"] + parts["loss/actor"], **parts, "watch/reward": batch["reward"].mean()}
        )
    return policy


def pairs(policy: Driver, batch: Sample) -> tuple[Sample, Tensor]:
    """What was seen [B, 1, ...] and done there [B, ...], of a batch of remembered windows."""
    seen = {key: torch.as_tensor(batch[key])[:, :1] for key in policy.keys}
    return seen, torch.as_tensor(batch[ACTION])[:, 0]


def by_ppo(config: Config, run: Run, worlds: Hidden, data: Episodes, random: Randomness) -> Driver:
    """On-policy: each step is rewarded as it is taken, and the discriminator learns between rollouts."""
    settings = ppo.Config(env=config.env, policy=config.policy, steps=config.steps, worlds=config.worlds, gamma=config.gamma,
                          network=config.network, seed=config.seed, **asdict(config.ppo))  # fmt: skip
    policy, value = ppo.begin(settings, worlds)
    contest = Contest(config, policy, shown(config, data, policy, worlds), random)
    flat = Flat([*policy.parameters(), *value.parameters()])
    optimizer = Adam(flat, settings.lr, eps=1e-5)
    scale = ppo.RewardScale(config.worlds, config.gamma)
    actor = ppo.Actor(worlds, settings, scale, random)

    def judged(seen: Sample, actions: np.ndarray) -> np.ndarray:
        raw = transforms.apply(policy.transforms, {ACTION: torch.from_numpy(np.asarray(actions))})[ACTION]
        return contest.reward({key: torch.from_numpy(seen[key]).unsqueeze(1) for key in policy.keys}, raw).numpy()

    worlds.judge = judged
    cloning = Cloning(contest, flat, settings.lr)
    kept = {
        "policy": policy,
        "value": value,
        "optimizer": optimizer,
        "scale": scale,
        "random": random,
        **contest.parts(),
        **cloning.parts(),
    }
    times = max(settings.rollout // config.judge_every, 1)
    for step in run.steps(config.steps, by=settings.batch, **kept):
        if run.fresh:
            actor.rebuild(policy, step)
        left = 1 - step / config.steps if settings.anneal else 1.0
        optimizer.lr, cloning.optimizer.lr = settings.lr * left, config.clone * settings.lr * left
        contest.optimizer.lr = config.judge_lr * left
        rolled = actor.rollout(policy, value)
        run.log_episodes(step, worlds.finished())
        seen = {key: x.flatten(0, 1).unsqueeze(1) for key, x in rolled.observation.items()}
        action = rolled.action.flatten(0, 1)
        action = action if policy.spec.discrete else action.clamp(-1, 1)
        for i in range(times):
            at = step // settings.batch * times + i
            rows = torch.from_numpy(drawn(len(action), min(config.judge_batch, len(action)), at=at, seed=config.seed))
            told = contest.improve({key: x[rows] for key, x in seen.items()}, action[rows], at)
        parts = ppo.update(policy, value, flat, optimizer, rolled, settings, settings.clip * left, step, random.torch)
        for i in range(times):  # only now: until then the policy must be the one that acted
            told |= cloning.step(step // settings.batch * times + i)
        run.log(step, {**told, **parts})
        if policy.network.normalise:
            policy.observe({key: x.flatten(0, 1) for key, x in rolled.observation.items()})
    return policy
