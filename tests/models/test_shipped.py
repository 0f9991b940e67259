"""The small models that come with the package: they open by name and know what their cards say."""

import json
from pathlib import Path

import numpy as np
import pytest

from drivetrain import catalog, cli
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
