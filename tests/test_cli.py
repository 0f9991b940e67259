"""What a user's mistake looks like: one clear line, exit status 2, no traceback, and nothing lost that was good."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from drivetrain import catalog, checkpoint
from drivetrain.cli import main
from drivetrain.run import read_metrics

EARLIER, LAST = "000000128", "000000256"
QUICK = [
    "--env",
    "cartpole",
    "--steps",
    "256",
    "--worlds",
    "2",
    "--rollout",
    "16",
    "--minibatch",
    "16",
    "--epochs",
    "1",
]
TRAIN = ["train", "ppo", *QUICK, "--checkpoint-every", "128", "--quiet"]


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """They take longer to draw than these runs to train."""
    monkeypatch.setattr("drivetrain.report.draw_curves", lambda path, rows: [])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*TRAIN, "--output-dir", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A run of two checkpoints that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


def outside(*arguments, file_bytes=None):
    """The command in a process of its own, where no file may grow beyond `file_bytes`."""

    def limit():
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    command = [sys.executable, "-m", "drivetrain", *map(str, arguments)]
    return subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=300)


MISTAKES = [
    (["trian"], "there is no command 'trian'; did you mean train?"),
    (["train"], "needs an algorithm first, got 'nothing'"),
    (["train", "pppo"], "there is no algorithm called 'pppo'; did you mean ppo"),
    (["train", "xyzzy"], "there is no algorithm called 'xyzzy'; known: align, bc"),
    (["train", "ppo", "--setps", "3"], "there is no flag --setps; did you mean --steps"),
    (["train", "ppo", "--output_dri", "x"], "there is no flag --output-dri"),
    (["train", "ppo", "--steps"], "Missing value for argument '--steps'"),
    (["train", "ppo", "--steps", "many"], "invalid literal for int() with base 10: 'many'; expected --steps INT"),
    (["train", "ppo", "--steps", "0"], "--steps must be 1 or more, got 0"),
    (["train", "ppo", "--worlds", "-2"], "--worlds must be 1 or more, got -2"),
    (["train", "ppo", "--gamma", "1.5"], "--gamma must be between 0 and 1, got 1.5"),
    (["train", "ppo", "--lr", "nan"], "--lr must be above 0, got nan"),
    (["train", "ppo", "--seed", "-1"], "--seed must be 0 or more, got -1"),
    (["train", "ppo", "--entropy-weight", "inf"], "--entropy-weight must be a finite number, got inf"),
    (["train", "ppo", "--network.memory-width", "0"], "--network.memory-width must be 1 or more, got 0"),
    (["train", "ppo", "--checkpoint-every", "-5"], "--checkpoint-every must be 0 or more, got -5"),
    (["train", "ppo", "stray"], "Unrecognized options: stray"),
    (["train", "ppo", "--env", "cartpol"], "there is no env called 'cartpol'; did you mean cartpole"),
    (
        ["train", "ppo", "--env", "cartpole:colour=red"],
        "has no option 'colour'; it takes endless, repeat, absorb, aim, shrink, stack",
    ),
    (
        ["train", "ppo", "--head", "gausian", "--env", "pendulum"],
        "there is no head called 'gausian'; did you mean gaussian?",
    ),
    (["train", "dqn", "--env", "pendulum"], "dqn needs actions that are choices"),
    (["train", "bc", "--words", "0.1", "--dataset", "fake", "--env", "cartpole"], "fake has no expert.words to learn"),
    (
        ["train", "bc", "--backbone", "tiny-git", "--dataset", "fake", "--env", "cartpole"],
        "needs colour pictures of one size",
    ),
    (
        ["collect", "--env", "carracing:order=dance", "--by", "carracing"],
        "carracing has no order=dance; use any, drive",
    ),
    (["collect", "--as", "captions", "--dataset", "no/where"], "there is no folder no/where"),
    (["train", "bc", "--dataset", "nowhere/at/all"], "there is no folder nowhere/at/all"),
    (["train", "bc", "--dataset", "fak"], "there is no data set called 'fak'; did you mean fake?"),
    (["train", "ppo", "--policy", "nowhere"], "nowhere does not exist"),
    (["train", "ppo", "--resume"], "is no run folder"),
    (["collect", "--by", "nobody"], "there is no expert called 'nobody'"),
    (
        ["collect", "--by", "cartpole", "--env", "pendulum"],
        "the expert cartpole cannot act in pendulum; use it in cartpole",
    ),
    (["collect", "--episodes", "0"], "--episodes must be 1 or more, got 0"),
    (["eval", "carracing-gti"], "did you mean carracing-git?"),
    (
        ["train", "gail", "--env", "cartpole:absorb=5"],
        "sac acts by numbers, and cartpole:absorb=5 has choices",
    ),
    (["train", "gail", "--judge-every", "0"], "--judge-every must be 1 or more"),
    (["train", "iql", "--expectile", "1.5"], "expectile must be"),
    (["train", "dagger", "--env", "acrobot", "--dataset", ""], "no expert knows acrobot; there are some for"),
    (["audit", "--device", "gpu"], "a device is cpu, cuda or cuda:0, got 'gpu'"),
    (["collect", "--as", "subset"], "--as subset needs --dataset"),
    (["collect", "--as", "parquet"], "a collection is --as episodes"),
    (["demo", "--rounds", "0"], "--rounds must be 1 or more"),
    (["eval"], "needs a run first, got 'nothing'"),
    (["eval", "nowhere"], "nowhere does not exist; give a run folder"),
    (["eval", "."], "holds no whole checkpoint"),
    (["eval", "carracing"], "the expert carracing needs a world to drive in; add --env NAME"),
    (["dream", "nowhere"], "nowhere does not exist; give a run folder"),
    (["ladder", "cartpol"], "there is no ladder called 'cartpol'; did you mean cartpole?"),
    (["ladder", "cartpole", "--only", "pppo"], "there is no algorithm called 'pppo'"),
    (["report", "."], "is no run folder"),
    (["list", "env"], "cannot list 'env'; did you mean envs?"),
    (["list", "--all"], "there is no flag --all"),
    (["doctor", "--fix"], "there is no flag --fix"),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing_behind(arguments, says, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in refused(*arguments)
    assert not list(tmp_path.rglob("*"))


def test_after_a_refusal_the_mended_command_has_its_folder(refused, tmp_path):
    refused(*TRAIN, "--env", "cartpol", "--output-dir", tmp_path / "run")
    assert main([*TRAIN, "--output-dir", str(tmp_path / "run")]) == 0


@pytest.mark.slow
def test_a_process_ends_with_status_2_and_no_traceback():
    done = outside("train", "ppo", "--setps", "3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("BadConfig: there is no flag --setps")
    assert done.stderr.count("\n") == 1


class TestEval:
    @pytest.mark.parametrize(
        ("flags", "says"),
        [
            (
                ["--env", "pendulum"],
                "SpecMismatch: observation.state: the policy and the env differ in shape (4,) against (3,)",
            ),
            (["--env", "cartpole:stack=2"], "SpecMismatch"),
            (["--env", "cartpole-pixels"], "SpecMismatch: the policy needs observation.state, the env gives "),
            (["--against", "nobody"], "there is no expert called 'nobody'"),
            (["--seed", "-4"], "--seed must be 0 or more, got -4"),
            (["--lanes", "0"], "--lanes must be 1 or more, got 0"),
            (["--video", "film.gif"], "a film is an .mp4 file, got film.gif"),
            (["--save", "nowhere/said.json"], "there is no folder for --save nowhere/said.json"),
            (["--fast"], "--fast is about CarRacing's drawing, the env is cartpole; leave it out"),
            (["--plan.how", "cem"], "only a policy with a world model can plan"),
            (["--plan.horizon", "3"], "settings of a plan without a way to search; add --plan.how cem"),
            (["--plan.how", "cem", "--no-greedy"], "a plan's first step is taken as it is"),
            (["--plan.how", "best"], "plan.how must be cem, mppi, shooting or empty, got 'best'"),
        ],
    )
    def test_what_cannot_be_is_refused(self, flags, says, trained, refused):
        assert says in refused("eval", trained, "--episodes", "1", *flags)

    def test_an_opponent_that_is_not_there_is_refused_before_anybody_plays(self, trained, refused, monkeypatch):
        monkeypatch.setattr("drivetrain.evaluate.evaluate", lambda *given, **more: pytest.fail("it played"))
        assert "there is no expert called 'nobody'" in refused("eval", trained, "--against", "nobody")

    def test_a_run_does_not_go_into_a_data_set(self, refused, tmp_path):
        assert (
            main(["collect", "--env", "cartpole", "--by", "random", "--episodes", "1", "--output-dir", str(tmp_path)])
            == 0
        )
        assert "holds a data set" in refused("train", "ppo", "--env", "cartpole", "--output-dir", tmp_path)

    def test_stdout_is_for_machines(self, trained, capsys, tmp_path):
        kept = tmp_path / "said.json"
        flags = ["--episodes", "2", "--seed", "3", "--against", "random", "--json", "--save", str(kept)]
        assert main(["eval", str(trained), *flags]) == 0
        out, err = capsys.readouterr()
        said = json.loads(out)
        assert err == ""
        assert said["result"]["seeds"] == said["against"]["seeds"] == [3, 4]
        assert said["result"]["summary"]["mean"] == np.mean(said["result"]["returns"])
        assert said["paired"]["verdict"] in ("better", "worse", "no difference shown")
        assert json.loads(kept.read_text()) == said

    def test_one_episode_claims_no_interval(self, trained, capsys):
        assert main(["eval", str(trained), "--episodes", "1", "--against", "untrained"]) == 0
        said = capsys.readouterr().out
        assert said.count("no interval from one episode") == 3
        assert "no difference shown" in said


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def damage_flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = [
    ("policy.safetensors", damage_cut, "bytes, expected"),
    ("policy.safetensors", damage_flip, "is corrupt"),
    ("policy.safetensors", Path.unlink, "is missing"),
    ("policy.json", damage_flip, "is corrupt"),
    ("manifest.json", damage_cut, "manifest.json cannot be read"),
]


class TestCheckpoints:
    @pytest.mark.parametrize(("file", "damage", "says"), DAMAGE, ids=[f"{f}-{d.__name__}" for f, d, _ in DAMAGE])
    def test_a_damaged_one_is_refused_and_the_one_before_it_serves(self, file, damage, says, run, refused):
        damage(run / "checkpoints" / LAST / file)
        assert says in refused("eval", run, "--episodes", "1")
        assert says in refused("train", "ppo", "--resume", "--output-dir", run)
        assert main(["eval", str(run / "checkpoints" / EARLIER), "--episodes", "1"]) == 0

    def test_doing_what_the_line_says_goes_on_from_the_one_before(self, run, refused):
        damage_flip(run / "checkpoints" / LAST / "optimizer.safetensors")
        line = refused("train", "ppo", "--resume", "--output-dir", run)
        assert f"remove {run / 'checkpoints' / LAST} and step 128 is used" in line
        shutil.rmtree(run / "checkpoints" / LAST)
        assert main(["train", "ppo", "--resume", "--quiet", "--output-dir", str(run)]) == 0
        assert checkpoint.steps_in(run) == [128, 256]

    def test_nobody_elses_code_is_run(self, run, refused):
        folder = run / "checkpoints" / LAST
        told = json.loads((folder / "policy.json").read_text())
        content = json.dumps({**told, "build": "os:system"}).encode()
        (folder / "policy.json").write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["policy.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert "only drivetrain's own code may" in refused("eval", run, "--episodes", "1")

    def test_a_run_is_not_overwritten_nor_changed_half_way(self, run, refused):
        assert "holds a run already; add --resume" in refused(*TRAIN, "--output-dir", run)
        other = refused("train", "ppo", "--resume", "--output-dir", run, "--lr", "0.5")
        assert "started with lr=0.001, got 0.5" in other
        assert "is a run of ppo, not of dqn" in refused("train", "dqn", "--resume", "--output-dir", run)
        assert checkpoint.steps_in(run) == [128, 256]

    def test_settings_that_are_no_json_are_named(self, run, refused):
        damage_cut(run / "config.json")
        assert "config.json is not JSON" in refused("train", "ppo", "--resume", "--output-dir", run)


def test_a_loss_that_is_no_number_stops_and_the_checkpoint_before_it_serves(monkeypatch, refused, tmp_path):
    steps = itertools.count()

    def poisoned():
        """CartPole whose rewards stop being numbers after 150 steps."""
        env = catalog.find("envs", "cartpole")()
        honest = env.step

        def step(action):
            observation, reward, *rest = honest(action)
            return observation, reward if next(steps) < 150 else float("nan"), *rest

        env.step = step
        return env

    monkeypatch.setitem(sys.modules, "poisons", types.SimpleNamespace(poisoned=poisoned))
    monkeypatch.setitem(catalog.ENVS, "poisoned", catalog.Entry("poisons:poisoned", "bad rewards"))
    command = ["--env", "poisoned", "--worlds", "1", "--rollout", "32", "--checkpoint-every", "96"]
    line = refused(*TRAIN, *command, "--output-dir", tmp_path / "run")
    assert line.startswith("NotANumber: ")
    assert "became nan by step 160" in line
    assert checkpoint.steps_in(tmp_path / "run") == [96]
    assert all(np.isfinite(row["loss"]) for row in read_metrics(tmp_path / "run"))
    assert main(["eval", str(tmp_path / "run"), "--env", "cartpole", "--episodes", "1"]) == 0


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_the_last_checkpoint_and_no_other(monkeypatch, refused, tmp_path):
    folder, honest = tmp_path / "run", checkpoint.write_synced

    def full(path, content):
        if LAST in str(path) and path.name == "optimizer.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        honest(path, content)

    monkeypatch.setattr(checkpoint, "write_synced", full)
    line = refused(*TRAIN, "--output-dir", folder)
    assert line.startswith("DiskTrouble: the checkpoint of step 256 could not be written")
    assert "No space left on device" in line
    assert "the last good one is step 128; make room and go on with --resume" in line
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [EARLIER, "last"]
    monkeypatch.undo()
    assert main(["eval", str(folder), "--episodes", "1"]) == 0

    done = outside("train", "ppo", "--resume", "--output-dir", folder, "--quiet", file_bytes=8_000)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("DiskTrouble: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert checkpoint.steps_in(folder) == [128]

    assert main(["train", "ppo", "--resume", "--quiet", "--output-dir", str(folder)]) == 0
    assert checkpoint.steps_in(folder) == [128, 256]


@pytest.mark.slow
def test_a_disk_that_fills_up_while_collecting_is_one_line(tmp_path):
    done = outside(
        "collect", "--env", "cartpole", "--episodes", "2", "--output-dir", tmp_path / "data", file_bytes=2_000
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("DiskTrouble: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_folder_that_cannot_be_made_is_named(refused, tmp_path):
    (tmp_path / "file").touch()
    assert f"at {tmp_path / 'file' / 'run'}" in refused(*TRAIN, "--output-dir", tmp_path / "file" / "run")


def test_what_succeeds_ends_with_0(capsys, tmp_path):
    for arguments in (
        [],
        ["--help"],
        ["--version"],
        ["list"],
        ["list", "envs", "--json"],
        ["train", "--help"],
        ["doctor"],
    ):
        assert main(arguments) == 0
        assert capsys.readouterr().out
    data = ["--env", "cartpole", "--episodes", "1", "--output-dir", str(tmp_path / "data")]
    assert main(["collect", *data]) == 0
    assert main(["collect", *data, "--resume"]) == 0
    assert "all were there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    "verb", ["train ppo", "train", "collect", "eval", "dream", "ladder", "report", "doctor", "list"]
)
def test_every_verb_has_help(verb, capsys):
    with contextlib.suppress(SystemExit):  # tyro's way of being done
        assert main([*verb.split(), "--help"]) == 0
    assert f"usage: drivetrain {verb}" in capsys.readouterr().out


def test_what_is_on_can_be_turned_off():
    from drivetrain import collect, config
    from drivetrain.errors import BadConfig
    from drivetrain.training.online_rl import ppo

    assert config.parse(collect.Config(), ["--no-greedy"], "x") == collect.Config(greedy=False)
    assert config.parse(ppo.Config(), ["--network.no-normalise"], "x") == ppo.Config()
    with pytest.raises(BadConfig, match="no-env"):
        config.parse(collect.Config(), ["--no-env"], "x")
