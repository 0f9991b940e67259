"""A recurrent state-space model (Hafner et al. 2019 to 2023): a world that can be dreamed.

    state = rssm.initial(batch)
    seen = rssm.observe(embedded, before, is_first, state, generator)      # along what was recorded, [B, T]
    state = rssm.dream(state, action, generator)                           # one step on, with eyes closed

What is known of the world is a deterministic part, carried by a GRU, and a stochastic part: several one-of-many choices. The
posterior draws these from the deterministic part and what is seen, the prior from the deterministic part alone; learning brings
the two together, and dreaming follows the prior. One part in a hundred of every chance is spread evenly, so that no logarithm
runs away. Draws carry their gradient straight through. Where an episode begins, state and previous action are blank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

EVEN = 0.01  # share of every chance that is spread evenly
BINS, REACH = 255, 20.0  # of a number told by chances; from minus to plus the symexp of this


@dataclass(frozen=True)
class Size:
    """How large a world model is."""

    deterministic: int = 128  # numbers that the GRU carries
    groups: int = 8  # choices that the stochastic part is made of
    classes: int = 8  # what each is one of
    hidden: int = 128  # of every layer between


class State(NamedTuple):
    deterministic: Tensor  # [..., D]
    stochastic: Tensor  # [..., G * C], one of C in each group

    @property
    def features(self) -> Tensor:
        return torch.cat(self, -1)


class Seen(NamedTuple):
    state: State  # [B, T, ...]
    posterior: Tensor  # [B, T, G, C] logarithms of chances
    prior: Tensor


def symlog(x: Tensor) -> Tensor:
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    return x.sign() * x.abs().expm1()


def bins() -> Tensor:
    return symexp(torch.linspace(-REACH, REACH, BINS))


def between(x: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """[...] -> the index of the value above each number, and what share of it that one has; the rest is the value's below."""
    x = x.clamp(values[0], values[-1])
    above = torch.bucketize(x, values, right=True).clamp(1, len(values) - 1)
    low, high = values[above - 1], values[above]
    return above, (x - low) / (high - low)


def two_hot(x: Tensor, values: Tensor) -> Tensor:
    """[...] -> [..., K]: a number as chances of the two values next to it, whose mean it is."""
    above, share = (part.unsqueeze(-1) for part in between(x, values))
    blank = torch.zeros(*x.shape, len(values))
    return blank.scatter(-1, above, share).scatter(-1, above - 1, 1 - share)


class Block(nn.Sequential):
    """A layer, evened out, with a soft threshold."""

    def __init__(self, ins: int, outs: int):
        super().__init__(nn.Linear(ins, outs, bias=False), nn.LayerNorm(outs, eps=1e-3), nn.SiLU())


class Numbers(nn.Module):
    """Features to a number, told by chances of fixed values; at first it says 0 of everything."""

    values: Tensor

    def __init__(self, ins: int, hidden: int):
        super().__init__()
        self.net = nn.Sequential(Block(ins, hidden), nn.Linear(hidden, BINS))
        self.register_buffer("values", bins(), persistent=False)
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """[..., K] logarithms of chances."""
        return F.log_softmax(self.net(features), -1)

    def mean(self, features: Tensor) -> Tensor:
        """[...], what it says on average."""
        return self.of(self.net(features).softmax(-1))

    def of(self, chances: Tensor) -> Tensor:
        """[..., K] chances -> [...], the number that they come to; equal ones on both sides cancel out to exactly 0."""
        middle = BINS // 2
        above: Tensor = chances[..., middle + 1 :] - chances[..., :middle].flip(-1)
        return above @ self.values[middle + 1 :]

    def unlikely(self, logits: Tensor, *wanted: Tensor) -> Tensor:
        """[...], how unlikely these numbers are held: minus the logarithms that their `two_hot`s would weigh, all together."""
        found = [between(x, self.values) for x in wanted]
        places = torch.stack([place for above, _ in found for place in (above, above - 1)], -1)
        shares = torch.stack([part for _, share in found for part in (share, 1 - share)], -1)
        return -(shares * logits.gather(-1, places)).sum(-1)


class RSSM(nn.Module):
    def __init__(self, embedded: int, action: int, size: Size):
        super().__init__()
        self.size = size
        choices = size.groups * size.classes
        self.enter = Block(choices + action, size.hidden)
        self.gates = nn.Linear(size.hidden + size.deterministic, 3 * size.deterministic, bias=False)
        self.even = nn.LayerNorm(3 * size.deterministic, eps=1e-3)
        self.guess = nn.Sequential(Block(size.deterministic, size.hidden), nn.Linear(size.hidden, choices))
        self.look = nn.Sequential(Block(size.deterministic + embedded, size.hidden), nn.Linear(size.hidden, choices))
        self.width = size.deterministic + choices

    def initial(self, batch: int) -> State:
        return State(
            torch.zeros(batch, self.size.deterministic), torch.zeros(batch, self.size.groups * self.size.classes)
        )

    def on(self, state: State, action: Tensor) -> Tensor:
        """The next deterministic part, [B, D]. Actions count by their direction where they are larger than 1."""
        action = action / action.abs().clamp(min=1).detach()
        x = self.enter(torch.cat([state.stochastic, action], -1))
        reset, new, update = self.even(self.gates(torch.cat([x, state.deterministic], -1))).chunk(3, -1)
        update = torch.sigmoid(update - 1)  # it begins by remembering
        return update * torch.tanh(reset.sigmoid() * new) + (1 - update) * state.deterministic

    def chances(self, raw: Tensor) -> Tensor:
        """[..., G * C] -> chances [..., G, C], a little of each spread evenly."""
        chances = raw.unflatten(-1, (self.size.groups, self.size.classes)).softmax(-1)
        return (1 - EVEN) * chances + EVEN / self.size.classes

    def draw(self, chances: Tensor, generator: Generator | None) -> Tensor:
        """[..., G, C] -> [..., G * C], one of each group."""
        upto = chances.detach().cumsum(-1)
        share = torch.rand(*chances.shape[:-1], 1, generator=generator) * upto[..., -1:]
        drawn = torch.zeros_like(upto).scatter_(-1, (upto < share).sum(-1, keepdim=True), 1.0)
        if chances.requires_grad:
            drawn = drawn + chances - chances.detach()
        return drawn.flatten(-2)

    def observe(
        self, embedded: Tensor, before: Tensor, is_first: Tensor, state: State, generator: Generator | None
    ) -> Seen:
        """Along a recording: `embedded` [B, T, E] is what is seen, `before` [B, T, A] what was done the step before."""
        carry = (~is_first).to(embedded.dtype).unsqueeze(-1)  # [B, T, 1]
        before = before * carry
        deterministic, stochastic, posterior = [], [], []
        for seen, done, carried in zip(embedded.unbind(1), before.unbind(1), carry.unbind(1), strict=True):
            state = State(*(part * carried for part in state))
            held = self.on(state, done)
            chances = self.chances(self.look(torch.cat([held, seen], -1)))
            state = State(held, self.draw(chances, generator))
            deterministic.append(held)
            stochastic.append(state.stochastic)
            posterior.append(chances)
        states = State(torch.stack(deterministic, 1), torch.stack(stochastic, 1))
        return Seen(states, torch.stack(posterior, 1).log(), self.chances(self.guess(states.deterministic)).log())

    def dream(self, state: State, action: Tensor, generator: Generator | None) -> State:
        held = self.on(state, action)
        return State(held, self.draw(self.chances(self.guess(held)), generator))


def divergence(one: Tensor, other: Tensor) -> Tensor:
    """Kullback and Leibler's, of the other from the one: [..., G, C] -> [...], summed over groups."""
    return (one.exp() * (one - other)).sum((-2, -1))


def bring_together(seen: Seen, free: float, of_prior: float, of_posterior: float) -> dict[str, Tensor]:
    """What the prior, and a little the posterior, pays for being apart; nothing below `free` nats of all groups together."""
    prior = divergence(seen.posterior.detach(), seen.prior).clamp(min=free).mean()
    posterior = divergence(seen.posterior, seen.prior.detach()).clamp(min=free).mean()
    return {"loss/prior": of_prior * prior, "loss/posterior": of_posterior * posterior}
