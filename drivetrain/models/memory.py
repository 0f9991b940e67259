"""How much memory a backbone needs, told from its configuration before anything is loaded.

    drivetrain doctor --backbone llava-hf/llava-1.5-7b-hf --dtype bfloat16 --batch 8
    drivetrain doctor --vision-model google/siglip-base-patch16-224 --llm-model Qwen/Qwen2-1.5B --lora-rank 16

The real classes are built from the real configuration with tensors that have a shape and a type but no memory
(PyTorch's fake tensors), and rehearse a prompt, or a training step, while a ledger keeps count of what is alive. Training
adds AdamW's two numbers for each that learns. Not in the figures: what the allocator wastes, what CUDA takes for itself
(about half a GB), and the data on its way.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from drivetrain.errors import BadConfig
from drivetrain.models.hub import as_dtype, quiet
from drivetrain.models.pair import joined_config, tower_of
from drivetrain.models.published import config_of, empty
from drivetrain.models.vlm import FAMILIES, recompute, remembering, tokens_per_picture, with_lora


@dataclass(frozen=True)
class Plan:
    """What this machine has, and what will run here; with a model named, how much memory that needs, before it is loaded."""

    backbone: str = ""  # a name of `drivetrain list backbones`, a hub id, or a folder
    vision_model: str = ""  # instead of a backbone: a vision tower, and ...
    llm_model: str = ""  # ... a language model, joined by a new projector
    dtype: str = "float32"  # of the weights: float32, bfloat16 or float16
    batch: int = 8  # pictures at once
    text: int = 64  # tokens of text beside each picture
    lora_rank: int = 16  # of the small matrices beside the language model's projections
    json: bool = False  # one JSON object on stdout, and nothing else


@dataclass(frozen=True)
class Need:
    """Bytes."""

    weights: int
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0  # what is alive at the worst moment besides all others
    cache: int = 0  # keys and values of a prompt

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.cache


class Ledger(TorchDispatchMode):
    """Counts the bytes of all tensors born while it is open, until they die or are set apart; weights never count."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.known: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        for tensor in [*model.parameters(), *model.buffers()]:
            self.known[tensor.untyped_storage()] = None
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.note, out)
        return out

    def note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()  # views share it
        if storage not in self.known:
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            self.known[storage] = weakref.finalize(storage, self.forget, storage.nbytes())

    def forget(self, size: int) -> None:
        self.now -= size

    def set_apart(self, tensor: Tensor) -> None:
        counted = self.known.get(tensor.untyped_storage())
        if counted is not None and counted.detach():
            self.forget(tensor.untyped_storage().nbytes())


def needs(plan: Plan) -> dict[str, Any]:
    """Parameters by part, and bytes for each way to use them."""
    for name in ("batch", "text", "lora_rank"):
        if getattr(plan, name) < 1:
            raise BadConfig(f"BadConfig: --{name.replace('_', '-')} must be 1 or more, got {getattr(plan, name)}")
    as_dtype(plan.dtype)
    with quiet():
        config = planned_config(plan)
    ways: dict[str, Callable[[], Need]] = {
        "inference": lambda: prompt(config, plan),
        "lora": lambda: step(config, plan, lora=True),
        "lora_checkpointing": lambda: step(config, plan, lora=True, checkpointing=True),
        "full": lambda: step(config, plan),
        "full_checkpointing": lambda: step(config, plan, checkpointing=True),
    }
    with quiet():
        parts = parameters(empty(config))
        found = {way: measure() for way, measure in ways.items()}
    return {
        "name": plan.backbone or f"{plan.vision_model}+{plan.llm_model}",
        "kind": config.model_type,
        "dtype": plan.dtype,
        "batch": plan.batch,
        "tokens_per_picture": tokens_per_picture(config),
        "text_tokens": plan.text,
        "lora_rank": plan.lora_rank,
        "parameters": {"all": sum(parts.values()), **parts},
        "bytes": {way: asdict(need) | {"total": need.total} for way, need in found.items()},
    }


def planned_config(plan: Plan) -> Any:
    pair = (plan.vision_model, plan.llm_model)
    if bool(plan.backbone) == any(pair) or any(pair) != all(pair):
        raise BadConfig("BadConfig: give --backbone alone, or --vision-model and --llm-model together")
    if not plan.backbone:
        tower, words = (config_of(name) for name in pair)
        return joined_config(tower_of(tower, plan.vision_model), words)
    config = config_of(plan.backbone)
    if config.model_type not in FAMILIES:
        raise BadConfig(
            f"BadConfig: {plan.backbone} is a {config.model_type}; a --backbone is one of {', '.join(FAMILIES)}, "
            "and a tower or a language model is half of a --vision-model and --llm-model pair"
        )
    return config


def parameters(model: nn.Module) -> dict[str, int]:
    """How many each part has; what two share is the first one's."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    parts = FAMILIES[model.config.model_type].parts  # type: ignore[union-attr,index]
    return {
        part: sum(size for name, size in sizes.items() if name.startswith(tuple(f"{path}." for path in paths)))
        for part, paths in parts.items()
    }


def prompt(config: Any, plan: Plan) -> Need:
    """Pictures and a question go in, and the first token of an answer comes out."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import DynamicCache

    model = empty(config).to(as_dtype(plan.dtype)).eval()
    with FakeTensorMode(), torch.no_grad():
        weightless(model)
        cache: Any = DynamicCache(config=config)
        with Ledger(model) as ledger:
            model.get_output_embeddings()(states(model, plan, cache)[:, -1])
        kept = sum(size_of(layer.keys) + size_of(layer.values) for layer in cache.layers)
        return Need(size_of(*model.parameters()), activations=ledger.most - kept, cache=kept)


def step(config: Any, plan: Plan, *, lora: bool = False, checkpointing: bool = False) -> Need:
    """A batch forward and backward, with half of its text to be learned."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    core = empty(config).to(as_dtype(plan.dtype)).train()
    model = with_lora(core, plan.lora_rank) if lora else core
    if checkpointing:
        recompute(core)
    with FakeTensorMode():
        weightless(model)
        learned = size_of(*(p for p in model.parameters() if p.requires_grad))
        return Need(size_of(*model.parameters()), learned, 2 * learned, worst_moment(model, core, plan))


def worst_moment(model: nn.Module, core: Any, plan: Plan) -> int:
    """Bytes alive besides weights and finished gradients, at most, while the gradients are computed."""
    learning = [p for p in model.parameters() if p.requires_grad]
    answers = (plan.text + 1) // 2
    with Ledger(model) as ledger:
        for p in learning:
            p.register_hook(ledger.set_apart)
        logits = core.get_output_embeddings()(states(core, plan)[:, -answers:]).float()
        loss = F.cross_entropy(logits.flatten(0, 1), torch.zeros(plan.batch * answers, dtype=torch.long))
        torch.autograd.grad(loss, learning, allow_unused=True)
    return ledger.most


def weightless(model: Any) -> Any:
    """In a fake mode: a model without memory, as if its weights were there."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, p in [*module.named_parameters(recurse=False)]:
            fake = nn.Parameter(torch.empty(p.shape, dtype=p.dtype), p.requires_grad)
            setattr(module, name, made.setdefault(p, fake))  # what is shared stays shared
        for name, buffer in [*module.named_buffers(recurse=False)]:
            setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype))
    return model


def states(model: Any, plan: Plan, cache: Any = None) -> Tensor:
    """[B, T, D], of the last places."""
    side, dtype = model.config.vision_config.image_size, model.dtype
    ids = torch.zeros(plan.batch, plan.text, dtype=torch.long)
    if model.config.model_type == "git":
        frames = model.config.num_image_with_embedding
        shape = (plan.batch, *([frames] if frames else []), 3, side, side)
        pixels, inner = torch.zeros(shape, dtype=dtype), model.git
        return inner(input_ids=ids, pixel_values=pixels, **remembering(inner, cache)).last_hidden_state
    seen = model.get_image_features(pixel_values=torch.zeros(plan.batch, 3, side, side, dtype=dtype)).pooler_output
    inputs = torch.cat([torch.stack(list(seen)), model.get_input_embeddings()(ids)], 1)
    inner = model.model.language_model
    return inner(inputs_embeds=inputs, **remembering(inner, cache)).last_hidden_state


def size_of(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def fits(found: dict[str, Any], room: int) -> dict[str, bool]:
    return {way: need["total"] <= room for way, need in found["bytes"].items()}


TITLES = {
    "inference": "inference",
    "lora": "LoRA",
    "lora_checkpointing": "  with checkpointing",
    "full": "full training",
    "full_checkpointing": "  with checkpointing",
}
COLUMNS = ("weights", "gradients", "optimizer", "activations", "cache", "total")


def in_words(found: dict[str, Any], device: str, room: int) -> str:
    count = found["parameters"]
    parts = ", ".join(f"{part} {count[part] / 1e6:,.1f}M" for part in count if part != "all")
    lines = [
        f"{found['name']}: {found['kind']}, {count['all']:,} parameters ({parts})",
        f"in {found['dtype']}, {found['batch']} pictures of {found['tokens_per_picture']} tokens at once, each with "
        f"{found['text_tokens']} tokens of text; LoRA of rank {found['lora_rank']}; GB:",
        "",
        f"{'':<22}" + "".join(f"{column:>13}" for column in COLUMNS),
    ]
    for way, does in fits(found, room).items():
        figures = "".join(f"{found['bytes'][way][column] / 1e9:>13.2f}" for column in COLUMNS)
        lines.append(f"{TITLES[way]:<22}{figures}   {'fits' if does else 'does not fit'}")
    return "\n".join([*lines, "", f"this machine: {device}, {room / 1e9:.1f} GB"])
