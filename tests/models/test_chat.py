"""Words to tokens: which of them are learned, where pictures go, and the same as transformers makes of our template."""

import hub
import numpy as np
import pytest
import torch
from transformers import LlavaProcessor

from drivetrain.errors import BadCheckpoint
from drivetrain.models.chat import IGNORED, IMAGE, Caption, Chat, padded, template, tokenise
from drivetrain.models.fresh import new_tokenizer

PLACES = (hub.IMAGE // hub.PATCH) ** 2
TURNS = [
    ("what should the vehicle do?", "turn left"),
    ("how many degrees?", "12"),
    ("is the road straight?", "no, it bends"),
]
CHATS = ("fresh", "llama", "llama-old", "qwen")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("tokenizers"), {}
    makers = {
        "fresh": lambda at: new_tokenizer([text for turn in TURNS for text in turn], 400),
        "llama": lambda at: hub.llama_tokenizer(at, image=True),
        "llama-old": lambda at: hub.llama_tokenizer(at, image=True, old=True),
        "qwen": lambda at: with_image(hub.qwen_tokenizer(at)),
        "bert": hub.bert_tokenizer,
    }

    def of(name):
        if name not in made:
            made[name] = makers[name](root / name)
        return made[name]

    return of


def with_image(tokenizer):
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    return tokenizer


def chat(tokenizer):
    return Chat(tokenizer, tokenizer.convert_tokens_to_ids(IMAGE), PLACES)


def messages(turns):
    said = []
    for place, (question, answer) in enumerate(turns):
        picture = [] if place else [{"type": "image"}]
        said.append({"role": "user", "content": [*picture, {"type": "text", "text": question}]})
        said.append({"role": "assistant", "content": answer})
    return said


def processor(tokenizer):
    return LlavaProcessor(
        hub.clip_pixels(),
        tokenizer,
        patch_size=hub.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template(tokenizer),
    )


def learned(row):
    """The stretches of labels between which nothing is learned."""
    stretches, before = [], IGNORED
    for label in row.labels:
        if label != IGNORED:
            if before == IGNORED:
                stretches.append([])
            stretches[-1].append(label)
        before = label
    return stretches


@pytest.mark.parametrize("name", [*CHATS, "bert"])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_answers_and_what_ends_them_are_learned_and_nothing_else(tokenizer, name, turns):
    words = tokenizer(name)
    style = Caption(words) if name == "bert" else chat(words)
    row = tokenise(style, TURNS[:turns])
    assert len(row.labels) == len(row.tokens)
    assert all(label in (IGNORED, token) for token, label in zip(row.tokens, row.labels, strict=True))
    stretches = learned(row)
    assert len(stretches) == turns
    end = {"bert": "[SEP]", "qwen": "<|im_end|>"}.get(name, "</s>")
    for stretch, (_, answer) in zip(stretches, TURNS, strict=False):
        assert words.convert_ids_to_tokens(stretch[-1]) == end
        said = words.decode(stretch[:-1]).strip().replace(" ,", ",")
        assert said == answer


@pytest.mark.parametrize("name", CHATS)
def test_the_picture_has_its_places_and_the_text_begins_once(tokenizer, name):
    words = tokenizer(name)
    style = chat(words)
    row = tokenise(style, TURNS)
    assert row.tokens.count(style.image_token) == PLACES
    first = row.tokens.index(style.image_token)
    assert row.tokens[first : first + PLACES] == [style.image_token] * PLACES
    if words.bos_token_id is None:
        assert name == "qwen"
    else:
        assert row.tokens[0] == words.bos_token_id
        assert row.tokens.count(words.bos_token_id) == 1
    between = tokenise(style, [("is it <image>\nor <image>?", "a")], 2)
    assert between.tokens.count(style.image_token) == 2 * PLACES
    assert tokenise(style, TURNS, 0).tokens.count(style.image_token) == 0
    assert tokenise(style, TURNS, 2).tokens.count(style.image_token) == 2 * PLACES


def test_a_caption_begins_and_ends_as_bert_does(tokenizer):
    words = tokenizer("bert")
    row = tokenise(Caption(words), [("what should the vehicle do?", "turn left")])
    assert row.tokens == words("what should the vehicle do? turn left")["input_ids"]
    assert words.convert_ids_to_tokens(row.tokens)[:2] == ["[CLS]", "what"]
    assert tokenise(Caption(words), [("", "turn left")]).tokens == words("turn left")["input_ids"]


@pytest.mark.parametrize("name", CHATS)
def test_transformers_makes_the_same_tokens_of_our_template(tokenizer, name):
    words = tokenizer(name)
    theirs, style = processor(words), chat(words)
    picture = np.zeros((hub.IMAGE, hub.IMAGE, 3), np.uint8)

    def tokens(turns, **more):
        text = theirs.apply_chat_template(messages(turns), **more)
        return theirs(images=[picture], text=text)["input_ids"][0]

    assert tokens(TURNS[:1]) == tokenise(style, TURNS[:1]).tokens
    if name != "llama":  # which leaves out the space before a second turn that it puts before a first
        assert tokens(TURNS) == tokenise(style, TURNS).tokens
    asked = theirs.apply_chat_template(messages(TURNS[:1])[:1], add_generation_prompt=True)
    assert theirs(images=[picture], text=asked)["input_ids"][0] == tokenise(style, [(TURNS[0][0], "")]).tokens


def test_chatml_where_the_tokenizer_knows_it(tokenizer):
    words = tokenizer("qwen")
    row = tokenise(chat(words), TURNS[:2], 0)
    assert words.decode(row.tokens) == (
        "<|im_start|>user\nwhat should the vehicle do?<|im_end|>\n<|im_start|>assistant\nturn left<|im_end|>\n"
        "<|im_start|>user\nhow many degrees?<|im_end|>\n<|im_start|>assistant\n12<|im_end|>"
    )
    assert chat(words).end != words.eos_token_id


def test_without_chatml_the_words_of_llava(tokenizer):
    words = tokenizer("fresh")
    row = tokenise(chat(words), TURNS[:2], 0)
    assert words.decode(row.tokens) == (
        "<s>USER: what should the vehicle do? ASSISTANT:turn left</s>USER: how many degrees? ASSISTANT:12</s>"
    )


def test_a_turn_without_an_answer_is_left_open(tokenizer):
    for name in CHATS:
        style = chat(tokenizer(name))
        row = tokenise(style, [*TURNS[:1], ("why?", "")])
        assert len(learned(row)) == 1
        assert row.labels[-1] == IGNORED
        whole = tokenise(style, [*TURNS[:1], ("why?", "it bends")])
        assert whole.tokens[: len(row)] == row.tokens


def test_a_tokenizer_without_a_place_for_pictures_is_refused(tmp_path):
    with pytest.raises(BadCheckpoint, match="does not know <image>"):
        Chat(hub.qwen_tokenizer(tmp_path), 7, PLACES)


def test_rows_are_padded_on_the_right(tokenizer):
    style = chat(tokenizer("fresh"))
    rows = [tokenise(style, TURNS[:n]) for n in (1, 3)]
    batch = padded(rows, 99)
    short, long = map(len, rows)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape == (2, long)
    assert batch["attention_mask"].sum(1).tolist() == [short, long]
    assert batch["input_ids"][0, :short].tolist() == rows[0].tokens
    assert (batch["input_ids"][0, short:] == 99).all()
    assert (batch["labels"][0, short:] == IGNORED).all()
    assert batch["labels"].dtype == torch.int64
