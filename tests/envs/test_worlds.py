"""Worlds side by side: where one ends it starts anew in the same step, and nothing of its end is lost."""

import numpy as np
import pytest

from drivetrain.envs.worlds import Finished, Worlds, stack
from drivetrain.sample import FRONT, STATE


@pytest.fixture
def worlds():
    made = Worlds("cartpole", 4)
    yield made
    made.close()


def test_an_ended_episode_starts_anew_in_the_same_step(worlds):
    worlds.rebuild(0)
    step = until_one_ends(worlds)
    for i in range(4):
        shown, led_to = step.observation[STATE][i], step.final[STATE][i]
        if step.ended[i]:
            assert abs(led_to[2]) > 0.2, f"the pole had not fallen: {led_to}"
            assert np.abs(shown).max() <= 0.05, f"not a first observation: {shown}"
        else:
            np.testing.assert_array_equal(shown, led_to)


def until_one_ends(worlds):
    while True:
        step = worlds.step(np.array([0, 1, 0, 1]))
        if step.ended.any():
            return step


def test_infos_are_of_the_step_and_the_worlds_keep_those_to_act_on(worlds):
    worlds.rebuild(0)
    step = until_one_ends(worlds)
    for i in range(4):
        np.testing.assert_array_equal(step.infos[i]["privileged.state"], step.final[STATE][i])
        np.testing.assert_array_equal(worlds.infos[i]["privileged.state"], step.observation[STATE][i])


def test_the_time_limit_truncates_and_does_not_terminate():
    worlds = Worlds("pendulum", 2)
    worlds.rebuild(0)
    for _ in range(199):
        assert not worlds.step(np.zeros((2, 1), dtype=np.float32)).ended.any()
    step = worlds.step(np.zeros((2, 1), dtype=np.float32))
    assert step.truncated.all()
    assert not step.terminated.any()
    assert not np.array_equal(step.final[STATE], step.observation[STATE])


def test_where_both_are_true_the_episode_terminated(worlds, monkeypatch):
    worlds.rebuild(0)
    honest = worlds.envs[1].step
    monkeypatch.setattr(worlds.envs[1], "step", lambda a: (*honest(a)[:2], True, True, {}))
    step = worlds.step(np.zeros(4, dtype=int))
    assert step.terminated.tolist() == [False, True, False, False]
    assert not step.truncated.any()


def test_rebuilt_worlds_are_a_function_of_the_seed(worlds):
    first = played(worlds, (5, 100))
    np.testing.assert_array_equal(first, played(worlds, (5, 100)))
    assert not np.array_equal(first, played(worlds, (5, 200)))
    assert not np.array_equal(first, played(worlds, (6, 100)))


def played(worlds, seed):
    """40 steps: past the ends of first episodes, whose followers must be functions of the seed too."""
    seen, actions = [worlds.rebuild(*seed)[STATE]], np.random.default_rng(0).integers(2, size=(40, 4))
    return np.stack(seen + [worlds.step(action).observation[STATE] for action in actions])


def test_worlds_of_one_seed_are_not_each_other(worlds):
    begun = worlds.rebuild(0)[STATE]
    assert len(np.unique(begun, axis=0)) == 4


def test_the_first_worlds_do_not_depend_on_how_many_there_are():
    few, many = Worlds("cartpole", 2).rebuild(3)[STATE], Worlds("cartpole", 6).rebuild(3)[STATE]
    np.testing.assert_array_equal(few, many[:2])


def test_totals_and_lengths_are_of_whole_episodes(worlds):
    worlds.rebuild(1)
    rewards, lengths, told = np.zeros(4), np.zeros(4, dtype=int), []
    random = np.random.default_rng(0)
    for _ in range(100):
        step = worlds.step(random.integers(2, size=4))
        rewards, lengths = rewards + step.reward, lengths + 1
        told += [Finished(rewards[i], lengths[i]) for i in np.flatnonzero(step.ended)]
        rewards[step.ended] = lengths[step.ended] = 0
    assert len(told) > 8
    assert worlds.finished() == told
    assert worlds.finished() == []


def test_a_rebuild_cuts_open_episodes_without_counting_them(worlds):
    worlds.rebuild(0)
    worlds.step(np.zeros(4, dtype=int))
    worlds.rebuild(0)
    assert worlds.finished() == []
    until_one_ends(worlds)
    assert worlds.finished()[0].length > 2


def test_what_was_returned_is_never_written_again():
    worlds = Worlds("cartpole-pixels", 2)
    kept = worlds.rebuild(0)[FRONT]
    before = kept.copy()
    for _ in range(30):
        worlds.step(np.array([0, 1]))
    np.testing.assert_array_equal(kept, before)


def test_a_batch_keeps_shapes_and_types():
    pictures = [{FRONT: np.full((2, 3, 3), i, dtype=np.uint8)} for i in range(5)]
    batch = stack(pictures)[FRONT]
    assert batch.shape == (5, 2, 3, 3)
    assert batch.dtype == np.uint8
    assert batch[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
