"""Numbers to features: an MLP, or the numbers as they are; with a running normaliser where asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drivetrain.models.mlp import MLP


class RunningNorm(nn.Module):
    """Mean 0 and deviation 1 by what has been seen so far, kept within +-10."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("count", torch.tensor(1e-4))

    def observe(self, x: Tensor) -> None:
        """Take a batch [..., D] into the statistics (Chan et al.'s parallel formula)."""
        x = x.reshape(-1, x.shape[-1])
        count, mean, variance = len(x), x.mean(0), x.var(0, correction=0)
        total = self.count + count
        shift = mean - self.mean
        spread = self.variance * self.count + variance * count + shift.square() * self.count * count / total
        self.mean += shift * count / total
        self.variance.copy_(spread / total)
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) * (self.variance + 1e-8).rsqrt()).clamp(-10, 10)


class StateEncoder(nn.Module):
    """[..., D] -> [..., width]; without layers the features are the numbers."""

    def __init__(self, size: int, layers: Sequence[int] = (), activation: str = "tanh", normalise: bool = False):
        super().__init__()
        self.norm = RunningNorm(size) if normalise else None
        self.net = nn.Sequential(MLP([size, *layers], activation), nn.LayerNorm(layers[-1])) if layers else None
        self.width = layers[-1] if layers else size

    def observe(self, x: Tensor) -> None:
        if self.norm:
            self.norm.observe(x)

    def forward(self, x: Tensor) -> Tensor:
        if self.norm:
            x = self.norm(x)
        return self.net(x) if self.net else x


class ChoiceEncoder(nn.Module):
    """[...] -> [..., choices]: one feature is 1, the others 0."""

    def __init__(self, choices: int):
        super().__init__()
        self.width = choices

    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(x.long(), self.width).float()
