"""The one door to every vision-language model, with transformers underneath.

    vlm = load_vlm("tiny-llava")                                         a name of `drivetrain list backbones`
    vlm = load_vlm("microsoft/git-base")                                 a hub id, or a folder in the hub's layout
    vlm = load_vlm(vision_model="google/siglip-base-patch16-224", llm_model="Qwen/Qwen2-1.5B")      a pair, to be aligned

    vlm.generate(pictures, "What should the vehicle do?")                [str]
    vlm.score(pictures, "Which way?", ["left", "right"])                 [B, A] log-probabilities, all answers in one pass
    vlm.number(pictures, "How many degrees?", range(-24, 25))            [B] expected values
    vlm.features(pictures, prompt, layer=-2)                             hidden states: of pictures, of tokens, of the last one

Pictures are uint8 [B, H, W, 3]; a prompt is one text for all or one for each. Two families are known: GIT (pictures go
before the text by themselves) and LLaVA (pictures take the place of `<image>` tokens). Nothing here asks how large a model is.
"""

from __future__ import annotations

import functools
import inspect
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drivetrain.catalog import BACKBONES
from drivetrain.errors import BadConfig, MissingExtra
from drivetrain.models.chat import IGNORED, Caption, Chat, Ids, padded, tokenise
from drivetrain.models.hub import companion, quiet, read_config, weights, where
from drivetrain.models.pixels import Pixels
from drivetrain.models.product import quicken

Batch = dict[str, Tensor]  # input_ids, attention_mask, labels [B, T]; pixel_values [P, 3, H, W]
Pictures = np.ndarray | Tensor | Sequence[np.ndarray]


class Features(NamedTuple):
    """What a layer makes of pictures and prompt."""

    tokens: Tensor  # [B, T, D] of the text (for LLaVA the pictures' places are among them)
    mask: Tensor  # [B, T] where there is text
    pictures: Tensor  # [B, P, D] at the pictures' places
    last: Tensor  # [B, D] of the last token of the prompt, which has seen everything


@dataclass(frozen=True)
class Family:
    """Where a kind of model keeps its parts; paths below the transformers model."""

    name: str
    parts: dict[str, tuple[str, ...]]
    layers: str  # the language model's layers, below which LoRA goes
    attention: tuple[str, ...]  # names of the projections that LoRA takes by default


GIT = Family(
    "git",
    {
        "vision": ("git.image_encoder",),
        "projector": ("git.visual_projection", "git.img_temporal_embedding"),
        "language": ("git.embeddings", "git.encoder"),
        "head": ("output",),
    },
    "git.encoder",
    ("query", "value"),
)
LLAVA = Family(
    "llava",
    {
        "vision": ("model.vision_tower",),
        "projector": ("model.multi_modal_projector",),
        "language": ("model.language_model",),
        "head": ("lm_head",),
    },
    "model.language_model.layers",
    ("q_proj", "v_proj"),
)
FAMILIES = {"git": GIT, "llava": LLAVA}
KINDS = {"git": "GitForCausalLM", "llava": "LlavaForConditionalGeneration"}  # of transformers
PARTS = ("vision", "projector", "language", "head")


class VLM(nn.Module):
    """A transformers model, its tokenizer and its image processor."""

    def __init__(self, model: nn.Module, processor: Any, name: str):
        super().__init__()
        self.model: Any = quicken(model)
        self.processor, self.name = processor, name
        self.family = FAMILIES[model.config.model_type]  # type: ignore[union-attr,index]
        self.tokenizer = processor.tokenizer
        self.pixels = Pixels(processor.image_processor)
        self.per_picture = tokens_per_picture(self.core.config)
        if self.family == GIT:
            self.style: Caption | Chat = Caption(self.tokenizer)
        else:
            self.style = Chat(self.tokenizer, self.core.config.image_token_id, self.per_picture)

    @property
    def core(self) -> Any:
        """The transformers model, out of peft's wrapping where it has one."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def width(self) -> int:
        """Of its features."""
        config = self.core.config
        return int(config.hidden_size if self.family == GIT else config.text_config.hidden_size)

    def part(self, name: str) -> list[nn.Module]:
        """`vision`, `projector`, `language` or `head`."""
        if name not in self.family.parts:
            raise BadConfig(f"BadConfig: a model has the parts {', '.join(self.family.parts)}, got {name!r}")
        found = []
        for path in self.family.parts[name]:
            try:
                found.append(self.core.get_submodule(path))
            except AttributeError:
                continue  # git.img_temporal_embedding is there for models of several frames alone
        return found

    def inputs(
        self, pictures: Pictures | None, prompts: str | Sequence[str], answers: Sequence[str | None] | None = None
    ) -> Batch:
        """One picture and one question each; with answers, something to learn from."""
        count = len(pictures) if pictures is not None else 1 if isinstance(prompts, str) else len(prompts)
        asked = [prompts] * count if isinstance(prompts, str) else list(prompts)
        said = answers if answers is not None else [None] * count
        each = int(pictures is not None)
        rows = [tokenise(self.style, [(q, a or "")], each) for q, a in zip(asked, said, strict=True)]
        return self.collate(rows, None if pictures is None else self.pixels(pictures))

    def collate(self, rows: Sequence[Ids], pixel_values: Tensor | None) -> Batch:
        batch = padded(rows, self.tokenizer.pad_token_id or 0)
        if pixel_values is not None:
            batch["pixel_values"] = pixel_values.to(self.dtype)
        return {key: value.to(self.device) for key, value in batch.items()}

    def forward(self, batch: Batch, *, hidden: bool = False, cache: Any = None, head: bool = True) -> Any:
        """The transformers model's own output; the logits are of the text's places alone."""
        given = {
            key: batch[key] for key in ("input_ids", "attention_mask", "position_ids", "pixel_values") if key in batch
        }
        keep = {} if head else {"logits_to_keep": 1}
        out = self.model(**given, **remembering(self.core, cache), output_hidden_states=hidden, **keep)
        if head and out.logits.shape[1] > batch["input_ids"].shape[1]:
            out.logits = out.logits[:, -batch["input_ids"].shape[1] :]
        return out

    def loss(self, batch: Batch) -> Tensor:
        """The mean negative log-likelihood of the tokens that are answers."""
        return self.losses(batch).sum() / (batch["labels"][:, 1:] != IGNORED).sum()

    def losses(self, batch: Batch) -> Tensor:
        """[N], of every token that is an answer's, row after row; only their places go through the head."""
        labels = batch["labels"][:, 1:]
        taught = labels != IGNORED
        states = self.states(batch)[:, :-1][taught]
        logits = self.core.get_output_embeddings()(states)
        return F.cross_entropy(logits.float(), labels[taught], reduction="none")

    def states(self, batch: Batch, cache: Any = None) -> Tensor:
        """[B, T, D], of the text's places after the last layer and its norm: what the head reads."""
        inner = self.core.git if self.family == GIT else self.core.model
        given = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values") if key in batch}
        found: Tensor = inner(**given, **remembering(inner, cache)).last_hidden_state
        return found[:, -batch["input_ids"].shape[1] :]

    def looked(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """After the last layer and its norm: the pictures' places [B, P, D], and the text's [B, T, D]."""
        inner = self.core.git if self.family == GIT else self.core.model
        given = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values")}
        found: Tensor = inner(**given, use_cache=False).last_hidden_state
        text = found[:, -batch["input_ids"].shape[1] :]
        if self.family == GIT:
            return found[:, : -batch["input_ids"].shape[1]], text
        places = batch["input_ids"] == self.core.config.image_token_id
        return text[places].view(len(text), -1, text.shape[-1]), text

    def features(self, pictures: Pictures, prompts: str | Sequence[str], layer: int = -1) -> Features:
        """Of a layer: -1 is the last, 0 what goes into the first."""
        return self.features_of(self.inputs(pictures, prompts), layer)

    def features_of(self, batch: Batch, layer: int = -1) -> Features:
        states = self.forward(batch, hidden=True, head=False).hidden_states
        if not -len(states) <= layer < len(states):
            raise BadConfig(f"BadConfig: {self.name} has layers {-len(states)} to {len(states) - 1}, got layer {layer}")
        found = states[layer]
        ids, mask = batch["input_ids"], batch["attention_mask"].bool()
        text = found[:, -ids.shape[1] :]
        if self.family == GIT:
            seen = found[:, : -ids.shape[1]]
        else:
            places = ids == self.core.config.image_token_id
            seen = text[places].view(len(ids), -1, text.shape[-1])
        last = text[torch.arange(len(ids), device=ids.device), mask.sum(1) - 1]
        return Features(text, mask, seen, last)

    @torch.no_grad()
    def generate(
        self,
        pictures: Pictures | None,
        prompts: str | Sequence[str],
        *,
        most: int = 32,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> list[str]:
        """Answers of at most so many tokens: the likeliest ones, or drawn where there is a temperature."""
        said = self.generate_ids(self.inputs(pictures, prompts), most, temperature, generator)
        return [str(text).strip() for text in self.tokenizer.batch_decode(said, skip_special_tokens=True)]

    def generate_ids(
        self, batch: Batch, most: int, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> list[list[int]]:
        logits, cache, lengths = self._begin(batch)
        mask, said = self._cached_mask(batch), []
        running = torch.ones(len(lengths), dtype=torch.bool, device=self.device)
        for step in range(most):
            token = drawn(logits, temperature, generator)
            said.append(torch.where(running, token, self.style.end))
            running = running & (token != self.style.end)
            if not running.any() or step == most - 1:
                break
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            logits = self._continue(said[-1][:, None], (lengths + step)[:, None], mask[:, None], cache)[:, -1]
        rows = torch.stack(said, 1).tolist()
        return [row[: row.index(self.style.end)] if self.style.end in row else row for row in rows]

    def _begin(self, batch: Batch) -> tuple[Tensor, Any, Tensor]:
        """Pictures and prompt, once: logits of the first token of an answer [B, V], the cache, and the prompts' lengths."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.core.config)
        lengths = batch["attention_mask"].sum(1)
        last = self.states(batch, cache)[torch.arange(len(lengths), device=self.device), lengths - 1]
        return self.core.get_output_embeddings()(last), cache, lengths

    def _cached_mask(self, batch: Batch) -> Tensor:
        """[B, K], which of the cached places are not padding; GIT's pictures lie before the text."""
        mask = batch["attention_mask"].bool()
        if self.family != GIT or "pixel_values" not in batch:
            return mask
        frames = batch["pixel_values"].shape[1] if batch["pixel_values"].dim() == 5 else 1
        return torch.cat(
            [torch.ones(len(mask), self.per_picture * frames, dtype=torch.bool, device=mask.device), mask], 1
        )

    def _continue(self, ids: Tensor, positions: Tensor, attends: Tensor, cache: Any) -> Tensor:
        """Logits [B, L, V] of tokens that follow a cache; `attends` [B, L, K + L] says what each may look at."""
        smallest = torch.finfo(self.dtype).min
        additive = torch.zeros(attends.shape, dtype=self.dtype, device=ids.device).masked_fill_(~attends, smallest)
        out = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=additive[:, None],
            **remembering(self.core, cache),
        )
        logits: Tensor = out.logits
        return logits

    def score(self, pictures: Pictures | None, prompts: str | Sequence[str], answers: Sequence[str]) -> Tensor:
        """log P(answer and its end | pictures, prompt) [B, A]; all answers go through in one pass, side by side."""
        return self.score_of(self.inputs(pictures, prompts), answers)

    def score_of(self, batch: Batch, answers: Sequence[str]) -> Tensor:
        said = [self.style.answer(answer) for answer in answers]
        first, cache, lengths = self._begin(batch)
        found = F.log_softmax(first.float(), -1)[:, [tokens[0] for tokens in said]]  # [B, A]
        given = [token for tokens in said for token in tokens[:-1]]
        if not given:
            return found
        device, count = self.device, len(lengths)
        owner = torch.tensor([a for a, tokens in enumerate(said) for _ in tokens[:-1]], device=device)
        place = torch.tensor([i for tokens in said for i in range(len(tokens) - 1)], device=device)
        follows = torch.tensor([token for tokens in said for token in tokens[1:]], device=device)
        own = (owner[:, None] == owner) & (place[:, None] >= place)  # [L, L]
        before = self._cached_mask(batch)[:, None].expand(-1, len(given), -1)
        attends = torch.cat([before, own.expand(count, -1, -1)], 2)
        ids = torch.tensor(given, device=device).expand(count, -1)
        logits = self._continue(ids, lengths[:, None] + place, attends, cache).float()
        each = F.log_softmax(logits, -1).gather(-1, follows.expand(count, -1)[..., None]).squeeze(-1)  # [B, L]
        return found.index_add(1, owner, each)

    def number(self, pictures: Pictures | None, prompts: str | Sequence[str], numbers: Sequence[int]) -> Tensor:
        """The expected value [B] over these numbers, by how likely each is as the answer."""
        chances = self.score(pictures, prompts, [str(number) for number in numbers]).softmax(-1)
        return chances @ torch.tensor(list(numbers), dtype=chances.dtype, device=chances.device)

    def train_parts(self, *names: str) -> None:
        """These parts learn, all others are frozen."""
        self.model.requires_grad_(False)
        for name in names:
            for module in self.part(name):
                module.requires_grad_(True)

    def add_lora(
        self,
        rank: int,
        *,
        alpha: float = 0.0,
        targets: Sequence[str] = (),
        dropout: float = 0.0,
        whole: Sequence[str] = (),
    ) -> None:
        """Small trainable matrices beside the language model's projections of these names. The parts named by `whole` are
        trained whole, and saved with the adapter; all else stays as it is."""
        self.merge()
        kept = [path for part in whole for path in self.family.parts[part]]
        core = self.core
        folder = Path(where(self.name))
        core.name_or_path = self.name  # where the adapter will say that it belongs
        if folder.is_dir() and self.name not in BACKBONES:
            core.name_or_path = str(folder.resolve())
        self.model = with_lora(core, rank, alpha=alpha, targets=targets, dropout=dropout, kept=kept)

    def merge(self) -> bool:
        """Take an adapter's matrices into the weights beside them; whether there was one."""
        if not hasattr(self.model, "merge_and_unload"):
            return False
        self.model = quicken(self.model.merge_and_unload())
        return True

    @torch.no_grad()
    def take(self, other: VLM) -> None:
        """The other's weights, wherever LoRA has not put matrices beside them; its own begin at nothing."""
        theirs = dict(other.core.named_parameters())
        for name, p in self.core.named_parameters():
            if (plain := name.replace(".base_layer", "")) in theirs:
                p.copy_(theirs[plain])

    def spare_memory(self) -> None:
        """From now on layers compute their activations anew in the backward pass: less memory, a third more time."""
        recompute(self.core)

    def save(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """In the hub's layout: model, tokenizer and processor; of a LoRA model its adapter alone. `weights` are given where
        the model itself has but a share of them."""
        adapter = hasattr(self.model, "get_base_model")
        more = {"save_embedding_layers": False} if adapter else {}  # or peft asks the hub whether the vocabulary grew
        with quiet():
            self.model.save_pretrained(folder, state_dict=weights, **more)
            self.processor.save_pretrained(folder)


def with_lora(
    model: Any,
    rank: int,
    *,
    alpha: float = 0.0,
    targets: Sequence[str] = (),
    dropout: float = 0.0,
    kept: Sequence[str] = (),
) -> nn.Module:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtra("peft", "vlm", "LoRA") from None
    family = FAMILIES[model.config.model_type]
    names = tuple(targets) or family.attention
    below = family.layers.replace(".", r"\.")
    pattern = rf"{below}.*\.({'|'.join(names)})"
    scale: Any = alpha or 2 * rank  # peft's type is int, and it takes any number
    config = LoraConfig(
        r=rank, lora_alpha=scale, target_modules=pattern, lora_dropout=dropout, modules_to_save=list(kept) or None
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # peft asks by the old name
            return get_peft_model(model, config)
    except ValueError as error:
        raise BadConfig(
            f"BadConfig: LoRA found no {' or '.join(names)} in {family.layers}; "
            f"there are {', '.join(linear_names(model.get_submodule(family.layers)))}"
        ) from error


def remembering(model: Any, cache: Any) -> dict[str, Any]:
    """What a forward pass is told of its cache, if there is one, in the words of the transformers that is installed."""
    return {cache_word(type(model).forward): cache, "use_cache": cache is not None}


@functools.cache
def cache_word(forward: Callable[..., Any]) -> str:
    """`past_key_values` up to 5.23; since then `cache`, and from 5.40 on nothing else."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


def drawn(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature <= 0:
        return logits.argmax(-1)
    race = torch.empty_like(logits).exponential_(generator=generator)
    return ((logits / temperature).softmax(-1) / race).argmax(-1)


def recompute(model: Any) -> None:
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model.disable_input_require_grads()  # set for reentrant ones alone; GIT with frozen embeddings cannot bear it


def linear_names(module: nn.Module) -> list[str]:
    return sorted({name.split(".")[-1] for name, m in module.named_modules() if isinstance(m, nn.Linear)})


def tokens_per_picture(config: Any) -> int:
    vision = config.vision_config
    patches = int(vision.image_size // vision.patch_size) ** 2
    if config.model_type == "git":
        return patches + 1
    has_class = getattr(vision, "model_type", "") != "siglip_vision_model"
    return patches + int(has_class and config.vision_feature_select_strategy == "full")


def refuse_device(device: str) -> None:
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise BadConfig(f"BadConfig: a device is cpu, cuda or cuda:0, got {device!r}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise BadConfig(f"BadConfig: there is no {device} here ({torch.cuda.device_count()} GPUs are seen); use cpu")


def load_vlm(
    backbone: str = "", *, vision_model: str = "", llm_model: str = "", dtype: str = "float32", device: str = "cpu"
) -> VLM:
    """By name, hub id or folder; or a vision tower and a language model joined by a new projector."""
    refuse_device(device)
    if bool(vision_model) != bool(llm_model):
        raise BadConfig("BadConfig: --vision-model and --llm-model go together; give both, or --backbone alone")
    if vision_model:
        from drivetrain.models.pair import join

        return join(vision_model, llm_model, dtype=dtype, device=device)
    return open_folder(where(backbone), backbone, dtype=dtype, device=device)


def open_folder(path: str, name: str, *, dtype: str, device: str) -> VLM:
    try:
        import transformers
    except ImportError:
        raise MissingExtra("transformers", "vlm", f"the backbone {name}") from None
    if (Path(path) / "adapter_config.json").is_file():
        return open_adapter(Path(path), name, dtype=dtype, device=device)
    config = read_config(path)
    if config.model_type not in KINDS:
        raise BadConfig(f"BadConfig: {name} is a {config.model_type}; known are {' and '.join(KINDS)}")
    model = weights(getattr(transformers, KINDS[config.model_type]), path, dtype)
    processor = companion(transformers.AutoProcessor, path)
    return VLM(model.to(device), processor, name).eval()


def open_adapter(folder: Path, name: str, *, dtype: str, device: str) -> VLM:
    """LoRA's folder on top of the model that it names."""
    try:
        from peft import PeftModel
    except ImportError:
        raise MissingExtra("peft", "vlm", f"the adapter {name}") from None
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    vlm = load_vlm(base, dtype=dtype, device=device)
    vlm.merge()  # where that is an adapter itself
    vlm.model, vlm.name = PeftModel.from_pretrained(vlm.core, str(folder)), name
    return vlm.eval()
