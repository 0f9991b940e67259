"""A vision-language model as a policy's eyes: what it looks at, what learns, what is kept, and that words and deeds agree."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from drivetrain import checkpoint
from drivetrain.errors import BadCheckpoint, BadConfig, UnknownName
from drivetrain.models.driver import Driver, Network, build_policy
from drivetrain.models.reader import UNSAID, Reader, Sight, described, new_reader
from drivetrain.models.vlm import load_vlm
from drivetrain.sample import ACTION, FRONT, INSTRUCTION, STATE, Feature, Spec

SAID = ("turn left", "turn right", "slow down")
PICTURE = Feature((40, 52, 3), "uint8", 0.0, 255.0, colour="rgb")
CHOICE = Feature((), "int64", names=("left", "right"), choices=2)
SEEING = Spec({FRONT: PICTURE, ACTION: CHOICE}, "what should the vehicle do")
ORDERED = Spec({INSTRUCTION: Feature((), "int64", names=("turn left", "slow down"), choices=2), **SEEING.features})


def reader(folder, kind="git", sight=None, **how):
    torch.manual_seed(0)
    return new_reader(str(folder(kind)), ["what should the vehicle do", "turn left"], sight or Sight(), **how).eval()


def network(folder, kind="git", **more):
    return Network(backbone=str(folder(kind)), hidden=(16,), activation="relu", **more)


def seen(pictures, **more):
    return {FRONT: torch.from_numpy(pictures).unsqueeze(1), **more}


FIRST = torch.zeros(3, 1, dtype=torch.bool)


@pytest.mark.parametrize("kind", ["git", "llava"])
@pytest.mark.parametrize(("look", "of_picture"), [("flat", 16 * 4), ("pooled", 32), ("last", 0)])
def test_what_it_gives_is_of_the_pictures_and_of_the_prompt(folder, pictures, kind, look, of_picture):
    eyes = reader(folder, kind, Sight(look=look, width=4))
    extra = eyes.vlm.per_picture - 16  # GIT has a token for the whole picture
    texts = torch.tensor([0, 0, 1])
    with torch.no_grad():
        found = eyes(torch.from_numpy(pictures), texts)
        other_prompt = eyes(torch.from_numpy(pictures), 1 - texts)
        other_picture = eyes(torch.from_numpy(pictures[::-1].copy()), texts)
    assert found.shape == (3, eyes.width) == (3, 32 + of_picture + extra * 4 * (look == "flat"))
    assert (found - other_prompt).abs().max() > 1e-4
    assert (found[0] - other_picture[0]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["git", "llava"])
def test_words_that_follow_the_prompt_leave_what_was_seen_as_it_is(folder, pictures, kind):
    eyes, texts = reader(folder, kind, sentences=SAID), torch.tensor([0, 1, 0])
    with torch.no_grad():
        silent, nothing = eyes.read(torch.from_numpy(pictures), texts)
        talking, loss = eyes.read(torch.from_numpy(pictures), texts, torch.tensor([0, 1, 2]))
        whole = eyes.vlm.loss(eyes.vlm.inputs(pictures, [eyes.texts[i] for i in texts], [SAID[0], SAID[1], SAID[2]]))
    assert nothing is None
    assert torch.allclose(silent, talking, atol=1e-4)
    assert loss == pytest.approx(float(whole), abs=1e-4)


def test_a_stack_of_pictures_is_read_one_by_one(folder, pictures):
    one, two = reader(folder), reader(folder, pictures=2)
    two.narrow.load_state_dict(one.narrow.state_dict())
    texts, stacked = torch.zeros(3, dtype=torch.long), np.concatenate([pictures, pictures[::-1]], -1)
    with torch.no_grad():
        first, second = (one(torch.from_numpy(p.copy()), texts) for p in (pictures, pictures[::-1]))
        both = two(torch.from_numpy(stacked), texts)
    assert torch.allclose(both, torch.cat([first, second], 1), atol=1e-5)


@pytest.mark.parametrize(
    ("tune", "learning"), [("full", {"vision", "language"}), ("lora", {"lora"}), ("frozen", set())]
)
def test_what_learns_is_what_was_asked_for(folder, pictures, tune, learning):
    policy = build_policy(SEEING, network(folder, tune=tune), "categorical").train()
    found, _, loss = policy.features_and_words(seen(pictures), {}, FIRST, None)
    policy.head(found).log_prob(torch.zeros(3, 1, dtype=torch.long)).sum().backward()
    moved = {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    in_vlm = {name for name in moved if ".vlm." in name}
    kinds = {"vision": "image_encoder", "language": "git.encoder"}
    assert loss is None
    of_lora = {name for name in in_vlm if "lora_" in name}
    assert {kind for kind, part in kinds.items() if any(part in n for n in in_vlm - of_lora)} | (
        {"lora"} if of_lora else set()
    ) == learning
    assert any(name.startswith("head.") for name in moved)
    assert "reader.narrow.weight" in moved


@pytest.mark.parametrize(("tune", "bundle", "stays"), [("full", False, 0), ("lora", False, 1), ("frozen", True, 0)])
def test_a_checkpoint_acts_the_same_and_keeps_what_it_must(folder, pictures, tmp_path, tune, bundle, stays):
    home = tmp_path / "backbone"
    shutil.copytree(folder("git"), home)
    eyes = replace(network(folder, tune=tune, bundle=bundle), backbone=str(home))
    policy = build_policy(SEEING, eyes, "categorical").eval()
    with torch.no_grad():
        for p in policy.parameters():
            if p.requires_grad:
                p.add_(0.01)
    checkpoint.save(tmp_path / "run", 1, {"policy": policy})
    if not stays:
        shutil.rmtree(home)  # the checkpoint needs nothing else
    again = checkpoint.load_policy(tmp_path / "run")
    ours, theirs = (p.act(seen_now(pictures), {}, greedy=True, generator=None)[2]["features"] for p in (policy, again))
    assert torch.equal(ours, theirs)
    size = (tmp_path / "run" / "checkpoints" / "000000001" / "policy.safetensors").stat().st_size
    assert (size < 100_000) == bool(stays)


def seen_now(pictures):
    return {FRONT: pictures}


def test_frozen_weights_that_have_changed_are_told(folder, tmp_path):
    home = tmp_path / "backbone"
    shutil.copytree(folder("git"), home)
    said = json.loads(json.dumps(reader(lambda _: home, sight=Sight(tune="frozen")).describe()))
    assert isinstance(described(said, Sight(tune="frozen")), Reader)
    vlm = load_vlm(str(home))
    with torch.no_grad():
        next(vlm.core.git.encoder.parameters()).add_(1e-3)
    shutil.rmtree(home)
    vlm.save(home)
    with pytest.raises(BadCheckpoint, match="other weights than the policy was trained on"):
        described(said, Sight(tune="frozen"))


def test_a_frozen_backbone_is_found_from_elsewhere(folder, tmp_path, monkeypatch):
    shutil.copytree(folder("git"), tmp_path / "near" / "backbone")
    monkeypatch.chdir(tmp_path / "near")
    said = json.loads(json.dumps(reader(lambda _: "backbone", sight=Sight(tune="frozen")).describe()))
    monkeypatch.chdir(tmp_path)
    assert isinstance(described(said, Sight(tune="frozen")), Reader)


def test_freezing_it_all_later_leaves_what_was_learned_in_the_checkpoint(folder, pictures, tmp_path):
    """As PPO's --freeze does, and DQN's target network."""
    policy = build_policy(SEEING, network(folder, tune="lora"), "categorical").eval()
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_B" in name:
                p.add_(0.1)
    policy.requires_grad_(False)
    checkpoint.save(tmp_path, 1, {"policy": policy})
    again = checkpoint.load_policy(tmp_path)
    ours, theirs = (p.act(seen_now(pictures), {}, greedy=True, generator=None)[2]["features"] for p in (policy, again))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("tune", ["full", "lora", "frozen"])
def test_an_adapters_folder_is_a_backbone_with_all_that_it_learned(folder, pictures, tmp_path, tune):
    base = load_vlm(str(folder("git")))
    base.add_lora(4)
    with torch.no_grad():
        for name, p in base.named_parameters():
            if "lora_B" in name:
                p.add_(0.3)
    base.save(tmp_path / "adapter")
    eyes = replace(network(folder, tune=tune, look="last"), backbone=str(tmp_path / "adapter"))
    policy = build_policy(SEEING, eyes, "categorical").eval()
    with torch.no_grad():
        wanted = base.eval().features(pictures, SEEING.task).last
        plain = load_vlm(str(folder("git"))).features(pictures, SEEING.task).last
    _, _, info = policy.act(seen_now(pictures), {}, greedy=True, generator=None)
    assert torch.allclose(info["features"], wanted, atol=1e-4)
    assert not torch.allclose(info["features"], plain, atol=1e-2)
    checkpoint.save(tmp_path / "run", 1, {"policy": policy})
    shutil.rmtree(tmp_path / "adapter")  # nothing of it lies elsewhere
    again = checkpoint.load_policy(tmp_path / "run")
    assert torch.equal(again.act(seen_now(pictures), {}, greedy=True, generator=None)[2]["features"], info["features"])


def test_nothing_is_said_of_padding(folder, pictures):
    eyes, texts = reader(folder, sentences=SAID), torch.tensor([0, 1, 0])
    with torch.no_grad():
        two = eyes.read(torch.from_numpy(pictures[:2]), texts[:2], torch.tensor([0, 1]))[1]
        padded = eyes.read(torch.from_numpy(pictures), texts, torch.tensor([0, 1, UNSAID]))[1]
    assert padded == pytest.approx(float(two), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"), [({"tune": "lora"}, "--network.tune is about a backbone"), ({"prompt": "Go."}, "prompt")]
)
def test_flags_about_a_backbone_want_one(changes, says):
    with pytest.raises(BadConfig, match=says):
        build_policy(SEEING, Network(hidden=(8,), **changes), "categorical")


def test_lora_wants_a_rank(folder):
    with pytest.raises(BadConfig, match="needs a --lora-rank of 1 or more, got 0"):
        build_policy(SEEING, network(folder, tune="lora", lora_rank=0), "categorical")


def test_what_is_saved_apart_opens_apart(folder, tmp_path):
    policy = build_policy(SEEING, network(folder, tune="lora"), "categorical")
    policy.save_apart(tmp_path / "model")
    assert (tmp_path / "model" / "adapter_config.json").is_file()
    assert isinstance(load_vlm(str(tmp_path / "model")).width, int)
    head = load_file(str(tmp_path / "model" / "head.safetensors"))
    mine = policy.state_dict()
    assert {key.split(".")[0] for key in head} == {"head", "reader"}
    assert all(torch.equal(head[k], mine[k]) for k in head)


def test_orders_are_prompts(folder, pictures):
    policy = build_policy(ORDERED, network(folder, prompt="what should the vehicle do"), "categorical").eval()
    assert policy.reader.texts == ("turn left what should the vehicle do", "slow down what should the vehicle do")
    orders = (np.zeros(3, np.int64), np.ones(3, np.int64))
    ours, theirs = (
        policy.act({FRONT: pictures, INSTRUCTION: o}, {}, greedy=True, generator=None)[2]["features"] for o in orders
    )
    assert (ours - theirs).abs().max() > 1e-4


def test_without_a_backbone_orders_are_numbers(pictures):
    policy = build_policy(ORDERED, Network(camera_width=8, hidden=(8,)), "categorical").eval()
    _, _, info = policy.act({FRONT: pictures, INSTRUCTION: np.array([0, 1, 1])}, {}, greedy=True, generator=None)
    assert info["features"][:, :2].tolist() == [[1, 0], [0, 1], [0, 1]]


def test_what_it_cannot_see_is_refused(folder):
    with pytest.raises(BadConfig, match="needs colour pictures of one size, got none"):
        build_policy(Spec({STATE: Feature((2,)), ACTION: CHOICE}, "go"), network(folder), "categorical")
    grey = replace(PICTURE, shape=(40, 52, 4))
    with pytest.raises(BadConfig, match=r"got observation.images.front \[40, 52, 4\]"):
        build_policy(Spec({FRONT: grey, ACTION: CHOICE}, "go"), network(folder), "categorical")
    with pytest.raises(UnknownName, match="look"):
        build_policy(SEEING, network(folder, look="askance"), "categorical")
    with pytest.raises(UnknownName, match="tune"):
        build_policy(SEEING, network(folder, tune="piano"), "categorical")


def test_a_driver_without_a_backbone_describes_none():
    policy = build_policy(SEEING, Network(camera_width=8, hidden=(8,)), "categorical")
    assert "reader" not in policy.describe()
    assert Driver.from_description(policy.describe()).reader is None
