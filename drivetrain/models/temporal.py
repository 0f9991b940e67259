"""Memory over time: an LSTM or GRU that begins anew wherever an episode does."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from drivetrain.sample import Memory


class Recurrent(nn.Module):
    """[B, T, D] -> [B, T, width], carrying `hidden` (and an LSTM's `cell`), each [B, width]."""

    def __init__(self, kind: str, size: int, width: int):
        super().__init__()
        self.kind, self.width = kind, width
        self.net = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](size, width, batch_first=True)

    def initial(self, batch_size: int) -> Memory:
        names = ("hidden", "cell") if self.kind == "lstm" else ("hidden",)
        return {name: torch.zeros(batch_size, self.width) for name in names}

    def forward(self, x: Tensor, memory: Memory, is_first: Tensor) -> tuple[Tensor, Memory]:
        """Steps between two beginnings run as one sequence."""
        cuts = [0, *(int(t) for t in is_first[:, 1:].any(0).nonzero().flatten() + 1), x.shape[1]]
        outs = []
        for begin, end in pairwise(cuts):
            keep = (~is_first[:, begin]).to(x.dtype).unsqueeze(-1)  # [B, 1]
            memory = {name: value * keep for name, value in memory.items()}
            out, memory = self._run(x[:, begin:end], memory)
            outs.append(out)
        return torch.cat(outs, 1), memory

    def _run(self, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        if self.kind == "lstm":
            out, (hidden, cell) = self.net(x, (memory["hidden"].unsqueeze(0), memory["cell"].unsqueeze(0)))
            return out, {"hidden": hidden[0], "cell": cell[0]}
        out, hidden = self.net(x, memory["hidden"].unsqueeze(0))
        return out, {"hidden": hidden[0]}
