"""Two halves joined: their weights to the bit, room for `<image>`, and a LLaVA that opens again as it was saved."""

import itertools

import hub
import pytest
import torch

from drivetrain.errors import BadCheckpoint, BadConfig
from drivetrain.models.chat import tokenise
from drivetrain.models.pair import join
from drivetrain.models.vlm import load_vlm

PROMPT = "what should the vehicle do?"
ANSWERS = ["left", "turn right", "12"]
PAIRS = list(itertools.product(["siglip", "clip"], ["qwen", "llama"]))


@pytest.fixture(scope="module")
def joined(folder):
    made = {}

    def of(vision, words):
        if (vision, words) not in made:
            torch.manual_seed(0)
            made[vision, words] = load_vlm(vision_model=str(folder(vision)), llm_model=str(folder(words)))
        return made[vision, words]

    return of


def bare(name):
    """A weight's name without the house it is in, old or new."""
    for house in ("vision_model.", "model."):
        name = name.removeprefix(house)
    return name


@pytest.mark.parametrize(("vision", "words"), [*PAIRS, ("siglip-alone", "qwen-spare")])
def test_the_weights_are_those_of_the_two_folders(folder, joined, vision, words):
    vlm = joined(vision, words)
    seen = {bare(name): weight for name, weight in hub.tensors(folder(vision)).items() if not name.startswith("text_")}
    tower = dict(vlm.model.model.vision_tower.named_parameters())
    assert len(tower) > 30
    for name, p in tower.items():
        assert torch.equal(p, seen[bare(name)]), name
    unused = {name.split(".")[0] for name in seen.keys() - {bare(name) for name in tower}}
    assert unused <= {"head", "logit_scale", "logit_bias", "visual_projection"}
    said = {bare(name): weight for name, weight in hub.tensors(folder(words)).items()}
    tables = {"lm_head.weight": vlm.model.lm_head.weight} if "lm_head.weight" in said else {}
    language = dict(vlm.model.model.language_model.named_parameters()) | tables
    assert language.keys() == said.keys()
    for name, p in language.items():
        assert torch.equal(p[: len(said[name])], said[name]), name


@pytest.mark.parametrize(("vision", "words"), PAIRS)
def test_what_is_saved_opens_as_it_was(joined, pictures, tmp_path, vision, words):
    vlm = joined(vision, words)
    vlm.save(tmp_path)
    opened = load_vlm(str(tmp_path))
    batch, again = (v.inputs(pictures, PROMPT, ANSWERS) for v in (vlm, opened))
    assert batch.keys() == again.keys()
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    assert torch.equal(vlm(batch).logits, opened(again).logits)
    assert vlm.generate(pictures, PROMPT, most=5) == opened.generate(pictures, PROMPT, most=5)
    assert opened.model.config.vision_feature_layer == -2
    assert opened.style.end == vlm.style.end == opened.model.generation_config.eos_token_id


@pytest.mark.parametrize(("vision", "words"), PAIRS)
def test_transformers_prepares_the_same_inputs(joined, pictures, tmp_path, vision, words):
    vlm = joined(vision, words)
    vlm.processor.save_pretrained(tmp_path)
    theirs = type(vlm.processor).from_pretrained(tmp_path)
    asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}
    said = {"role": "assistant", "content": "turn right"}
    inputs = theirs(images=[pictures[0]], text=theirs.apply_chat_template([asked, said]), return_tensors="pt")
    ours = vlm.inputs(pictures[:1], PROMPT, ["turn right"])
    assert torch.equal(inputs["input_ids"], ours["input_ids"])
    assert (inputs["pixel_values"] - ours["pixel_values"]).abs().max() < 0.05
    given = {key: ours[key] for key in ("input_ids", "attention_mask")}
    assert torch.equal(vlm.model(**given, pixel_values=ours["pixel_values"]).logits, vlm(ours).logits)


@pytest.mark.parametrize("words", ["qwen", "llama", "qwen-spare"])
def test_there_is_room_for_the_picture(folder, joined, words):
    vlm = joined("siglip", words)
    had = next(w for n, w in hub.tensors(folder(words)).items() if n.endswith("embed_tokens.weight"))
    rows, out = vlm.model.get_input_embeddings().weight, vlm.model.lm_head.weight
    image = vlm.tokenizer.convert_tokens_to_ids("<image>")
    assert vlm.model.config.image_token_id == image
    assert image < len(rows) == len(out) == vlm.model.config.text_config.vocab_size
    assert vlm.tokenizer("a<image>b", add_special_tokens=False)["input_ids"].count(image) == 1
    assert vlm.tokenizer.pad_token_id is not None
    assert vlm.tokenizer.pad_token_id != vlm.style.end
    if words == "qwen-spare":
        assert torch.equal(rows, had)  # a spare row serves
    else:
        assert len(rows) % 64 == 0
        assert torch.allclose(rows[len(had) :], had.mean(0).expand(len(rows) - len(had), -1))
    assert (rows.data_ptr() == out.data_ptr()) == (words != "llama")  # tied where they were


def test_the_class_token_is_left_out_where_there_is_one(joined):
    siglip, clip = joined("siglip", "qwen"), joined("clip", "qwen")
    assert siglip.model.config.vision_feature_select_strategy == "full"
    assert clip.model.config.vision_feature_select_strategy == "default"
    places = (hub.IMAGE // hub.PATCH) ** 2
    for vlm in (siglip, clip):
        assert vlm.per_picture == vlm.model.config.image_seq_length == places
        row = tokenise(vlm.style, [(PROMPT, "left")])
        assert row.tokens.count(vlm.model.config.image_token_id) == places
        pixels = vlm.pixels(torch.zeros(2, 40, 40, 3, dtype=torch.uint8))
        assert [len(one) for one in vlm.model.get_image_features(pixel_values=pixels).pooler_output] == [places] * 2


def test_the_projector_is_new_and_comes_of_the_seed(folder):
    def weights(seed):
        torch.manual_seed(seed)
        vlm = join(str(folder("siglip")), str(folder("qwen")))
        return [p for part in vlm.part("projector") for p in part.parameters()]

    one, same, other = weights(1), weights(1), weights(2)
    assert len(one) == 4
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(p.abs().max() > 0 and p.isfinite().all() for p in one)


def test_alignment_moves_the_projector_alone(folder, pictures):
    vlm = load_vlm(vision_model=str(folder("siglip")), llm_model=str(folder("qwen")))
    vlm.train_parts("projector")
    before = {name: p.detach().clone() for name, p in vlm.model.named_parameters()}
    optimizer = torch.optim.Adam([p for p in vlm.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = vlm.loss(vlm.inputs(pictures, PROMPT, ANSWERS))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = {name for name, p in vlm.model.named_parameters() if not torch.equal(p, before[name])}
    assert len(moved) == 4
    assert all("multi_modal_projector" in name for name in moved)


def test_bfloat16(folder, pictures):
    vlm = load_vlm(vision_model=str(folder("clip")), llm_model=str(folder("llama")), dtype="bfloat16")
    assert {p.dtype for p in vlm.parameters()} == {torch.bfloat16}
    assert len(vlm.generate(pictures, PROMPT, most=3)) == 3


@pytest.mark.slow
def test_mistakes(folder, tmp_path):
    def refused(vision, words):
        return join(str(folder(vision)), str(folder(words)))

    with pytest.raises(
        BadConfig, match="is a qwen2; a --vision-model is one of clip_vision_model, siglip_vision_model"
    ):
        refused("qwen", "qwen")
    with pytest.raises(BadConfig, match="is a git; a --llm-model is one built like Llama or Qwen2"):
        refused("siglip", "git")
    with pytest.raises(BadCheckpoint, match="cannot be opened"):
        refused("siglip", "clip")
    lost = hub.rewritten(folder("siglip"), tmp_path / "lost", lambda w: {n: t for n, t in w.items() if "fc1" not in n})
    with pytest.raises(BadCheckpoint, match=r"it lacks .*mlp.fc1.bias"):
        join(str(lost), str(folder("qwen")))
