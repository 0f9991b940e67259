"""The audit: judges that nobody should trust are called unfit, each for its own reason, and a good one fit."""

from dataclasses import replace

import numpy as np
import pytest

from drivetrain.rewards.audit import audit, calibration, in_a_line, of_answers, rank_correlation, ranks
from drivetrain.rewards.sheet import open_sheet
from drivetrain.rewards.vlm import Answer, Constant, Guess, Truth

SHEET = open_sheet("cartpole")
COUNT = 120


def frames_and_truths(seed=0):
    """Frames that show the truth: tilt and position lie in their first pixels."""
    random = np.random.default_rng(seed)
    tilt, position = random.uniform(-15, 15, COUNT), random.uniform(-240, 240, COUNT)
    frames = np.full((COUNT, 12, 40, 3), 200, np.uint8)
    frames[:, :6] = (128 + 8 * tilt).astype(np.uint8)[:, None, None, None]
    frames[:, 6:] = (128 + position / 2).astype(np.uint8)[:, None, None, None]
    return frames, {"tilt": tilt, "position": position}


class Reader:
    """Reads what the frames show, as well as it is told to."""

    def __init__(self, *, error=0.0, tilt=None, name="reader", mute=0.0):
        self.error, self.tilt, self.name, self.mute = error, tilt, name, mute

    def __call__(self, ask, frames, truth):
        random = np.random.default_rng(0)
        about_tilt = "pole" in ask.prompt
        shown = frames[:, :6].mean((1, 2, 3)) if about_tilt else frames[:, 6:].mean((1, 2, 3))
        values = (shown - 128) / 8 if about_tilt else 2 * (shown - 128)
        values = values + random.normal(0, self.error * (1 if about_tilt else 16), len(frames))
        if about_tilt and self.tilt is not None:
            values[:] = self.tilt
        values[random.random(len(frames)) < self.mute] = np.nan
        return [Answer(f"{value:.1f}", float(value)) for value in values]

    def fingerprint(self):
        return self.name


def judged(answerer, **more):
    return audit(SHEET, answerer, *frames_and_truths(), controls=False, **more)


def test_one_that_reads_the_frames_is_fit():
    report = judged(Reader(error=0.5))
    assert report["verdict"] == {"fit": True, "why": []}
    assert report["questions"]["tilt"]["error"] == pytest.approx(0.4, abs=0.15)
    assert abs(report["disturbed"]["blank"]["reward"]) < 0.2  # what is left is its own noise
    assert abs(report["disturbed"]["shuffled"]["reward"]) < 0.3
    assert in_a_line(report) == "reader: fit to teach"


@pytest.mark.parametrize(
    ("answerer", "reason"),
    [
        (Constant(45.0), "tilt: 1 distinct answer to 120 frames"),
        (Constant(5.0), "100% of bad states are rewarded"),
        (Guess(), "tilt: answers follow the truth at"),
        (
            Reader(tilt=30.0),
            "tilt: 1 distinct answer to 120 frames",
        ),  # the position is read well: what plain training gives
        (Reader(error=12.0), "the reward follows the true one at"),
        (Reader(mute=0.2), "of the answers cannot be read"),
    ],
    ids=["constant 45", "constant 5", "random", "constant tilt alone", "noisy", "mute"],
)
def test_others_are_unfit_and_it_says_why(answerer, reason):
    report = judged(answerer)
    assert not report["verdict"]["fit"]
    assert any(why.startswith(reason) or reason in why for why in report["verdict"]["why"]), report["verdict"]["why"]
    assert in_a_line(report).startswith(f"{answerer.name}: not fit to teach: ")


def test_a_fixed_table_that_does_not_look_is_unfit_although_its_numbers_are_right():
    """As one would be that was told the truth: on other frames' pictures its answers stay."""

    class Clairvoyant(Truth):
        def __call__(self, ask, frames, truth):
            told = frames_and_truths()[1]["tilt" if "pole" in ask.prompt else "position"]
            return [Answer(f"{value:.1f}", float(value)) for value in told[: len(frames)]]

    oracle = type(
        "Told", (), {"name": "told", "__call__": Clairvoyant().__call__, "fingerprint": lambda self: "told"}
    )()
    why = judged(oracle)["verdict"]["why"]
    assert any("other frames' pictures" in reason for reason in why)


def test_one_that_never_says_that_it_is_over_is_unfit():
    """It reads well where nothing is at stake, and calls 11 whatever leans farther."""

    class Soft(Reader):
        def __call__(self, ask, frames, truth):
            limit = 11.0 if "pole" in ask.prompt else 220.0
            return [Answer("", float(np.clip(a.value, -limit, limit))) for a in super().__call__(ask, frames, truth)]

    report = judged(Soft())
    assert report["reward"]["ends_missed"]["value"] == 1.0
    assert report["verdict"]["why"] == ["100% of the ends are missed"]


def test_the_truth_is_fit_and_every_report_has_the_controls_beside_it():
    report = audit(SHEET, Truth(), *frames_and_truths())
    assert report["verdict"]["fit"]
    fit = {name: said["verdict"]["fit"] for name, said in report["controls"].items()}
    assert fit == {"constant:45": False, "constant:30": False, "constant:5": False, "random": False, "truth": True}
    assert report["reward"]["false_positives"]["value"] == 0.0
    assert report["reward"]["ends_missed"]["value"] == 0.0


def test_ranks_begin_at_0_and_ties_share_theirs():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]


def test_the_rank_correlation_is_spearmans():
    """Worked out by hand: 1 - 6 * (sum of squared differences of ranks) / (n * (n * n - 1)) where there are no ties."""
    a, b = (
        np.array([86.0, 97, 99, 100, 101, 103, 106, 110, 112, 113]),
        np.array([2.0, 20, 28, 27, 50, 29, 7, 17, 6, 12]),
    )
    assert rank_correlation(a, b) == pytest.approx(-29 / 165)
    assert rank_correlation(np.ones(10), b) == 0.0


def test_of_two_things_the_order_counts_and_not_the_ties():
    truth = np.array([0.0, 0.0, 1.0, 1.0])
    assert rank_correlation(np.array([0.1, 0.2, 0.8, 0.9]), truth) == 1.0
    assert rank_correlation(np.array([0.9, 0.8, 0.2, 0.1]), truth) == -1.0
    assert rank_correlation(np.array([0.5, 0.2, 0.3, 0.8]), truth) == pytest.approx(
        2 * 3 / 4 - 1
    )  # of 4 pairs 3 are right
    assert rank_correlation(np.array([0.0, 1.0, 1.0, 1.0]), truth) == pytest.approx(0.5)  # 2 right, 2 even


def test_calibration_is_the_slope_of_the_truth_on_the_answers():
    said = np.array([0.0, 1.0, 2.0, 3.0])
    assert calibration(said, 2 * said + 1) == pytest.approx(2.0)
    assert calibration(np.ones(4), said) is None
    assert of_answers(np.full(4, np.nan), said)["unread"] == 1.0


def test_limits_can_be_stricter():
    from drivetrain.rewards.audit import LIMITS

    assert not judged(Reader(error=0.5), limits=replace(LIMITS, rank=0.9999))["verdict"]["fit"]
