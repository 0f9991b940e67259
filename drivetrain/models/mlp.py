"""A multi-layer perceptron whose backward pass is written by hand.

Networks of reinforcement learning are so small that autograd's bookkeeping costs more than their arithmetic: one autograd
node for the whole network instead of one per layer shortens a gradient step. Wherever the hand-written pass does not serve
(dropout, an activation whose slope needs its input, export) plain operations give the same numbers.

A `coarse` one multiplies in bfloat16 between its first and its last layer, where nearly all of the work is; what it is given
and what it says stay exact. That is meant for processors with units for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drivetrain.errors import UnknownName
from drivetrain.models.product import fused, large, product

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "elu": F.elu, "silu": F.silu}
BY_HAND = ("tanh", "relu")  # their slopes can be told from a layer's output, so nothing else need be kept


class MLP(nn.Module):
    """[..., in] -> [..., out]."""

    def __init__(self, sizes: Sequence[int], activation: str = "tanh", *, dropout: float = 0.0):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UnknownName("activation", activation, ACTIVATIONS)
        self.activation, self.dropout, self.coarse = activation, dropout, False
        self.sizes, self.layers = tuple(sizes), len(sizes) - 1
        for i, (ins, outs) in enumerate(pairwise(sizes)):
            self.register_parameter(f"weight{i}", _uniform((outs, ins), ins))
        for i, (ins, outs) in enumerate(pairwise(sizes)):
            self.register_parameter(f"bias{i}", _uniform((outs,), ins))

    @property
    def weights(self) -> tuple[nn.Parameter, ...]:
        return tuple(self._parameters.values())[: self.layers]  # type: ignore[return-value]

    @property
    def biases(self) -> tuple[nn.Parameter, ...]:
        return tuple(self._parameters.values())[self.layers :]  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2:
            return self.forward(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], self.sizes[-1])
        by_hand = self.activation in BY_HAND and not (self.dropout and self.training)
        if not by_hand or torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            return self.plain(x)
        if torch.is_grad_enabled():
            found: Tensor = ByHand.apply(x, self.activation, self.coarse, *self._parameters.values())
            return found
        return forward(x, self.activation, self.coarse, self.weights, self.biases)[0]

    def plain(self, x: Tensor) -> Tensor:
        """The same, for autograd to follow."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            kind = kind_of(i, self.weights, self.coarse)
            x = F.linear(x.to(kind), weight.to(kind), bias.to(kind))
            if i < self.layers - 1:
                x = F.dropout(ACTIVATIONS[self.activation](x), self.dropout, self.training)
        return x

    def orthogonal(self, last_gain: float, gain: float = math.sqrt(2)) -> MLP:
        """Orthogonal weights and zero biases, the last layer with a gain of its own (what PPO wants)."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            nn.init.orthogonal_(weight, last_gain if weight is self.weights[-1] else gain)
            nn.init.zeros_(bias)
        return self


def _uniform(shape: tuple[int, ...], ins: int) -> nn.Parameter:
    bound = 1 / math.sqrt(ins)  # as nn.Linear begins
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def kind_of(i: int, weights: Sequence[Tensor], coarse: bool) -> torch.dtype:
    """The numbers that layer i multiplies."""
    return torch.bfloat16 if coarse and 0 < i < len(weights) - 1 else weights[i].dtype


def forward(
    x: Tensor, activation: str, coarse: bool, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The output, and what each layer was given."""
    given = []
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        kind = kind_of(i, weights, coarse)
        given.append(x.to(kind))
        x = layer(given[-1], weight.to(kind), bias.to(kind), activation if i < len(weights) - 1 else "none")
    return x, given


def layer(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    if large(x, weight):
        return fused(x, weight, bias, activation)
    x = F.linear(x, weight, bias)
    if activation == "tanh" and x.dtype == torch.bfloat16:
        return x.tanh_()  # the other way loses what is near 0
    if activation == "tanh":
        return x.mul_(2).sigmoid_().mul_(2).sub_(1)  # three times as fast as tanh_
    return x.relu_() if activation == "relu" else x


class ByHand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: str, coarse: bool, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        out, given = forward(x, activation, coarse, weights, biases)
        ctx.activation, ctx.coarse = activation, coarse
        ctx.save_for_backward(*weights, *given)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        assert not torch.is_grad_enabled(), "a slope that is to be learned by itself needs MLP.plain"
        saved, wanted = ctx.saved_tensors, ctx.needs_input_grad
        layers = len(saved) // 2
        weights, given = saved[:layers], saved[layers:]
        of_weights: list[Tensor | None] = [None] * layers
        of_biases: list[Tensor | None] = [None] * layers
        for i in range(layers - 1, -1, -1):
            kind = kind_of(i, weights, ctx.coarse)
            gradient, weight = gradient.to(kind), weights[i].to(kind)
            if wanted[3 + i]:
                of_weights[i] = outer(gradient, given[i]).to(weights[i].dtype)
                of_biases[i] = gradient.sum(0, dtype=weights[i].dtype)
            if i == 0 and not wanted[0]:
                return None, None, None, *of_weights, *of_biases
            gradient = gradient * weight if len(weight) == 1 else product(gradient, weight.t())
            if i > 0:
                through(ctx.activation, gradient, given[i])
        return gradient, None, None, *of_weights, *of_biases


def outer(gradient: Tensor, given: Tensor) -> Tensor:
    """gradient^T given, [out, in]; the narrower side goes first, which is several times faster for one of a few columns."""
    if given.shape[1] < gradient.shape[1]:
        return product(given.t(), gradient.t()).t()
    return product(gradient.t(), given.t())


def through(activation: str, gradient: Tensor, output: Tensor) -> None:
    """The gradient before the activation, in the place of the one after it."""
    if activation == "tanh":
        torch.ops.aten.tanh_backward.grad_input(gradient, output, grad_input=gradient)
    else:
        torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)
