"""A model that acts by what it says: what an answer means, and how answers become actions."""

import json

import numpy as np
import pytest
import torch

from drivetrain.envs.carracing import LABELS
from drivetrain.errors import BadConfig
from drivetrain.models.speaker import MANUAL, Speaker, is_speaker, meant_by, open_speaker
from drivetrain.sample import ACTION, FRONT, STATE, Feature, Spec

SPEC = Spec({FRONT: Feature((96, 96, 3), "uint8", colour="rgb"), ACTION: Feature((), "int64", names=LABELS, choices=5)})
ANSWERS = ("Do nothing.", "Accelerate.", "Turn left.", "Turn right.", "Brake.", "The road bends left: brake.")


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("Turn left.", 2),
        ("The road bends left ahead and the car is fast: brake.", 4),
        ("The road bends right ahead and the car is slow: turn left.", 2),
        ("do nothing", 0),
        ("ACCELERATE", 1),
        ("leftovers", -1),
        ("", -1),
    ],
)
def test_an_answer_means_the_last_action_that_it_names(answer, action):
    assert meant_by(answer, LABELS) == action


class Parrot:
    """Holds given answers likely, and gives them."""

    name = "parrot"

    def __init__(self, *said):
        self.said = said

    def eval(self):
        return self

    def generate(self, pictures, prompt, most):
        return list(self.said)

    def score(self, pictures, prompt, answers):
        rows = [
            [2.0 if answer == said else 1.5 * ("brake" in answer.lower()) for answer in answers] for said in self.said
        ]
        return torch.tensor(rows)


def test_answers_that_are_given_are_read_and_those_that_say_nothing_are_counted():
    speaker = Speaker(Parrot("Turn right.", "Banana."), SPEC, "What now?", ANSWERS, "parse")
    action, _, info = speaker.act({FRONT: np.zeros((2, 96, 96, 3), np.uint8)}, {}, greedy=True, generator=None)
    assert action.tolist() == [3, 0]
    assert info["said"] == ["Turn right.", "Banana."]
    assert (speaker.unread, speaker.asked) == (1, 2)


def test_chances_of_answers_that_mean_the_same_add_up():
    speaker = Speaker(Parrot("Turn left."), SPEC, "What now?", ANSWERS, "score")
    action, _, info = speaker.act({FRONT: np.zeros((1, 96, 96, 3), np.uint8)}, {}, greedy=True, generator=None)
    weights = np.exp([0, 0, 2.0, 0, 1.5, 1.5])
    wanted = np.array([*weights[:4], weights[4] + weights[5]]) / weights.sum()
    assert info["weights"][0] == pytest.approx(wanted, abs=1e-6)
    assert action.tolist() == [4]  # neither of the two alone is as likely as the left


def test_who_cannot_drive_by_words_is_told():
    with pytest.raises(BadConfig, match="drives by named choices from one colour picture"):
        Speaker(Parrot(), Spec({STATE: Feature((2,)), ACTION: SPEC.action}, env="cartpole"), "What now?", ANSWERS)
    with pytest.raises(BadConfig, match="no known answer of parrot names an action"):
        Speaker(Parrot(), SPEC, "What now?", ["Banana."])
    with pytest.raises(BadConfig, match="score or parse, got 'guess'"):
        Speaker(Parrot(), SPEC, "What now?", ANSWERS, "guess")


def test_a_caption_run_drives(tmp_path, folder):
    model = tmp_path / "model"
    model.symlink_to(folder("git"))
    assert not is_speaker(tmp_path)
    (tmp_path / "model").unlink()
    model.mkdir()
    for path in folder("git").iterdir():
        (model / path.name).symlink_to(path)
    (model / MANUAL).write_text(
        json.dumps({"prompt": "what should the vehicle do", "answers": ["turn left", "turn right"]})
    )
    (tmp_path / "metrics.jsonl").write_text("")
    assert is_speaker(tmp_path)
    speaker = open_speaker(tmp_path, SPEC)
    pictures = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    action, _, info = speaker.act({FRONT: pictures}, {}, greedy=True, generator=None)
    assert info["weights"].sum(-1) == pytest.approx(np.ones(4), abs=1e-5)
    assert action.tolist() == info["weights"].argmax(-1).tolist()
    words = speaker.vlm.score(list(pictures), speaker.prompt, ["turn left", "turn right"])
    np.testing.assert_allclose(info["weights"][:, 2:4], words.detach().softmax(-1), atol=1e-5)
