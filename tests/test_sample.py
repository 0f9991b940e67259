"""The words: what a feature and a spec say, what survives JSON, and whom a spec refuses."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drivetrain import sample
from drivetrain.errors import SpecMismatch, UserError
from drivetrain.sample import ACTION, FRONT, STATE, Feature, Spec, restart

LIDAR = "observation.lidar.top"
PICTURE = Feature((4, 6, 3), "uint8", 0.0, 255.0, colour="rgb")
NUMBERS = Feature((2,), low=(-1.0, 0.0), high=(1.0, 5.0), names=("steer_rad", "speed_mps"))
PUSH = Feature((), "int64", names=("left", "right"), choices=2)
SPEC = Spec({FRONT: PICTURE, STATE: NUMBERS, ACTION: PUSH}, "Drive.", 10.0, "somewhere:stack=2")


def test_size_counts_entries():
    assert [f.size for f in (PICTURE, NUMBERS, PUSH)] == [72, 2, 1]


def test_bounds_are_arrays_of_the_features_shape():
    low, high = NUMBERS.bounds()
    np.testing.assert_array_equal(low, [-1, 0])
    np.testing.assert_array_equal(high, [1, 5])
    low, high = Feature((3,), high=2.0).bounds()
    np.testing.assert_array_equal(low, [-np.inf] * 3)
    np.testing.assert_array_equal(high, [2, 2, 2])
    assert low.dtype == np.float32
    assert PICTURE.bounds()[1].shape == (4, 6, 3)


def test_stacking_grows_the_last_axis_and_what_is_said_of_it():
    assert PICTURE.stacked(3) == Feature((4, 6, 9), "uint8", 0.0, 255.0, colour="rgb")
    twice = NUMBERS.stacked(2)
    assert (twice.shape, twice.names) == ((4,), ("steer_rad", "speed_mps", "steer_rad", "speed_mps"))
    assert (twice.low, twice.high) == ((-1.0, 0.0, -1.0, 0.0), (1.0, 5.0, 1.0, 5.0))
    assert NUMBERS.stacked(1) == NUMBERS


def test_a_stacked_spec_leaves_the_action_alone():
    wide = SPEC.stacked(4)
    assert wide.action == PUSH
    assert wide.features[FRONT].shape == (4, 6, 12)
    assert (wide.task, wide.fps, wide.env) == (SPEC.task, SPEC.fps, SPEC.env)


def test_observations_are_what_is_observed():
    assert list(SPEC.observations) == [FRONT, STATE]
    assert SPEC.discrete
    assert not Spec({ACTION: NUMBERS}).discrete


def test_pictures_are_known_by_their_key():
    assert sample.is_image(FRONT)
    assert not sample.is_image(STATE)


bounds = st.none() | st.floats(-1e6, 1e6) | st.tuples(st.floats(-9, 9), st.floats(-9, 9))
features = st.builds(
    Feature,
    shape=st.lists(st.integers(1, 8), max_size=3).map(tuple),
    dtype=st.sampled_from(["float32", "uint8", "int64", "bool"]),
    low=bounds,
    high=bounds,
    names=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    choices=st.integers(0, 5),
    colour=st.sampled_from(["", "rgb"]),
    ragged=st.booleans(),
)


@given(st.dictionaries(st.text(max_size=12), features, max_size=4), st.text(), st.floats(0, 1000), st.text())
def test_json_gives_back_the_same_spec(named, task, fps, env):
    spec = Spec(named, task, fps, env)
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_spec_without_env_can_be_read():
    said = SPEC.to_json()
    del said["env"]
    assert Spec.from_json(said).env == ""


def refusal(wanted, given, **who):
    with pytest.raises(SpecMismatch) as refused:
        wanted.require(given, **who)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_spec_is_content_with_itself_and_with_more():
    SPEC.require(SPEC)
    SPEC.require(Spec({**SPEC.features, LIDAR: Feature((8, 4))}, "Another task.", 50.0, "elsewhere"))


def test_what_is_missing_is_named_beside_what_there_is():
    said = refusal(Spec({LIDAR: Feature((8, 4))}), SPEC)
    assert said.startswith(f"SpecMismatch: the policy needs {LIDAR}, the env gives {FRONT}, {STATE}; ")
    assert "gives none of its kind" in refusal(SPEC, Spec({"action": PUSH}))


def test_names_and_bounds_that_one_side_does_not_tell_keep_nobody_apart():
    """Others' data sets tell none."""
    plain = Feature((2,))
    assert NUMBERS.difference(plain) == plain.difference(NUMBERS) == ""


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (Feature((3,), low=(-1.0, 0.0), high=(1.0, 5.0), names=NUMBERS.names), "shape (2,) against (3,)"),
        (Feature((2,), "float64", NUMBERS.low, NUMBERS.high, NUMBERS.names), "dtype float32 against float64"),
        (Feature((2,), low=(-1.0, 0.0), high=(1.0, 9.0), names=NUMBERS.names), "high (1.0, 5.0) against (1.0, 9.0)"),
        (Feature((2,), low=(-2.0, 0.0), high=(1.0, 5.0), names=NUMBERS.names), "low (-1.0, 0.0) against (-2.0, 0.0)"),
        (
            Feature((2,), low=(-1.0, 0.0), high=(1.0, 5.0), names=("steer_rad", "speed_kmh")),
            "names ('steer_rad', 'speed_mps') against ('steer_rad', 'speed_kmh')",
        ),
    ],
)
def test_a_feature_that_differs_is_named_with_both_sides(other, says):
    said = refusal(SPEC, Spec({**SPEC.features, STATE: other}))
    assert f"{STATE}: the policy and the env differ in {says}" in said


def test_choices_and_colours_count():
    assert "choices 2 against 3" in refusal(SPEC, Spec({**SPEC.features, ACTION: Feature((), "int64", choices=3)}))
    grey = Feature((4, 6, 3), "uint8", 0.0, 255.0, colour="bgr")
    assert "colour rgb against bgr" in refusal(SPEC, Spec({**SPEC.features, FRONT: grey}))


def test_the_two_sides_are_called_what_they_are():
    said = refusal(SPEC, Spec(), who="training", by="the data set data/x")
    assert said.startswith(f"SpecMismatch: training needs {FRONT}, the data set data/x gives none of its kind")


def test_a_mismatch_is_the_users_to_mend():
    assert issubclass(SpecMismatch, UserError)


def test_restarting_memory_takes_the_rows_asked_for_and_no_other():
    memory = {"cell": torch.arange(6.0).view(3, 2), "age": torch.tensor([5, 6, 7])}
    start = {"cell": torch.full((3, 2), -1.0), "age": torch.zeros(3, dtype=torch.int64)}
    again = restart(memory, start, np.array([False, True, False]))
    assert again["cell"].tolist() == [[0, 1], [-1, -1], [4, 5]]
    assert again["age"].tolist() == [5, 0, 7]
    assert memory["age"].tolist() == [5, 6, 7]
    assert restart({}, {}, np.array([True])) == {}
