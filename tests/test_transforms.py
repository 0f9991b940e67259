"""Transforms: `undo` undoes, on numpy and torch alike, and the checkpoint remembers them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drivetrain import checkpoint, transforms
from drivetrain.models.driver import Network, build_policy
from drivetrain.sample import ACTION, FRONT, STATE, Feature, Spec
from drivetrain.transforms import Normalise, Rescale, bounded_action, from_statistics

few = st.floats(-50, 50, width=32)
wide = st.floats(0.125, 50, width=32)
BOTH = [np.asarray, torch.as_tensor]


@given(st.lists(st.tuples(few, few, wide), min_size=1, max_size=5), st.sampled_from(BOTH), st.integers(0, 3))
def test_normalising_is_undone(rows, kind, dimensions):
    values, mean, std = (tuple(column) for column in zip(*rows, strict=True))
    given = kind(np.broadcast_to(np.array(values, np.float32), (*[2] * dimensions, len(values))).copy())
    change = Normalise(STATE, mean, std)
    there = change({STATE: given})
    assert type(there[STATE]) is type(given)
    assert there[STATE].dtype == given.dtype
    np.testing.assert_allclose(np.asarray(there[STATE])[..., 0], (values[0] - mean[0]) / std[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(change.undo(there)[STATE], given, rtol=1e-3, atol=1e-3)


@given(st.lists(st.tuples(st.floats(0, 1), few, wide), min_size=1, max_size=5), st.sampled_from(BOTH))
def test_rescaling_is_undone_within_the_bounds(rows, kind):
    shares, low, width = (np.array(column) for column in zip(*rows, strict=True))
    change = Rescale(ACTION, tuple(low), tuple(low + width))
    given = kind((low + shares * width).astype(np.float32))
    there = change({ACTION: given})
    np.testing.assert_allclose(there[ACTION], 2 * shares - 1, atol=1e-3)
    np.testing.assert_allclose(change.undo(there)[ACTION], given, rtol=1e-3, atol=1e-3)
    for beyond, edge in ((-7.0, low), (7.0, low + width)):
        found = change.undo({ACTION: kind(np.full(len(low), beyond, np.float32))})[ACTION]
        np.testing.assert_allclose(found, edge, rtol=1e-4, atol=1e-4)


def test_a_list_is_undone_from_its_end():
    changes = (Normalise(STATE, (1.0,), (2.0,)), Normalise(STATE, (-3.0,), (0.5,)), Rescale(ACTION, (0.0,), (4.0,)))
    sample = {STATE: np.array([5.0]), ACTION: np.array([1.0])}
    there = transforms.apply(changes, sample)
    assert there[STATE].tolist() == [10.0]
    assert there[ACTION].tolist() == [-0.5]
    back = transforms.undo(changes, there)
    assert {key: value.tolist() for key, value in back.items()} == {STATE: [5.0], ACTION: [1.0]}


def test_what_is_not_there_stays_away_and_what_is_given_stays_as_it_was():
    given = np.array([4.0])
    found = transforms.apply((Normalise(STATE, (1.0,), (2.0,)),), {ACTION: given})
    assert found.keys() == {ACTION}
    sample = {STATE: given}
    transforms.apply((Normalise(STATE, (1.0,), (2.0,)),), sample)
    assert sample[STATE] is given
    assert given.tolist() == [4.0]


def test_they_survive_json():
    changes = (Normalise(STATE, (0.1, 1 / 3), (1e-8, 2.0)), Rescale(ACTION, (-1.0,), (7.0,)))
    assert transforms.from_json(json.loads(json.dumps(transforms.to_json(changes)))) == changes


def test_bounded_actions_are_scaled_and_choices_left_alone():
    assert bounded_action(Feature((), "int64", choices=3)) == ()
    assert bounded_action(Feature((2,), low=(-1.0, 0.0), high=1.0)) == (Rescale(ACTION, (-1.0, 0.0), (1.0, 1.0)),)
    with pytest.raises(AssertionError, match="without bounds"):
        bounded_action(Feature((2,)))


def test_statistics_normalise_vectors_and_leave_pictures():
    spec = Spec({STATE: Feature((2,)), FRONT: Feature((4, 4, 3), "uint8"), ACTION: Feature((1,), low=-1.0, high=1.0)})
    told = {STATE: {"mean": np.array([1.0, 2.0]), "std": np.array([3.0, 0.0])}, ACTION: {"mean": [0.0], "std": [1.0]}}
    found = from_statistics(spec, told)
    assert found == (Normalise(STATE, (1.0, 2.0), (3.0, 1e-3)), Rescale(ACTION, (-1.0,), (1.0,)))


def test_a_policy_acts_in_the_worlds_units_after_a_checkpoint_too(tmp_path):
    """The same network on numbers that were normalised by hand, and actions scaled by hand."""
    spec = Spec({STATE: Feature((2,)), ACTION: Feature((1,), low=10.0, high=20.0)})
    normalise = Normalise(STATE, (5.0, -5.0), (2.0, 4.0))
    policy = build_policy(spec, Network(hidden=(8,)), "deterministic", (normalise, *bounded_action(spec.action)))
    plain = build_policy(spec, Network(hidden=(8,)), "deterministic", ())
    plain.load_state_dict(policy.state_dict())
    checkpoint.save(tmp_path, 1, {"policy": policy})
    seen = np.array([[7.0, -9.0], [1.0, 3.0]], np.float32)
    raw, _, _ = plain.act(
        {STATE: (seen - [5, -5]).astype(np.float32) / np.float32([2, 4])}, {}, greedy=True, generator=None
    )
    for acting in (policy, checkpoint.load_policy(tmp_path)):
        action, _, _ = acting.act({STATE: seen}, {}, greedy=True, generator=None)
        np.testing.assert_allclose(action, 15 + 5 * raw, rtol=1e-5)
