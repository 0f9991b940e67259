"""`drivetrain dream`: what is foreseen beside what came, by models whose errors are known."""

import json

import av
import numpy as np
import pytest
import torch

from drivetrain import dream
from drivetrain.beside import BANNER, SIDE, Chart, beside
from drivetrain.checkpoint import load_policy, resolve
from drivetrain.cli import main
from drivetrain.envs.words import spec_of
from drivetrain.models.driver import Network
from drivetrain.models.rssm import Size, symlog
from drivetrain.models.world import Dreamer
from drivetrain.sample import REWARD, STATE

SETTINGS = ["--env", "pendulum", "--steps", "600", "--warmup", "100", "--train-every", "20", "--length", "8",
            "--size.deterministic", "16", "--size.hidden", "16", "--network.state-layers", "16", "--quiet"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dreamer") / "run"
    assert main(["train", "dreamer", *SETTINGS, "--output-dir", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_the_command_tells_errors_and_films_both(run, tmp_path, capsys):
    said = tmp_path / "said.json"
    flags = ["--episodes", "2", "--video", str(tmp_path / "dream.mp4"), "--save", str(said)]
    assert main(["dream", str(run), *flags]) == 0
    assert "observation.state: error over 15 steps" in capsys.readouterr().out
    errors = json.loads(said.read_text())["errors"]
    assert set(errors) == {STATE, REWARD}
    assert len(errors[STATE]["by_step"]["dreamed"]) == 15
    assert errors[STATE]["mean"]["copied"]["n"] == 2
    assert np.mean(errors[STATE]["by_step"]["copied"]) == pytest.approx(errors[STATE]["mean"]["copied"]["mean"])
    with av.open(str(tmp_path / "dream.mp4")) as film:
        frames = list(film.decode(video=0))
    assert len(frames) == 200
    assert (frames[0].height, frames[0].width) == (SIDE + BANNER, 2 * SIDE)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--horizon", "400"], "no episode is longer than 405 steps, the longest has 200"),
        (["--env", "cartpole"], "SpecMismatch"),
        (["--video", "film.gif"], "a film is an .mp4 file, got film.gif"),
        (["--save", "nowhere/said.json"], "there is no folder for --save nowhere/said.json"),
        (["--draws", "0"], "must be 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(flags, says, run, refused):
    assert says in refused("dream", run, "--episodes", "1", *flags)


def test_a_policy_without_a_model_is_refused(tmp_path, refused):
    folder = tmp_path / "ppo"
    assert main(["train", "ppo", "--env", "cartpole", "--steps", "64", "--worlds", "2", "--rollout", "16", "--quiet",
                 "--output-dir", str(folder)]) == 0  # fmt: skip
    assert "has no world model to dream in; `drivetrain train dreamer` makes one" in refused("dream", folder)


def test_it_plans_by_its_own_model(run, capsys):
    flags = [
        "--plan.how",
        "mppi",
        "--plan.candidates",
        "4",
        "--plan.best",
        "2",
        "--plan.rounds",
        "1",
        "--plan.horizon",
        "2",
    ]
    assert main(["eval", str(run), "--episodes", "2", "--json", *flags]) == 0
    planned = json.loads(capsys.readouterr().out)["result"]["returns"]
    assert main(["eval", str(run), "--episodes", "2", "--json"]) == 0
    assert planned != json.loads(capsys.readouterr().out)["result"]["returns"]


class Known(torch.nn.Module):
    """Tells of a state what its first entries are."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def forward(self, features):
        return symlog(features[..., self.at])

    mean = forward


def test_errors_are_those_of_the_step_they_are_named_by():
    """A world that counts, and a model that counts along, or one too few at each step."""
    policy = Dreamer(spec_of("cartpole"), Network(state_layers=(8,), activation="silu"), Size(16, 3, 4, 16)).eval()
    world, length = policy.world, 40
    counted = torch.arange(length, dtype=torch.float32)[:, None].repeat(1, 4) / 1000
    told = {STATE: counted, REWARD: counted[:, 0] * 0}
    done = torch.zeros(length, 2)
    settings = dream.Config(horizon=5, context=5, every=1, draws=2)
    for slow, wanted in ((0.0, 0.0), (1.0, 1.0)):
        world.look = lambda seen, before, first, generator: type("Seen", (), {"state": state_of(world, seen[STATE])})
        world.rssm.dream = lambda state, action, generator, slow=slow: state._replace(
            deterministic=state.deterministic + (1 - slow) / 1000
        )
        world.tell[0], world.reward = Known(slice(0, 4)), Known(-1)
        found = dream.open_loop(policy, told, done, settings, torch.Generator())[STATE]
        steps = torch.arange(1, 6) / 1000
        torch.testing.assert_close(found["copied"], steps.square()[:, None].repeat(1, 4))
        torch.testing.assert_close(found["dreamed"].sqrt(), wanted * steps[:, None].repeat(1, 4), atol=1e-5, rtol=1e-3)


def state_of(world, seen):
    blank = world.rssm.initial(1)
    wide = torch.zeros(*seen.shape[:2], blank.deterministic.shape[1])
    wide[..., :4] = seen
    return type(blank)(wide, torch.zeros(*seen.shape[:2], blank.stochastic.shape[1]))


def test_what_was_done_is_told_as_it_was_when_the_model_learned(run):
    """Actions of the world, -2 to 2 here, come back as -1 to 1."""
    policy = load_policy(resolve(run))
    from drivetrain.envs.rollout import rollout

    (episode,) = rollout(policy, "pendulum", [3], generator=torch.Generator().manual_seed(0), keep=True)
    told, done = dream.recorded(policy, episode)
    assert done.shape == (200, 1)
    np.testing.assert_allclose(2 * done.numpy(), np.stack([s["action"] for s in episode.samples]), atol=1e-6)
    assert told[REWARD][0] == 0
    assert told[REWARD][1:].tolist() == pytest.approx([s[REWARD] for s in episode.samples[:-1]])


def test_a_chart_draws_what_was_dreamed_only_where_eyes_were_shut():
    came, told = {"x": np.linspace(0, 1, 50)}, {"x": np.linspace(1, 0, 50)}
    blue = [(Chart(came, told, [shut] * 50)(49) == (90, 160, 250)).all(-1).sum() for shut in (False, True)]
    assert blue[0] == 0 < blue[1]
    frame = beside(np.zeros((40, 20, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8), True)
    assert frame.shape == (SIDE + BANNER, 2 * SIDE, 3)
    assert frame[BANNER + 5 :, SIDE + 5 :].min() == 255
