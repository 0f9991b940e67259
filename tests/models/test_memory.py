"""What the doctor foretells of memory, against what a model of the same configuration really takes."""

import json

import pytest
import torch
from transformers import DynamicCache

from drivetrain import doctor
from drivetrain.cli import main
from drivetrain.models import memory
from drivetrain.models.hub import quiet
from drivetrain.models.memory import Ledger, Plan
from drivetrain.models.vlm import load_vlm

BATCH, TEXT = 3, 10


def planned(folder, **more):
    return Plan(str(folder), batch=BATCH, text=TEXT, lora_rank=4, **more)


def prompted(vlm, plan):
    """The bytes of the worst moment of a prompt, with tensors that have memory."""
    with Ledger(vlm.model) as ledger, torch.no_grad():
        memory.states(vlm.core, plan, DynamicCache(config=vlm.core.config))
    return ledger.most


def near(a, b, share=0.05):
    assert abs(a - b) <= share * b, (a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["git", "git-frames", "llava"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_what_a_real_step_takes(folder, name, dtype):
    plan = planned(folder(name), dtype=dtype)
    found = memory.needs(plan)["bytes"]
    vlm = load_vlm(str(folder(name)), dtype=dtype).train()
    size = sum(p.numel() * p.element_size() for p in vlm.model.parameters())
    for way in ("inference", "full"):
        assert found[way]["weights"] == size
    assert found["full"]["gradients"] == size
    assert found["full"]["optimizer"] == 2 * size
    near(found["full"]["activations"], memory.worst_moment(vlm.model, vlm.core, plan))
    vlm.spare_memory()
    near(found["full_checkpointing"]["activations"], memory.worst_moment(vlm.model, vlm.core, plan))
    lora = load_vlm(str(folder(name)), dtype=dtype)
    lora.add_lora(4)
    lora.train()
    learning = sum(p.numel() for p in lora.model.parameters() if p.requires_grad)
    assert found["lora"]["gradients"] == 4 * learning  # peft keeps them in float32
    assert found["lora"]["weights"] == size + 4 * learning
    near(found["lora"]["activations"], memory.worst_moment(lora.model, lora.core, plan))
    prompt = found["inference"]["activations"] + found["inference"]["cache"]
    near(prompt, prompted(load_vlm(str(folder(name)), dtype=dtype), plan))
    for need in found.values():
        assert need["total"] == sum(need[part] for part in memory.COLUMNS[:-1])


@pytest.mark.slow
def test_the_cache_is_keys_and_values_of_every_layer(folder):
    found = memory.needs(planned(folder("llava")))["bytes"]["inference"]
    tokens, layers, heads, head_width = 16 + TEXT, 2, 4, 8
    assert found["cache"] == 2 * layers * heads * head_width * tokens * BATCH * 4
    pair = Plan(vision_model=str(folder("siglip")), llm_model=str(folder("qwen")), batch=BATCH, text=TEXT)
    assert memory.needs(pair)["bytes"]["inference"]["cache"] == found["cache"] // 2  # two heads share theirs


@pytest.mark.slow
def test_more_at_once_takes_more_and_sparing_takes_less(folder):
    few, many = (memory.needs(Plan(str(folder("llava")), batch=batch, text=40))["bytes"] for batch in (2, 8))
    for way in few:
        assert many[way]["activations"] > 2 * few[way]["activations"] or way == "inference", way
        assert many[way]["weights"] == few[way]["weights"]
    for found in (few, many):
        assert found["full_checkpointing"]["total"] < found["full"]["total"]
        assert found["lora_checkpointing"]["total"] < found["lora"]["total"] < found["full"]["total"]
        assert found["inference"]["total"] < found["lora"]["total"]


@pytest.mark.slow
def test_nothing_is_loaded(folder, tmp_path):
    """A folder with a configuration alone is enough."""
    (tmp_path / "config.json").write_text((folder("git") / "config.json").read_text())
    assert memory.needs(Plan(str(tmp_path)))["parameters"] == memory.needs(Plan(str(folder("git"))))["parameters"]


@pytest.mark.slow
def test_seven_billion_parameters_in_bfloat16():
    with quiet():
        found = memory.step(
            memory.planned_config(seven := Plan("llava-hf/llava-1.5-7b-hf", dtype="bfloat16", batch=1)), seven
        )
    assert found.weights == found.gradients == 2 * 7_063_427_072
    assert found.optimizer == 4 * 7_063_427_072
    assert 4e9 < found.activations < 8e9


@pytest.mark.slow
def test_the_doctor_says_what_fits(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "room", lambda: ("a machine", 2_000_000_000))
    assert main(["doctor", "--backbone", "microsoft/git-base", "--batch", "2"]) == 0
    said = capsys.readouterr().out
    assert "microsoft/git-base: git, 176,619,066 parameters (vision 85.8M" in said
    rows = {line[:22].strip(): line for line in said.splitlines()}
    assert rows["inference"].endswith("   fits")
    assert rows["full training"].endswith("   does not fit")
    assert "this machine: a machine, 2.0 GB" in said


def test_a_machine_reads_the_same(folder, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "room", lambda: ("a machine", 1_000_000))
    assert main(["doctor", "--backbone", str(folder("git")), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["all"] == sum(count for part, count in found["parameters"].items() if part != "all")
    assert found["fits"] == {way: need["total"] <= found["room"] for way, need in found["bytes"].items()}
    assert (found["device"], found["fits"]["full"]) == ("a machine", False)


@pytest.mark.slow
def test_the_doctor_knows_pairs(folder, capsys):
    assert main(["doctor", "--vision-model", str(folder("clip")), "--llm-model", str(folder("llama")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "llava"


def test_without_a_model_the_doctor_looks_at_the_machine(capsys):
    assert main(["doctor"]) == 0
    assert "processors" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["processors"] >= 1


MISTAKES = [
    (["--batch", "4"], "give --backbone, or --vision-model and --llm-model"),
    (["--vision-model", "openai/clip-vit-large-patch14-336"], "--vision-model and --llm-model together"),
    (["--backbone", "microsoft/git-base", "--llm-model", "Qwen/Qwen2-7B"], "give --backbone alone"),
    (["--backbone", "Qwen/Qwen2-7B"], "is a qwen2; a --backbone is one of git, llava"),
    (["--vision-model", "Qwen/Qwen2-7B", "--llm-model", "Qwen/Qwen2-7B"], "a --vision-model is one of"),
    (["--backbone", "microsoft/git-base", "--batch", "0"], "--batch must be 1 or more, got 0"),
    (["--backbone", "microsoft/git-base", "--lora-rank", "0"], "--lora-rank must be 1 or more, got 0"),
    (["--backbone", "microsoft/git-base", "--dtype", "int8"], "dtype must be one of float32, bfloat16, float16"),
    (["--backbone", "no/such/folder"], "there is no backbone 'no/such/folder'"),
]


@pytest.mark.parametrize(("flags", "said"), MISTAKES)
def test_mistakes_are_one_line(flags, said, capsys):
    assert main(["doctor", *flags]) == 2
    out, line = capsys.readouterr()
    assert out == ""
    assert said in line
    assert line.count("\n") == 1


def test_a_container_may_have_less_than_the_machine():
    device, room = doctor.room()
    assert device
    assert 1e8 < room <= max(doctor.allowed(), 1e14)
