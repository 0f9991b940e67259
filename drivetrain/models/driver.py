"""The policy most runs use: encoders -> memory -> head, assembled from a Spec.

Every part is chosen by name in `Network`; every algorithm takes the result through `act` and `features`. With a `backbone`
a vision-language model sees the pictures and reads the instruction (`reader.py`); without, each picture has an encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from drivetrain import catalog, transforms
from drivetrain.config import from_json
from drivetrain.errors import BadConfig, MissingExtra, UnknownName
from drivetrain.models.heads import DISCRETE, HEADS
from drivetrain.models.temporal import Recurrent
from drivetrain.sample import ACTION, INSTRUCTION, Feature, Memory, Sample, Spec, is_image
from drivetrain.transforms import Transform


@dataclass(frozen=True)
class Network:
    """What a policy is made of."""

    backbone: str = ""  # a vision-language model for eyes: of `drivetrain list backbones`, a folder or a hub id
    prompt: str = ""  # what it reads, after the order where the world gives orders; empty is the world's own task
    look: str = "flat"  # what is taken from it: flat (each token of the picture), pooled (their mean), or last
    look_width: int = 32  # features of each token of the picture, where flat
    tune: str = "full"  # what learns of it: full, lora or frozen
    lora_rank: int = 8
    bundle: bool = False  # keep a foreign backbone's frozen weights in the checkpoints too
    camera: str = "cnn"  # the encoder of pictures without a backbone: cnn or vit
    camera_width: int = 256  # features per camera
    camera_channels: tuple[int, int, int] = (32, 64, 64)  # of the cnn's three layers
    state_layers: tuple[int, ...] = ()  # layers of the state's encoder; empty hands the numbers on as they are
    normalise: bool = False  # keep running mean and deviation of the state, and normalise by them
    memory: str = "none"  # none, lstm or gru
    memory_width: int = 128  # features of the memory
    hidden: tuple[int, ...] = (64, 64)  # hidden layers of every head
    activation: str = "tanh"  # of heads and state encoder: tanh, relu, elu or silu
    dropout: float = 0.0  # in the action head


class Driver(nn.Module):
    """A Policy; see `sample.py` for the agreement."""

    def __init__(self, spec: Spec, network: Network, head: str, changes: Sequence[Transform] = (), reader: Any = None):
        super().__init__()
        _check(spec, network, head)
        self.spec, self.network, self.head_name, self.transforms = spec, network, head, tuple(changes)
        self.keys = list(spec.observations)
        self.reader = reader  # a models.reader.Reader of all pictures and the instruction
        self.read = [key for key in self.keys if reader is not None and (is_image(key) or key == INSTRUCTION)]
        self.encoded = [key for key in self.keys if key not in self.read]
        encoders = [_encoder(key, spec.observations[key], network) for key in self.encoded]
        self.encoders = nn.ModuleList(encoders)
        width = sum(encoder.width for encoder in encoders) + (reader.width if reader is not None else 0)
        self.memory = Recurrent(network.memory, width, network.memory_width) if network.memory != "none" else None
        self.width = network.memory_width if self.memory else width
        outputs = spec.action.choices or spec.action.size
        self.head = HEADS[head](self.width, outputs, network.hidden, network.activation, network.dropout)

    @property
    def recurrent(self) -> bool:
        return self.memory is not None

    def initial(self, batch_size: int) -> Memory:
        return self.memory.initial(batch_size) if self.memory else {}

    def features(self, sequence: Sample, memory: Memory, is_first: Tensor) -> tuple[Tensor, Memory]:
        seen, memory, _ = self.features_and_words(sequence, memory, is_first, None)
        return seen, memory

    def features_and_words(
        self, sequence: Sample, memory: Memory, is_first: Tensor, said: Tensor | None
    ) -> tuple[Tensor, Memory, Tensor | None]:
        """The same, and the backbone's loss on sentences number `said` [B, T] after its prompt."""
        seen = transforms.apply(self.transforms, sequence)
        parts = [encoder(seen[key]) for key, encoder in zip(self.encoded, self.encoders, strict=True)]  # [B, T, d] each
        unsaid = None
        if self.reader is not None:
            pictures, texts = self.looked_at(seen)
            flat, unsaid = self.reader.read(pictures, texts, None if said is None else said.flatten())
            parts.append(flat.view(*is_first.shape, -1))
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        if not self.memory:
            return joined, memory, unsaid
        return *self.memory(joined, memory, is_first), unsaid

    def looked_at(self, seen: Sample) -> tuple[Tensor, Tensor]:
        """For the reader: all pictures [N, H, W, C] end to end, and the number of each one's prompt [N]."""
        pictures = [torch.as_tensor(seen[key]) for key in self.read if is_image(key)]
        joined = pictures[0] if len(pictures) == 1 else torch.cat(pictures, -1)
        flat = joined.reshape(-1, *joined.shape[-3:])
        if INSTRUCTION in self.read:
            return flat, torch.as_tensor(seen[INSTRUCTION]).flatten()
        return flat, torch.zeros(len(flat), dtype=torch.long)

    @torch.no_grad()
    def act(
        self, observation: Sample, memory: Memory, *, greedy: bool, generator: Generator | None
    ) -> tuple[np.ndarray, Memory, dict[str, Any]]:
        """`info` holds `raw` (the action as drawn, before clipping and units), `chances` (where from) and `features` [B, D]."""
        sequence = {key: torch.from_numpy(np.asarray(observation[key])).unsqueeze(1) for key in self.keys}
        not_first = torch.zeros(len(sequence[self.keys[0]]), 1, dtype=torch.bool)
        seen, memory = self.features(sequence, memory, not_first)
        chances = self.head(seen[:, 0])
        raw = chances.mode() if greedy else chances.sample(generator)
        return self.to_world(raw), memory, {"raw": raw, "chances": chances, "features": seen[:, 0]}

    def to_world(self, raw: Tensor) -> np.ndarray:
        """An action as heads give it, in the world's units and bounds."""
        found: Tensor = transforms.undo(self.transforms, {ACTION: raw})[ACTION] if self.transforms else raw
        return found.numpy()

    def observe(self, observation: Sample) -> None:
        """Take a batch of observations into the running normalisers, where there are any."""
        encoder: Any
        for key, encoder in zip(self.encoded, self.encoders, strict=True):
            if self.network.normalise and hasattr(encoder, "observe"):
                encoder.observe(torch.as_tensor(observation[key]))

    def describe(self) -> dict[str, Any]:
        return {
            "build": "drivetrain.models.driver:Driver",
            "spec": self.spec.to_json(),
            "network": asdict(self.network),
            "head": self.head_name,
            "transforms": transforms.to_json(self.transforms),
            **({"reader": self.reader.describe()} if self.reader is not None else {}),
        }

    def save_apart(self, folder: Path) -> None:
        """The head; and the backbone in the hub's layout, or of a LoRA model its adapter, as peft opens it."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.reader is not None:
            self.reader.vlm.save(folder)
        mine = {k: v.contiguous() for k, v in self.state_dict().items() if not k.startswith("reader.vlm.")}
        save_file(mine, str(folder / "head.safetensors"))
        about = {key: value for key, value in self.describe().items() if key != "reader"}
        (folder / "head.json").write_text(json.dumps(about, indent=1) + "\n")

    @classmethod
    def from_description(cls, said: Mapping[str, Any]) -> Driver:
        """The same networks with new weights."""
        network, reader = from_json(Network, said["network"]), None
        if "reader" in said:
            from drivetrain.models.reader import described

            reader = described(said["reader"], sight_of(network))
        return cls.described(
            said, Spec.from_json(said["spec"]), network, transforms.from_json(said["transforms"]), reader
        )

    @classmethod
    def described(cls, said: Mapping[str, Any], spec: Spec, network: Network, changes: Any, reader: Any) -> Driver:
        return cls(spec, network, said["head"], changes, reader)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Driver:
        driver = cls.from_description(state)
        driver.load_state_dict(state["weights"])
        return driver.eval()


def _check(spec: Spec, network: Network, head: str) -> None:
    if head not in HEADS:
        raise UnknownName("head", head, HEADS)
    if spec.discrete != (head in DISCRETE):
        fits = DISCRETE if spec.discrete else sorted(set(HEADS) - set(DISCRETE))
        kind = "choices" if spec.discrete else "numbers"
        raise BadConfig(f"BadConfig: the head {head!r} does not fit actions that are {kind}; use {' or '.join(fits)}")
    if network.memory not in ("none", "lstm", "gru"):
        raise UnknownName("memory", network.memory, ("none", "lstm", "gru"))
    if not network.backbone:
        plain = Network()
        for name in ("prompt", "look", "look_width", "tune", "lora_rank", "bundle"):
            if getattr(network, name) != getattr(plain, name):
                flag = name.replace("_", "-")
                raise BadConfig(f"BadConfig: --network.{flag} is about a backbone, and there is none; add --backbone")
    if not spec.observations:
        raise BadConfig("BadConfig: there is nothing to see: the spec has no observation.* feature")


def sight_of(network: Network) -> Any:
    from drivetrain.models.reader import Sight

    return Sight(network.look, network.look_width, network.tune, network.lora_rank, network.bundle)


def reader_for(spec: Spec, network: Network, sentences: Sequence[str]) -> Any:
    """The backbone, to look at all pictures of the spec."""
    pictures = {key: feature for key, feature in spec.observations.items() if is_image(key)}
    sizes = {feature.shape[:2] for feature in pictures.values()}
    if len(sizes) != 1 or any(feature.shape[-1] % 3 for feature in pictures.values()):
        got = ", ".join(f"{key} {list(f.shape)}" for key, f in pictures.items()) or "none"
        raise BadConfig(f"BadConfig: a backbone needs colour pictures of one size, got {got}; use an env with pictures")
    from drivetrain.models.reader import new_reader

    instruction = spec.observations.get(INSTRUCTION)
    orders = [f"{order} {network.prompt}".strip() for order in instruction.names] if instruction else []
    count = sum(feature.shape[-1] for feature in pictures.values()) // 3
    return new_reader(network.backbone, orders or [network.prompt or spec.task], sight_of(network), count, sentences)


def _encoder(key: str, feature: Feature, network: Network) -> Any:
    if feature.choices:
        return catalog.find("encoders", "choice")(feature.choices)
    if not is_image(key):
        return catalog.find("encoders", "mlp")(
            feature.size, network.state_layers, network.activation, network.normalise
        )
    row = catalog.entry("encoders", network.camera)
    if not catalog.present(row):
        raise MissingExtra(row.package, row.extra, f"the encoder {network.camera}")
    more = {"channels": network.camera_channels} if network.camera == "cnn" else {}
    return catalog.find("encoders", network.camera)(feature.shape, network.camera_width, **more)


def build_policy(
    spec: Spec,
    network: Network,
    head: str,
    changes: Sequence[Transform] | None = None,
    sentences: Sequence[str] = (),
) -> Driver:
    """A new policy for that spec; bounded actions are scaled unless told otherwise. `sentences` are what a backbone may
    learn to say."""
    reader = reader_for(spec, network, sentences) if network.backbone else None
    return Driver(spec, network, head, transforms.bounded_action(spec.action) if changes is None else changes, reader)
