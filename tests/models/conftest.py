"""The folders of `hub.py`, made once, and the models in them; whoever changes a model loads one of his own."""

import hub
import numpy as np
import pytest
import torch

from drivetrain.models.vlm import load_vlm

MAKERS = {
    "git": hub.git,
    "git-frames": lambda folder: hub.git(folder, frames=3),
    "llava": hub.llava,
    "siglip": hub.siglip,
    "siglip-alone": lambda folder: hub.siglip(folder, towers=1),
    "clip": hub.clip,
    "qwen": hub.qwen,
    "qwen-spare": lambda folder: hub.qwen(folder, spare=40),
    "llama": hub.llama,
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("hub"), {}

    def of(name):
        if name not in made:
            with torch.random.fork_rng():  # or whoever asks first draws other numbers than whoever asks again
                made[name] = MAKERS[name](root / name)
        return made[name]

    return of


@pytest.fixture(scope="session")
def opened(folder):
    made = {}

    def of(name):
        if name not in made:
            made[name] = load_vlm(str(folder(name)))
        return made[name]

    return of


@pytest.fixture(params=["git", "llava"])
def vlm(request, opened):
    return opened(request.param)


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 52, 3), dtype=np.uint8)
