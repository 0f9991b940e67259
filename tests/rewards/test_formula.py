"""Formulas that users write: arithmetic as numpy does it, and nothing else."""

import numpy as np
import pytest

from drivetrain.errors import BadConfig
from drivetrain.rewards.formula import formula


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 - 0.5 * abs(tilt) / 12", 0.75),
        ("tilt > 5 and position < 0", True),
        ("tilt > 5 and not position < 0 or 1 < 0", False),
        ("-2 ** 2 + min(tilt, 3) - max(1, position)", -2.0),
        ("0 < tilt < 7", True),
        ("clip(tilt, 0, 1)", 1.0),
        ("7", 7),
    ],
)
def test_it_is_what_numpy_says(text, value):
    assert formula(text)(tilt=6.0, position=-3.0) == value


def test_arrays_go_through_whole():
    tilt = np.array([0.0, 6.0, -12.0])
    assert formula("1 - abs(tilt) / 12")(tilt=tilt).tolist() == [1.0, 0.5, 0.0]
    assert formula("abs(tilt) > 5 or tilt == 0")(tilt=tilt).tolist() == [True, True, True]


def test_it_knows_its_names():
    assert formula("abs(tilt) + position").names == ("position", "tilt")
    with pytest.raises(BadConfig, match="speaks of speed; there are tilt, position"):
        formula("speed + 1", ("tilt", "position"))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "tilt.real",
        "[1][0]",
        "lambda: 1",
        "'text'",
        "f(tilt)",
        "tilt if 1 else 2",
        "1 +",
        "True",
    ],
)
def test_nothing_else_runs(text):
    with pytest.raises(BadConfig, match="use names, numbers"):
        formula(text)
