"""A vision-language model as the eyes of a policy: it looks at pictures while it reads a prompt.

    reader = new_reader("tiny-git", ["What should the vehicle do in this scenario?"], Sight())
    reader(pictures, texts)                  [N, width]: what an action head goes by
    reader.read(pictures, texts, said)       the same in one pass with the loss on words that follow the prompt

Pictures are uint8 [N, H, W, 3k]: k of them end to end, each read by itself. `look` says what is taken from the last layer:

    flat      every token of the picture, made narrow by one linear layer, end to end; and the prompt's last token
    pooled    the mean over the picture's tokens; and the prompt's last token
    last      the prompt's last token, which has seen everything

Pooling throws away where the road is, so flat is the default. `tune` says what learns: all of the model (full), LoRA beside
the language model's projections (lora), or nothing (frozen).

A checkpoint holds the model's weights, with one exception: of a model that neither ships with the package nor learns whole,
the frozen weights stay where they came from, and name, revision and hash are kept instead. `bundle` keeps them all.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drivetrain.catalog import BACKBONES
from drivetrain.errors import BadCheckpoint, BadConfig, UnknownName
from drivetrain.models.chat import IGNORED, padded, tokenise
from drivetrain.models.hub import as_dtype, companion, quiet
from drivetrain.models.vlm import KINDS, PARTS, VLM, load_vlm

LOOKS = ("flat", "pooled", "last")
TUNES = ("full", "lora", "frozen")
UNSAID = -1  # the number of no sentence
HASHED = 4096  # numbers of each frozen tensor that its hash covers


@dataclass(frozen=True)
class Sight:
    """How a vision-language model is looked through."""

    look: str = "flat"  # what is taken from it: flat, pooled or last
    width: int = 32  # of each token of a picture, where flat
    tune: str = "full"  # what learns of it: full, lora or frozen
    lora_rank: int = 8
    bundle: bool = False  # keep all weights in the checkpoints, frozen foreign ones too


class Rows(NamedTuple):
    """Prompts, and what is said after them, as tokens; one row for each pair."""

    ids: Tensor  # [R, T]
    mask: Tensor  # [R, T]
    labels: Tensor  # [R, T]


class Reader(nn.Module):
    def __init__(self, vlm: VLM, texts: Sequence[str], sight: Sight, pictures: int = 1, sentences: Sequence[str] = ()):
        super().__init__()
        for name, value, known in (("look", sight.look, LOOKS), ("tune", sight.tune, TUNES)):
            if value not in known:
                raise UnknownName(name, value, known)
        self.vlm, self.sight, self.pictures = vlm, sight, pictures
        self.origin: dict[str, str] = {}  # of frozen weights that are kept elsewhere
        self._tune()
        self.learns = frozenset(
            name for name, p in vlm.named_parameters() if p.requires_grad
        )  # whoever freezes it later
        tokens = vlm.per_picture
        if sight.look == "flat":
            self.narrow = nn.Linear(vlm.width, sight.width)
        self.width = pictures * (vlm.width + {"flat": tokens * sight.width, "pooled": vlm.width, "last": 0}[sight.look])
        self.ask(texts, sentences)
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_post_hook(_do_not_miss)

    def _tune(self) -> None:
        if self.sight.tune == "lora":
            if self.sight.lora_rank < 1:
                raise BadConfig(f"BadConfig: --tune lora needs a --lora-rank of 1 or more, got {self.sight.lora_rank}")
            self.vlm.add_lora(self.sight.lora_rank)
        else:
            self.vlm.train_parts(*(PARTS if self.sight.tune == "full" else ()))

    def ask(self, texts: Sequence[str], sentences: Sequence[str] = ()) -> None:
        """From now on prompt number i is texts[i]; sentences are what may be said after each."""
        self.texts, self.sentences = tuple(texts), tuple(sentences)
        asked = [tokenise(self.vlm.style, [(text, "")], 1) for text in self.texts]
        self.ends = torch.tensor([len(row) for row in asked]) - 1
        said = [tokenise(self.vlm.style, [(text, s)], 1) for text in self.texts for s in self.sentences]
        self.asked, self.said = (self._rows(rows) if rows else None for rows in (asked, said))

    def _rows(self, rows: Sequence[Any]) -> Rows:
        batch = padded(rows, self.vlm.tokenizer.pad_token_id or 0)
        return Rows(batch["input_ids"], batch["attention_mask"], batch["labels"])

    def forward(self, pictures: Tensor, texts: Tensor) -> Tensor:
        return self.read(pictures, texts)[0]

    def read(self, pictures: Tensor, texts: Tensor, said: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Features [N, width]; and, where sentence numbers [N] are given, the mean negative log-likelihood of their words.
        Nothing is said where the number is UNSAID."""
        apart = pictures.unflatten(-1, (self.pictures, -1)).movedim(-2, 1).flatten(0, 1)  # [N * k, H, W, 3]
        each = texts.repeat_interleave(self.pictures)
        rows = self.asked if said is None else self.said
        assert rows is not None, "there are no sentences to say"
        which = each if said is None else each * len(self.sentences) + said.clamp(0).repeat_interleave(self.pictures)
        device = self.vlm.device
        batch = {"input_ids": rows.ids[which].to(device), "attention_mask": rows.mask[which].to(device)}
        batch["pixel_values"] = self.vlm.pixels(apart).to(device, self.vlm.dtype)
        seen, text = self.vlm.looked(batch)  # [N * k, P, D], [N * k, T, D]
        last = text[torch.arange(len(each), device=device), self.ends[each].to(device)]
        features = self._taken(seen, last).float().unflatten(0, (-1, self.pictures)).flatten(1)
        if said is None:
            return features, None
        labels = rows.labels[which].to(device)[:, 1:].unflatten(0, (-1, self.pictures))[:, -1]
        spoken = text[:, :-1].unflatten(0, (-1, self.pictures))[:, -1]
        taught = (labels != IGNORED) & (said != UNSAID).to(device)[:, None]
        logits = self.vlm.core.get_output_embeddings()(spoken[taught])
        return features, F.cross_entropy(logits.float(), labels[taught])

    def _taken(self, seen: Tensor, last: Tensor) -> Tensor:
        if self.sight.look == "last":
            return last
        found = self.narrow(seen.to(self.narrow.weight.dtype)).flatten(1) if self.sight.look == "flat" else seen.mean(1)
        return torch.cat([found, last.to(found.dtype)], -1)

    @torch.no_grad()
    def say(self, pictures: Tensor, texts: Tensor, most: int = 32) -> list[str]:
        """What the model says after the prompt, of the newest picture."""
        newest = pictures[..., -3:].numpy()
        return self.vlm.generate(newest, [self.texts[i] for i in texts.tolist()], most=most)

    @property
    def kept_elsewhere(self) -> set[str]:
        """Names of weights that a checkpoint does without."""
        whole = self.sight.bundle or self.sight.tune == "full" or self.vlm.name in BACKBONES or not self.origin
        return set() if whole else {f"vlm.{name}" for name, _ in self.vlm.named_parameters() if name not in self.learns}

    def describe(self) -> dict[str, Any]:
        """Everything but the weights."""
        core = self.vlm.core
        return {
            "name": self.vlm.name,
            "config": {key: value for key, value in core.config.to_dict().items() if key != "_name_or_path"},
            "files": files_of(self.vlm),
            "texts": list(self.texts),
            "sentences": list(self.sentences),
            "pictures": self.pictures,
            "dtype": str(self.vlm.dtype).removeprefix("torch."),
            "origin": self.origin if self.kept_elsewhere else {},
        }


def _leave_out(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    assert isinstance(module, Reader)
    for name in module.kept_elsewhere:
        state.pop(prefix + name, None)


def _do_not_miss(module: nn.Module, found: Any) -> None:
    assert isinstance(module, Reader)
    for name in list(found.missing_keys):
        if any(name.endswith(kept) for kept in module.kept_elsewhere):
            found.missing_keys.remove(name)


def new_reader(
    backbone: str, texts: Sequence[str], sight: Sight, pictures: int = 1, sentences: Sequence[str] = ()
) -> Reader:
    """With the weights of a name of `drivetrain list backbones`, a folder or a hub id."""
    vlm = load_vlm(backbone)
    adapted = vlm.merge()  # of LoRA's folder; what comes of that lies nowhere else
    reader = Reader(vlm, texts, sight, pictures, sentences)
    if backbone not in BACKBONES and not adapted:
        revision = getattr(vlm.core.config, "_commit_hash", None) or ""
        name = str(Path(backbone).resolve()) if Path(backbone).is_dir() else backbone
        reader.origin = {"name": name, "revision": revision, "hash": fingerprint(reader)}
    return reader


def fingerprint(reader: Reader) -> str:
    """Of the weights that do not learn."""
    digest = hashlib.sha256()
    for name, p in reader.vlm.core.named_parameters():
        if not p.requires_grad:
            digest.update(f"{name} {tuple(p.shape)}".encode())
            digest.update(p.detach().flatten()[:HASHED].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def files_of(vlm: VLM) -> dict[str, str]:
    """What the tokenizer and the image processor are made of, by file name."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        vlm.processor.save_pretrained(folder)
        return {path.name: path.read_text() for path in sorted(Path(folder).iterdir()) if path.suffix != ".model"}


def described(said: Mapping[str, Any], sight: Sight) -> Reader:
    """The same reader; weights that are kept elsewhere come from there, all others are to be loaded."""
    origin = said["origin"]
    vlm = load_vlm(origin["name"], dtype=said["dtype"]) if origin else unweighted(said)
    vlm.name = said["name"]
    reader = Reader(vlm, said["texts"], sight, said["pictures"], said["sentences"])
    reader.origin = dict(said["origin"])
    if reader.kept_elsewhere and fingerprint(reader) != reader.origin["hash"]:
        raise BadCheckpoint(
            f"BadCheckpoint: {reader.origin['name']} has other weights than the policy was trained on "
            f"(hash {fingerprint(reader)}, expected {reader.origin['hash']}); fetch revision "
            f"{reader.origin['revision'] or 'of then'}"
        )
    return reader


def unweighted(said: Mapping[str, Any]) -> VLM:
    """The model of a description, its weights yet to come."""
    import transformers

    with tempfile.TemporaryDirectory() as folder, quiet():
        for name, text in said["files"].items():
            (Path(folder) / name).write_text(text)
        processor = companion(transformers.AutoProcessor, folder)
        kind = said["config"]["model_type"]
        config = transformers.AutoConfig.for_model(**said["config"])
        model = getattr(transformers, KINDS[kind])(config).to(as_dtype(said["dtype"]))
    return VLM(model, processor, said["name"]).eval()
