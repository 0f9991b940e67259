"""The LeRobot v3 format: what is written comes back equal, kills lose one episode at most, and damage is named."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drivetrain.data import joining, layout
from drivetrain.data.episodes import Episodes
from drivetrain.data.fake import open_fake
from drivetrain.data.lerobot import Limits, Writer, compact, open_lerobot
from drivetrain.errors import BadData
from drivetrain.sample import ACTION, FRONT, REWARD, STATE, TASK, TERMINATED, TRUNCATED, Feature, Sample, Spec

LIDAR = "observation.lidar.top"
SPEC = Spec(
    {
        STATE: Feature((4,), low=-3.0, high=3.0, names=("x_m", "y_m", "yaw_rad", "speed_mps")),
        "observation.speed_mps": Feature(()),
        "observation.bev": Feature((3, 4, 2)),
        FRONT: Feature((16, 20, 3), "uint8", colour="rgb"),
        "observation.images.stack": Feature((8, 8, 6), "uint8", colour="rgb"),
        "observation.images.grey": Feature((6, 10, 1), "uint8"),
        LIDAR: Feature((7, 3), ragged=True),
        ACTION: Feature((2,), low=(-1.0, 0.0), high=1.0, names=("steer", "gas")),
    },
    task="follow the lane",
    fps=12.5,
)
CHOICES = Spec(
    {STATE: Feature((2,)), ACTION: Feature((), "int64", choices=4, names=("a", "b", "c", "d"))}, "choose", 10
)


def frames(data: Episodes, index: int) -> list[Sample]:
    episode = data.episode(index)
    return [{key: values[t] for key, values in episode.items()} for t in range(int(data.lengths[index]))]


def write(root: Path, data: Episodes, limits: Limits | None = None, **options: bool) -> Path:
    writer = Writer(root, data.spec, **options)
    for index in range(data.episodes):
        for frame in frames(data, index):
            writer.add(frame)
        writer.end_episode()
    writer.finish(limits)
    return root


def assert_equal(got: Episodes, wanted: Episodes, *, but: tuple[str, ...] = ()) -> None:
    assert got.spec == wanted.spec
    assert got.lengths.tolist() == wanted.lengths.tolist()
    assert set(got.arrays) == set(wanted.arrays)
    for index in range(wanted.episodes):
        one, other = got.episode(index), wanted.episode(index)
        for key in set(one) - set(but):
            assert np.array_equal(one[key], other[key]), (index, key)
            assert key == TASK or one[key].dtype == other[key].dtype, key


def two_tasks(data: Episodes) -> Episodes:
    index = np.arange(len(data)) // 5 % 2
    return Episodes(data.spec, data.arrays, data.lengths, tasks=["turn left", "stop"], task_index=index)


def smooth(data: Episodes) -> Episodes:
    """The same with pictures that a video can hold: a slow grey wave."""
    for key, feature in data.spec.features.items():
        if feature.dtype == "uint8":
            height, width, _ = feature.shape
            wave = np.sin(np.arange(height)[:, None] / 5 + np.arange(width) / 7)[None] * 60 + 128
            moving = wave + np.arange(len(data))[:, None, None] % 40
            data.arrays[key][:] = moving[..., None].astype(np.uint8)
    return data


def damage(path: Path, at: float = 0.5, count: int = 64) -> None:
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    data[start : start + count] = bytes(255 - b for b in data[start : start + count])
    path.write_bytes(data)


@pytest.fixture(scope="module")
def data() -> Episodes:
    return two_tasks(open_fake(SPEC, episodes=5, length=14, seed=3))


@pytest.fixture
def written(tmp_path, data) -> Path:
    return write(tmp_path / "set", data)


def test_a_round_trip_is_equal_bit_for_bit(written: Path, data: Episodes) -> None:
    assert_equal(open_lerobot(written), data)
    assert open_lerobot(written).fingerprint() == open_lerobot(written).fingerprint()
    assert not list(written.glob(".*"))


def test_choices_come_back(tmp_path: Path) -> None:
    data = open_fake(CHOICES)
    assert_equal(open_lerobot(write(tmp_path / "set", data)), data)


def test_video_comes_back_nearly(tmp_path: Path) -> None:
    data = smooth(two_tasks(open_fake(SPEC, episodes=3, length=14)))
    back = open_lerobot(write(tmp_path / "set", data, video=True))
    pictures = (FRONT, "observation.images.stack", "observation.images.grey")
    assert_equal(back, data, but=pictures)
    for key in pictures:
        off = np.abs(back.arrays[key][:].astype(int) - data.arrays[key])
        assert off.mean() < 3, key
        assert off.max() < 25, key


def test_files_are_cut_at_the_limits_and_read_the_same(tmp_path: Path, data: Episodes) -> None:
    small = write(tmp_path / "small", data, Limits(data_mb=0.05, files_per_chunk=2))
    names = sorted(path.relative_to(small / "data").as_posix() for path in small.rglob("data/*/*.parquet"))
    assert len(names) > 2
    assert names[:3] == [
        "chunk-000/file-000.parquet",
        "chunk-000/file-001.parquet",
        "chunk-001/file-000.parquet",
    ]
    assert_equal(open_lerobot(small), data)


def test_videos_are_cut_at_the_limits_and_read_the_same(tmp_path: Path) -> None:
    data = open_fake(Spec({FRONT: Feature((32, 32, 3), "uint8"), ACTION: Feature((1,))}, "", 10), 6, 9)
    one = open_lerobot(write(tmp_path / "one", data, video=True))
    many = open_lerobot(write(tmp_path / "many", data, Limits(video_mb=0.01), video=True))
    assert len(list((tmp_path / "many").rglob("*.mp4"))) > 1
    assert_equal(one, many)


def test_the_metadata_is_lerobots(written: Path, data: Episodes) -> None:
    info = json.loads((written / layout.INFO).read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["total_tasks"] == 2
    assert info["splits"] == {"train": "0:5"}
    assert info["total_frames"] == len(data)
    assert info["features"][FRONT] == {
        "dtype": "image",
        "shape": [16, 20, 3],
        "names": ["height", "width", "channels"],
    }
    assert info["features"]["next.terminated"] == {"dtype": "bool", "shape": [1], "names": None}
    assert {"observation.images.stack.0", "observation.images.stack.1", f"{LIDAR}.count"} <= set(info["features"])
    stats = json.loads((written / layout.STATS).read_text())
    assert np.shape(stats[FRONT]["q50"]) == (3, 1, 1)
    assert 0 <= stats[FRONT]["min"][0][0][0] <= 1
    assert stats[STATE]["mean"] == pytest.approx(data.arrays[STATE].mean(0), abs=1e-6)
    assert stats[STATE]["std"] == pytest.approx(data.arrays[STATE].std(0), abs=1e-6)
    unit = data.arrays[FRONT] / 255.0
    for name, value in (("mean", unit.mean((0, 1, 2))), ("std", unit.std((0, 1, 2)))):
        assert np.reshape(stats[FRONT][name], 3) == pytest.approx(value, abs=1e-9)
    assert set(stats[ACTION]) == {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
    tasks = pq.read_table(written / layout.TASKS)
    assert tasks["__index_level_0__"].to_pylist() == ["turn left", "stop"]
    episodes = pq.read_table(written / layout.EPISODES_PATH.format(chunk_index=0, file_index=0))
    assert {"tasks", "data/file_index", "dataset_to_index", "meta/episodes/chunk_index", f"stats/{FRONT}/q01"} <= set(
        episodes.column_names
    )


def test_the_padding_of_ragged_features_is_not_summed_up(written: Path, data: Episodes) -> None:
    stats = json.loads((written / layout.STATS).read_text())[LIDAR]
    counts = data.arrays[f"{LIDAR}.count"]
    true = data.arrays[LIDAR][np.arange(7) < counts[:, None]]
    assert stats["max"] == pytest.approx(true.max(0))
    assert stats["count"] == [len(data)]


def test_ragged_rows_may_come_without_padding(tmp_path: Path) -> None:
    spec = Spec({LIDAR: Feature((4, 2), ragged=True), ACTION: Feature((1,))}, "", 10)
    writer = Writer(tmp_path / "set", spec)
    outcome = {ACTION: np.zeros(1, np.float32), REWARD: 1.0, TERMINATED: False, TRUNCATED: False}
    for rows in (0, 3, 4):
        writer.add({LIDAR: np.ones((rows, 2), np.float32), **outcome})
    with pytest.raises(BadData, match=r"observation.lidar.top of frame 3 in episode 0: got float32 \[5, 2\]"):
        writer.add({LIDAR: np.ones((5, 2), np.float32), **outcome})
    writer.end_episode()
    writer.finish()
    back = open_lerobot(tmp_path / "set")
    assert back.arrays[f"{LIDAR}.count"].tolist() == [0, 3, 4]
    assert back.arrays[LIDAR].sum((1, 2)).tolist() == [0, 6, 8]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"privileged.lane": 1.0}, "got privileged.lane, the spec has no such feature"),
        ({ACTION: np.array([0, np.nan], np.float32)}, "action of frame 0 in episode 0: got nan"),
        ({STATE: np.zeros(3, np.float32)}, "observation.state of frame 0 in episode 0: got float32 \\[3\\], expected"),
        ({FRONT: np.zeros((16, 20, 3), np.float32)}, "observation.images.front .* got float32"),
    ],
)
def test_a_wrong_frame_is_refused(tmp_path: Path, data: Episodes, change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadData, match=words):
        Writer(tmp_path / "set", SPEC).add({**frames(data, 0)[0], **change})


def test_missing_features_and_wrong_choices_are_refused(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "set", CHOICES)
    frame = frames(open_fake(CHOICES), 0)[0]
    with pytest.raises(BadData, match="action of frame 0 in episode 0: got 4, expected 0 to 3"):
        writer.add({**frame, ACTION: 4})
    del frame[REWARD]
    with pytest.raises(BadData, match=r"next.reward of frame 0 in episode 0 is missing"):
        writer.add(frame)
    with pytest.raises(BadData, match="has no frame"):
        writer.end_episode()


def test_frames_after_the_end_of_an_episode_are_refused(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "set", CHOICES)
    for _ in range(3):
        writer.add({**frames(open_fake(CHOICES), 0)[0], TERMINATED: True})
    with pytest.raises(BadData, match="episode 0 ended at frame 0, got 3 frames"):
        writer.end_episode()


def test_specs_that_cannot_be_stored_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="frames per second"):
        Writer(tmp_path / "set", Spec(CHOICES.features))
    odd = Spec({FRONT: Feature((5, 6, 3), "uint8")}, "", 10)
    with pytest.raises(BadData, match="got 5x6, video needs even sides"):
        Writer(tmp_path / "set", odd, video=True)


def test_a_collection_cut_short_goes_on_after_its_last_whole_episode(tmp_path: Path, data: Episodes) -> None:
    root = tmp_path / "set"
    writer = Writer(root, SPEC)
    for index in range(2):
        for frame in frames(data, index):
            writer.add(frame)
        writer.end_episode()
    writer.add(frames(data, 2)[0])  # the episode that is lost
    half_written = root / layout.WAITING / "half-written"
    half_written.mkdir()
    (half_written / layout.FRAMES).write_bytes(b"PAR1 and no more")
    with pytest.raises(BadData, match="2 episodes of an interrupted collection"):
        open_lerobot(root)
    with pytest.raises(BadData, match="2 episodes of an interrupted collection; delete it, or go on"):
        Writer(root, SPEC)
    with pytest.raises(BadData, match="begun with another spec"):
        Writer(root, CHOICES, resume=True)
    writer = Writer(root, SPEC, resume=True)
    assert writer.episodes == 2
    for index in range(2, 5):
        for frame in frames(data, index):
            writer.add(frame)
        writer.end_episode()
    writer.finish()
    assert_equal(open_lerobot(root), data)


def test_a_finished_folder_takes_no_more(written: Path, data: Episodes) -> None:
    with pytest.raises(BadData, match="already holds a finished data set"):
        Writer(written, SPEC)
    again = Writer(written, SPEC, resume=True)
    assert again.finished
    assert again.episodes == 5
    again.finish()
    with pytest.raises(BadData, match="finished with 5 episodes"):
        again.add(frames(data, 0)[0])
    assert_equal(open_lerobot(written), data)


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear all")
    for resume in (False, True):
        with pytest.raises(BadData, match="not an empty folder"):
            Writer(tmp_path, CHOICES, resume=resume)
    with pytest.raises(BadData, match="neither a data set nor episodes"):
        compact(tmp_path)


@pytest.mark.parametrize("call", ["settle", "write_json"])
def test_joining_cut_short_anywhere_can_start_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    data = open_fake(CHOICES)
    real, whole = getattr(joining, call), []

    class Killed(BaseException):
        pass

    for survived in range(10):
        root = tmp_path / str(survived)
        writer, calls = Writer(root, CHOICES), iter(range(survived))
        for index in range(data.episodes):
            for frame in frames(data, index):
                writer.add(frame)
            writer.end_episode()

        def failing(*given: Any, calls: Iterator[int] = calls) -> None:
            if next(calls, None) is None:
                raise Killed
            real(*given)

        monkeypatch.setattr(joining, call, failing)
        try:
            compact(root)
            whole.append(survived)
        except Killed:
            monkeypatch.setattr(joining, call, real)
            Writer(root, CHOICES, resume=True).finish()
        assert_equal(open_lerobot(root), data)
        assert not list(root.glob(".*"))
        if whole:
            break
    assert whole
    assert whole[0] > 1


def test_a_killed_writer_is_resumed(tmp_path: Path) -> None:
    root, data = tmp_path / "set", open_fake(CHOICES, episodes=3000, length=20)
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]; import test_lerobot as t\n"
        "t.write(t.Path(sys.argv[1]), t.open_fake(t.CHOICES, episodes=3000, length=20))"
    )
    places = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    process = subprocess.Popen([sys.executable, "-c", program, str(root), *places])
    deadline = time.monotonic() + 300
    while len(list(root.glob(f"{layout.WAITING}/0*"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    writer = Writer(root, CHOICES, resume=True)
    assert 5 <= writer.episodes < 3000
    some = writer.episodes
    for frame in frames(data, some):
        writer.add(frame)
    writer.end_episode()
    writer.finish()
    assert_equal(open_lerobot(root), data.select(range(some + 1)))


def test_damaged_parquet_is_named(written: Path) -> None:
    path = next(written.rglob("data/*/*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData, match=r"file-000.parquet cannot be read .* cut short or corrupt"):
        open_lerobot(written)
    path.write_bytes(whole)
    damage(path)
    with pytest.raises(BadData, match=r"file-000.parquet cannot be read"):
        open_lerobot(written)
    path.unlink()
    with pytest.raises(BadData, match=r"file-000.parquet is missing"):
        open_lerobot(written)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_damaged_video_is_named(tmp_path: Path, share: float) -> None:
    data = open_fake(Spec({FRONT: Feature((32, 32, 3), "uint8"), ACTION: Feature((1,))}, "", 10), 4, 9)
    root = write(tmp_path / "set", data, video=True)
    path = next(root.rglob("*.mp4"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BadData, match=r"file-000.mp4: observation.images.front: episode \d: got \d+ of .* corrupt"):
        open_lerobot(root)
    path.unlink()
    with pytest.raises(BadData, match=r"file-000.mp4 is missing; episode 0"):
        open_lerobot(root)


def rewrite(root: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = next(root.rglob("data/*/*.parquet"))
    pq.write_table(change(pq.read_table(path)), path)


def test_columns_and_numbers_that_are_not_there_are_named(tmp_path: Path, data: Episodes) -> None:
    root = write(tmp_path / "lacking", data)
    rewrite(root, lambda table: table.drop_columns([ACTION, STATE]))
    with pytest.raises(BadData, match=r"file-000.parquet: got no column observation.state, action"):
        open_lerobot(root)

    def spoil(table: pa.Table) -> pa.Table:
        values = np.stack(table[ACTION].to_numpy()).copy()
        values[-1, 1] = np.nan
        spoilt = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 2)
        return table.set_column(table.column_names.index(ACTION), ACTION, spoilt)

    root = write(tmp_path / "spoilt", data)
    rewrite(root, spoil)
    with pytest.raises(BadData, match=r"file-000.parquet: action: episode 4: got NaN"):
        open_lerobot(root)


def test_lengths_that_do_not_add_up_are_named(tmp_path: Path, data: Episodes) -> None:
    root = write(tmp_path / "short", data)
    rewrite(root, lambda table: table.slice(0, len(table) - 3))
    with pytest.raises(BadData, match=r"episode_index: episode 4: got .* expected .* in order"):
        open_lerobot(root)
    root = write(tmp_path / "swapped", data)
    rewrite(root, lambda table: table.take([1, 0, *range(2, len(table))]))
    with pytest.raises(BadData, match="episode_index: episode 0"):
        open_lerobot(root)
    root = write(tmp_path / "miscounted", data)
    told = json.loads((root / layout.INFO).read_text())
    (root / layout.INFO).write_text(json.dumps(told | {"total_frames": 1}))
    with pytest.raises(BadData, match=r"got 5 episodes of .* frames, .*info.json says 5 of 1"):
        open_lerobot(root)


def test_a_damaged_picture_is_named_when_it_is_read(tmp_path: Path, data: Episodes) -> None:
    root = write(tmp_path / "set", data)

    def spoil(table: pa.Table) -> pa.Table:
        pictures = table[FRONT].to_pylist()
        pictures[-1] = {"bytes": pictures[-1]["bytes"][:60], "path": None}
        kind = table.schema.field(FRONT).type
        return table.set_column(table.column_names.index(FRONT), FRONT, pa.array(pictures, kind))

    rewrite(root, spoil)
    back = open_lerobot(root)
    back.episode(0)
    with pytest.raises(
        BadData, match=r"file-000.parquet: observation.images.front: episode 4: a picture cannot be read"
    ):
        back.episode(4)


def test_folders_that_hold_no_data_set_are_named(tmp_path: Path, written: Path) -> None:
    with pytest.raises(BadData, match="there is no folder"):
        open_lerobot(tmp_path / "nowhere")
    with pytest.raises(BadData, match=r"has no meta/info.json"):
        open_lerobot(tmp_path)
    info = written / layout.INFO
    told = json.loads(info.read_text())
    info.write_text(json.dumps(told | {"codebase_version": "v2.1"}))
    with pytest.raises(BadData, match=r"got version v2.1, expected v3.0"):
        open_lerobot(written)
    info.write_text(info.read_text()[:50])
    with pytest.raises(BadData, match=r"info.json is not JSON"):
        open_lerobot(written)


def test_a_set_of_lerobots_own_gets_a_spec(written: Path, data: Episodes) -> None:
    """Without our spec.json, and with the words that others use."""
    (written / layout.SPEC).unlink()
    told = json.loads((written / layout.INFO).read_text())
    for old, new in ((FRONT, "observation.image"), (TERMINATED, "next.done"), (TRUNCATED, "observation.flag")):
        told["features"][new] = told["features"].pop(old)
        rewrite(written, lambda t, o=old, n=new: t.rename_columns([n if c == o else c for c in t.column_names]))
    (written / layout.INFO).write_text(json.dumps(told))
    back = open_lerobot(written)
    assert back.spec.fps == 12.5
    assert back.spec.features[STATE].names == SPEC.features[STATE].names
    assert np.array_equal(back.arrays["observation.images.image"][:], data.arrays[FRONT])
    assert np.array_equal(back.arrays[ACTION], data.arrays[ACTION])
    assert np.array_equal(back.arrays[TERMINATED], data.arrays[TERMINATED])
    ends = np.cumsum(data.lengths) - 1
    assert (back.arrays[TERMINATED] | back.arrays[TRUNCATED])[ends].all()
    assert back.arrays["observation.flag"].shape == (len(data), 1)
    assert back.batch(2, at=0, seed=0)[REWARD].shape == (2, 1)
