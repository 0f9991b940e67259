"""The small models that come with the package: they open by name and know what their cards say."""

import json
from pathlib import Path

import numpy as np
import pytest

from drivetrain import catalog, checkpoint, cli
from drivetrain.envs.words import make_env
from drivetrain.models.hub import where
from drivetrain.models.vlm import load_vlm
from drivetrain.training.examination import examine
from drivetrain.training.pretrain import Config, Scenes


@pytest.mark.slow
@pytest.mark.parametrize("name", list(catalog.BACKBONES))
def test_it_answers_about_pictures_it_never_saw(name):
    vlm = load_vlm(name)
    found = examine(vlm, Scenes(Config(), unseen=True).held_out(320))
    right, shuffled = (
        np.mean([said["right"]["value"] for said in found[side].values() if "right" in said])
        for side in ("seen", "shuffled")
    )
    numbers = [said["correlation"]["value"] for said in found["seen"].values() if "correlation" in said]
    card = json.loads((Path(where(name)) / "card.json").read_text())
    assert right > 0.85 > 0.6 > shuffled
    assert min(numbers) > 0.8
    assert card["parameters"] == sum(p.numel() for p in vlm.parameters())
    assert card["made_by"][0].startswith("drivetrain train pretrain")


def test_the_list_tells_size_and_skill(capsys):
    assert cli.main(["list", "backbones"]) == 0
    said = capsys.readouterr().out
    assert said.count("million parameters") == said.count("of choices right") == len(catalog.BACKBONES)


@pytest.mark.slow
@pytest.mark.parametrize("name", catalog.POLICIES)
def test_a_policy_that_ships_drives_and_stands_alone(name):
    """A few seconds of a track that its evaluation did not have; nothing of it lies elsewhere."""
    folder = checkpoint.resolve(name)
    card = json.loads((folder / "card.json").read_text())
    assert '"_name_or_path": "/' not in (folder / "policy.json").read_text()
    assert name in catalog.TABLES["policies"]
    assert card["skill"] in catalog.about(catalog.POLICIES[name])
    policy = checkpoint.load_policy(name)
    env = make_env(policy.spec.env)
    observation, _ = env.reset(seed=12_345)
    total = 0.0
    for _ in range(120):
        batch = {key: np.asarray(value)[None] for key, value in observation.items()}
        action, _, _ = policy.act(batch, {}, greedy=True, generator=None)
        observation, reward, terminated, truncated, _ = env.step(action[0])
        total += float(reward)
        assert not terminated
        assert not truncated
    assert total > 150
