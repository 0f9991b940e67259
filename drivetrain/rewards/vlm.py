"""A vision-language model judges frames by a sheet: questions, answers, numbers, a reward, and whether the episode is over.

    judge = Judge(open_sheet("cartpole"), open_answerer("tiny-git"), cache=Path("runs/answers"), samples=Path("runs/samples"))
    judged = judge(frames, truths)            # .reward [B], .ends [B], .values {"tilt": [B], ...}; NaN where unread

Frames are uint8 [B, H, W, 3] and judged together. Answers are kept on disk by picture, question and model. The first frames are
saved with what was asked, what was answered, what that was read as, and the truth. Answers that cannot be read give the
sheet's `unread` as the reward, end nothing, and are counted.

Who answers is a name of `drivetrain list backbones`, a folder or a hub id; or one of the judges that nobody should trust, as
controls: `constant:45`, `random`, `shuffled:MODEL` (its answers to other frames), and `truth`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from drivetrain.errors import BadConfig, MissingExtra
from drivetrain.models.hub import companion, read_config, weights, where
from drivetrain.models.vlm import VLM, load_vlm
from drivetrain.rewards.sheet import Ask, Sheet

NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d+)?|(?<![\w.])\.\d+)")
MOST_TOKENS = 12
VERSION = 2  # of how answers are got and read: those kept by another are not taken
RATINGS = range(1, 11)
BATCH = 32  # frames that go through a model at once
LEGACY = {
    "liuhaotian/llava-v1.5-7b": "llava-hf/llava-1.5-7b-hf",
    "liuhaotian/llava-v1.5-13b": "llava-hf/llava-1.5-13b-hf",
}

Truths = Mapping[str, np.ndarray]  # by question


class Answer(NamedTuple):
    said: str  # as it was given
    value: float  # NaN where it cannot be read


class Answerer(Protocol):
    @property
    def name(self) -> str: ...

    def __call__(self, ask: Ask, frames: np.ndarray, truth: np.ndarray | None) -> list[Answer]: ...
    def fingerprint(self) -> str: ...


def number_in(text: str) -> float:
    """The first number of a text; NaN where there is none."""
    text = text.replace("\N{MINUS SIGN}", "-")
    found = NUMBER.search(re.sub(r"(?<=[-+.\d])\s+(?=[.\d])", "", text))
    return float(found[0]) if found else float("nan")


class Asked:
    """A vision-language model that is asked."""

    def __init__(self, vlm: VLM):
        self.vlm, self.name = vlm.eval(), vlm.name

    @torch.no_grad()
    def __call__(self, ask: Ask, frames: np.ndarray, truth: np.ndarray | None) -> list[Answer]:
        if ask.way == "similarity":
            raise BadConfig(f"BadConfig: {self.name} answers questions; similarity is for CLIP-style models")
        if ask.way == "preference":
            frames = np.stack([beside(reference(ask.reference), frame) for frame in frames])
        return [answer for i in range(0, len(frames), BATCH) for answer in self.some(ask, frames[i : i + BATCH])]

    def some(self, ask: Ask, frames: np.ndarray) -> list[Answer]:
        if ask.way == "number":
            return [Answer(text, number_in(text)) for text in self.vlm.generate(frames, ask.prompt, most=MOST_TOKENS)]
        if ask.way in ("expected", "rating"):
            numbers = list(RATINGS if ask.way == "rating" else range(ask.numbers[0], ask.numbers[1] + 1))
            scores = self.vlm.score(frames, ask.prompt, [str(n) for n in numbers])
            values = scores.softmax(-1) @ torch.tensor(numbers, dtype=scores.dtype, device=scores.device)
            return [Answer(f"{value:.2f}", float(value)) for value in values.tolist()]
        if ask.way == "choice":
            chances = self.vlm.score(frames, ask.prompt, ask.choices).softmax(-1)
            places = torch.linspace(0, 1, len(ask.choices), dtype=chances.dtype, device=chances.device)
            likeliest = chances.argmax(-1).tolist()
            return [Answer(ask.choices[i], float(v)) for i, v in zip(likeliest, chances @ places, strict=True)]
        choices = ["first", "second"] if ask.way == "preference" else ["no", "yes"]
        log_chances = self.vlm.score(frames, ask.prompt, choices).log_softmax(-1)[:, 1]
        found = log_chances if ask.way == "log_yes" else log_chances.exp()
        return [Answer(f"{value:.4f}", float(value)) for value in found.tolist()]

    def fingerprint(self) -> str:
        return of_weights(self.vlm)


class Similar:
    """A CLIP-style model: the picture projected on the way from the baseline text to the goal text (Rocamonde et al. 2023)."""

    def __init__(self, model: Any, processor: Any, name: str):
        self.model, self.processor, self.name = model.eval(), processor, name

    @torch.no_grad()
    def __call__(self, ask: Ask, frames: np.ndarray, truth: np.ndarray | None) -> list[Answer]:
        if ask.way != "similarity":
            raise BadConfig(
                f"BadConfig: {self.name} compares pictures with texts; its way is similarity, got {ask.way}"
            )
        how = "max_length" if self.model.config.model_type == "siglip" else True  # as it was trained
        texts = self.processor.tokenizer([ask.goal, ask.baseline], return_tensors="pt", padding=how)
        weight = next(self.model.parameters())
        texts = {key: value.to(weight.device) for key, value in texts.items()}
        goal, baseline = unit(features_of(self.model.get_text_features(**texts)))
        if float((goal - baseline).norm()) < 1e-6:
            raise BadConfig(
                f"BadConfig: {ask.goal!r} and {ask.baseline!r} are the same to {self.name}; use other texts"
            )
        found: list[float] = []
        for i in range(0, len(frames), BATCH):
            pixels = self.processor.image_processor(list(frames[i : i + BATCH]), return_tensors="pt")["pixel_values"]
            pixels = pixels.to(weight.device, weight.dtype)
            seen = unit(features_of(self.model.get_image_features(pixel_values=pixels)))
            way = unit(goal - baseline)
            along = (seen - baseline) @ way
            nearest = baseline + along[:, None] * way
            found += (1 - 0.5 * (nearest - goal).square().sum(-1)).tolist()
        return [Answer(f"{value:.4f}", value) for value in found]

    def fingerprint(self) -> str:
        return of_weights(self.model)


def features_of(given: Any) -> torch.Tensor:
    """transformers gives them bare, or as one of several outputs."""
    found: torch.Tensor = given if isinstance(given, torch.Tensor) else given.pooler_output
    return found


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=-1, keepdim=True)


@dataclass(frozen=True)
class Constant:
    """Says the same whatever it is shown: what LLaVA-7B was found to do with a pole's tilt."""

    value: float

    @property
    def name(self) -> str:
        return f"constant:{self.value:g}"

    def __call__(self, ask: Ask, frames: np.ndarray, truth: np.ndarray | None) -> list[Answer]:
        return [Answer(f"{self.value:g}", self.value)] * len(frames)

    def fingerprint(self) -> str:
        return self.name


@dataclass(frozen=True)
class Guess:
    """Any number that could be an answer, by the hash of the picture."""

    name: str = "random"

    def __call__(self, ask: Ask, frames: np.ndarray, truth: np.ndarray | None) -> list[Answer]:
        low, high = {"number": ask.numbers, "expected": ask.numbers, "rating": (RATINGS[0], RATINGS[-1])}.get(
            ask.way, (0, 1)
        )
        shares = [(int(digest(frame, ask.prompt)[:8], 16) + 1) / 0x100000000 for frame in frames]
        values = [low + share * (high - low) for share in shares]
        values = [math.log(value) for value in values] if ask.way == "log_yes" else values
        return [Answer(f"{value:.2f}", value) for value in values]

    def fingerprint(self) -> str:
        return self.name


@dataclass(frozen=True)
class Truth:
    """Knows the truth: what a perfect judge would bring."""

    name: str = "truth"

    def __call__(self, ask: Ask, frames: np.ndarray, truth: np.ndarray | None) -> list[Answer]:
        assert truth is not None, "nobody told the truth"
        return [Answer(f"{value:.4f}", float(value)) for value in truth]

    def fingerprint(self) -> str:
        return self.name


class Shuffled:
    """Another judge's answers, each to a frame seen before: right on the whole, and wrong in every case."""

    def __init__(self, inner: Answerer, seed: int = 0):
        self.inner, self.name = inner, f"shuffled:{inner.name}"
        self.random = np.random.default_rng(seed)
        self.past: dict[str, list[Answer]] = {}

    def __call__(self, ask: Ask, frames: np.ndarray, truth: np.ndarray | None) -> list[Answer]:
        past = self.past.setdefault(ask.prompt, [])
        past += self.inner(ask, frames, truth)
        del past[:-4096]
        return [past[int(i)] for i in self.random.integers(len(past), size=len(frames))]

    def fingerprint(self) -> str:
        return self.name


def open_answerer(name: str, *, dtype: str = "float32", device: str = "cpu") -> Answerer:
    kind, _, rest = name.partition(":")
    if kind == "constant":
        try:
            value = float(rest)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise BadConfig(f"BadConfig: a constant judge says a number, got {name!r}; write constant:45")
        return Constant(value)
    if name == "random":
        return Guess()
    if name == "truth":
        return Truth()
    if kind == "shuffled":
        return Shuffled(open_answerer(rest, dtype=dtype, device=device))
    if name in LEGACY:
        raise BadConfig(
            f"BadConfig: {name} is in LLaVA's own layout of 2023, which transformers does not open; "
            f"the same weights in today's are {LEGACY[name]}: give that"
        )
    return similar(name, dtype, device) or Asked(load_vlm(name, dtype=dtype, device=device))


def similar(name: str, dtype: str, device: str) -> Similar | None:
    """A CLIP-style model, where that is what the name stands for."""
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtra("transformers", "vlm", f"the judge {name}")
    import transformers

    path = where(name)
    if (Path(path) / "adapter_config.json").is_file():
        return None
    kind = read_config(path).model_type
    if kind not in ("clip", "siglip"):
        return None
    model = weights({"clip": transformers.CLIPModel, "siglip": transformers.SiglipModel}[kind], path, dtype)
    return Similar(model.to(device), companion(transformers.AutoProcessor, path), name)


def of_weights(model: torch.nn.Module) -> str:
    """A hash of a model's parameters."""
    found = hashlib.sha256()
    for name, p in sorted(model.named_parameters()):
        found.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
        found.update(p.detach().flatten()[:4096].float().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def digest(frame: np.ndarray, *words: str) -> str:
    found = hashlib.blake2b(np.ascontiguousarray(frame).tobytes(), digest_size=12)
    for word in (str(frame.shape), *words):
        found.update(word.encode())
    return found.hexdigest()


def reference(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def beside(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two pictures in one, the first on top."""
    if first.shape[1] != second.shape[1]:
        scale = second.shape[1] / first.shape[1]
        size = second.shape[1], max(round(first.shape[0] * scale), 1)
        first = np.asarray(Image.fromarray(first).resize(size))
    return np.concatenate([first, second])


class Cache:
    """Answers on disk, one line each; only what is new is written."""

    def __init__(self, folder: Path, fingerprint: str):
        self.path = folder / f"{fingerprint}.jsonl"
        self.known: dict[str, Answer] = {}
        if self.path.is_file():
            for line in self.path.read_text().splitlines():
                try:
                    key, said, value = json.loads(line)
                except ValueError:  # a line that a kill cut short
                    continue
                self.known[key] = Answer(said, float("nan") if value is None else float(value))

    def add(self, fresh: Mapping[str, Answer]) -> None:
        self.known.update(fresh)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            for key, (said, value) in fresh.items():
                file.write(json.dumps([key, said, value if np.isfinite(value) else None]) + "\n")


class Judged(NamedTuple):
    reward: np.ndarray  # [B]
    ends: np.ndarray  # [B] bool
    values: dict[str, np.ndarray]  # by question, NaN where unread


class Judge:
    def __init__(
        self,
        sheet: Sheet,
        answerer: Answerer,
        *,
        cache: Path | None = None,
        samples: Path | None = None,
        first: int = 10,
    ):
        self.sheet, self.answerer = sheet, answerer
        at_once = isinstance(answerer, Shuffled | Truth | Constant | Guess)  # and some not by the picture alone
        self.cache = Cache(cache, f"{VERSION}-{answerer.fingerprint()}") if cache is not None and not at_once else None
        self.samples, self.first = samples, first
        self.reward, self.ends = sheet.formula("reward"), sheet.formula("ends")
        self.frames = self.asked = self.remembered = self.unread = 0

    def __call__(self, frames: np.ndarray, truths: Truths | None = None) -> Judged:
        answers = {
            name: self.answers(ask, frames, None if truths is None else truths.get(name))
            for name, ask in self.sheet.ask.items()
        }
        values = {name: np.array([answer.value for answer in given]) for name, given in answers.items()}
        judged = Judged(*self.judged(values), values)
        self.show(frames, answers, judged, truths)
        self.frames += len(frames)
        return judged

    def judged(self, values: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Reward and end by the sheet's formulas."""
        count = len(next(iter(values.values())))
        blank = np.any([np.isnan(value) for value in values.values()], 0)
        readable = {name: np.where(blank, 0.0, value) for name, value in values.items()}
        assert self.reward is not None
        with np.errstate(all="ignore"):
            reward = np.broadcast_to(np.asarray(self.reward(**readable), dtype=np.float64), count)
            ends = np.broadcast_to(np.asarray(self.ends(**readable) if self.ends else False, dtype=bool), count)
        blank = blank | ~np.isfinite(reward)
        self.unread += int(blank.sum())
        return np.where(blank, self.sheet.unread, reward).astype(np.float32), ends & ~blank

    def answers(self, ask: Ask, frames: np.ndarray, truth: np.ndarray | None) -> list[Answer]:
        if self.cache is None:
            self.asked += len(frames)
            return self.answerer(ask, frames, truth)
        asked = {name: value for name, value in asdict(ask).items() if name not in ("truth", "reworded")}
        shown = digest(reference(ask.reference)) if ask.reference else ""
        keys = [digest(frame, json.dumps(asked), shown) for frame in frames]
        new = {key: i for i, key in enumerate(keys) if key not in self.cache.known}
        rows = list(new.values())
        if rows:
            found = self.answerer(ask, frames[rows], None if truth is None else truth[rows])
            self.cache.add(dict(zip(new, found, strict=True)))
        self.asked += len(rows)
        self.remembered += len(frames) - len(rows)
        return [self.cache.known[key] for key in keys]

    @cached_property
    def font(self) -> Any:
        return ImageFont.load_default(13)

    def show(
        self, frames: np.ndarray, answers: Mapping[str, Sequence[Answer]], judged: Judged, truths: Truths | None
    ) -> None:
        """The first frames, with all there is to say about them."""
        if self.samples is None:
            return
        for i in range(min(len(frames), max(self.first - self.frames, 0))):
            lines = []
            for name, ask in self.sheet.ask.items():
                truth = f", truth {truths[name][i]:.2f}" if truths is not None and name in truths else ""
                said, value = answers[name][i]
                lines += [ask.prompt, f"  said {said!r}, read as {value:g}{truth}"]
            lines.append(f"reward {judged.reward[i]:.3f}{', over' if judged.ends[i] else ''}")
            self.samples.mkdir(parents=True, exist_ok=True)
            captioned(frames[i], lines, self.font).save(self.samples / f"{self.frames + i:04d}.png")

    def counts(self) -> dict[str, float]:
        return {
            "judge/frames": float(self.frames),
            "judge/remembered": float(self.remembered),
            "judge/unread": float(self.unread),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"frames": self.frames, "asked": self.asked, "remembered": self.remembered, "unread": self.unread}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def captioned(frame: np.ndarray, lines: Sequence[str], font: Any) -> Image.Image:
    """A picture, enlarged where it is small, with lines under it."""
    picture = Image.fromarray(frame)
    times = max(400 // picture.width, 1)
    picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    width = max(picture.width, *(int(font.getlength(line)) + 12 for line in lines))
    canvas = Image.new("RGB", (width, picture.height + 18 * len(lines) + 10), (255, 255, 255))
    canvas.paste(picture)
    pen = ImageDraw.Draw(canvas)
    for i, line in enumerate(lines):
        pen.text((6, picture.height + 5 + 18 * i), line, (0, 0, 0), font)
    return canvas
