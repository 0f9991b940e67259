"""A Decision Transformer: a policy that reads the return that is still wanted, what it saw and what it did, and acts to get it.

Each step is three tokens, the aim, what is seen, and what was done, and each token looks at those before it alone: so an action
is told from the aims and observations up to its own and the actions before it. The place of a step in its episode is learned as
an embedding. Acting, the policy's memory holds the last `context` steps; what was seen is encoded once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drivetrain import transforms
from drivetrain.config import from_json
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Driver, Network
from drivetrain.models.heads import HEADS
from drivetrain.sample import AIM, Memory, Sample, Spec
from drivetrain.transforms import Transform

FAR = -1e9  # to what may not be looked at


@dataclass(frozen=True)
class Attention:
    """The transformer's size."""

    context: int = 20  # steps it looks back on, with the present one
    width: int = 128
    layers: int = 3
    heads: int = 1
    dropout: float = 0.1


class Block(nn.Module):
    """Attention to what came before, then two layers for each token; each adds to what it was given."""

    def __init__(self, size: Attention):
        super().__init__()
        width = size.width
        self.heads, self.drop = size.heads, size.dropout
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """`x` [B, L, W]; `seen` [B, 1, L, L] adds to the scores, or None where each token sees all before it."""
        count, length, width = x.shape
        parts = self.ask(self.before(x)).view(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        drop = self.drop if self.training else 0.0
        query, key, value = parts
        looked = F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, dropout_p=drop, is_causal=seen is None
        )
        x = x + F.dropout(self.join(looked.transpose(1, 2).reshape(count, length, width)), self.drop, self.training)
        return x + F.dropout(self.narrow(F.gelu(self.widen(self.between(x)))), self.drop, self.training)


class DecisionTransformer(Driver):
    """`features` is not for it: it learns from whole windows, actions and all, by `predict`."""

    def __init__(
        self,
        spec: Spec,
        network: Network,
        head: str,
        changes: Sequence[Transform] = (),
        reader: Any = None,
        *,
        attention: Attention | None = None,
        longest: int = 1000,
    ):
        super().__init__(spec, network, head, changes, reader)
        if AIM not in spec.observations:
            raise BadConfig(
                f"BadConfig: a Decision Transformer needs {AIM}, which {spec.env or 'the spec'} lacks; add aim=RETURN"
            )
        self.attention, self.longest = attention or Attention(), longest
        size = self.attention
        if network.memory != "none":
            raise BadConfig("BadConfig: a Decision Transformer is its own memory; leave --network.memory out")
        if size.width % size.heads:
            raise BadConfig(
                f"BadConfig: --attention.width must be a multiple of its heads, got {size.width} and {size.heads}"
            )
        at = self.encoded.index(AIM)
        aim: Any = self.encoders[at]
        self.sight = self.width - int(aim.width)  # features of what is seen; the aim has a token of its own
        del self.encoded[at], self.encoders[at]
        self.aim_token, self.seen_token = nn.Linear(1, size.width), nn.Linear(self.sight, size.width)
        choices = spec.action.choices
        self.done_token = nn.Embedding(choices, size.width) if choices else nn.Linear(spec.action.size, size.width)
        self.when = nn.Embedding(longest, size.width)
        self.start = nn.LayerNorm(size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.end = nn.LayerNorm(size.width)
        self.width = size.width
        self.head = HEADS[head](
            size.width, choices or spec.action.size, network.hidden, network.activation, network.dropout
        )
        for part in (self.aim_token, self.seen_token, self.done_token, self.when, self.blocks):
            part.apply(_begin)

    @property
    def recurrent(self) -> bool:
        return True

    def initial(self, batch_size: int) -> Memory:
        back = self.attention.context - 1
        return {
            "sight": torch.zeros(batch_size, back, self.sight),
            "aim": torch.zeros(batch_size, back, 1),
            "done": self._nothing_done(batch_size, back),
            "steps": torch.zeros(batch_size, dtype=torch.long),
        }

    def _nothing_done(self, batch_size: int, steps: int) -> Tensor:
        action = self.spec.action
        return (
            torch.zeros(batch_size, steps, dtype=torch.long)
            if action.choices
            else torch.zeros(batch_size, steps, action.size)
        )

    def encode(self, sequence: Sample) -> tuple[Tensor, Tensor]:
        """What is seen [B, T, D] and the aim [B, T, 1], as the tokens take them."""
        seen = transforms.apply(self.transforms, sequence)
        found = [encoder(seen[key]) for key, encoder in zip(self.encoded, self.encoders, strict=True)]
        if self.reader is not None:
            pictures, texts = self.looked_at(seen)
            flat, _ = self.reader.read(pictures, texts, None)
            found.append(flat.view(*seen[AIM].shape[:2], -1))
        return torch.cat(found, -1), seen[AIM]

    def attend(self, sight: Tensor, aim: Tensor, done: Tensor, step: Tensor, known: Tensor | None = None) -> Tensor:
        """What the head takes, [B, T, W]; the last of `done` may be anything. `step` [B, T] counts from an episode's first.
        Steps that are not `known` [B, T] are looked at by none."""
        when = self.when(step.clamp(0, self.longest - 1))
        tokens = torch.stack([self.aim_token(aim), self.seen_token(sight), self.done_token(done)], 2) + when.unsqueeze(
            2
        )
        x = F.dropout(self.start(tokens.flatten(1, 2)), self.attention.dropout, self.training)  # [B, 3 T, W]
        seen = None if known is None else _bias(known.repeat_interleave(3, 1))
        for block in self.blocks:
            x = block(x, seen)
        found: Tensor = self.end(x)[:, 1::3]
        return found

    def features(self, sequence: Sample, memory: Memory, is_first: Tensor) -> tuple[Tensor, Memory]:
        raise BadConfig("BadConfig: a Decision Transformer learns from whole windows; use `drivetrain train dt`")

    @torch.no_grad()
    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: Generator | None
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        sequence = {key: torch.from_numpy(np.asarray(observation[key])).unsqueeze(1) for key in self.keys}
        now, aim_now = self.encode(sequence)
        sight, aim = torch.cat([memory["sight"], now], 1), torch.cat([memory["aim"], aim_now], 1)
        done = torch.cat([memory["done"], self._nothing_done(len(now), 1)], 1)
        step = memory["steps"].unsqueeze(1) - torch.arange(self.attention.context - 1, -1, -1)
        chances = self.head(self.attend(sight, aim, done, step, step >= 0)[:, -1])
        raw = chances.mode() if greedy else chances.sample(generator)
        done[:, -1] = raw
        kept = {"sight": sight[:, 1:], "aim": aim[:, 1:], "done": done[:, 1:], "steps": memory["steps"] + 1}
        return self.to_world(raw), kept, {"raw": raw, "chances": chances}

    def describe(self) -> dict[str, Any]:
        mine = {"attention": asdict(self.attention), "longest": self.longest}
        return {**super().describe(), "build": "drivetrain.models.decision:DecisionTransformer", **mine}

    @classmethod
    def described(cls, said: Mapping[str, Any], spec: Spec, network: Network, changes: Any, reader: Any) -> Driver:
        attention = from_json(Attention, said["attention"])
        return cls(spec, network, said["head"], changes, reader, attention=attention, longest=said["longest"])


def _begin(module: nn.Module) -> None:
    """As GPT's weights begin."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def _bias(known: Tensor) -> Tensor:
    """[B, 1, L, L] for known tokens [B, L]: 0 where one may look, far below where not. All may look at themselves."""
    length = known.shape[1]
    may = torch.ones(length, length, dtype=torch.bool).tril() & known[:, None, None, :]
    return torch.zeros(may.shape).masked_fill(~(may | torch.eye(length, dtype=torch.bool)), FAR)
