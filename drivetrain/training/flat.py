"""All parameters in one row, so that an optimiser's step is a handful of operations however many layers there are.

    flat = Flat([policy, value])
    optimizer = torch.optim.Adam([flat.row], lr=1e-3, fused=True)
    flat.clear(); loss.backward(); flat.clip(0.5); optimizer.step()

The modules keep their parameters: each becomes a window into the row, and its gradient a window into the row's gradient.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Flat:
    def __init__(self, parameters: Iterable[Tensor]):
        self.parameters = [p for p in dict.fromkeys(parameters) if p.requires_grad]
        sizes = [p.numel() for p in self.parameters]
        self.row = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in self.parameters]) if sizes else torch.zeros(0))
        self.row.grad = torch.zeros_like(self.row)
        values, slopes = self.row.data.split(sizes), self.row.grad.split(sizes)
        for p, value, slope in zip(self.parameters, values, slopes, strict=True):
            p.data, p.grad = value.view_as(p), slope.view_as(p)

    def clear(self) -> None:
        assert self.row.grad is not None
        self.row.grad.zero_()

    def clip(self, most: float) -> None:
        """Scale the gradient down to a norm of `most`, where it is longer."""
        assert self.row.grad is not None
        norm = float(self.row.grad.norm())
        if norm > most:
            self.row.grad.mul_(most / norm)
