"""Real models, provably: true configurations counted against published figures, and folders as the hub has them."""

import json
import shutil

import hub
import pytest
import torch
from safetensors.torch import load_file

from drivetrain.errors import BadCheckpoint
from drivetrain.models.hub import quiet
from drivetrain.models.pair import joined_config, tower_of
from drivetrain.models.published import PUBLISHED, config_of, empty
from drivetrain.models.vlm import PARTS, VLM, load_vlm, with_lora

TOWER = 12 * 7_087_872 + 196 * 768 + (3 * 16 * 16 + 1) * 768 + 2 * 768  # SigLIP's layers, places, patches, last norm
COUNTS = {  # as published with the models, none of them by this code
    "microsoft/git-base": 176_619_066,
    "microsoft/git-large": 303_179_776
    + (1024 + 1 + 2) * 768
    + 66_756_096
    + 23_471_418,  # CLIP's large tower, and git-base
    "llava-hf/llava-1.5-7b-hf": 7_063_427_072,
    "google/siglip-base-patch16-224": 203_155_970,
    "openai/clip-vit-large-patch14-336": 427_944_193,
    "Qwen/Qwen2-0.5B": 494_032_768,
    "Qwen/Qwen2-1.5B": 1_543_714_304,
    "Qwen/Qwen2-7B": 7_615_616_512,
}
PROMPT = "what should the vehicle do?"


@pytest.fixture(scope="module")
def true_model():
    """By name, on the meta device; a pair as `vision+language`."""
    made = {}

    def of(name):
        if name not in made:
            with quiet():
                vision, _, words = name.partition("+")
                config = (
                    joined_config(tower_of(config_of(vision), vision), config_of(words)) if words else config_of(name)
                )
                made[name] = empty(config)
        return made[name]

    return of


def size(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_true_configurations_have_the_published_number_of_parameters(true_model, name):
    model = true_model(name)
    assert all(p.is_meta for p in model.parameters())
    assert size(model) == COUNTS[name]


def test_a_pair_is_its_two_halves_and_a_projector(true_model):
    pair = true_model("google/siglip-base-patch16-224+Qwen/Qwen2-1.5B")
    tower, words = pair.model.vision_tower, true_model("Qwen/Qwen2-1.5B")
    assert size(tower) == TOWER  # without the pooling head
    assert size(pair.model.multi_modal_projector) == (768 + 1) * 1536 + (1536 + 1) * 1536
    assert size(pair) == size(tower) + size(pair.model.multi_modal_projector) + size(words)


TARGETS = {
    "microsoft/git-base": ("git.encoder.layer.{}.attention.self", 6, ("query", "value"), 768 + 768, 768 + 768),
    "llava-hf/llava-1.5-7b-hf": (
        "model.language_model.layers.{}.self_attn", 32, ("q_proj", "v_proj"), 4096 + 4096, 4096 + 4096
    ),
    "google/siglip-base-patch16-224+Qwen/Qwen2-1.5B": (
        "model.language_model.layers.{}.self_attn", 28, ("q_proj", "v_proj"), 1536 + 1536, 1536 + 256
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_lora_goes_to_the_attention_of_the_language_model_and_nowhere_else(name):
    place, layers, projections, *sizes = TARGETS[name]
    with quiet():
        vision, _, words = name.partition("+")
        config = joined_config(tower_of(config_of(vision), vision), config_of(words)) if words else config_of(name)
        model = with_lora(empty(config), 16)
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    wanted = {
        f"base_model.model.{place.format(layer)}.{projection}.lora_{matrix}.default.weight"
        for layer in range(layers)
        for projection in projections
        for matrix in "AB"
    }
    assert set(learning) == wanted
    assert sum(p.numel() for p in learning.values()) == 16 * layers * sum(sizes)


STAGES = {  # what learns, and how many parameters that is in microsoft/git-base and llava-1.5-7b
    ("projector",): (592_128, 20_979_712),
    ("projector", "language", "head"): (592_128 + 66_756_096 + 23_471_418, 20_979_712 + 6_738_939_904),
    PARTS: (176_619_066, 7_063_427_072),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["microsoft/git-base", "llava-hf/llava-1.5-7b-hf"])
def test_the_parts_that_learn_in_each_stage(opened, true_model, name, stage):
    git = "git" in name
    vlm = VLM(true_model(name), opened("git" if git else "llava").processor, name)
    vlm.train_parts(*stage)
    learning = [n for n, p in vlm.model.named_parameters() if p.requires_grad]
    prefixes = tuple(prefix for part in stage for prefix in vlm.family.parts[part])
    assert learning == [n for n, _ in vlm.model.named_parameters() if n.startswith(prefixes)]
    assert sum(p.numel() for p in vlm.model.parameters() if p.requires_grad) == STAGES[stage][not git]
    if stage == ("projector",):
        ends = ["linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias"]
        published = [f"model.multi_modal_projector.{end}" for end in ends]
        if git:
            inner = "git.visual_projection.visual_projection"
            published = [f"{inner}.{layer}.{kind}" for layer in (0, 1) for kind in ("weight", "bias")]
        assert sorted(learning) == sorted(published)


def old_llava(weights):
    """As llava-1.5-7b-hf was published in 2023, with buffers that later versions left out."""
    found = {key.replace("vision_tower.", "vision_tower.vision_model."): weight for key, weight in weights.items()}
    found["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    for layer in range(2):
        found[f"language_model.model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    assert "language_model.model.layers.1.self_attn.q_proj.weight" in found
    assert "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias" in found
    assert {"language_model.lm_head.weight", "multi_modal_projector.linear_2.bias"} <= set(found)
    return found


def new_llava(weights):
    """By the names of today's classes."""
    found = {}
    for key, weight in weights.items():
        key = key.replace("language_model.lm_head", "lm_head").replace("language_model.model", "language_model")
        found[key if key.startswith("lm_head") else f"model.{key}"] = weight
    assert {"lm_head.weight", "model.language_model.layers.0.mlp.up_proj.weight"} <= set(found)
    assert "model.multi_modal_projector.linear_1.weight" in found
    return found


def new_llava_with_an_old_tower(weights):
    """By the names in between."""
    return {key.replace("vision_tower.", "vision_tower.vision_model."): w for key, w in new_llava(weights).items()}


def old_git(weights):
    """As git-base was published in 2022."""
    assert "git.image_encoder.vision_model.encoder.layers.1.self_attn.out_proj.weight" in weights
    assert {"git.visual_projection.visual_projection.0.weight", "output.bias"} <= set(weights)
    places = {"git.embeddings": 256, "git.image_encoder.vision_model.embeddings": 17}
    return weights | {f"{name}.position_ids": torch.arange(count)[None] for name, count in places.items()}


@pytest.mark.parametrize(
    ("name", "names"),
    [("llava", old_llava), ("llava", new_llava), ("llava", new_llava_with_an_old_tower), ("git", old_git)],
)
def test_weights_by_old_and_new_names(folder, opened, pictures, tmp_path, name, names):
    vlm = load_vlm(str(hub.rewritten(folder(name), tmp_path / "other", names)))
    batch = vlm.inputs(pictures, PROMPT, ["left", "turn right", "12"])
    assert torch.equal(vlm(batch).logits, opened(name)(batch).logits)
    assert {n: p.shape for n, p in vlm.model.named_parameters()} == {
        n: p.shape for n, p in opened(name).model.named_parameters()
    }


@pytest.mark.parametrize("name", ["git", "llava"])
def test_what_is_opened_is_what_is_in_the_shards(folder, opened, name):
    index = json.loads((folder(name) / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 2
    state = opened(name).model.state_dict()
    end = "mlp.fc1.weight" if name == "git" else "mlp.up_proj.weight"
    for key, file in index.items():
        if key.endswith(("embeddings.weight", "embed_tokens.weight", end)):
            weight = load_file(folder(name) / file)[key]
            assert any(weight.shape == other.shape and torch.equal(weight, other) for other in state.values()), key


def without(*ends):
    return lambda weights: {key: weight for key, weight in weights.items() if not key.endswith(ends)}


def more(weights):
    return weights | {"language_model.model.layers.9.mlp.up_proj.weight": torch.ones(2), "surprise": torch.ones(2)}


def other_shape(weights):
    [name] = [key for key in weights if key.endswith("layers.1.mlp.fc1.bias") and "vision" in key]
    return weights | {name: torch.ones(7)}


@pytest.mark.parametrize("name", ["git", "llava"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("layers.1.mlp.fc2.bias"), r"it lacks \S*layers.1.mlp.fc2.bias; fetch"),
        (without("layer_norm1.bias", "layer_norm2.bias"), r"it lacks \S*, \S*, \S* and 1 more; fetch"),
        (more, r"it has besides .*surprise"),
        (other_shape, r"it has in another shape \S*layers.1.mlp.fc1.bias"),
    ],
)
def test_weights_that_are_not_those_of_the_configuration_are_refused(folder, tmp_path, name, change, said):
    with pytest.raises(BadCheckpoint, match=said):
        load_vlm(str(hub.rewritten(folder(name), tmp_path / "other", change)))


def test_shards_that_are_missing_or_cut_short_are_refused(folder, tmp_path):
    at = shutil.copytree(folder("git"), tmp_path / "git")
    shard = sorted(at.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(BadCheckpoint, match="cannot be opened"):
        load_vlm(str(at))
    shard.unlink()
    with pytest.raises(BadCheckpoint, match=f"cannot be opened.*{shard.name}"):
        load_vlm(str(at))


@pytest.mark.parametrize("lost", ["tokenizer.json", "processor_config.json"])
def test_a_folder_without_its_words_or_pictures_is_refused(folder, tmp_path, lost):
    at = shutil.copytree(folder("llava"), tmp_path / "llava")
    (at / lost).unlink()
    with pytest.raises(BadCheckpoint):
        load_vlm(str(at))


def test_published_ids_are_known_without_a_network(monkeypatch):
    def no_network(path):
        raise AssertionError(f"asked the hub for {path}")

    monkeypatch.setattr("drivetrain.models.published.read_config", no_network)
    with quiet():
        for name in PUBLISHED:
            config_of(name)
    assert config_of("Qwen/Qwen2-7B-Instruct").hidden_size == 3584
