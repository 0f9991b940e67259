"""A world model and the policy that lives in it: encoders, an RSSM, what it tells of a state, and an actor on top.

policy = Dreamer(spec, network, size)
policy.world.look(batch, ...)        what a recording says, for learning
action, memory, _ = policy.act(...)  in the world, its state carried in the memory
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from drivetrain import transforms
from drivetrain.config import from_json
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Driver, Network
from drivetrain.models.heads import Categorical
from drivetrain.models.rssm import RSSM, Block, Numbers, Seen, Size, State, symlog
from drivetrain.sample import Memory, Sample, Spec, is_image
from drivetrain.transforms import Transform

SPREAD = (0.1, 1.0)  # of an actor's deviations
EVEN = 0.01  # share of a choice's chances that is spread evenly


class Bounded:
    """A Gaussian whose mean is squashed; what is drawn beyond the bounds counts as it was drawn, and acts at the bound."""

    def __init__(self, mean: Tensor, std: Tensor):
        self.mean, self.std = mean, std  # [..., A]

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self.mean + torch.empty_like(self.mean).normal_(generator=generator) * self.std

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        return torch.distributions.Normal(self.mean, self.std, validate_args=False).log_prob(action).sum(-1)

    def entropy(self) -> Tensor:
        return torch.distributions.Normal(self.mean, self.std, validate_args=False).entropy().sum(-1)


class Actor(nn.Module):
    """Features of a state to what is done there."""

    def __init__(self, width: int, spec: Spec, hidden: int):
        super().__init__()
        self.choices = spec.action.choices
        outs = self.choices or 2 * spec.action.size
        self.net = nn.Sequential(Block(width, hidden), Block(hidden, hidden), nn.Linear(hidden, outs))
        nn.init.uniform_(self.net[-1].weight, -0.01, 0.01)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Any:
        told = self.net(features)
        if self.choices:
            return Categorical(((1 - EVEN) * told.softmax(-1) + EVEN / self.choices).log())
        mean, spread = told.chunk(2, -1)
        low, high = SPREAD
        return Bounded(mean.tanh(), (high - low) * torch.sigmoid(spread + 2) + low)


class Picture(nn.Module):
    """Features back to a picture [..., H, W, C] between 0 and 1."""

    def __init__(self, width: int, shape: tuple[int, ...], depth: int = 32):
        super().__init__()
        self.shape, self.small = shape, (-(-shape[0] // 16), -(-shape[1] // 16))
        self.start = Block(width, 4 * depth * self.small[0] * self.small[1])
        sizes = (4 * depth, 4 * depth, 2 * depth, depth, shape[-1])
        layers: list[nn.Module] = []
        for i, (ins, outs) in enumerate(pairwise(sizes)):
            layers.append(nn.ConvTranspose2d(ins, outs, 4, stride=2, padding=1))
            layers += [nn.GroupNorm(1, outs), nn.SiLU()] if i < len(sizes) - 2 else []
        self.grow = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        flat = self.start(features).reshape(-1, self.grow[0].in_channels, *self.small)  # type: ignore[arg-type]
        height, width, _ = self.shape
        grown = self.grow(flat)[..., :height, :width].permute(0, 2, 3, 1) + 0.5
        return grown.reshape(*features.shape[:-1], *self.shape)


class World(nn.Module):
    """What can be learned of a world from recordings, and dreamed from then on."""

    def __init__(self, spec: Spec, encoders: Mapping[str, Any], size: Size):
        super().__init__()
        self.spec = spec
        self.keys = list(encoders)
        self.encoders = nn.ModuleList(encoders[key] for key in self.keys)
        embedded = sum(encoder.width for encoder in encoders.values())
        self.action = spec.action.choices or spec.action.size
        self.rssm = RSSM(embedded, self.action, size)
        width, hidden = self.rssm.width, size.hidden
        self.tell = nn.ModuleList(
            Picture(width, f.shape)
            if is_image(key)
            else nn.Sequential(Block(width, hidden), nn.Linear(hidden, f.choices or f.size))
            for key, f in ((key, spec.observations[key]) for key in self.keys)
        )
        self.choices = {key for key in self.keys if spec.observations[key].choices}
        self.reward = Numbers(width, hidden)
        self.goes_on = nn.Sequential(Block(width, hidden), nn.Linear(hidden, 1))

    def embed(self, seen: Sample) -> Tensor:
        """[B, T, E]; numbers by their symlog, so that no range is too large."""
        parts = [
            encoder(seen[key] if is_image(key) or key in self.choices else symlog(seen[key]))
            for key, encoder in zip(self.keys, self.encoders, strict=True)
        ]
        return torch.cat(parts, -1)

    def done(self, action: Tensor) -> Tensor:
        """An action as the model takes it: numbers within bounds, or a choice as one of many."""
        return F.one_hot(action, self.action).float() if self.spec.discrete else action.clamp(-1, 1)

    def look(self, seen: Sample, before: Tensor, is_first: Tensor, generator: Generator | None) -> Seen:
        """Along recordings [B, T, ...]; `before` [B, T, A] was done the step before."""
        state = self.rssm.initial(len(is_first))
        return self.rssm.observe(self.embed(seen), before, is_first, state, generator)

    def told(self, features: Tensor) -> dict[str, Tensor]:
        """What it would look like, by the model: numbers by their symlog, pictures between 0 and 1, of choices how likely each
        is against the others (logits)."""
        return {key: tell(features) for key, tell in zip(self.keys, self.tell, strict=True)}

    def unlike(self, features: Tensor, seen: Sample) -> Tensor:
        """[B, T], how far what it tells is from what was seen."""
        total: Any = 0
        for key, told in self.told(features).items():
            if key in self.choices:
                total = total + F.cross_entropy(told.flatten(0, 1), seen[key].long().flatten(), reduction="none").view(
                    told.shape[:2]
                )
                continue
            wanted = seen[key].float() / 255 if is_image(key) else symlog(seen[key])
            total = total + (told - wanted).square().flatten(2).sum(-1)
        return total


class Dreamer(nn.Module):
    """A Policy; its memory is the state of its world and what it last did."""

    recurrent = True
    reader = None

    def __init__(
        self, spec: Spec, network: Network, size: Size, changes: Sequence[Transform] = (), gamma: float = 0.997
    ):
        super().__init__()
        if network.memory != "none" or network.backbone:
            raise BadConfig(
                "BadConfig: a world model has encoders and a memory of its own; leave memory and backbone out"
            )
        if network.normalise or network.dropout or network.hidden != Network().hidden:
            raise BadConfig(
                "BadConfig: a world model takes numbers by their symlog and has heads by --size.hidden; leave "
                "network.normalise, network.dropout and network.hidden out"
            )
        self.spec, self.network, self.size, self.transforms = spec, network, size, tuple(changes)
        self.gamma = gamma  # how much the next step counts in what the critic says
        self.keys = list(spec.observations)
        parts = Driver(spec, network, "categorical" if spec.discrete else "deterministic")  # for its encoders
        encoders = dict(zip(parts.encoded, parts.encoders, strict=True))
        self.world = World(spec, encoders, size)
        self.actor = Actor(self.world.rssm.width, spec, size.hidden)
        self.critic = Numbers(self.world.rssm.width, size.hidden)  # what a state is worth to the actor

    def initial(self, batch_size: int) -> Memory:
        state = self.world.rssm.initial(batch_size)
        return {**state._asdict(), "done": torch.zeros(batch_size, self.world.action)}

    def features(self, sequence: Sample, memory: Memory, is_first: Tensor) -> tuple[Tensor, Memory]:
        raise BadConfig("BadConfig: a policy in a world model learns by dreaming; use `drivetrain train dreamer`")

    def look_on(self, observation: Sample, memory: Memory, generator: Generator | None) -> State:
        """The state of the world after one more look."""
        seen = {key: torch.from_numpy(np.asarray(observation[key])).unsqueeze(1) for key in self.keys}
        state = State(memory["deterministic"], memory["stochastic"])
        not_first = torch.zeros(len(state.deterministic), 1, dtype=torch.bool)
        found = self.world.rssm.observe(
            self.world.embed(seen), memory["done"].unsqueeze(1), not_first, state, generator
        )
        return State(*(part[:, 0] for part in found.state))

    @torch.no_grad()
    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: Generator | None
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        now = self.look_on(observation, memory, generator)
        chances = self.actor(now.features)
        raw = chances.mode() if greedy else chances.sample(generator)
        kept = {**now._asdict(), "done": self.world.done(raw)}
        return self.to_world(raw), kept, {"raw": raw, "chances": chances, "features": now.features}

    def to_world(self, raw: Tensor) -> np.ndarray:
        found: Tensor = transforms.undo(self.transforms, {"action": raw})["action"] if self.transforms else raw
        return found.numpy()

    def observe(self, observation: Sample) -> None:
        """Nothing to be counted along the way."""

    def describe(self) -> dict[str, Any]:
        return {
            "build": "drivetrain.models.world:Dreamer",
            "spec": self.spec.to_json(),
            "network": asdict(self.network),
            "size": asdict(self.size),
            "transforms": transforms.to_json(self.transforms),
            "gamma": self.gamma,
        }

    @classmethod
    def from_description(cls, said: Mapping[str, Any]) -> Dreamer:
        network, size = from_json(Network, said["network"]), from_json(Size, said["size"])
        changes = transforms.from_json(said["transforms"])
        return cls(Spec.from_json(said["spec"]), network, size, changes, said["gamma"])

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Dreamer:
        policy = cls.from_description(state)
        policy.load_state_dict(state["weights"])
        return policy.eval()
