"""Replay memory against a record that forgets nothing: every observation bears a number of its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain.data.replay import FINAL, Priority, Replay, SumTree, recalled
from drivetrain.errors import BadCheckpoint, BadConfig
from drivetrain.sample import ACTION, FRONT, STATE, TERMINATED, Feature, Spec

SPEC = Spec({STATE: Feature((1,)), ACTION: Feature((), "int64", choices=7)})
PICTURES = Spec({FRONT: Feature((4, 5, 3), "uint8"), ACTION: Feature((2,), low=-1.0, high=1.0)})
GAMMA = 0.5


class Record:
    """Worlds that walk from number to number, and what is true of each."""

    def __init__(self, replay, worlds, seed=0, p_end=0.2):
        self.replay, self.worlds, self.p_end = replay, worlds, p_end
        self.random = np.random.default_rng(seed)
        self.after, self.died, self.ended, self.first = {}, {}, {}, {}
        self.count = 0
        self.begin()

    def begin(self):
        self.now = [self.new(first=True) for _ in range(self.worlds)]

    def new(self, first=False):
        self.count += 1
        self.first[self.count] = first
        return self.count

    def walk(self, steps):
        for _ in range(steps):
            self.step()
        return self

    def step(self):
        now, after = list(self.now), [self.new() for _ in self.now]
        terminated = self.random.random(self.worlds) < self.p_end / 2
        truncated = ~terminated & (self.random.random(self.worlds) < self.p_end / 2)
        ended = terminated | truncated
        for i, number in enumerate(now):
            self.after[number], self.died[number], self.ended[number] = after[i], bool(terminated[i]), bool(ended[i])
        column = np.array(now)
        self.replay.add(seen(now), column % 7, (column * 0.25).astype(np.float32), terminated, truncated, seen(after))
        self.now = [self.new(first=True) if end else number for number, end in zip(after, ended, strict=True)]

    def rebuild(self):
        """A meeting point: open episodes are cut, and new ones begin."""
        for number, after in self.after.items():
            if after in self.now:
                self.ended[number] = True
        self.begin()

    def check(self, batch, length):
        for row in range(len(batch[ACTION])):
            for t in range(length):
                number = int(batch[STATE][row, t, 0])
                if not batch["valid"][row, t]:
                    assert number not in self.after or self.ended[self.before(number)]
                    continue
                assert int(batch[STATE][row, t + 1, 0]) == self.after[number]
                assert batch[ACTION][row, t] == number % 7
                assert batch["reward"][row, t] == number * 0.25
                assert batch["terminated"][row, t] == self.died[number]
                assert batch["ended"][row, t] == self.ended[number]
                assert batch["is_first"][row, t] == (t == 0 or self.first[number])
                assert batch["discount"][row, t] == GAMMA

    def before(self, number):
        return next(b for b, a in self.after.items() if a == number)


def seen(numbers):
    return {STATE: np.array(numbers, dtype=np.float32)[:, None]}


def small(folder, capacity=60, worlds=2, **how):
    return Replay(SPEC, capacity, worlds, folder, gamma=GAMMA, **how)


def draw(replay, size=64, seed=0):
    return replay.batch(size, np.random.default_rng(seed))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(5, 80), st.integers(1, 4), st.booleans())
def test_every_window_tells_the_truth(tmp_path_factory, seed, worlds, steps, length, prioritised):
    """Before and after the ring has come round, for one step and for sequences."""
    priority = Priority() if prioritised else None
    replay = small(tmp_path_factory.mktemp("replay"), 20 * worlds, worlds, length=length, priority=priority)
    record = Record(replay, worlds, seed).walk(steps)
    batch = draw(replay, 64, seed)
    assert batch[STATE].shape == (64, length + 1, 1)
    assert batch["valid"][:, 0].all()
    record.check(batch, length)


def test_uniform_means_every_step_and_every_world_alike(tmp_path):
    replay = small(tmp_path, 40, 2)
    Record(replay, 2, p_end=0.3).walk(60)
    numbers, counts = np.unique(draw(replay, 40_000)[STATE][:, 0, 0], return_counts=True)
    expected = 40_000 / len(numbers)
    assert len(numbers) > 20
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)


def test_the_oldest_is_forgotten_first(tmp_path):
    replay = small(tmp_path, 20, 1)
    Record(replay, 1, p_end=0.0).walk(50)
    assert len(replay) == 20
    numbers = np.unique(draw(replay, 2_000)[STATE][:, 0, 0])
    np.testing.assert_array_equal(numbers, np.arange(31, 50))  # 50 was done last: what came of it has no slot yet


def test_the_last_step_can_be_drawn_once_its_successor_is_there(tmp_path):
    replay = small(tmp_path, 20, 1)
    record = Record(replay, 1, p_end=0.0).walk(3)
    assert 3 not in draw(replay, 500)[STATE][:, 0, 0]
    record.walk(1)
    assert 3 in draw(replay, 500)[STATE][:, 0, 0]
    replay.cut()
    batch = draw(replay, 500)
    last = batch[STATE][:, 0, 0] == 4
    assert last.any()
    assert batch["ended"][last].all()
    assert not batch["terminated"][last].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(12, 80), st.booleans())
def test_n_steps_stop_where_the_episode_does(tmp_path_factory, seed, n, steps, prioritised):
    """At a termination without, at a truncation with a bootstrap from the true last observation."""
    priority = Priority() if prioritised else None
    replay = small(tmp_path_factory.mktemp("replay"), 40, 2, n_step=n, priority=priority)
    record = Record(replay, 2, seed, p_end=0.4).walk(steps)
    batch = draw(replay, 64, seed)
    for row in range(64):
        number, reward, discount, taken = int(batch[STATE][row, 0, 0]), 0.0, 1.0, 0
        begun = number
        while True:
            reward, discount, taken, last = reward + discount * number * 0.25, discount * GAMMA, taken + 1, number
            number = record.after[number]
            newest = record.after.get(number) in record.now and not record.ended[number]
            if taken == n or record.ended[last] or newest:
                break
        assert batch[STATE][row, 1, 0] == number, f"from {begun}"
        assert batch["reward"][row, 0] == pytest.approx(reward)
        assert batch["discount"][row, 0] == pytest.approx(discount)
        assert batch["terminated"][row, 0] == record.died[last]
        assert batch["ended"][row, 0] == record.ended[last]


def test_large_errors_are_drawn_in_proportion_and_corrected_by_weights(tmp_path):
    replay = small(tmp_path, 40, 1, priority=Priority(alpha=1.0, beta=1.0, floor=0.0))
    Record(replay, 1, p_end=0.0).walk(11)  # ten steps that can be drawn
    everything = draw(replay, 1_000)
    index = np.unique(everything["index"])
    assert len(index) == 10
    errors = np.arange(1.0, 11.0)
    replay.reprioritise(index, -errors)
    batch = draw(replay, 55_000)
    counts = np.array([(batch["index"] == i).sum() for i in index])
    np.testing.assert_allclose(counts, 1_000 * errors, rtol=0.02)
    weights = np.array([batch["weight"][batch["index"] == i][0] for i in index])
    np.testing.assert_allclose(weights, 1 / errors, rtol=1e-5)  # the rarest weighs 1


def test_what_is_new_is_drawn_as_often_as_the_most_surprising(tmp_path):
    replay = small(tmp_path, 40, 1, priority=Priority(alpha=1.0))
    record = Record(replay, 1, p_end=0.0).walk(5)
    index = np.unique(draw(replay, 500)["index"])
    replay.reprioritise(index, np.array([0.1, 5.0, 0.1, 0.1]))
    record.walk(1)
    batch = draw(replay, 10_000)
    numbers = batch[STATE][:, 0, 0]
    assert (numbers == 5).sum() == pytest.approx((numbers == 2).sum(), rel=0.05)
    assert (numbers == 2).sum() > 30 * (numbers == 1).sum()


def test_priorities_are_forgotten_with_what_they_belonged_to(tmp_path):
    replay = small(tmp_path, 12, 1, priority=Priority(alpha=1.0))
    record = Record(replay, 1, p_end=0.0).walk(8)
    replay.reprioritise(np.unique(draw(replay, 500)["index"]), np.full(7, 1e-3))
    record.walk(12)
    batch = draw(replay, 5_000)
    numbers, counts = np.unique(batch[STATE][:, 0, 0], return_counts=True)
    assert len(numbers) == 11
    assert counts.max() < 2 * counts.min()
    record.check(batch, 1)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40).filter(lambda x: sum(x) > 1e-3))
def test_a_sum_tree_draws_as_a_cumulative_sum_does(leaves):
    tree = SumTree(len(leaves))
    tree.set(np.arange(len(leaves)), np.array(leaves))
    assert tree.total == pytest.approx(sum(leaves))
    at = tree.draw(np.full(200, 0.5))
    edges = np.cumsum(leaves) / sum(leaves)
    exact = np.searchsorted(edges, (np.arange(200) + 0.5) / 200, side="right")
    near = np.abs(edges[np.minimum(exact, len(leaves) - 1)][:, None] - edges).min(1) < 1e-9
    assert ((at == exact) | near).all()
    assert (np.array(leaves)[at] > 0).all()


def pictures(count, value):
    return {FRONT: np.full((count, 4, 5, 3), value, np.uint8)}


def walk_pictures(replay, steps, start=0):
    no = np.zeros(2, dtype=bool)
    for t in range(start, start + steps):
        action = np.full((2, 2), t / 1000, np.float32)
        replay.add(pictures(2, t % 256), action, np.full(2, t, np.float32), no, no, pictures(2, (t + 1) % 256))


@pytest.mark.parametrize("mapped", [False, True])
def test_pictures_stay_bytes_in_memory_and_in_mapped_files(mapped, tmp_path):
    replay = Replay(PICTURES, 64, 2, tmp_path, gamma=GAMMA, in_memory_bytes=0 if mapped else 1 << 30)
    walk_pictures(replay, 300)
    batch = draw(replay, 200)
    assert batch[FRONT].dtype == np.uint8
    assert batch[FRONT].shape == (200, 2, 4, 5, 3)
    done = batch["reward"][:, 0].astype(int)
    assert (batch[FRONT][:, 0, 0, 0, 0] == done % 256).all()
    assert (batch[FRONT][:, 1, 3, 4, 2] == (done + 1) % 256).all()
    np.testing.assert_allclose(batch[ACTION][:, 0, 1], done / 1000, rtol=1e-6)
    files = sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    assert files >= 64 * 4 * 5 * 3 if mapped else files == 0


HOWS = {
    "plain": {},
    "mapped": {"in_memory_bytes": 0},
    "n-step": {"n_step": 3},
    "sequences": {"length": 4},
    "prioritised": {"priority": Priority()},
}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("capacity", [40, 400])
def test_a_resumed_memory_is_what_it_was(how, capacity, tmp_path):
    """Three meeting points, then steps that a kill takes back and which overwrite the ring; then once more from there."""
    replay = small(tmp_path / "killed", capacity, **HOWS[how])
    left_alone = small(tmp_path / "whole", capacity, **HOWS[how])
    record, other = Record(replay, 2), Record(left_alone, 2)
    for _ in range(3):
        for one, memory in ((record, replay), (other, left_alone)):
            one.walk(25)
            state = memory.state_dict()
            one.rebuild()
    record.walk(45)
    replay.state_dict()  # the checkpoint that a kill cut short: its journal is there, its cursors are not
    resumed = small(tmp_path / "killed", capacity, **HOWS[how])
    resumed.load_state_dict(state)
    assert len(resumed) == len(left_alone)
    for memory in (resumed, left_alone):
        again = Record(memory, 2, seed=9)
        again.count = 10_000
        again.begin()
        again.walk(10)
    ours, theirs = draw(resumed), draw(left_alone)
    for key in theirs:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
    assert names(resumed.state_dict()) == names(left_alone.state_dict())


def names(state):
    return [name for name, _ in state["files"]]


def test_the_journal_does_not_grow_without_end(tmp_path):
    replay = small(tmp_path, 40)
    record = Record(replay, 2)
    sizes = []
    for _ in range(30):
        record.walk(10)
        replay.state_dict()
        record.rebuild()
        sizes.append(sum(f.stat().st_size for f in tmp_path.rglob("*.safetensors")))
    assert max(sizes[10:]) < 1.5 * max(sizes[:10])


def test_older_checkpoints_that_are_kept_can_still_be_gone_back_to(tmp_path):
    replay, states, batches = small(tmp_path, 40), [], []
    record = Record(replay, 2)
    for _ in range(6):
        record.walk(15)
        states.append(replay.state_dict())
        batches.append(draw(replay))
        record.rebuild()
    older = small(tmp_path, 40)
    older.load_state_dict(states[-2])
    for key, array in draw(older).items():
        np.testing.assert_array_equal(array, batches[-2][key], err_msg=key)
    told = [episode[STATE] for episode in recalled(tmp_path / "journal", states[-2], 40)]
    held = older.arrays[STATE][~older.arrays[FINAL]]
    assert sorted(np.concatenate(told).ravel()) == sorted(held.ravel())


def test_a_journal_cut_short_is_said_so(tmp_path):
    replay = small(tmp_path)
    Record(replay, 2).walk(20)
    state = replay.state_dict()
    path = next(tmp_path.rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(BadCheckpoint, match="journal"):
        small(tmp_path).load_state_dict(state)
    path.unlink()
    with pytest.raises(BadCheckpoint, match="journal"):
        small(tmp_path).load_state_dict(state)


def test_a_cut_is_a_truncation(tmp_path):
    replay = small(tmp_path, 40, 1)
    record = Record(replay, 1, p_end=0.0).walk(5)
    replay.state_dict()
    record.rebuild()
    record.walk(5)
    batch = draw(replay, 2_000)
    record.check(batch, 1)
    last = batch[STATE][:, 0, 0] == 5
    assert last.any()
    assert batch["ended"][last].all()
    assert not batch[TERMINATED.removeprefix("next.")][last].any()


def test_what_cannot_work_is_refused(tmp_path):
    with pytest.raises(BadConfig, match="n_step and sequences"):
        small(tmp_path, n_step=2, length=2)
    with pytest.raises(BadConfig, match="raise the capacity"):
        small(tmp_path, capacity=6)
