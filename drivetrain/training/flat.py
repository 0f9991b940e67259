"""All parameters in one row, so that an optimiser's step is a handful of operations however many layers there are.

    flat = Flat([*policy.parameters(), *value.parameters()])
    optimizer = Adam(flat, lr=1e-3)
    flat.backward(loss); flat.clip(0.5); optimizer.step()

The modules keep their parameters: each becomes a window into the row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

SMALL = 16  # entries: kernels add up in another order where a row does not begin at a multiple of these


class Flat:
    def __init__(self, parameters: Iterable[Tensor]):
        learning = [p for p in dict.fromkeys(parameters) if p.requires_grad]
        self.parameters = sorted(
            learning, key=lambda p: p.numel() < SMALL
        )  # the small last, or they would shift the others
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


class Adam:
    """Kingma & Ba 2015 on a row, by PyTorch's fused kernel. `torch.optim.Adam` does the same in five times the time: what it
    does around the kernel costs more than the kernel where networks are small."""

    def __init__(self, flat: Flat, lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):
        self.flat, self.lr, self.betas, self.eps = flat, lr, betas, eps
        self.mean, self.square = torch.zeros_like(flat.row.data), torch.zeros_like(flat.row.data)
        self.steps = torch.zeros(())

    @torch.no_grad()
    def step(self) -> None:
        assert self.flat.row.grad is not None
        self.steps += 1
        torch._fused_adam_(
            [self.flat.row],
            [self.flat.row.grad],
            [self.mean],
            [self.square],
            [],
            [self.steps],
            lr=self.lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def forget(self) -> None:
        """Begin anew, as if it had met no gradient yet."""
        for value in (self.mean, self.square, self.steps):
            value.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "square": self.square, "steps": self.steps, "lr": self.lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("mean", "square", "steps"):
            getattr(self, name).copy_(state[name])
        self.lr = state["lr"]
