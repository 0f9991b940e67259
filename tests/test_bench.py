"""What the benches reckon by themselves: on rows made by hand, whose answers are known."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from drivetrain.envs.words import make_env
from drivetrain.sample import STATE

sys.path.append(str(Path(__file__).parents[1] / "bench"))
words = importlib.import_module("carracing_words")
parts = importlib.import_module("parts")
dreaming = importlib.import_module("dreaming")


def test_left_of_the_middle_is_counted_in_metres():
    """A road to the north, the car 2 m west of it; one to the east, the car 1 m south of it."""
    tracks = np.zeros((2, 3, 3))
    tracks[0, :, 1], tracks[0, :, 2] = [0, 5, 10], np.pi / 2
    tracks[1, :, 0] = [0, 5, 10]
    told = {"privileged.track": tracks, "privileged.position_m": np.array([[-2.0, 5.0], [5.0, -1.0]])}
    assert words.left_m(told) == pytest.approx([2.0, -1.0])


def test_obedience_is_by_the_order_that_was_given():
    speed = {"drive": 20.0, "slowly": 8.0, "left": 18.0, "right": 18.0, "stop": 0.2}
    names = [name for name in speed for _ in range(4)]
    rows = [
        {
            "speed_mps": speed[name],
            "left_m": 3.0 * (name == "left") - 3.0 * (name == "right"),
            "stood_s": 2.0 if name == "stop" else np.inf,
        }
        for name in names
    ]
    found = words.by_order(names, rows)
    assert found["slowly"]["share_of_normal_speed"] == pytest.approx(0.4)
    assert (found["left"]["left_m"]["mean"], found["right"]["left_m"]["mean"]) == (3.0, -3.0)
    assert {name: said["stands"]["value"] for name, said in found.items()} == {**dict.fromkeys(speed, 0.0), "stop": 1.0}


def test_statements_are_checked_claim_by_claim():
    """Right in all; wrong in its bend alone; and one that is no sentence."""
    shape = (len(words.COURSES), len(words.PACES), len(words.DEEDS))
    truth = (1, 1, 1)
    number = [int(np.ravel_multi_index(said, shape)) for said in (truth, (2, 1, 1))]
    said = [*(words.SENTENCES[n] for n in number), "Banana."]
    rows = [{"truth": truth, "lap": lap, "bend": 0.0, "speed": -99.0} for lap in range(3)]
    found = words.checked(said, rows)
    assert found["well formed"] == pytest.approx(2 / 3)
    rights = {what: found[what]["right"]["value"] for what in ("bend", "pace", "deed")}
    assert rights == pytest.approx({"bend": 1 / 3, "pace": 2 / 3, "deed": 2 / 3})


def test_a_run_of_other_settings_is_not_taken_for_the_one_asked_for(tmp_path):
    from drivetrain.cli import main

    run, words = tmp_path / "run", ["ppo", "--env", "cartpole", "--steps", "64", "--worlds", "2", "--rollout", "16"]
    assert main(["train", *words, "--output-dir", str(run), "--quiet"]) == 0
    log = parts.Log()
    assert log.train(run, *words) == run
    assert log.commands[0]["command"].startswith("drivetrain train ppo --env cartpole --steps 64")
    with pytest.raises(RuntimeError, match="made by other settings"):
        parts.same_settings(run, [*words, "--gamma", "0.5"])
    with pytest.raises(RuntimeError, match="made by other settings"):
        parts.same_settings(run, ["dqn"])


def test_the_trouble_of_one_part_is_not_the_others(tmp_path, capsys):
    def broken(log):
        raise FileNotFoundError("gone")

    assert parts.do("broken", broken, tmp_path) == "broken"
    assert "broken: failed: gone" in capsys.readouterr().err
    assert parts.do("whole", lambda log: {"value": 1}, tmp_path) == ""
    assert (tmp_path / "whole.json").exists()


def test_the_true_equations_are_gymnasiums_own():
    """A plan's rewards, reckoned, beside those that the world gives for it."""
    plan, env = np.random.default_rng(0).uniform(-1, 1, (40, 1)), make_env("pendulum")
    seen, _ = env.reset(seed=3)
    cosine, sine, rate = torch.from_numpy(seen[STATE]).double()
    found = dreaming.earned(torch.atan2(sine, cosine)[None], rate[None], torch.from_numpy(plan)[None, None])
    total = sum(env.step(2 * torque.astype(np.float32))[1] for torque in plan)
    assert found.item() == pytest.approx(total, rel=1e-4)
