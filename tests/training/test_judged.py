"""Worlds that a judge rewards: what the learner gets, what stays hidden, and who may not teach."""

import json
from dataclasses import replace

import numpy as np
import pytest

from drivetrain import checkpoint, config
from drivetrain.audit import Config, audit, gathered
from drivetrain.cli import main
from drivetrain.data.images import share_of
from drivetrain.envs.words import make_env, spec_of
from drivetrain.errors import BadConfig
from drivetrain.rewards.sheet import SHEETS, open_sheet
from drivetrain.rewards.vlm import Constant, Judge, Truth
from drivetrain.run import Run, read_metrics
from drivetrain.training.judged import JudgedWorlds, Judging, hidden, record_of, worlds_for
from drivetrain.training.online_rl import dqn, ppo

SHEET = open_sheet("cartpole")


def worlds(answerer, count=2, env="cartpole:endless=1"):
    return JudgedWorlds(env, count, Judge(SHEET, answerer))


def test_an_endless_cartpole_goes_on_and_pays_nothing_after_the_fall():
    plain, endless = make_env("cartpole"), make_env("cartpole:endless=1")
    plain.reset(seed=0)
    endless.reset(seed=0)
    total = 0.0
    for step in range(500):
        seen, reward, terminated, truncated, _ = endless.step(1)
        total += reward
        if step < 9:
            there, _, fell, _, _ = plain.step(1)
            assert all(np.array_equal(seen[key], there[key]) for key in there)
        assert not terminated
        assert truncated == (step == 499)
    lasted = 0
    plain.reset(seed=0)
    while lasted == 0 or not fell:
        _, _, fell, _, _ = plain.step(1)
        lasted += 1
    assert total == lasted


@pytest.mark.parametrize("name", ["cartpole:endless=1", "cartpole-pixels:endless=1,stack=1"])
def test_a_cart_far_away_leaves_an_empty_picture(name):
    env = make_env(name)
    env.reset(seed=0)
    for far in (20.0, -5_000.0):
        env.unwrapped.now = (far, 0.0, 0.5, 0.0)
        env.step(1)
        frame = np.asarray(env.render())
        assert (frame[200:290] == 255).all()  # above the track there is nothing


def test_the_reward_is_the_sheets_and_the_worlds_own_is_hidden():
    judged, facts = worlds(Truth()), []
    judged.rebuild(0)
    for _ in range(3):
        went = judged.step(np.array([1, 0]))
        for i, info in enumerate(went.infos):
            x, _, tilt, _ = info["privileged.state"]
            facts.append((went.reward[i], 1 - 0.5 * abs(np.degrees(tilt)) / 12 - 0.5 * abs(100 * x) / 240))
    assert all(given == pytest.approx(wanted, abs=1e-5) for given, wanted in facts)
    assert not went.ended.any()


def test_the_judge_says_when_it_is_over_and_a_new_episode_begins():
    judged = worlds(Truth(), count=1)
    judged.rebuild(0)
    went, steps = judged.step(np.array([1])), 1
    while not went.ended[0]:
        went, steps = judged.step(np.array([1])), steps + 1
    tilt = np.degrees(went.infos[0]["privileged.state"][2])
    assert abs(tilt) > 12
    assert went.terminated[0]
    assert not went.truncated[0]
    assert abs(went.observation["observation.state"][0, 2]) < 0.06 < abs(went.final["observation.state"][0, 2])
    (finished,) = judged.finished()
    assert finished.total == finished.length == steps  # of the true reward, for the report
    said = judged.watched()
    assert judged.judge.counts()["judge/frames"] == steps
    assert said["judged/return"] < steps


def test_a_patient_sheet_waits_for_as_many_frames_in_a_row():
    def fallen(went):
        return abs(np.degrees(went.infos[0]["privileged.state"][2])) > 12

    judged = JudgedWorlds("cartpole:endless=1", 1, Judge(replace(SHEET, patience=3), Truth()))
    judged.rebuild(0)
    for episode in range(2):
        said = []
        while not said or not went.ended[0]:  # noqa: F821  made by the first turn
            went = judged.step(np.array([episode]))
            said.append(fallen(went))
        assert said.count(True) == 3, "one episode's waiting is not the next one's"
        assert went.terminated[0]
    judged.step(np.array([1]))
    judged.waited[:] = 2
    assert not judged.step(np.array([0])).ended[0], "a frame that says otherwise begins the count anew"
    judged.waited[:] = 2
    judged.rebuild(1)
    assert judged.waited[0] == 0


def test_an_episodes_first_frames_end_nothing_where_the_sheet_has_grace():
    judged = JudgedWorlds("cartpole:endless=1", 1, Judge(replace(SHEET, ends="tilt > -90", grace=4), Truth()))
    judged.rebuild(0)
    assert [bool(judged.step(np.array([0])).terminated[0]) for _ in range(10)] == ([False] * 4 + [True]) * 2


def test_a_judge_that_never_ends_leaves_it_to_the_time_limit():
    judged = worlds(Constant(5.0), count=1)
    judged.rebuild(0)
    ended = [judged.step(np.array([step % 2])) for step in range(500)]
    assert not any(went.terminated[0] for went in ended)
    assert [bool(went.truncated[0]) for went in ended] == [False] * 499 + [True]


def test_ends_are_hidden_where_the_world_can_go_on():
    assert hidden("cartpole:repeat=2", False) == "cartpole:repeat=2,endless=1"
    assert hidden("cartpole", True) == "cartpole"
    assert hidden("mountaincar", False) == "mountaincar"


def settings(folder, **judge):
    said = {"backbone": "truth", "audits": str(folder / "audits"), "answers": "", "samples": 2, **judge}
    return replace(dqn.DEBUG, reward="vlm", judge=Judging(**said))


def audited(folder, answerer, fit, held_out=0.1):
    path = record_of(SHEET, answerer, folder / "audits")
    path.mkdir(parents=True, exist_ok=True)
    verdict = {"fit": fit, "why": [] if fit else ["it is blind"]}
    (path / "audit.json").write_text(json.dumps({"verdict": verdict, "settings": {"held_out": held_out}}))


def test_an_audit_on_pictures_that_may_have_been_trained_on_counts_for_nothing(tmp_path):
    audited(tmp_path, Truth(), fit=True, held_out=0.5)
    with pytest.raises(BadConfig, match="was audited on 50% of all pictures"):
        worlds_for("cartpole", 1, settings(tmp_path), tmp_path)


@pytest.mark.parametrize("option", ["aim=500", "absorb=5"])
def test_what_would_tell_the_worlds_own_reward_or_end_is_refused(option, tmp_path):
    with pytest.raises(BadConfig, match="must stay hidden"):
        worlds_for(f"cartpole:{option}", 1, settings(tmp_path, anyway=True), tmp_path)


def test_who_was_not_audited_or_found_unfit_may_not_teach(tmp_path):
    with pytest.raises(
        BadConfig, match="nobody knows whether truth can judge cartpole; audit it first: drivetrain audit"
    ):
        worlds_for("cartpole", 1, settings(tmp_path), tmp_path)
    audited(tmp_path, Truth(), fit=False)
    with pytest.raises(BadConfig, match="found unfit to judge cartpole: it is blind"):
        worlds_for("cartpole", 1, settings(tmp_path), tmp_path)
    assert isinstance(worlds_for("cartpole", 1, settings(tmp_path, anyway=True), tmp_path), JudgedWorlds)
    with pytest.raises(BadConfig, match="the sheet judges carracing, the env is cartpole"):
        worlds_for("cartpole", 1, settings(tmp_path, sheet="carracing"), tmp_path)
    with pytest.raises(BadConfig, match="a reward comes from world or vlm, got 'clip'"):
        worlds_for("cartpole", 1, replace(settings(tmp_path), reward="clip"), tmp_path)


@pytest.mark.parametrize("algorithm", [dqn, ppo])
def test_learners_train_on_it_and_report_the_true_return(algorithm, tmp_path):
    audited(tmp_path, Truth(), fit=True)
    judge = settings(tmp_path).judge
    wanted = replace(algorithm.DEBUG, reward="vlm", judge=judge)
    run = Run(tmp_path / "run", checkpoint_every=10**9, quiet=True)
    run.begin("x", config.to_json(wanted))
    algorithm.train(wanted, run)
    rows = read_metrics(tmp_path / "run")
    assert rows[-1]["judge/frames"] == wanted.steps
    ended = [row for row in rows if "return" in row]
    assert ended
    assert all(row["judged/return"] < row["return"] for row in ended)
    assert sorted(path.name for path in (tmp_path / "run" / "judged").iterdir()) == ["0000.png", "0001.png"]
    assert checkpoint.load_policy(tmp_path / "run").spec.env == "cartpole"
    assert spec_of("cartpole").env == "cartpole"


def test_flags_about_a_backbone_are_the_judges_where_a_judge_rewards():
    judged = ["--reward", "vlm", "--backbone", "constant:5", "--prompt", "Is it?", "--sheet", "carracing"]
    found = config.parse(dqn.Config(), judged, "train dqn")
    assert (found.judge.backbone, found.judge.prompt, found.judge.sheet) == ("constant:5", "Is it?", "carracing")
    plain = config.parse(dqn.Config(), ["--model-path", "tiny-git"], "train dqn")
    assert (plain.network.backbone, plain.judge.backbone) == ("tiny-git", Judging().backbone)


def test_an_audit_says_fit_with_0_and_unfit_with_3_and_is_found_by_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    more = ["--env", "cartpole", "--frames", "60"]
    assert main(["audit", "--backbone", "truth", *more]) == 0
    assert "truth: fit to teach" in capsys.readouterr().out
    assert main(["audit", "--backbone", "constant:45", *more, "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"]["why"][0] == "tilt: 1 distinct answer to 60 frames"
    page = (tmp_path / said["folder"] / "audit.md").read_text()
    assert page.startswith("# constant:45: not fit to teach: ")
    assert "| truth | tilt | 0.00 | 1.00 |" in page
    assert len(list((tmp_path / said["folder"]).glob("worst-*.png"))) == 6
    train = ["train", "dqn", "--steps", "256", "--warmup", "1000", "--reward", "vlm", "--quiet", "--backbone"]
    assert main([*train, "truth", "--output-dir", "taught"]) == 0
    assert main([*train, "constant:45", "--output-dir", "untaught"]) == 2
    assert "was found unfit to judge cartpole: tilt: 1 distinct answer" in capsys.readouterr().err
    assert not (tmp_path / "untaught").exists()


def test_a_resumed_run_goes_on_counting_and_ends_the_same(tmp_path):
    audited(tmp_path, Truth(), fit=True)
    wanted = replace(dqn.DEBUG, reward="vlm", judge=settings(tmp_path).judge)

    def run(folder, **how):
        run = Run(tmp_path / folder, checkpoint_every=64, quiet=True, **how)
        run.begin("dqn", config.to_json(wanted))
        return run

    dqn.train(wanted, run("whole"))
    cut = run("cut", on_save=lambda step: (_ for _ in ()).throw(KeyboardInterrupt) if step == 128 else None)
    with pytest.raises(KeyboardInterrupt):
        dqn.train(wanted, cut)
    dqn.train(wanted, run("cut", resume=True))
    ours, theirs = (
        [{k: v for k, v in row.items() if k != "wall_s"} for row in read_metrics(tmp_path / name)]
        for name in ("whole", "cut")
    )
    assert ours == theirs
    assert ours[-1]["judge/frames"] == wanted.steps


def test_a_judge_without_its_reward_is_told(tmp_path):
    with pytest.raises(BadConfig, match="the reward is the world's own; add --reward vlm"):
        worlds_for("cartpole", 1, replace(dqn.DEBUG, judge=Judging(backbone="truth")), tmp_path)


def test_a_sheet_that_shows_other_pictures_than_training_is_refused(tmp_path):
    sheet = tmp_path / "whole.toml"
    sheet.write_text((SHEETS / "cartpole.toml").read_text().replace("rows = [160, 320]\n", ""))
    with pytest.raises(
        BadConfig, match=r"shows \[400, 600, 3\] of cartpole while training, and scenes are \[160, 600, 3\]"
    ):
        audit(Config(backbone="truth", sheet=str(sheet), frames=20))
    with pytest.raises(BadConfig, match="--held-out must be above 0"):
        audit(Config(held_out=0.0))


def test_an_audits_frames_are_held_out_and_all_different(tmp_path):
    frames, truths = gathered(SHEET, Config(frames=40))
    assert all(share_of(frame) < 0.1 for frame in frames)
    assert len({frame.tobytes() for frame in frames}) == 40
    assert frames.shape[1:] == (160, 600, 3)
    assert set(truths) == {"tilt", "position"}
    shown = make_env("cartpole")
    shown.reset(seed=0)
    assert np.asarray(shown.render())[slice(*SHEET.rows)].shape == (160, 600, 3)
