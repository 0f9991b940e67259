"""Products of matrices on the CPU, by whichever library is faster.

PyTorch computes float32 products with MKL, which on AMD processors leaves their wider registers alone; oneDNN takes half
the time there and is no slower on Intel's, once a product is large enough to repay its overhead. Where `processor.use` has
made oneDNN torch's own way, that is the shorter one still, for it takes transposed matrices as they lie; where it could not,
products are sent there by hand. `quicken` lets every `nn.Linear` below a module go that way: the same parameters, names and
results to the last bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGE = 1 << 22  # multiplications in a product, from which oneDNN is faster
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def large(x: Tensor, transposed: Tensor) -> bool:
    if ONEDNN is None or x.dtype != torch.float32 or x.device.type != "cpu":
        return False
    return x.numel() * transposed.shape[0] >= LARGE and torch.get_float32_matmul_precision() == "highest"


def product(x: Tensor, transposed: Tensor) -> Tensor:
    """x @ transposed^T, of two matrices."""
    if large(x, transposed):
        return fused(x, transposed, None, "none")
    return x @ transposed.t()


def fused(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """activation(x @ weight^T + bias) in one go; only where `large` says so."""
    assert ONEDNN
    out: Tensor = ONEDNN(x, weight, bias, activation, [], "")
    return out


class Linear(nn.Linear):
    """nn.Linear by the faster way."""

    def forward(self, x: Tensor) -> Tensor:
        if not large(x, self.weight) or torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            return F.linear(x, self.weight, self.bias)
        if torch.is_grad_enabled():
            out: Tensor = Affine.apply(x, self.weight, self.bias)
            return out
        flat = fused(x.reshape(-1, x.shape[-1]), self.weight, self.bias, "none")
        return flat.view(*x.shape[:-1], self.out_features)


class Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(flat, weight)
        return fused(flat, weight, bias, "none").view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[override]
        assert not torch.is_grad_enabled(), "a slope that is to be learned by itself needs nn.Linear"
        (x, weight), wanted, shape = ctx.saved_tensors, ctx.needs_input_grad, gradient.shape
        gradient = gradient.reshape(-1, shape[-1])
        of_x = product(gradient, weight.t()).view(*shape[:-1], weight.shape[1]) if wanted[0] else None
        of_weight = product(gradient.t(), x.t()) if wanted[1] else None
        return of_x, of_weight, gradient.sum(0) if wanted[2] else None


def quicken(module: nn.Module) -> nn.Module:
    """Every plain nn.Linear below becomes ours, in place."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Linear
    return module
