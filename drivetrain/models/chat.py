"""Words to tokens, for a model that talks: turns, the place of the pictures, and which tokens are the answer's.

A conversation is a list of (question, answer) turns; `<image>` in a question is where a picture goes, and a first question
that does not say has its pictures in front. Questions and answers are tokenised apart, so that the mask of what is to be
learned is exact by construction, whatever template lies around them: the loss covers the answers and the token that ends
each, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from drivetrain.errors import BadCheckpoint

IMAGE = "<image>"
IGNORED = -100  # a label that is not learned
Turns = Sequence[tuple[str, str]]
CONTENT = (
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{{ '' if loop.first else '\n' }}<|im_start|>{{ message['role'] }}\n"
    f"{CONTENT}<|im_end|>{{% endfor %}}"
    "{% if add_generation_prompt %}{{ '\n' }}<|im_start|>assistant\n{% endif %}"
)
LLAVA_1_5 = (
    f"{{% for message in messages %}}{{% if message['role'] == 'user' %}}USER: {CONTENT} {{% else %}}"
    f"ASSISTANT:{CONTENT}{{{{ eos_token }}}}{{% endif %}}{{% endfor %}}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@dataclass(frozen=True)
class Ids:
    """One conversation: tokens, and labels that are tokens where an answer is and IGNORED elsewhere."""

    tokens: list[int]
    labels: list[int]
    pictures: int = 0

    def __len__(self) -> int:
        return len(self.tokens)


class Caption:
    """GIT's way: pictures come first by themselves, then [CLS] question answer [SEP]."""

    pictures_in_text = False

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.begin = [tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id]
        self.end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id

    def question(self, text: str, pictures: int, first: bool) -> list[int]:
        words = plain(self.tokenizer, text.replace(IMAGE, " ").strip())
        return [*(self.begin if first else []), *words]

    def answer(self, text: str) -> list[int]:
        return [*plain(self.tokenizer, text), self.end]


class Chat:
    """LLaVA's way: `<image>` stands among the words, as many times as the picture has tokens."""

    pictures_in_text = True

    def __init__(self, tokenizer: Any, image_token: int, tokens_per_picture: int):
        if IMAGE not in tokenizer.get_vocab():
            raise BadCheckpoint(
                f"BadCheckpoint: the tokenizer does not know {IMAGE}, which stands for pictures; add it"
            )
        self.tokenizer, self.image_token, self.tokens_per_picture = tokenizer, image_token, tokens_per_picture
        self.marker = tokenizer.get_vocab()[IMAGE]
        self.around = around_question(tokenizer)
        self.end = end_of_turn(tokenizer)

    def question(self, text: str, pictures: int, first: bool) -> list[int]:
        missing = pictures - text.count(IMAGE) if first else 0
        before, after = self.around
        text = (before.lstrip() if first else before) + f"{IMAGE}\n" * missing + text + after
        tokens = [] if not first or self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        for token in plain(self.tokenizer, text):  # whole, because some tokenizers treat the beginning of a text apart
            tokens += [self.image_token] * self.tokens_per_picture if token == self.marker else [token]
        return tokens

    def answer(self, text: str) -> list[int]:
        return [*plain(self.tokenizer, text), self.end]


def around_question(tokenizer: Any) -> tuple[str, str]:
    """What the model's template puts before and after a question: ChatML's marks where it knows them, else LLaVA-1.5's.

    ChatML's line break between two turns is left out before the first.
    """
    if speaks_chatml(tokenizer):
        return "\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    return "USER: ", " ASSISTANT:"


def speaks_chatml(tokenizer: Any) -> bool:
    return "<|im_start|>" in tokenizer.get_vocab()


def template(tokenizer: Any) -> str:
    """The same for transformers' `apply_chat_template`, so that other programs ask a saved model as this one does."""
    if speaks_chatml(tokenizer):
        return CHATML
    begins_itself = tokenizer.bos_token_id in tokenizer("a")["input_ids"]
    begin = "" if begins_itself or tokenizer.bos_token is None else "{{ bos_token }}"
    spaced = tokenizer.tokenize("a")[0] != "a"  # what stands before every text stands before an answer
    return begin + (LLAVA_1_5.replace("ASSISTANT:", "ASSISTANT: ", 1) if spaced else LLAVA_1_5)


def end_of_turn(tokenizer: Any) -> int:
    vocabulary = tokenizer.get_vocab()
    return int(vocabulary.get("<|im_end|>", tokenizer.eos_token_id))


@lru_cache(maxsize=65_536)
def plain(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The tokens of a text, nothing added; remembered, because prompts come again and again."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def tokenise(style: Caption | Chat, turns: Turns, pictures: int = 1) -> Ids:
    """A whole conversation. A last turn whose answer is None or empty is left open, for the model to answer."""
    tokens: list[int] = []
    labels: list[int] = []
    for place, (question, answer) in enumerate(turns):
        asked = style.question(question, pictures, place == 0)
        tokens += asked
        labels += [IGNORED] * len(asked)
        if answer:
            said = style.answer(answer)
            tokens += said
            labels += said
    return Ids(tokens, labels, pictures)


def padded(rows: Sequence[Ids], pad: int) -> dict[str, Tensor]:
    """Rows of several lengths as one batch, padded on the right: input_ids, attention_mask, labels [B, T]."""
    longest = max(len(row) for row in rows)
    shape = (len(rows), longest)
    ids, labels = torch.full(shape, pad), torch.full(shape, IGNORED)
    mask = torch.zeros(shape, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row.tokens)
        labels[i, : len(row)] = torch.tensor(row.labels)
        mask[i, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
