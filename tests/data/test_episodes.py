"""Batches: a function of seed and step, every frame once an epoch, never across the end of an episode."""

from pathlib import Path

import numpy as np
import pytest

from drivetrain.data.episodes import IS_FIRST, VALID, Episodes, Pictures, together
from drivetrain.data.fake import open_fake
from drivetrain.data.open import open_dataset
from drivetrain.errors import BadConfig, BadData, SpecMismatch, UnknownName
from drivetrain.sample import ACTION, FRONT, REWARD, STATE, TASK, TERMINATED, TRUNCATED, Feature, Sample, Spec

SPEC = Spec(
    {
        STATE: Feature((3,), low=(-1.0, 0.0, 2.0), high=(1.0, 0.5, 9.0)),
        FRONT: Feature((4, 6, 3), "uint8", colour="rgb"),
        "observation.lidar.top": Feature((5, 2), ragged=True),
        ACTION: Feature((), "int64", choices=3),
    },
    task="keep going",
    fps=10,
)


def numbered(lengths: tuple[int, ...] = (5, 1, 7, 3)) -> Episodes:
    """Frames whose state says which episode and which frame they are."""
    state = np.concatenate([[(e, t) for t in range(n)] for e, n in enumerate(lengths)]).astype(np.float32)
    arrays = {STATE: state, ACTION: np.arange(len(state))}
    spec = Spec({STATE: Feature((2,)), ACTION: Feature((), "int64", choices=99)}, "count", 10)
    return Episodes(spec, arrays, lengths)


def same(one: Sample, other: Sample) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    one, other = open_fake(SPEC, 6, 20), open_fake(SPEC, 6, 20)
    first = one.batch(5, at=3, seed=1, length=4)
    for at in (9, 0, 2):
        one.batch(7, at=at, seed=2)
    assert same(first, one.batch(5, at=3, seed=1, length=4))
    assert same(first, other.batch(5, at=3, seed=1, length=4))
    assert not same(first, one.batch(5, at=4, seed=1, length=4))
    assert not same(first, one.batch(5, at=3, seed=2, length=4))


@pytest.mark.parametrize("size", [1, 4, 5, 16, 40])
def test_an_epoch_shows_every_frame_once(size: int) -> None:
    data = numbered()
    seen = np.concatenate([data.batch(size, at=at, seed=7)[ACTION][:, 0] for at in range(3 * len(data) // size + 1)])
    epochs = [seen[i * len(data) : (i + 1) * len(data)] for i in range(3)]
    assert all(sorted(epoch) == list(range(len(data))) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_windows_stay_in_their_episode_and_repeat_its_last_frame() -> None:
    data = numbered()
    batch = data.windows(np.arange(len(data)), length=4)
    assert batch[STATE].shape == (16, 4, 2)
    for row, (start, valid) in enumerate(zip(batch[STATE], batch[VALID], strict=True)):
        episode, first = start[0]
        length = int(data.lengths[int(episode)])
        assert (start[:, 0] == episode).all(), row
        assert start[:, 1].tolist() == [min(first + t, length - 1) for t in range(4)]
        assert valid.tolist() == [first + t < length for t in range(4)]
    assert (batch[IS_FIRST] == [True, False, False, False]).all()


def test_shapes_and_instructions_of_a_batch() -> None:
    batch = open_fake(SPEC).batch(2, at=0, seed=0, length=3)
    assert batch[FRONT].shape == (2, 3, 4, 6, 3)
    assert batch[FRONT].dtype == np.uint8
    assert batch["observation.lidar.top"].shape == (2, 3, 5, 2)
    assert batch["observation.lidar.top.count"].shape == (2, 3)
    assert batch[ACTION].shape == batch[REWARD].shape == batch[VALID].shape == (2, 3)
    assert batch[TASK] == ["keep going"] * 2


def test_a_split_keeps_episodes_whole_and_apart() -> None:
    data = numbered(tuple(range(1, 21)))
    train, held_out = data.split(0.75, seed=3)
    assert (train.episodes, held_out.episodes) == (15, 5)
    which = [set(part.windows(np.arange(len(part)))[STATE][:, 0, 0]) for part in (train, held_out)]
    assert not which[0] & which[1]
    assert len(which[0] | which[1]) == 20
    assert len(train) + len(held_out) == len(data)
    assert data.split(0.75, seed=3)[0].fingerprint() == train.fingerprint() != data.split(0.75, seed=4)[0].fingerprint()
    window = held_out.windows(np.arange(len(held_out)), length=5)
    assert (window[STATE][:, :, 0] == window[STATE][:, :1, 0]).all()
    assert set(train.select([0]).episode(0)) == {STATE, ACTION, TASK}
    assert train.arrays[STATE] is data.arrays[STATE]


def test_one_episode_cannot_be_split() -> None:
    with pytest.raises(BadData, match="two episodes"):
        numbered((4,)).split(0.5, seed=0)


def test_the_fingerprint_sees_each_number_and_the_spec() -> None:
    data, again = open_fake(SPEC), open_fake(SPEC)
    assert data.fingerprint() == again.fingerprint()
    again.arrays[REWARD][3] += 1
    assert data.fingerprint() != again.fingerprint() != open_fake(SPEC, seed=1).fingerprint()


def test_statistics_of_floats_and_of_the_true_rows_of_ragged_ones() -> None:
    data = open_fake(SPEC, 6, 30)
    counts, points = data.arrays["observation.lidar.top.count"], data.arrays["observation.lidar.top"]
    points[..., 1] = 7  # the padding too, which must not count
    points[np.arange(5) >= counts[:, None]] = 1000
    told = data.statistics()
    assert set(told) == {STATE, "observation.lidar.top"}
    assert told[STATE]["mean"] == pytest.approx(data.arrays[STATE].mean(0), abs=1e-5)
    assert told[STATE]["std"] == pytest.approx(data.arrays[STATE].std(0), abs=1e-5)
    assert told["observation.lidar.top"]["max"][1] == 7
    assert told["observation.lidar.top"]["std"][1] == 0
    assert told["observation.lidar.top"]["max"][0] <= 1


def test_pictures_are_decoded_once_and_only_when_asked_for() -> None:
    asked = []

    def decode(row: int) -> np.ndarray:
        asked.append(row)
        return np.full((2, 2, 3), row, np.uint8)

    pictures = Pictures(decode, 9, (2, 2, 3))
    assert pictures[np.array([[4, 1], [4, 4]])].shape == (2, 2, 2, 2, 3)
    assert pictures[4][0, 0, 0] == 4
    assert pictures[:3].shape == (3, 2, 2, 3)
    assert asked == [1, 4, 0, 2]


def test_fake_data_honours_its_spec() -> None:
    data = open_fake(SPEC, episodes=5, length=9, seed=2)
    low, high = SPEC.features[STATE].bounds()
    assert ((low <= data.arrays[STATE]) & (data.arrays[STATE] <= high)).all()
    assert set(np.unique(data.arrays[ACTION])) == {0, 1, 2}
    ends = np.cumsum(data.lengths) - 1
    assert np.flatnonzero(data.arrays[TERMINATED] | data.arrays[TRUNCATED]).tolist() == ends.tolist()
    assert data.episodes == 5
    assert data.lengths.max() <= 9
    for feature in (Feature((2,), "bool"), Feature((2,), "int64", low=3, high=5), Feature((), low=5.0)):
        assert open_fake(Spec({ACTION: feature}, "", 1)).arrays[ACTION].dtype == np.dtype(feature.dtype)


def test_arrays_that_do_not_fit_the_spec_are_refused() -> None:
    data = numbered()
    with pytest.raises(BadData, match=r"observation.state: got float32 \[2\], expected float32 \[3\]"):
        Episodes(Spec({STATE: Feature((3,))}), data.arrays, data.lengths)
    with pytest.raises(BadData, match="lengths do not add up"):
        Episodes(data.spec, data.arrays, [5, 40])
    with pytest.raises(BadData, match=r"next.reward"):
        data.require(STATE, REWARD)


def test_a_data_set_by_name(tmp_path: Path) -> None:
    assert open_dataset("fake", SPEC).spec == SPEC
    with pytest.raises(BadConfig, match="spec"):
        open_dataset("fake")
    with pytest.raises(UnknownName, match="did you mean fake"):
        open_dataset("fakes")
    with pytest.raises(BadData, match="there is no folder"):
        open_dataset(str(tmp_path / "nowhere"))


def test_a_folder_must_offer_what_is_asked_for(tmp_path: Path) -> None:
    from drivetrain.data.lerobot import Writer

    writer = Writer(tmp_path / "set", numbered().spec)
    for t in range(3):
        outcome = {REWARD: 0.0, TERMINATED: t == 2, TRUNCATED: False}
        writer.add({STATE: np.zeros(2, np.float32), ACTION: t, **outcome})
    writer.end_episode()
    writer.finish()
    assert len(open_dataset(str(tmp_path / "set"), numbered().spec)) == 3
    with pytest.raises(SpecMismatch, match=r"observation.state: training and the data set"):
        open_dataset(str(tmp_path / "set"), SPEC)


def test_together_they_are_the_parts_one_after_another():
    """Halves of a set, one with a second instruction, joined in the other order; pictures are decoded by their part alone."""
    spec = Spec({FRONT: Feature((4, 4, 3), "uint8", colour="rgb"), ACTION: Feature((), "int64", choices=3)}, "Drive.")
    parts = [open_fake(spec, episodes=3, seed=seed) for seed in (0, 1)]
    parts[1].tasks, parts[1].task_index = ("Stop.", "Drive."), np.arange(len(parts[1])) % 2
    asked = []

    def decode(row):
        asked.append(row)
        return first_pictures[row]

    first_pictures = parts[0].arrays[FRONT]
    parts[0].arrays[FRONT] = Pictures(decode, len(first_pictures), (4, 4, 3))
    part = parts[0].select([2, 0])
    both = together([part, parts[1]])
    assert both.episodes == 5
    assert asked == []
    for index, (source, episode) in enumerate([(part, 0), (part, 1), *((parts[1], i) for i in range(3))]):
        wanted, got = source.episode(episode), both.episode(index)
        assert wanted.keys() == got.keys()
        for key in wanted:
            np.testing.assert_array_equal(got[key], wanted[key])
    window = both.stack(2).windows(np.arange(len(both)), 3)
    assert window[FRONT].shape == (len(both), 3, 4, 4, 6)
    assert len(asked) == len(set(asked)) == len(part)


def test_what_does_not_fit_together_is_refused():
    spec = Spec({STATE: Feature((2,)), ACTION: Feature((), "int64", choices=3)})
    other = Spec({STATE: Feature((3,)), ACTION: Feature((), "int64", choices=3)})
    with pytest.raises(SpecMismatch, match="observation"):
        together([open_fake(spec), open_fake(other)])
