"""A policy that looks ahead: it dreams where many plans would lead, and does the first thing of the best.

    planner = Planner(dreamer, Plan(how="cem"))

There are three ways to search, each with `candidates` times `rounds` plans a step. `shooting` draws them all evenly and takes
the best. `cem`, the cross-entropy method, draws each round around what the best plans of the last had in common (Chua et al.
2018); `mppi`, model predictive path integral control, around all of them, weighed by the exponential of what they earn
(Williams et al. 2017). The last two begin at the rest of the plan made a step before. What comes after a plan's last step
counts by what the critic says of where it leads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from drivetrain.errors import BadConfig
from drivetrain.models.rssm import State
from drivetrain.models.world import Dreamer
from drivetrain.sample import Memory, Sample

WAYS = ("cem", "mppi", "shooting")
LEAST = 0.1  # of the spread from which a round draws; for choices, the share that is drawn evenly


@dataclass(frozen=True)
class Plan:
    how: str = ""  # cem, mppi or shooting: search in dreams at every step; empty: do what the policy says
    horizon: int = 15  # steps of a plan
    candidates: int = 128  # plans of a round
    rounds: int = 4
    best: int = 12  # plans of a round that the next is drawn around (cem)
    temperature: float = 0.3  # how little what is earned counts, in its standard deviations (mppi)

    def __post_init__(self) -> None:
        if self.how and self.how not in WAYS:
            raise BadConfig(f"BadConfig: plan.how must be {', '.join(WAYS)} or empty, got {self.how!r}")
        if min(self.horizon, self.candidates, self.rounds) < 1 or self.temperature <= 0:
            raise BadConfig("BadConfig: a plan's horizon, candidates and rounds must be 1 or more, temperature above 0")
        if not 1 <= self.best <= self.candidates:
            raise BadConfig(f"BadConfig: plan.best must be from 1 to {self.candidates}, got {self.best}")


Earn = Callable[[Tensor], Tensor]  # plans [B, N, H, A] -> what each would earn [B, N]


def search(earn: Earn, begin: Tensor, plan: Plan, discrete: bool, generator: Generator | None) -> Tensor:
    """From a plan to begin at to a better one, both [B, H, A]: numbers from -1 to 1, or the chances of choices."""
    if plan.how == "shooting":
        plans = evenly(begin, plan.candidates * plan.rounds, discrete, generator)
        best = earn(plans).argmax(1)
        return plans[torch.arange(len(plans)), best]
    middle, spread = begin, torch.ones_like(begin)
    for _ in range(plan.rounds):
        plans = around(middle, spread, plan.candidates, discrete, generator)
        weights = weigh(earn(plans), plan)[:, :, None, None]
        middle = (weights * plans).sum(1)
        spread = (weights * (plans - middle.unsqueeze(1)).square()).sum(1).sqrt().clamp(min=LEAST)
    return middle


def weigh(earned: Tensor, plan: Plan) -> Tensor:
    """[B, N], adding up to 1: how much each plan of a round counts for the next."""
    if plan.how == "cem":
        best = earned.topk(plan.best, 1).indices
        return torch.zeros_like(earned).scatter_(1, best, 1 / plan.best)
    apart = earned - earned.mean(1, keepdim=True)
    return (apart / apart.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6) / plan.temperature).softmax(1)


def evenly(like: Tensor, count: int, discrete: bool, generator: Generator | None) -> Tensor:
    batch, horizon, width = like.shape
    if not discrete:
        return torch.rand(batch, count, horizon, width, generator=generator) * 2 - 1
    return F.one_hot(torch.randint(width, (batch, count, horizon), generator=generator), width).float()


def around(middle: Tensor, spread: Tensor, count: int, discrete: bool, generator: Generator | None) -> Tensor:
    batch, horizon, width = middle.shape
    if not discrete:
        drawn = torch.empty(batch, count, horizon, width).normal_(generator=generator)
        return (middle.unsqueeze(1) + spread.unsqueeze(1) * drawn).clamp(-1, 1)
    chances = (1 - LEAST) * middle + LEAST / width
    race = torch.empty(batch, count, horizon, width).exponential_(generator=generator)
    return F.one_hot((chances.unsqueeze(1) / race).argmax(-1), width).float()


class Planner:
    """A Policy; its memory is the Dreamer's, and the plan it last made."""

    recurrent = True
    reader = None

    def __init__(self, policy: Any, plan: Plan):
        if not isinstance(policy, Dreamer):
            raise BadConfig("BadConfig: only a policy with a world model can plan (`drivetrain train dreamer`)")
        self.policy, self.world, self.plan, self.spec = policy, policy.world, plan, policy.spec
        shape = (1, plan.horizon, policy.world.action)
        self.blank = torch.full(shape, 1 / policy.world.action) if self.spec.discrete else torch.zeros(shape)

    def initial(self, batch_size: int) -> Memory:
        return {**self.policy.initial(batch_size), "plan": self.blank.repeat(batch_size, 1, 1)}

    @torch.no_grad()
    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: Generator | None
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        """What was planned is done as it is, whether greedy or not."""
        now = self.policy.look_on(observation, memory, generator)
        planned = search(
            lambda plans: self.earn(now, plans, generator), memory["plan"], self.plan, self.spec.discrete, generator
        )
        first = planned[:, 0]
        raw = first.argmax(-1) if self.spec.discrete else first
        later = torch.cat([planned[:, 1:], self.blank[:, :1].expand(len(planned), 1, -1)], 1)
        kept = {**now._asdict(), "done": self.world.done(raw), "plan": later}
        return self.policy.to_world(raw), kept, {"raw": raw, "features": now.features}

    def earn(self, now: State, plans: Tensor, generator: Generator | None) -> Tensor:
        """The rewards of dreams and the worth of where they lead, as far as it is likely that the episode still goes on."""
        count = plans.shape[1]
        state = State(*(part.repeat_interleave(count, 0) for part in now))
        total, counts = torch.zeros(len(state.deterministic)), torch.ones(len(state.deterministic))
        for action in plans.flatten(0, 1).unbind(1):
            state = self.world.rssm.dream(state, action, generator)
            total += counts * self.world.reward.mean(state.features)
            counts = counts * self.policy.gamma * self.world.goes_on(state.features)[..., 0].sigmoid()
        total += counts * self.policy.critic.mean(state.features)
        return total.unflatten(0, (-1, count))
