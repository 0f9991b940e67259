"""The door to vision-language models: quick ways against slow ones, and ours against transformers' own."""

import copy

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch.nn import functional as F

from drivetrain.errors import BadCheckpoint, BadConfig
from drivetrain.models.chat import IGNORED, tokenise
from drivetrain.models.vlm import PARTS, drawn, load_vlm, remembering

PROMPT = "what should the vehicle do?"
PROMPTS = ["what is the pole?", "turn left or right at the cart, how many degrees?", "road?"]
ANSWERS = ["left", "turn right", "keep straight and slow down", "12"]


def close(a, b, most=2e-4):
    assert a.shape == b.shape
    assert (a - b).abs().max() < most, (a - b).abs().max()


def slowly_scored(vlm, pictures, prompts, answers):
    """One answer at a time, through the whole model."""
    columns = []
    for answer in answers:
        batch = vlm.inputs(pictures, prompts, [answer] * (len(pictures) if pictures is not None else len(prompts)))
        columns.append(scored(vlm, batch))
    return torch.stack(columns, 1)


def scored(vlm, batch):
    labels = batch["labels"][:, 1:]
    said = F.log_softmax(vlm(batch).logits[:, :-1].float(), -1)
    each = said.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    return (each * (labels != IGNORED)).sum(1)


def slowly_said(vlm, batch, most):
    """Greedily, everything anew for each token; one row alone."""
    batch, said = dict(batch), []
    for _ in range(most):
        token = vlm(batch).logits[:, -1].argmax(-1)
        if token == vlm.style.end:
            break
        said.append(int(token))
        batch["input_ids"] = torch.cat([batch["input_ids"], token[None]], 1)
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    return said


@pytest.mark.filterwarnings("error::FutureWarning")
@torch.no_grad()
def test_all_answers_in_one_pass_score_as_each_alone(vlm, pictures):
    found = vlm.score(pictures, PROMPT, ANSWERS)
    close(found, slowly_scored(vlm, pictures, PROMPT, ANSWERS))
    assert found.std() > 0.1  # logits that say nothing would agree, too


@torch.no_grad()
def test_a_batch_of_prompts_of_many_lengths_is_as_one_by_one(vlm, pictures):
    together = vlm.score(pictures, PROMPTS, ANSWERS)
    close(together, torch.cat([vlm.score(pictures[i : i + 1], PROMPTS[i], ANSWERS) for i in range(3)]))
    close(together, slowly_scored(vlm, pictures, PROMPTS, ANSWERS))
    said = [vlm.generate(pictures[i : i + 1], PROMPTS[i], most=6)[0] for i in range(3)]
    assert vlm.generate(pictures, PROMPTS, most=6) == said
    last = vlm.features(pictures, PROMPTS).last
    close(last, torch.cat([vlm.features(pictures[i : i + 1], PROMPTS[i]).last for i in range(3)]))


@pytest.mark.filterwarnings("error::FutureWarning")
@torch.no_grad()
def test_what_is_generated_with_a_cache_is_what_comes_without(vlm, pictures):
    for i, prompt in enumerate(PROMPTS):
        batch = vlm.inputs(pictures[i : i + 1], prompt)
        assert vlm.generate_ids(batch, 8) == [slowly_said(vlm, batch, 8)]


def test_a_cache_goes_by_the_word_that_the_model_takes():
    class Older(torch.nn.Module):
        def forward(self, input_ids, past_key_values=None, use_cache=None, **more):
            assert not more
            return past_key_values, use_cache

    class Newer(torch.nn.Module):
        def forward(self, input_ids, cache=None, use_cache=None, **more):
            assert not more
            return cache, use_cache

    for model in (Older(), Newer()):
        assert model(1, **remembering(model, "kept")) == ("kept", True)
        assert model(1, **remembering(model, None)) == (None, False)


@torch.no_grad()
def test_transformers_generates_the_same(opened, pictures):
    vlm = opened("llava")
    for i, prompt in enumerate(PROMPTS):
        batch = vlm.inputs(pictures[i : i + 1], prompt)
        given = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values")}
        theirs = vlm.model.generate(**given, max_new_tokens=8, do_sample=False)[
            0, batch["input_ids"].shape[1] :
        ].tolist()
        [ours] = vlm.generate_ids(batch, 8)
        assert theirs[: len(ours)] == ours
        assert len(ours) == 8 or theirs[len(ours)] == vlm.style.end


@torch.no_grad()
def test_an_answer_ends_where_the_model_ends_it(vlm, pictures, monkeypatch):
    batch = vlm.inputs(pictures, PROMPTS)
    free = vlm.generate_ids(batch, 8)
    end = free[0][4]
    monkeypatch.setattr(vlm.style, "end", end)
    cut = [row[: row.index(end)] if end in row else row for row in free]
    assert vlm.generate_ids(batch, 8) == cut != free


@torch.no_grad()
def test_a_number_is_the_mean_over_what_may_be_answered(vlm, pictures):
    numbers = [-3, 0, 12]
    chances = slowly_scored(vlm, pictures, PROMPT, ["-3", "0", "12"]).softmax(-1)
    close(vlm.number(pictures, PROMPT, numbers), (chances * torch.tensor(numbers)).sum(-1), 1e-3)


@torch.no_grad()
def test_features_of_every_layer(vlm, pictures):
    batch = vlm.inputs(pictures, PROMPTS)
    layers = vlm.core.config.get_text_config().num_hidden_layers
    for layer in range(-layers - 1, layers + 1):
        found = vlm.features(pictures, PROMPTS, layer)
        assert found.tokens.shape == (3, batch["input_ids"].shape[1], vlm.width)
        assert found.pictures.shape == (3, vlm.per_picture, vlm.width)
        assert torch.equal(found.mask, batch["attention_mask"].bool())
        for row, length in enumerate(found.mask.sum(1)):
            assert torch.equal(found.last[row], found.tokens[row, length - 1])
    assert torch.equal(vlm.features(pictures, PROMPTS, -1).tokens, vlm.features(pictures, PROMPTS, layers).tokens)
    close(vlm.features(pictures, PROMPTS, -1).tokens, vlm.states(batch), 1e-5)
    for wrong in (-layers - 2, layers + 1):
        with pytest.raises(BadConfig, match=f"has layers {-layers - 1} to {layers}, got layer {wrong}"):
            vlm.features(pictures, PROMPTS, wrong)


@torch.no_grad()
def test_pictures_of_the_first_layer_come_from_the_projector(opened, pictures):
    llava, git = opened("llava"), opened("git")
    pixels = llava.pixels(pictures)
    seen = torch.stack(list(llava.model.get_image_features(pixel_values=pixels).pooler_output))
    close(llava.features(pictures, PROMPT, 0).pictures, seen, 1e-5)
    tower = git.model.git.image_encoder(git.pixels(pictures)).last_hidden_state
    close(git.features(pictures, PROMPT, 0).pictures, git.model.git.visual_projection(tower), 1e-5)


@torch.no_grad()
def test_the_last_token_has_seen_the_picture(vlm, pictures):
    one, other = vlm.features(pictures, PROMPT).last, vlm.features(255 - pictures, PROMPT).last
    assert (one - other).abs().max() > 1e-3


@torch.no_grad()
def test_llava_answers_without_a_picture(opened):
    vlm = opened("llava")
    close(vlm.score(None, PROMPTS, ANSWERS), slowly_scored(vlm, None, PROMPTS, ANSWERS))
    assert "pixel_values" not in vlm.inputs(None, PROMPT)
    assert len(vlm.generate(None, PROMPTS, most=3)) == 3


@torch.no_grad()
def test_rows_with_and_without_pictures_go_together(opened, pictures):
    vlm = opened("llava")
    talks = [(PROMPTS[0], "left"), (PROMPTS[1], "slow down"), (PROMPTS[2], "turn right")]
    with_picture = [1, 0, 1]
    rows = [tokenise(vlm.style, [talk], each) for talk, each in zip(talks, with_picture, strict=True)]
    batch = vlm.collate(rows, vlm.pixels(pictures[:2]))
    alone = [
        scored(vlm, vlm.collate(rows[:1], vlm.pixels(pictures[:1]))),
        scored(vlm, vlm.collate(rows[1:2], None)),
        scored(vlm, vlm.collate(rows[2:], vlm.pixels(pictures[1:2]))),
    ]
    close(scored(vlm, batch), torch.cat(alone))


@torch.no_grad()
def test_git_sees_several_frames(opened, pictures):
    vlm = opened("git-frames")
    frames = torch.stack([vlm.pixels(np.roll(pictures, 7 * i, 2)) for i in range(3)], 1)  # [B, F, 3, H, W]
    batch = vlm.inputs(pictures, PROMPTS) | {"pixel_values": frames}
    found = vlm.features_of(batch)
    assert found.pictures.shape == (3, 3 * vlm.per_picture, vlm.width)
    slow = [scored(vlm, vlm.inputs(pictures, PROMPTS, [a] * 3) | {"pixel_values": frames}) for a in ANSWERS]
    close(vlm.score_of(batch, ANSWERS), torch.stack(slow, 1))
    for i in range(3):
        one = vlm.inputs(pictures[i : i + 1], PROMPTS[i]) | {"pixel_values": frames[i : i + 1]}
        assert vlm.generate_ids(one, 6) == [slowly_said(vlm, one, 6)] == [vlm.generate_ids(batch, 6)[i]]
    assert vlm.part("projector")[1] is vlm.model.git.img_temporal_embedding


@torch.no_grad()
def test_a_copy_does_what_the_model_does(vlm, pictures):
    """As an anchor of a policy, or a network that follows it slowly, does."""
    other = copy.deepcopy(vlm)
    batch = vlm.inputs(pictures, PROMPTS)
    for ours, theirs in zip(vlm.looked(batch), other.looked(batch), strict=True):
        assert torch.equal(ours, theirs)
    assert other.generate(pictures, PROMPTS, most=4) == vlm.generate(pictures, PROMPTS, most=4)
    assert torch.equal(other.score(pictures, PROMPT, ANSWERS), vlm.score(pictures, PROMPT, ANSWERS))
    assert other.width == vlm.width


@torch.no_grad()
def test_the_loss_is_of_the_answers(vlm, pictures):
    batch = vlm.inputs(pictures, PROMPTS, ANSWERS[:3])
    tokens = sum(len(vlm.style.answer(answer)) for answer in ANSWERS[:3])
    assert len(vlm.losses(batch)) == tokens
    close(vlm.loss(batch), -scored(vlm, batch).sum() / tokens)


def test_temperature_draws_as_likely_as_the_model_says(vlm, pictures):
    def draw(seed):
        return vlm.generate(pictures, PROMPTS, most=8, temperature=1.5, generator=torch.Generator().manual_seed(seed))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    logits = torch.tensor([2.0, 1.0, -1.0]).expand(40_000, 3)
    for temperature in (0.5, 2.0):
        counts = torch.bincount(drawn(logits, temperature, torch.Generator().manual_seed(0)), minlength=3) / 40_000
        close(counts, (logits[0] / temperature).softmax(-1), 0.01)


@pytest.mark.parametrize("name", ["git", "llava"])
def test_parts_learn_by_name(folder, name, pictures):
    vlm = load_vlm(str(folder(name)))
    everything = {n for n, _ in vlm.model.named_parameters()}
    covered = set()
    for part in PARTS:
        vlm.train_parts(part)
        learning = {n for n, p in vlm.model.named_parameters() if p.requires_grad}
        assert learning == {n for n in everything if n.startswith(vlm.family.parts[part])}, part
        assert not learning & covered
        covered |= learning
    assert covered == everything
    vlm.train_parts("projector", "head")
    before = {n: p.detach().clone() for n, p in vlm.model.named_parameters()}
    learning = [p for p in vlm.parameters() if p.requires_grad]
    vlm.loss(vlm.inputs(pictures, PROMPT, ANSWERS[:3])).backward()
    torch.optim.SGD(learning, lr=1.0).step()
    moved = {n for n, p in vlm.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in vlm.model.named_parameters() if p.requires_grad}
    with pytest.raises(BadConfig, match=r"has the parts vision, projector, language, head, got 'tower'"):
        vlm.train_parts("tower")


def test_an_adapter_is_saved_without_asking_the_hub(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda *words: asked.append(words))
    vlm = load_vlm("tiny-git")
    vlm.add_lora(2)
    vlm.save(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").exists()
    assert not asked


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # what peft asks transformers
@pytest.mark.parametrize("name", ["git", "llava"])
def test_lora_leaves_the_base_as_it_is_and_merges_into_it(folder, name, pictures, tmp_path):
    vlm = load_vlm(str(folder(name)))
    batch = vlm.inputs(pictures, PROMPT, ANSWERS[:3])
    plain = vlm(batch).logits.detach()
    vlm.add_lora(4)
    assert torch.equal(vlm(batch).logits, plain)  # it begins as nothing
    before = {n: p.detach().clone() for n, p in vlm.model.named_parameters() if not p.requires_grad}
    learning = [(n, p) for n, p in vlm.model.named_parameters() if p.requires_grad]
    assert all(
        "lora_" in n and vlm.family.layers in n and n.split(".lora_")[0].endswith(vlm.family.attention)
        for n, _ in learning
    )
    assert len(learning) == 2 * 2 * 2  # layers, projections, matrices
    optimizer = torch.optim.Adam([p for _, p in learning], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        vlm.loss(batch).backward()
        optimizer.step()
    assert all(torch.equal(p, before[n]) for n, p in vlm.model.named_parameters() if n in before)
    taught = vlm(batch).logits.detach()
    assert (taught - plain).abs().max() > 0.01
    vlm.save(tmp_path)
    again = load_vlm(str(folder(name)))
    adapted = PeftModel.from_pretrained(again.model, tmp_path)
    given = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values")}
    assert torch.equal(adapted(**given).logits[:, -plain.shape[1] :], taught)
    again.model = adapted.merge_and_unload()
    close(again(batch).logits, taught)
    with torch.no_grad():
        close(vlm.score(pictures, PROMPT, ANSWERS), again.score(pictures, PROMPT, ANSWERS), 1e-3)


def test_lora_of_names_that_are_not_there(folder):
    vlm = load_vlm(str(folder("llava")))
    with pytest.raises(
        BadConfig, match=r"found no query in model.language_model.layers; there are down_proj, gate_proj"
    ):
        vlm.add_lora(4, targets=["query"])


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("name", ["git", "llava"])
def test_spared_memory_does_not_change_gradients(folder, name, lora, pictures):
    found = []
    for spared in (False, True):
        torch.manual_seed(0)
        vlm = load_vlm(str(folder(name)))
        if lora:
            vlm.add_lora(4)
            torch.manual_seed(1)
            for n, p in vlm.model.named_parameters():
                if "lora_B" in n:
                    torch.nn.init.normal_(p)
        if spared:
            vlm.spare_memory()
        vlm.train()
        torch.manual_seed(2)  # GIT drops some
        vlm.loss(vlm.inputs(pictures, PROMPT, ANSWERS[:3])).backward()
        found.append({n: p.grad for n, p in vlm.model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert any(g.abs().max() > 1e-3 for g in found[0].values())
    for name, gradient in found[0].items():
        close(gradient, found[1][name], 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["git", "llava"])
def test_bfloat16(folder, opened, name, pictures):
    vlm, exact = load_vlm(str(folder(name)), dtype="bfloat16"), opened(name)
    assert vlm.dtype == torch.bfloat16
    assert all(p.dtype == torch.bfloat16 for p in vlm.model.parameters())
    found, wanted = vlm.score(pictures, PROMPTS, ANSWERS), exact.score(pictures, PROMPTS, ANSWERS)
    assert found.dtype == torch.float32
    assert ((found - wanted) / wanted).abs().max() < 0.1
    assert len(vlm.generate(pictures, PROMPTS, most=4)) == 3
    assert vlm.features(pictures, PROMPT).last.dtype == torch.bfloat16
    vlm.add_lora(2)
    with torch.enable_grad():
        vlm.loss(vlm.inputs(pictures, PROMPT, ANSWERS[:3])).backward()


def test_mistakes(folder, tmp_path):
    with pytest.raises(BadConfig, match="dtype must be one of float32, bfloat16, float16, got 'float8'"):
        load_vlm(str(folder("git")), dtype="float8")
    with pytest.raises(BadConfig, match="--vision-model and --llm-model go together"):
        load_vlm(vision_model="google/siglip-base-patch16-224")
    with pytest.raises(BadCheckpoint, match="there is no backbone"):
        load_vlm(str(tmp_path / "nothing"))
    with pytest.raises(BadConfig, match="is a qwen2; known are git and llava"):
        load_vlm(str(folder("qwen")))
