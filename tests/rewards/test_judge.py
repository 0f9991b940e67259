"""A judge: sheets that users write, answers and what they are read as, memory on disk, samples, and who must not teach."""

import json
import math

import hub
import numpy as np
import pytest
import torch
from PIL import Image

from drivetrain.errors import BadConfig, UnknownName
from drivetrain.rewards.sheet import Ask, Sheet, open_sheet, shipped
from drivetrain.rewards.vlm import (
    Answer,
    Asked,
    Constant,
    Guess,
    Judge,
    Shuffled,
    Similar,
    Truth,
    beside,
    number_in,
    open_answerer,
)

SHEET = Sheet(
    "cartpole", {"tilt": Ask("How far?", truth="tilt_deg")}, "1 - abs(tilt) / 12", "abs(tilt) > 12", unread=-1.0
)
FRAMES = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)


class Script:
    """Says what it was told to, and remembers how often it was asked."""

    name = "script"

    def __init__(self, *said):
        self.said, self.calls = said, []

    def __call__(self, ask, frames, truth):
        self.calls.append(len(frames))
        return [Answer(text, number_in(text)) for text in self.said[: len(frames)]]

    def fingerprint(self):
        return "script"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        ("- 3 . 5", -3.5),
        ("It leans by -4.2 degrees.", -4.2),
        ("about 7", 7),
        ("1 2", 12),
        ("none", math.nan),
        ("", math.nan),
    ],
)
def test_numbers_are_found_in_what_was_said(text, number):
    assert number_in(text) == pytest.approx(number, nan_ok=True)


def test_answers_become_rewards_and_ends_and_what_cannot_be_read_is_counted():
    judge = Judge(SHEET, Script("0", "6", "-24", "no idea", "12.5"))
    judged = judge(FRAMES)
    assert judged.reward == pytest.approx([1.0, 0.5, -1.0, -1.0, 1 - 12.5 / 12], abs=1e-6)
    assert judged.ends.tolist() == [False, False, True, False, True]  # one that cannot be read ends nothing
    assert judge.unread == 1
    assert judge.counts()["judge/frames"] == 5


def test_a_reward_that_is_no_number_counts_as_unread():
    judge = Judge(Sheet("cartpole", SHEET.ask, "1 / tilt", unread=-7.0), Script("0", "2"))
    assert judge(FRAMES[:2]).reward.tolist() == [-7.0, 0.5]
    assert judge.unread == 1


def test_the_same_picture_is_asked_about_once_even_by_a_later_process(tmp_path):
    script = Script("1", "2", "3", "4", "5")
    first = Judge(SHEET, script, cache=tmp_path)
    twice = np.concatenate([FRAMES[:2], FRAMES[:1]])
    assert first(twice).values["tilt"].tolist() == [1, 2, 1]
    assert script.calls == [2]
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text() + '["cut sho')  # as a kill leaves it
    later = Judge(SHEET, script, cache=tmp_path)
    assert later(FRAMES[:3]).values["tilt"].tolist() == [1, 2, 1]  # only the third is new
    assert script.calls == [2, 1]
    reworded = Judge(Sheet("cartpole", {"tilt": Ask("How much?")}, "tilt"), script, cache=tmp_path)
    reworded(FRAMES[:2])
    assert script.calls == [2, 1, 2]
    farther = Judge(Sheet("cartpole", {"tilt": Ask("How far?", numbers=(0, 99))}, "tilt"), script, cache=tmp_path)
    farther(FRAMES[:2])
    assert script.calls == [2, 1, 2, 2]


def test_the_first_frames_are_saved_with_all_there_is_to_say(tmp_path):
    judge = Judge(SHEET, Script("1", "2", "3"), samples=tmp_path, first=4)
    judge(FRAMES[:3], {"tilt": np.array([1.5, 2.5, 3.5])})
    judge(FRAMES[3:], {"tilt": np.array([0.0, 0.0])})
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{i:04d}.png" for i in range(4)]
    with Image.open(tmp_path / "0000.png") as image:
        pixels = np.asarray(image)
    times = 400 // 24
    assert np.array_equal(pixels[: 16 * times : times, : 24 * times : times], FRAMES[0])
    assert (pixels[16 * times :] < 128).any()  # there are words under it


def test_controls_say_what_they_should():
    ask, truth = SHEET.ask["tilt"], np.array([1.0, -2.0, 3.0, 4.0, 5.0])
    assert [a.value for a in Constant(45.0)(ask, FRAMES, truth)] == [45.0] * 5
    assert [a.value for a in Truth()(ask, FRAMES, truth)] == truth.tolist()
    guesses = [a.value for a in Guess()(ask, FRAMES, truth)]
    assert guesses == [a.value for a in Guess()(ask, FRAMES, None)]
    assert len(set(guesses)) == 5
    assert all(-30 <= value <= 30 for value in guesses)
    shuffled = [a.value for a in Shuffled(Truth())(ask, FRAMES, truth)]
    assert set(shuffled) <= set(truth)
    assert shuffled != truth.tolist()


@pytest.mark.parametrize(
    ("name", "kind"), [("constant:45", Constant), ("random", Guess), ("truth", Truth), ("shuffled:truth", Shuffled)]
)
def test_controls_have_names(name, kind):
    answerer = open_answerer(name)
    assert isinstance(answerer, kind)
    assert answerer.name == name


def test_the_seeds_own_model_is_answered_with_the_id_that_works():
    with pytest.raises(BadConfig, match=r"in today's are llava-hf/llava-1.5-7b-hf: give that"):
        open_answerer("liuhaotian/llava-v1.5-7b")
    with pytest.raises(BadConfig, match="write constant:45"):
        open_answerer("constant:banana")


@pytest.mark.parametrize("way", ["number", "expected", "yes", "log_yes", "rating", "choice", "preference"])
def test_a_model_in_the_hubs_layout_is_asked_in_every_way(way, tmp_path):
    picture = tmp_path / "reference.png"
    Image.fromarray(FRAMES[0]).save(picture)
    answerer = open_answerer(str(hub.llava(tmp_path / "llava")))
    assert isinstance(answerer, Asked)
    ask = Ask("how many degrees is the pole", way, numbers=(0, 3), reference=str(picture), choices=("left", "right"))
    together = answerer(ask, FRAMES, None)
    alone = [answerer(ask, frame[None], None)[0] for frame in FRAMES]
    assert len(together) == 5
    for one, other in zip(together, alone, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-4, nan_ok=True)
    values = np.array([answer.value for answer in together])
    bounds = {
        "expected": (0, 3),
        "yes": (0, 1),
        "choice": (0, 1),
        "preference": (0, 1),
        "rating": (1, 10),
        "log_yes": (-99, 0),
    }
    if way in bounds:
        low, high = bounds[way]
        assert ((low <= values) & (values <= high)).all()
        assert len(set(values.round(9))) > 1


class Words:
    """A processor whose tokenizer knows the words of `hub.WORDS`; the folder's own has none."""

    image_processor = hub.clip_pixels()

    def tokenizer(self, texts, return_tensors, padding):
        rows = [[1, *(3 + hub.WORDS.index(word) for word in text.split()), 2] for text in texts]
        assert len({len(row) for row in rows}) == 1
        return {
            "input_ids": torch.tensor(rows),
            "attention_mask": torch.ones(len(rows), len(rows[0]), dtype=torch.long),
        }


def test_a_clip_measures_the_way_from_the_baseline_to_the_goal(tmp_path):
    answerer = open_answerer(str(hub.clip(tmp_path / "clip")))
    assert isinstance(answerer, Similar)
    answerer.processor = Words()
    one, other = (
        Ask("", "similarity", goal=g, baseline=b) for g, b in (("turn left", "slow down"), ("slow down", "turn left"))
    )
    values = [answer.value for answer in answerer(one, FRAMES, None)]
    turned = [answer.value for answer in answerer(other, FRAMES, None)]
    assert len(set(values)) == 5
    assert max(values) <= 1.0
    assert np.corrcoef(values, turned)[0, 1] < 0  # nearer to the one is farther from the other
    with pytest.raises(BadConfig, match="are the same to"):
        answerer(Ask("", "similarity", goal="turn left", baseline="turn left"), FRAMES, None)
    with pytest.raises(BadConfig, match="its way is similarity, got number"):
        answerer(Ask("How far?"), FRAMES, None)


def test_two_pictures_become_one_the_first_on_top():
    both = beside(FRAMES[0][:8, :12], FRAMES[1])
    assert both.shape == (16 + 16, 24, 3)
    assert np.array_equal(both[16:], FRAMES[1])


WRONG = [
    ("env = 'cartpole'\n[ask.tilt]\nprompt = 'x'", "has no reward"),
    ("env = 'cartpole'\nreward = '1'", "asks nothing"),
    ("env = 'cartpole'\nreward = 'speed'\n[ask.tilt]\nprompt = 'x'", "speaks of speed; there are tilt"),
    ("env = 'cartpole'\nreward = '1'\nfoo = 2\n[ask.tilt]\nprompt = 'x'", "has no setting 'foo'"),
    ("env = 'cartpole'\nreward = 1\n[ask.tilt]\nprompt = 'x'", "reward is 1, expected a str"),
    ("env = 'cartpole'\nreward = '1'\n[ask.tilt]\nway = 'yes'", "has no prompt"),
    ("env = 'cartpole'\nreward = '1'\n[ask.tilt]\nprompt = 'x'\ncolour = 'red'", "has no setting 'colour'"),
    ("env = 'cartpole'\nreward = '1'\n[ask.tilt]\nprompt = 'x'\nway = 'similarity'", "needs a goal and a baseline"),
    (
        "env = 'cartpole'\nreward = '1'\n[ask.tilt]\nprompt = 'x'\nway = 'preference'",
        "needs a reference, a picture file",
    ),
    ("env = 'cartpole'\nreward = '1'\nrows = [5]\n[ask.tilt]\nprompt = 'x'", "expected [first, last]"),
    ("env = 'cartpole'\nreward = 'abs(1, 2)'\n[ask.tilt]\nprompt = 'x'", "abs takes 1, got 2"),
    ("env = 'cartpole'\nreward = '1'\n[ask.abs]\nprompt = 'x'", "cannot be called 'abs'"),
    ("env = 'cartpole'\nreward = '1'\n[ask.tilt]\nprompt = 5", "prompt is 5, expected a text"),
    ("env = 'cartpole'\nreward = '1'\n[ask.tilt]\nprompt = 'x'\nreworded = 'Is it?'", "expected a list of texts"),
    ("env = 'cartpole'\nreward = '1'\n[ask.tilt]\nprompt = 'x'\nnumbers = [1, 2, 3]", "expected [least, most]"),
    ("env = ", "is no TOML"),
]


@pytest.mark.parametrize(("text", "says"), WRONG, ids=[says for _, says in WRONG])
def test_a_sheet_with_a_mistake_is_one_line(text, says, tmp_path):
    path = tmp_path / "judge.toml"
    path.write_text(text)
    with pytest.raises(BadConfig) as error:
        open_sheet(str(path))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_ways_and_sheets_are_named(tmp_path):
    path = tmp_path / "judge.toml"
    path.write_text("env = 'cartpole'\nreward = 'tilt'\n[ask.tilt]\nprompt = 'x'\nway = 'numbr'")
    with pytest.raises(UnknownName, match="did you mean number"):
        open_sheet(str(path))
    with pytest.raises(UnknownName, match="did you mean cartpole"):
        open_sheet("cartpol")
    with pytest.raises(BadConfig, match=r"there is no judge's sheet no\.toml"):
        open_sheet("no.toml")


@pytest.mark.parametrize("name", shipped())
def test_shipped_sheets_are_whole_and_a_changed_one_has_another_fingerprint(name):
    sheet = open_sheet(name)
    assert sheet.env == name.partition("-")[0]
    assert all(ask.truth for ask in sheet.ask.values())
    assert json.dumps(sheet.fingerprint()) == json.dumps(open_sheet(name).fingerprint())
    if len(sheet.ask) == 1:
        assert sheet.asking("Otherwise?").fingerprint() != sheet.fingerprint()
    else:
        with pytest.raises(BadConfig, match="rewords a sheet of one question"):
            sheet.asking("Otherwise?")
