"""All parameters in one row, so that an optimiser's step is a handful of operations however many layers there are.

    flat = Flat([*policy.parameters(), *value.parameters()])
    optimizer = torch.optim.Adam([flat.row], lr=1e-3, fused=True)
    flat.backward(loss); flat.clip(0.5); optimizer.step()

The modules keep their parameters: each becomes a window into the row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class Flat:
    def __init__(self, parameters: Iterable[Tensor]):
        self.parameters = [p for p in dict.fromkeys(parameters) if p.requires_grad]
        sizes = [p.numel() for p in self.parameters]
        self.row = nn.Parameter(
            torch.cat([p.detach().reshape(-1) for p in self.parameters]) if sizes else torch.zeros(0)
        )
        self.row.grad = torch.zeros_like(self.row)
        for p, value in zip(self.parameters, self.row.data.split(sizes), strict=True):
            p.data = value.view_as(p)

    def backward(self, loss: Tensor) -> None:
        """The gradient of `loss` along the row, in the place of the one before; 0 where the loss does not reach."""
        self.take(torch.autograd.grad(loss, self.parameters, allow_unused=True))

    def take(self, gradients: Sequence[Tensor | None]) -> None:
        if not self.parameters:
            return
        whole = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, gradients, strict=True)]
        torch.cat([g.reshape(-1) for g in whole], out=self.row.grad)

    def clip(self, most: float) -> None:
        """Scale the gradient down to a norm of `most`, where it is longer."""
        assert self.row.grad is not None
        norm = float(self.row.grad.norm())
        if norm > most:
            self.row.grad.mul_(most / norm)
