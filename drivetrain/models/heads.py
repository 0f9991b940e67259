"""What stands at the end of a network: ways to choose an action, and ways to value one.

An action head turns features [..., D] into a distribution with `sample`, `mode`, `log_prob` and `entropy`. Continuous
actions live in [-1, 1] here; `transforms.py` carries them to the world's units. The Gaussian may leave that range: learners
keep the action as it was drawn with its log-probability, and it is clipped on its way to the world.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drivetrain.models.mlp import MLP

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Distribution(Protocol):
    def sample(self, generator: Generator | None = None) -> Tensor: ...
    def mode(self) -> Tensor: ...
    def log_prob(self, action: Tensor) -> Tensor: ...
    def entropy(self) -> Tensor: ...


class Categorical:
    """A choice among K."""

    def __init__(self, logits: Tensor):
        self.logits = F.log_softmax(logits, -1)  # [..., K]

    def sample(self, generator: Generator | None = None) -> Tensor:
        race = torch.empty_like(self.logits).exponential_(generator=generator)  # the first of K exponential clocks
        return (self.logits - race.log_()).argmax(-1)

    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        if self.logits.dim() == 2:
            return -F.nll_loss(
                self.logits, action, reduction="none"
            )  # the same, at half the price of a gather's gradient
        return self.logits.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self.logits.exp() * self.logits).sum(-1)

    def divergence(self, other: Categorical) -> Tensor:
        """Kullback and Leibler's, of the other from this one."""
        return (self.logits.exp() * (self.logits - other.logits)).sum(-1)

    def numbers(self) -> Tensor:
        """What it takes to make it anew, by `of`."""
        return self.logits

    @staticmethod
    def of(numbers: Tensor) -> Categorical:
        return Categorical(numbers)


class Gaussian:
    """A diagonal Gaussian, unbounded."""

    def __init__(self, mean: Tensor, log_std: Tensor):
        self.mean, self.log_std = mean, log_std  # [..., A]

    def sample(self, generator: Generator | None = None) -> Tensor:
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + noise * self.log_std.exp()

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        scaled = (action - self.mean) * (-self.log_std).exp()
        return (-0.5 * scaled.square() - self.log_std - LOG_SQRT_2PI).sum(-1)

    def entropy(self) -> Tensor:
        return (0.5 + LOG_SQRT_2PI + self.log_std).expand_as(self.mean).sum(-1)

    def divergence(self, other: Gaussian) -> Tensor:
        """Kullback and Leibler's, of the other from this one."""
        apart = (self.mean - other.mean).square() * (-2 * other.log_std).exp()
        wider = (2 * (self.log_std - other.log_std)).exp()
        return (other.log_std - self.log_std + 0.5 * (wider + apart - 1)).sum(-1)

    def numbers(self) -> Tensor:
        """What it takes to make it anew, by `of`."""
        return torch.cat([self.mean, self.log_std.expand_as(self.mean)], -1)

    @staticmethod
    def of(numbers: Tensor) -> Gaussian:
        return Gaussian(*numbers.chunk(2, -1))


class SquashedGaussian:
    """A Gaussian through tanh; its density is corrected for the squashing in the form that does not overflow."""

    def __init__(self, mean: Tensor, log_std: Tensor):
        self.inner = Gaussian(mean, log_std)

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self.inner.sample(generator).tanh()

    def sample_with_log_prob(self, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        free = self.inner.sample(generator)
        return free.tanh(), self.inner.log_prob(free) - log_tanh_slope(free).sum(-1)

    def repeated(self, count: int) -> SquashedGaussian:
        """Each row `count` times in succession, to draw so many actions of it."""
        return SquashedGaussian(*(x.repeat_interleave(count, 0) for x in (self.inner.mean, self.inner.log_std)))

    def mode(self) -> Tensor:
        return self.inner.mean.tanh()

    def log_prob(self, action: Tensor) -> Tensor:
        free = action.clamp(-1 + 1e-6, 1 - 1e-6).atanh()
        return self.inner.log_prob(free) - log_tanh_slope(free).sum(-1)

    def entropy(self) -> Tensor:
        """A one-sample estimate: there is no closed form."""
        return -self.sample_with_log_prob()[1]


def log_tanh_slope(free: Tensor) -> Tensor:
    """log(1 - tanh(x)^2)."""
    return 2 * (math.log(2) - free - F.softplus(-2 * free))


class Beta:
    """A Beta distribution stretched over [-1, 1]: bounded without a squash."""

    def __init__(self, alpha: Tensor, beta: Tensor):
        self.alpha, self.beta = alpha, beta  # [..., A], both above 1

    def sample(self, generator: Generator | None = None) -> Tensor:
        first, second = (torch._standard_gamma(p.contiguous(), generator=generator) for p in (self.alpha, self.beta))
        return (2 * first / (first + second) - 1).clamp(-1 + 1e-6, 1 - 1e-6)

    def mode(self) -> Tensor:
        return 2 * (self.alpha - 1) / (self.alpha + self.beta - 2) - 1

    def log_prob(self, action: Tensor) -> Tensor:
        share = (action.clamp(-1 + 1e-6, 1 - 1e-6) + 1) / 2  # at a bound it is 0 or beyond all numbers
        density = (self.alpha - 1) * share.log() + (self.beta - 1) * (-share).log1p() - self._log_normaliser()
        return (density - math.log(2)).sum(-1)

    def entropy(self) -> Tensor:
        total = self.alpha + self.beta
        parts = self._log_normaliser() - (self.alpha - 1) * self.alpha.digamma() - (self.beta - 1) * self.beta.digamma()
        return (parts + (total - 2) * total.digamma() + math.log(2)).sum(-1)

    def _log_normaliser(self) -> Tensor:
        return self.alpha.lgamma() + self.beta.lgamma() - (self.alpha + self.beta).lgamma()


class Deterministic:
    """One action. Its `log_prob` is the negative squared distance, so that imitation by likelihood is regression."""

    def __init__(self, action: Tensor):
        self.action = action

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self.action

    def mode(self) -> Tensor:
        return self.action

    def log_prob(self, action: Tensor) -> Tensor:
        return -(action - self.action).square().sum(-1)

    def entropy(self) -> Tensor:
        return torch.zeros_like(self.action[..., 0])


class Greedy:
    """The choice of highest value; exploring is the learner's business."""

    def __init__(self, values: Tensor):
        self.values = values  # [..., K]

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self.mode()

    def mode(self) -> Tensor:
        return self.values.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return torch.where(action == self.mode(), 0.0, -math.inf)

    def entropy(self) -> Tensor:
        return torch.zeros_like(self.values[..., 0])


class ActionHead(nn.Module):
    """Hidden layers, then the numbers a distribution is made of."""

    def __init__(self, width: int, outputs: int, hidden: Sequence[int], activation: str, dropout: float):
        super().__init__()
        self.net = MLP([width, *hidden, outputs], activation, dropout=dropout)


class CategoricalHead(ActionHead):
    def forward(self, features: Tensor) -> Categorical:
        return Categorical(self.net(features))


class QHead(ActionHead):
    """The value of each choice."""

    def forward(self, features: Tensor) -> Greedy:
        return Greedy(self.net(features))


class GaussianHead(ActionHead):
    """The mean depends on what is seen, the deviation does not (as PPO has it)."""

    def __init__(self, width: int, outputs: int, hidden: Sequence[int], activation: str, dropout: float):
        super().__init__(width, outputs, hidden, activation, dropout)
        self.log_std = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor) -> Gaussian:
        return Gaussian(self.net(features), self.log_std)


class BoundedHead(ActionHead):
    """A Gaussian whose mean is squashed, and nothing else: the deviation does not depend on what is seen (as IQL has it)."""

    def __init__(self, width: int, outputs: int, hidden: Sequence[int], activation: str, dropout: float):
        super().__init__(width, outputs, hidden, activation, dropout)
        self.log_std = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor) -> Gaussian:
        return Gaussian(self.net(features).tanh(), self.log_std.clamp(-5, 2))


class SquashedHead(ActionHead):
    """Mean and deviation both depend on what is seen (as SAC has it)."""

    def __init__(self, width: int, outputs: int, hidden: Sequence[int], activation: str, dropout: float):
        super().__init__(width, 2 * outputs, hidden, activation, dropout)

    def forward(self, features: Tensor) -> SquashedGaussian:
        mean, log_std = self.net(features).chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(-20, 2))


class BetaHead(ActionHead):
    def __init__(self, width: int, outputs: int, hidden: Sequence[int], activation: str, dropout: float):
        super().__init__(width, 2 * outputs, hidden, activation, dropout)

    def forward(self, features: Tensor) -> Beta:
        alpha, beta = (F.softplus(self.net(features)) + 1).chunk(2, -1)
        return Beta(alpha, beta)


class DeterministicHead(ActionHead):
    def forward(self, features: Tensor) -> Deterministic:
        return Deterministic(self.net(features).tanh())


HEADS: dict[str, type[ActionHead]] = {
    "categorical": CategoricalHead,
    "q": QHead,
    "gaussian": GaussianHead,
    "bounded": BoundedHead,
    "squashed": SquashedHead,
    "beta": BetaHead,
    "deterministic": DeterministicHead,
}
DISCRETE = ("categorical", "q")


class ValueHead(nn.Module):
    """How good it is to be here."""

    def __init__(self, width: int, hidden: Sequence[int] = (64, 64), activation: str = "tanh"):
        super().__init__()
        self.net = MLP([width, *hidden, 1], activation)

    def forward(self, features: Tensor) -> Tensor:
        return self.net(features).squeeze(-1)


class TwinQ(nn.Module):
    """`count` critics of a continuous action, side by side; `coarse` ones as `models/mlp.py` has it."""

    def __init__(
        self, width: int, actions: int, hidden: Sequence[int] = (256, 256), count: int = 2, coarse: bool = False
    ):
        super().__init__()
        nets = [MLP([width + actions, *hidden, 1], "relu") for _ in range(count)]
        for net in nets:
            net.coarse = coarse
        self.nets = nn.ModuleList(nets)

    def forward(self, features: Tensor, action: Tensor, count: int = 0) -> Tensor:
        """[count, B] for features [B, D] and action [B, A]; of all critics where `count` is 0, else of the first."""
        seen = torch.cat([features, action], -1)
        return torch.cat([net(seen) for net in self.nets[: count or None]], -1).t()

    def held(self, features: Tensor, action: Tensor, count: int = 0) -> Tensor:
        """The same with gradient to what they are given, and none to themselves."""
        parameters = list(self.parameters())
        for p in parameters:
            p.requires_grad_(False)
        said = self(features, action, count)
        for p in parameters:
            p.requires_grad_(True)
        return said
