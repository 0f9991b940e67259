"""The files of offline reinforcement learning: what is written comes back, what is broken is named, ends stay ends."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from drivetrain.cli import main
from drivetrain.data import minari
from drivetrain.data.minari import is_minari, open_d4rl, open_minari, write_d4rl, write_minari
from drivetrain.data.open import open_dataset
from drivetrain.envs.words import spec_of
from drivetrain.errors import BadData, MissingExtra
from drivetrain.sample import ACTION, FRONT, REWARD, STATE, TERMINATED, TRUNCATED, Feature
from drivetrain.scores import REFERENCE, normalised


def steps(count=10, width=11, actions=3):
    """Arrays as D4RL has them: an end by itself after 4, a time limit after 3, and three that the file cuts off."""
    random = np.random.default_rng(0)
    ends, limits = np.zeros((2, count), bool)
    ends[3], limits[6] = True, True
    return {
        "observations": random.normal(size=(count, width)).astype(np.float32),
        "actions": random.uniform(-1, 1, (count, actions)).astype(np.float32),
        "rewards": np.arange(count, dtype=np.float32),
        "terminals": ends,
        "timeouts": limits,
    }


def written(path, **changes):
    """A file of D4RL's with some columns changed, or left out where None."""
    with h5py.File(path, "w") as file:
        for key, values in {**steps(), **changes}.items():
            if values is not None:
                file.create_dataset(key, data=values)
    return path


def test_a_file_of_d4rl_is_episodes_of_the_world_in_its_name(tmp_path):
    data = open_dataset(str(written(tmp_path / "hopper_medium_replay-v2.hdf5")))
    assert data.lengths.tolist() == [4, 3, 3]
    assert data.spec.env == "hopper"
    assert data.spec.action.names == spec_of("hopper").action.names
    assert data.values(TERMINATED).nonzero()[0].tolist() == [3]
    assert data.values(TRUNCATED).nonzero()[0].tolist() == [6, 9]
    np.testing.assert_array_equal(data.values(STATE), steps()["observations"])


def test_a_file_of_another_world_tells_its_own_shape(tmp_path):
    data = open_d4rl(written(tmp_path / "pen-human-v1.hdf5"))
    assert (data.spec.env, data.spec.action.shape, data.spec.action.low) == ("", (3,), -1.0)


def test_ends_are_found_where_an_old_file_has_no_timeouts(tmp_path):
    after = np.roll(steps()["observations"], -1, axis=0)
    after[[3, 6]] += 1  # what these led to is not where the next step begins
    path = written(tmp_path / "hopper_old-v0.hdf5", timeouts=None, next_observations=after)
    assert open_d4rl(path).lengths.tolist() == [4, 3, 3]


NAN = np.zeros(10, np.float32)
NAN[5] = np.nan


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rewards": None}, "got no rewards, but actions, observations"),
        ({"actions": steps()["actions"][:7]}, "actions has 7 rows, rewards has 10"),
        ({"rewards": NAN}, "rewards: episode 1: got NaN or infinity"),
        ({"terminals": NAN}, "terminals holds nan, expected 0 or 1"),
        ({"timeouts": np.arange(10)}, "timeouts holds 2, expected 0 or 1"),
        ({"terminals": np.zeros((10, 2))}, "terminals is .10, 2., expected one for each step"),
        ({"rewards": np.float32(1)}, "rewards is a single number"),
        ({"observations": np.full((10, 11), b"x")}, "observations is of .S1, expected numbers"),
        ({"actions": 1j * steps()["actions"]}, "actions is of complex64, expected numbers"),
        ({"timeouts": None}, "got neither timeouts nor next_observations"),
        ({"actions": 3 * steps()["actions"]}, "actions of episode 0 leave the bounds of hopper"),
        ({"timeouts": None, "observations": np.zeros((9, 11))}, "observations has 9 rows, rewards has 10"),
        (
            {"timeouts": None, "next_observations": np.zeros((10, 4))},
            "next_observations is .10, 4., observations .10, 11.",
        ),
        ({key: values[:0] for key, values in steps().items()}, "rewards has no rows"),
    ],
)
def test_a_broken_file_is_named_by_key_and_episode(changes, says, tmp_path):
    with pytest.raises(BadData, match=says):
        open_d4rl(written(tmp_path / "hopper_broken-v2.hdf5", **changes))


def test_a_file_of_one_step_is_an_episode(tmp_path):
    one = {key: values[:1] for key, values in steps().items()}
    path = written(
        tmp_path / "hopper_one-v2.hdf5", **{**one, "timeouts": None, "next_observations": one["observations"]}
    )
    assert open_d4rl(path).lengths.tolist() == [1]


def test_a_file_that_is_damaged_inside_is_named_by_key(tmp_path):
    path = tmp_path / "hopper_broken-v2.hdf5"
    with h5py.File(path, "w") as file:
        for key, values in steps(2000).items():
            file.create_dataset(key, data=values, compression="gzip")
        where = file["observations"].id.get_chunk_info(0).byte_offset
    whole = bytearray(path.read_bytes())
    whole[where : where + 40] = bytes(40)
    path.write_bytes(whole)
    with pytest.raises(BadData, match="observations cannot be read"):
        open_d4rl(path)


@pytest.mark.parametrize("form", ["d4rl", "minari"])
def test_wherever_a_file_is_damaged_it_opens_or_is_said_to_be_broken(form, tmp_path):
    first = open_d4rl(written(tmp_path / "hopper_first-v2.hdf5"))
    if form == "d4rl":
        path = tmp_path / "hopper_first-v2.hdf5"
    else:
        write_minari(first, tmp_path / "mine", "mine")
        path = tmp_path / "mine" / "data" / "main_data.hdf5"
    whole, refused = path.read_bytes(), 0
    for start in range(0, len(whole), 48):
        path.unlink()  # h5py may still hold what it refused
        path.write_bytes(whole[:start] + b"\xa5" * 48 + whole[start + 48 :])
        try:
            open_d4rl(path) if form == "d4rl" else open_minari(tmp_path / "mine")
        except BadData:
            refused += 1
    assert refused > len(whole) / 48 / 10


def test_options_of_the_world_and_the_number_of_choices_come_back(tmp_path):
    first = open_dataset("fake", spec_of("cartpole:repeat=2"))
    write_d4rl(first, tmp_path / "cartpole_first.hdf5")
    write_minari(first, tmp_path / "mine", "mine")
    for again in (open_d4rl(tmp_path / "cartpole_first.hdf5"), open_minari(tmp_path / "mine")):
        assert again.spec.env == "cartpole:repeat=2"
    lopsided = open_dataset("fake", spec_of("pusht"))  # whose actions are not from -1 to 1
    write_d4rl(lopsided, tmp_path / "first.hdf5")
    assert open_d4rl(tmp_path / "first.hdf5").spec == lopsided.spec
    data = open_d4rl(written(tmp_path / "other_first.hdf5", actions=np.zeros(10, np.int64)))
    data.spec = replace(data.spec, features={**data.spec.features, ACTION: Feature((), "int64", choices=7)})
    write_d4rl(data, tmp_path / "other_again.hdf5")
    assert open_d4rl(tmp_path / "other_again.hdf5").spec.action.choices == 7


def test_without_its_simulator_a_set_tells_its_own_shape(tmp_path, monkeypatch):
    def missing(env):
        raise MissingExtra("mujoco", "mujoco", "hopper")

    monkeypatch.setattr(minari, "_built", missing)
    assert open_d4rl(written(tmp_path / "hopper_first-v2.hdf5")).spec.action.shape == (3,)


def test_what_is_no_hdf5_is_one_line(tmp_path):
    (tmp_path / "hopper.hdf5").write_text("<html>not found</html>")
    with pytest.raises(BadData, match="is no HDF5 file that can be read"):
        open_d4rl(tmp_path / "hopper.hdf5")


def test_d4rl_there_and_back_is_the_same(tmp_path):
    first = open_d4rl(written(tmp_path / "hopper_first-v2.hdf5"))
    write_d4rl(first, tmp_path / "hopper_second-v2.hdf5")
    assert open_d4rl(tmp_path / "hopper_second-v2.hdf5").fingerprint() == first.fingerprint()


def test_minari_keeps_every_step_that_led_somewhere_known(tmp_path):
    first = open_d4rl(written(tmp_path / "hopper_first-v2.hdf5"))
    write_minari(first, tmp_path / "mine", "hopper/mine-v0")
    assert is_minari(tmp_path / "mine")
    second = open_dataset(str(tmp_path / "mine"))
    assert (second.spec.env, second.lengths.tolist()) == ("hopper", [4, 2, 2])
    kept = [0, 1, 2, 3, 4, 5, 7, 8]
    for key in (STATE, ACTION, REWARD):
        np.testing.assert_array_equal(second.values(key), first.values(key)[kept], err_msg=key)
    with h5py.File(tmp_path / "mine" / "data" / "main_data.hdf5") as file:
        np.testing.assert_array_equal(file["episode_1/observations"], first.values(STATE)[4:7])


def test_pictures_and_choices_there_and_back(tmp_path):
    from drivetrain.data.fake import open_fake

    first = open_fake(spec_of("carracing"))
    write_minari(first, tmp_path / "mine", "carracing/mine-v0")
    second = open_minari(tmp_path / "mine")
    assert second.spec.action.choices == first.spec.action.choices
    np.testing.assert_array_equal(second.episode(0)[FRONT][:], first.episode(0)[FRONT][: second.lengths[0]])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda file: file["episode_1"].__delitem__("rewards"), "episode_1: got no rewards"),
        (lambda file: file.__delitem__("episode_2"), "got 2 episodes, data/metadata.json says 3"),
        (lambda file: file["episode_0"].__setitem__("actions", np.zeros((2, 3))), "actions has 2 rows, rewards has 4"),
        (
            lambda file: file["episode_0"].__setitem__("observations", np.zeros((4, 11))),
            "expected 5: one more than rewards",
        ),
        (
            lambda file: file["episode_1"].__setitem__("observations", np.zeros((3, 4))),
            r"observation.state of episode 1 is \[4\], of the first \[11\]",
        ),
    ],
)
def test_a_broken_minari_set_is_named_by_key_and_episode(damage, says, tmp_path):
    write_minari(open_d4rl(written(tmp_path / "hopper_first-v2.hdf5")), tmp_path / "mine", "mine")
    with h5py.File(tmp_path / "mine" / "data" / "main_data.hdf5", "a") as file:
        for number, key in ((0, "actions"), (0, "observations"), (1, "observations")):
            if says.startswith(key) or ("one more" in says and key == "observations"):
                file[f"episode_{number}"].pop(key)
            elif "of the first" in says and number:
                file["episode_1"].pop(key)
        damage(file)
    with pytest.raises(BadData, match=says):
        open_minari(tmp_path / "mine")


def test_minari_itself_reads_what_we_wrote(tmp_path):
    """Its own reader, where it is installed: it needs jax for this format."""
    theirs = pytest.importorskip("minari")
    pytest.importorskip("jax")
    write_minari(open_d4rl(written(tmp_path / "hopper_first-v2.hdf5")), tmp_path / "mine", "hopper/mine-v0")
    found = theirs.MinariDataset(tmp_path / "mine" / "data")
    assert [len(episode.rewards) for episode in found.iterate_episodes()] == [4, 2, 2]


def test_several_sets_are_one(tmp_path):
    paths = [str(written(tmp_path / f"hopper_{name}-v2.hdf5")) for name in ("medium", "expert")]
    assert open_dataset(",".join(paths)).lengths.tolist() == [4, 3, 3] * 2


def test_the_command_writes_both_formats(tmp_path, capsys):
    source = str(written(tmp_path / "hopper_first-v2.hdf5"))
    for form, place in (("d4rl", "hopper_again-v2.hdf5"), ("minari", "again")):
        where = str(tmp_path / place)
        assert main(["collect", "--as", form, "--dataset", source, "--output-dir", where]) == 0
        assert ("3 episodes, 10" if form == "d4rl" else "3 episodes, 8") in capsys.readouterr().out
        assert open_dataset(where).episodes == 3
        assert main(["collect", "--as", form, "--dataset", source, "--output-dir", where]) == 2


def test_what_is_copied_is_single_pictures_and_never_written_over_what_is_there(tmp_path, capsys):
    world = ["--env", "cartpole-pixels"]  # which joins two by itself
    source, few = str(tmp_path / "source"), str(tmp_path / "few")
    assert main(["collect", "--as", "minari", "--dataset", "fake", *world, "--output-dir", source]) == 0
    taken = ["collect", "--as", "subset", "--dataset", source, "--episodes", "1", "--every", "2", *world]
    assert main([*taken, "--output-dir", few]) == 0
    assert open_dataset(few).spec.observations[FRONT].shape[-1] == 3
    kept = sorted(path for path in (tmp_path / "few").rglob("*"))
    assert main(["collect", "--as", "minari", "--dataset", source, "--output-dir", few]) == 2
    assert "is there already" in capsys.readouterr().err
    assert sorted(path for path in (tmp_path / "few").rglob("*")) == kept


@pytest.mark.slow
def test_a_replay_is_what_the_run_remembers(tmp_path):
    run, folder = tmp_path / "run", tmp_path / "replay"
    small = ["--steps", "400", "--warmup", "100", "--capacity", "240", "--worlds", "2", "--batch-size", "8"]
    assert (
        main(
            [
                "train",
                "sac",
                "--env",
                "pendulum",
                *small,
                "--checkpoint-every",
                "200",
                "--output-dir",
                str(run),
                "--quiet",
            ]
        )
        == 0
    )
    assert main(["collect", "--as", "replay", "--by", str(run), "--output-dir", str(folder)]) == 0
    data = open_dataset(str(folder))
    card = json.loads((folder / "meta" / "card.json").read_text())
    assert card["frames"] == len(data) <= 240
    assert card["fingerprint"] == data.fingerprint()
    assert data.spec.env == "pendulum"
    action = data.values(ACTION)
    assert np.abs(action).max() <= spec_of("pendulum").action.high
    assert not data.values(TERMINATED).any()
    # pendulum's own physics says that each step follows from the one before
    from gymnasium.envs.classic_control.pendulum import PendulumEnv

    episode = data.episode(0)
    world = PendulumEnv()
    world.reset(seed=0)
    cosine, sine, speed = np.asarray(episode[STATE][0], dtype=np.float64)
    world.state = np.array([np.arctan2(sine, cosine), speed])
    for i in range(min(5, len(episode[REWARD]) - 1)):
        seen, reward, *_ = world.step(episode[ACTION][i] * 2 / spec_of("pendulum").action.high)
        np.testing.assert_allclose(seen, episode[STATE][i + 1], atol=1e-4)
        assert reward == pytest.approx(float(episode[REWARD][i]), abs=1e-3)


def test_what_is_learned_from_an_unknown_worlds_file_can_be_evaluated_in_one_of_its_shape(tmp_path, capsys):
    path, run = str(written(tmp_path / "unknown.hdf5")), str(tmp_path / "run")
    assert main(["train", "iql", "--dataset", path, "--steps", "2", "--output-dir", run, "--quiet"]) == 0
    assert main(["eval", run, "--episodes", "1"]) == 2
    assert "add --env NAME" in capsys.readouterr().err
    assert main(["eval", run, "--env", "hopper", "--episodes", "1", "--json"]) == 0
    assert "d4rl_score" in json.loads(capsys.readouterr().out)["result"]


def test_the_memory_of_who_sees_no_reward_is_no_data_set(tmp_path, capsys):
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    (tmp_path / "checkpoints" / "last" / "manifest.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"algorithm": "gail", "config": {}}))
    assert main(["collect", "--as", "replay", "--by", str(tmp_path)]) == 2
    assert "is a run of gail; give one of dqn or sac" in capsys.readouterr().err


@pytest.mark.parametrize("algorithm", ["iql", "dt"])
def test_steps_that_do_not_follow_one_another_teach_no_values(algorithm, tmp_path, capsys):
    whole, thin = str(tmp_path / "whole"), str(tmp_path / "thin")
    main(["collect", "--env", "pendulum", "--by", "random", "--episodes", "2", "--output-dir", whole])
    main(["collect", "--as", "subset", "--dataset", whole, "--episodes", "2", "--every", "20", "--output-dir", thin])
    assert main(["train", algorithm, "--dataset", f"{whole},{thin}", "--output-dir", str(tmp_path / "run")]) == 2
    assert "has one step in 20" in capsys.readouterr().err


def test_scores_are_d4rls():
    assert normalised("hopper", 3234.3) == pytest.approx(100)
    assert normalised("hopper:stack=2", REFERENCE["hopper"][0]) == pytest.approx(0)
    assert normalised("pendulum", -200) is None
