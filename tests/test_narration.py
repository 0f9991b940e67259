"""A film's panel: there for whatever can be shown, and the picture itself untouched."""

import numpy as np
import torch

from drivetrain.models.heads import Categorical
from drivetrain.narration import MARGIN_PX, PANEL_PX, SPEAKS_EVERY, Narration
from drivetrain.sample import ACTION, FRONT, Feature, Spec

CHOICES = Spec({FRONT: Feature((8, 8, 3), "uint8"), ACTION: Feature((), "int64", names=("left", "right"), choices=2)})
NUMBERS = Spec({FRONT: Feature((8, 8, 3), "uint8"), ACTION: Feature((2,), low=-1.0, high=1.0, names=("steer", "gas"))})
FRAME = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)


class Talker:
    prompt = "What now?"


def test_the_picture_stays_and_the_panel_shows_what_is_told():
    narration = Narration(Talker(), CHOICES)
    tell = {"said": ["Turn left."], "chances": Categorical(torch.tensor([[2.0, 0.0]]))}
    one = narration(FRAME, {}, 0, tell, 0, 12.5)
    assert one.shape == (400, 300 + PANEL_PX, 3)
    assert np.array_equal(one[:, :300], FRAME)
    changes = ({"said": ["Turn right."]}, {"chances": Categorical(torch.tensor([[0.0, 2.0]]))})
    others = [narration(FRAME, {}, 0, {**tell, **change}, 0, 12.5) for change in changes]
    others.append(narration(FRAME, {}, 0, tell, 0, 99.0))
    assert all(not np.array_equal(one, other) for other in others)


def test_bars_are_as_long_as_chances():
    def filled(chance):
        weights = {"weights": np.array([[1 - chance, chance]])}
        panel = Narration(object(), CHOICES)(FRAME, {}, 1, weights, 0, 0.0)[:, 300:].astype(int)
        blue = (panel[..., 2] - panel[..., 0]) > 100  # the colour of what was done
        return blue.sum(1).max()

    whole = PANEL_PX - 2 * MARGIN_PX - 140
    assert abs(filled(1.0) - whole) <= 2
    assert abs(filled(0.5) - whole / 2) <= 2


def test_numbers_are_shown_too_and_small_pictures_get_room():
    narration = Narration(object(), NUMBERS)
    panel = narration(FRAME[:96, :96], {}, np.array([-1.0, 1.0]), {}, 0, 0.0)
    assert panel.shape == (400, 96 + PANEL_PX, 3)
    deeds = ([-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0])
    shown = [narration(FRAME[:96, :96], {}, np.array(done), {}, 0, 0.0) for done in deeds]
    blue = [(panel[:, 96:, 2].astype(int) - panel[:, 96:, 0] > 100).sum() for panel in shown]
    assert blue[0] < blue[1] < blue[2]


class Reads:
    """Stands for a policy with a language model: what it is asked by number, and what it says of a picture."""

    def __init__(self):
        self.reader, self.texts, self.sentences, self.asked = self, ("Drive.", "Stop."), ("Left.", "Right."), []

    def looked_at(self, seen):
        return seen[FRONT], seen["observation.instruction"]

    def say(self, pictures, texts):
        self.asked.append(int(texts[0]))
        return ["It is dark." if int(pictures.max()) == 0 else "It is bright."]


def test_it_is_shown_what_is_read_and_said_and_asked_anew_every_so_often(monkeypatch):
    told = []
    policy = Reads()
    narration = Narration(policy, CHOICES)
    monkeypatch.setattr(narration, "write", lambda what, words: told.append((what, words)))
    for frame in range(SPEAKS_EVERY + 1):
        seen = {FRONT: np.full((8, 8, 3), frame, np.uint8), "observation.instruction": np.int64(frame >= SPEAKS_EVERY)}
        narration(FRAME, seen, 0, {}, 0, 1.0)
    said = [words for what, words in told if what == "it says"]
    assert said == ["It is dark."] * SPEAKS_EVERY + ["It is bright."]
    assert [words for what, words in told if what == "prompt"] == ["Drive."] * SPEAKS_EVERY + ["Stop."]
    assert policy.asked == [0, 1]
