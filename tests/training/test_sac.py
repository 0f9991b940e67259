"""SAC against Stable-Baselines3's numbers, its own definitions, and worlds whose values are known."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from drivetrain import checkpoint, config
from drivetrain.checkpoint import Randomness
from drivetrain.data.replay import Replay
from drivetrain.envs.worlds import Worlds
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Network
from drivetrain.run import Run
from drivetrain.sample import STATE
from drivetrain.training.flat import Adam
from drivetrain.training.online_rl import sac
from drivetrain.training.online_rl.sac import Config, Learner, losses

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
SMALL = Network(hidden=(32,), activation="relu")
CONSTANT = Config(
    env="constant-continuous:length=2", steps=500, warmup=64, batch_size=32, lr=1e-2, gamma=0.5, tau=0.1, alpha=1e-3,
    network=SMALL,
)  # fmt: skip


def trained(settings, folder):
    run = Run(folder, checkpoint_every=10**9, quiet=True)
    run.begin("sac", config.to_json(settings))
    return sac.train(settings, run)


class Given:
    """Stands where a policy stands: what it draws, and how likely that was, was said beforehand."""

    recurrent, keys = False, (STATE,)

    def __init__(self, now, after):
        self.now, self.after = now, after

    def initial(self, count):
        return {}

    def features(self, sequence, memory, is_first):
        return sequence[STATE], memory

    def head(self, seen):
        """Of the next states it is asked without gradient."""
        said = self.now if torch.is_grad_enabled() else self.after
        return SimpleNamespace(sample_with_log_prob=lambda generator: said)


class Linear(sac.TwinQ):
    """Twin critics, each a weighted sum of state and action."""

    def __init__(self, weights):
        nn.Module.__init__(self)
        self.weights = nn.Parameter(weights)

    def forward(self, state, action, count=0):
        return self.weights @ torch.cat([state, action], -1).T


def golden():
    g = {k: torch.tensor(v) if isinstance(v, list) else v for k, v in GOLDEN["inputs"]["sac"].items()}
    drawn, log_prob = g["drawn"].requires_grad_(), g["log_prob"].requires_grad_()
    learner = SimpleNamespace(
        policy=Given((drawn, log_prob), (g["next_drawn"], g["next_log_prob"])),
        random=Randomness(0),
        log_alpha=torch.tensor(float(np.log(g["alpha"])), requires_grad=True),
        critics=Linear(g["critics"]),
        targets=Linear(g["targets"]),
        target_entropy=g["target_entropy"],
        config=Config(gamma=g["gamma"]),
    )
    batch = {
        STATE: torch.stack([g["state"], g["next_state"]], 1),
        "is_first": torch.zeros(8, 2, dtype=torch.bool),
        "discount": torch.full((8, 1), g["gamma"]),
        "valid": torch.ones(8, 1, dtype=torch.bool),
        **{name: g[name].unsqueeze(1) for name in ("action", "reward", "terminated")},
    }
    return learner, batch, g


def test_the_losses_are_those_of_stable_baselines():
    learner, batch, g = golden()
    parts, theirs = losses(learner, batch), GOLDEN["sb3"]["sac"]
    pairs = {"loss/critics": "critic_loss", "loss/actor": "actor_loss", "loss/temperature": "ent_coef_loss"}
    for ours, name in pairs.items():
        assert float(parts[ours].detach()) == pytest.approx(theirs[name], abs=1e-5), name

    def slope(part, of):
        return torch.autograd.grad(parts[part], of, retain_graph=True)[0]

    for part, of, name in (
        ("loss/critics", learner.critics.weights, "critics_grad"),
        ("loss/actor", g["drawn"], "drawn_grad"),
        ("loss/actor", g["log_prob"], "log_prob_grad"),
    ):
        np.testing.assert_allclose(slope(part, of), theirs[name], atol=1e-6, err_msg=name)
    np.testing.assert_allclose(slope("loss/temperature", learner.log_alpha), theirs["log_alpha_grad"][0], atol=1e-6)


def test_the_actor_teaches_the_critics_nothing():
    learner, batch, _ = golden()
    parts = losses(learner, batch)
    found = torch.autograd.grad(parts["loss/actor"], learner.critics.weights, allow_unused=True)[0]
    assert found is None or not found.any()
    assert learner.critics.weights.requires_grad


def test_padding_teaches_nothing():
    learner, batch, g = golden()
    batch["valid"][1:] = False
    parts = losses(learner, batch)
    slope = torch.autograd.grad(parts["loss/actor"], g["log_prob"])[0]
    assert slope[0] == pytest.approx(g["alpha"])
    assert not slope[1:].any()


@pytest.mark.parametrize(("log_prob", "rises"), [(5.0, True), (-5.0, False)])
def test_the_temperature_rises_where_the_policy_is_too_sure(log_prob, rises):
    """The entropy, minus `log_prob`, is held to -2."""
    learner, batch, g = golden()
    learner.policy.now = (g["drawn"], torch.full((8,), log_prob, requires_grad=True))
    losses(learner, batch)["loss/temperature"].backward()
    assert (learner.log_alpha.grad < 0) == rises


def test_the_entropy_held_to_is_minus_the_number_of_actions():
    worlds = Worlds("carracing-continuous", 1)
    policy = sac.build_policy(worlds.sample_spec, replace(SMALL, camera_width=8), "squashed")
    worlds.close()
    assert Learner(policy, Config(network=SMALL), Randomness(0)).target_entropy == -3
    assert Learner(policy, Config(network=SMALL, entropy_share=0.5), Randomness(0)).target_entropy == -1.5


def critics_say(settings, folder):
    """What the twin critics say of the one thing there is to see, whatever is done."""
    policy = trained(settings, folder)
    critics = sac.TwinQ(policy.width, 1, settings.network.hidden)
    checkpoint.load(checkpoint.resolve(folder), {"critics": critics})
    return critics(torch.ones(5, 1), torch.linspace(-1, 1, 5).unsqueeze(1)).detach()


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 3])
def test_a_reward_of_1_under_a_time_limit_is_worth_1_over_1_minus_gamma(n_step, toy_worlds, tmp_path):
    np.testing.assert_allclose(critics_say(replace(CONSTANT, n_step=n_step), tmp_path), 2, atol=0.15)


@pytest.mark.parametrize(("n_step", "expected"), [(1, 1 / (1 - 0.5 / 2)), (3, (1 + 1.5) / 2)])
def test_and_less_where_the_limit_is_an_end(n_step, expected, toy_worlds, tmp_path):
    """All observations are the same, and every second step ends: one step at a time Q is 1 + gamma * Q / 2."""
    settings = replace(CONSTANT, env="constant-continuous:length=2,ends=death", n_step=n_step)
    np.testing.assert_allclose(critics_say(settings, tmp_path), expected, atol=0.2)


def filled(settings, folder, steps=64):
    """A policy, its learner, and what a random one met."""
    random = Randomness(settings.seed)
    worlds = Worlds(settings.env, settings.worlds)
    policy = sac.begin(settings, worlds)
    length = settings.length if policy.recurrent else 1
    replay = Replay(worlds.sample_spec, 400, settings.worlds, folder, gamma=settings.gamma, length=length)
    explorer = sac.Explorer(worlds, replay, settings, random)
    explorer.rebuild(policy, 0)
    for _ in range(steps):
        explorer.step(policy, at_random=True)
    return policy, Learner(policy, settings, random), replay, random


def test_an_update_moves_each_part_by_its_own_loss_and_targets_by_a_share(tmp_path):
    settings = Config(batch_size=16, tau=0.25, network=replace(SMALL, state_layers=(8,)))
    _, learner, replay, random = filled(settings, tmp_path)
    before = [p.clone() for p in learner.targets.parameters()]
    batch = sac.tensors(replay.batch(16, random.numpy), settings, random)
    learner.update(batch)
    for old, target, critic in zip(before, learner.targets.parameters(), learner.critics.parameters(), strict=True):
        assert not torch.equal(old, critic)
        torch.testing.assert_close(target, old + 0.25 * (critic - old))


def test_the_encoder_is_trained_by_the_critics_alone(tmp_path):
    settings = Config(batch_size=16, network=replace(SMALL, state_layers=(8,)))
    policy, learner, replay, random = filled(settings, tmp_path)
    parts = losses(learner, sac.tensors(replay.batch(16, random.numpy), settings, random))
    encoder, head = list(policy.encoders.parameters()), list(policy.head.parameters())

    def reaches(part, parameters):
        found = torch.autograd.grad(parts[part], parameters, allow_unused=True, retain_graph=True)
        return any(slope is not None and slope.any() for slope in found)

    assert reaches("loss/critics", encoder)
    assert not reaches("loss/actor", encoder)
    assert reaches("loss/actor", head)
    assert not reaches("loss/critics", head)


def test_learning_rates_fall_to_nothing_where_asked(toy_worlds, tmp_path, monkeypatch):
    rates = []
    step = Adam.step
    monkeypatch.setattr(Adam, "step", lambda self: rates.append(self.lr) or step(self))
    settings = replace(CONSTANT, steps=8, warmup=4, lr=0.8, actor_lr=0.4)
    trained(replace(settings, anneal=True), tmp_path / "falling")
    assert rates[::3] == pytest.approx([0.4, 0.3, 0.2, 0.1])  # of the critics, from half the way on
    assert rates[1::3] == pytest.approx([0.2, 0.15, 0.1, 0.05])
    rates.clear()
    trained(settings, tmp_path / "level")
    assert rates == pytest.approx([0.8, 0.4, 0.8] * 4)


def test_what_is_remembered_is_what_was_drawn_and_the_world_gets_its_own_units(toy_worlds, tmp_path):
    """identity-continuous asserts its bounds of -2 and 4."""
    settings = Config(env="identity-continuous", worlds=2, network=SMALL)
    _, _, replay, random = filled(settings, tmp_path)
    batch = replay.batch(64, random.numpy)
    assert np.abs(batch["action"]).max() <= 1
    wanted, done = 2 * batch[STATE][:, 0, 0], 1 + 3 * batch["action"][:, 0, 0]
    np.testing.assert_allclose(batch["reward"][:, 0], -((done - wanted) ** 2), atol=1e-3)


def test_pictures_are_shifted_as_one_window_and_by_no_more_than_asked():
    pictures = torch.zeros(64, 2, 9, 9, 3, dtype=torch.uint8)
    pictures[:, :, 4, 4] = 255
    moved = sac.shifted(pictures, 2, torch.Generator().manual_seed(0))
    assert moved.dtype == torch.uint8
    assert torch.equal(moved[:, 0], moved[:, 1])
    rows, columns = (moved[:, 0, ..., 0].amax(axis).argmax(1) for axis in (2, 1))
    assert rows.unique().tolist() == columns.unique().tolist() == [2, 3, 4, 5, 6]
    assert (moved[:, 0, ..., 0] > 0).sum() == 64


def test_a_border_is_repeated_where_the_picture_moved_away():
    pictures = torch.full((8, 1, 5, 5, 3), 7, dtype=torch.uint8)
    assert (sac.shifted(pictures, 3, torch.Generator().manual_seed(0)) == 7).all()


def test_choices_and_other_heads_are_refused(toy_worlds, tmp_path):
    with pytest.raises(BadConfig, match="use dqn or ppo"):
        trained(replace(sac.DEBUG, env="cartpole"), tmp_path / "a")
    from drivetrain.training.online_rl import ppo

    run = Run(tmp_path / "gaussian", checkpoint_every=10**9, quiet=True)
    settings = replace(ppo.DEBUG, env="pendulum")
    run.begin("ppo", config.to_json(settings))
    ppo.train(settings, run)
    with pytest.raises(BadConfig, match="squashed"):
        trained(replace(sac.DEBUG, policy=str(tmp_path / "gaussian")), tmp_path / "b")
