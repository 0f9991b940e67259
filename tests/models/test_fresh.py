"""New models: opened by transformers like published ones, with a tokenizer that can say anything."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from drivetrain.errors import UnknownName
from drivetrain.models.fresh import Shape, fresh_vlm, new_tokenizer
from drivetrain.models.vlm import load_vlm

SHAPE = Shape(width=32, heads=2, vision_layers=2, language_layers=2, picture=48, patch=16, vocabulary=320, context=128)
WORDS = ["turn left", "turn right", "what should the vehicle do?", "keep straight", "how many degrees?", "-12"]


@pytest.fixture(params=["git", "llava"])
def made(request):
    torch.manual_seed(0)
    return fresh_vlm(request.param, SHAPE, WORDS)


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), dtype=np.uint8)


def test_what_is_saved_opens_as_it_was(made, pictures, tmp_path):
    made.eval().save(tmp_path)
    opened = load_vlm(str(tmp_path))
    assert torch.equal(opened.pixels(pictures), made.pixels(pictures))
    batch = made.inputs(pictures, WORDS[2], ["turn left", "-12"])
    again = opened.inputs(pictures, WORDS[2], ["turn left", "-12"])
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    assert torch.equal(made(batch).logits, opened(batch).logits)


def test_transformers_opens_what_is_saved(pictures, tmp_path):
    fresh_vlm("llava", SHAPE, WORDS).save(tmp_path)
    model, processor = AutoModelForImageTextToText.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": WORDS[2]}]}]
    text = processor.apply_chat_template(asked, add_generation_prompt=True)
    inputs = processor(images=[pictures[0]], text=text, return_tensors="pt")
    ours = load_vlm(str(tmp_path)).inputs(pictures[:1], WORDS[2])
    assert torch.equal(inputs["input_ids"], ours["input_ids"])
    assert model.generate(**inputs, max_new_tokens=3).shape[0] == 1


def test_it_has_the_shape_it_was_given(made):
    config = made.core.config
    assert config.vision_config.num_hidden_layers == SHAPE.vision_layers
    assert made.width == SHAPE.width
    assert config.get_text_config().num_hidden_layers == SHAPE.language_layers
    assert made.per_picture == 9 + (made.family.name == "git")
    assert len(made.tokenizer) <= SHAPE.vocabulary == 320


def test_all_that_is_in_it_learns(made, pictures):
    made.loss(made.inputs(pictures, WORDS[2], ["turn left", "-12"])).backward()
    idle = {name for name, p in made.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert all("post_layernorm" in name or "k_proj.bias" in name for name in idle), idle


def test_every_digit_is_a_token_and_any_text_can_be_written():
    tokenizer = new_tokenizer(["turn 12 degrees", "-12", "2024"], 400)
    ids = tokenizer("2024", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["2", "0", "2", "4"]
    for text in ("never seen: ÄÖ é 漢字 🚗", "a\nb\tc", " two  spaces "):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert len(tokenizer("<image>", add_special_tokens=False)["input_ids"]) == 1
    assert tokenizer.decode(tokenizer("a<image></s>")["input_ids"], skip_special_tokens=True) == "a"


def test_the_tokenizer_depends_on_the_words_and_not_on_their_order():
    one, other = new_tokenizer(WORDS, 320), new_tokenizer([*reversed(WORDS), *WORDS], 320)
    assert one.get_vocab() == other.get_vocab()


def test_an_architecture_that_is_not_there():
    with pytest.raises(UnknownName, match="no architecture called 'gti'; did you mean git"):
        fresh_vlm("gti", SHAPE, WORDS)
