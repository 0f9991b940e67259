"""Group relative policy optimisation: groups that share a beginning, sums by hand, and groups that teach nothing."""

import math
from dataclasses import replace

import hub
import numpy as np
import pytest
import torch

from drivetrain import checkpoint, config
from drivetrain.checkpoint import Randomness
from drivetrain.envs.rollout import rollout
from drivetrain.envs.words import spec_of
from drivetrain.errors import BadConfig
from drivetrain.models.driver import Network, build_policy
from drivetrain.run import Run, read_metrics
from drivetrain.sample import ACTION, STATE, Feature, Spec
from drivetrain.training.flat import Adam, Flat
from drivetrain.training.online_rl import grpo

LEAN = Network(hidden=(16,), activation="relu")
CHOICES = Spec({STATE: Feature((2,)), ACTION: Feature((), "int64", choices=2)}, "go", 10.0)
RETURNS = np.array([[1.0, 2.0, 3.0], [7.0, 7.0, 7.0]])


def played(returns, lost=False):
    """Two steps of each of six episodes."""
    seen = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    shape = returns.shape
    return grpo.Played(
        {STATE: seen},
        None,
        torch.arange(12) % 2,
        torch.arange(6).repeat(2),
        returns,
        np.full(shape, 2),
        np.broadcast_to(lost, shape),
    )


def test_advantages_are_within_their_group_and_an_even_group_teaches_nothing():
    found, teaches = grpo.advantages(played(RETURNS), by_deviation=True)
    np.testing.assert_allclose(found, [[-math.sqrt(1.5), 0, math.sqrt(1.5)], [0, 0, 0]], atol=1e-9)
    assert teaches.tolist() == [True, False]
    np.testing.assert_allclose(grpo.advantages(played(RETURNS), by_deviation=False)[0], [[-1, 0, 1], [0, 0, 0]])


def test_pieces_weigh_alike_and_an_anchor_or_entropy_pulls_as_it_says():
    policy, first = (build_policy(CHOICES, LEAN, "categorical") for _ in range(2))
    for p in policy.head.parameters():
        torch.nn.init.normal_(p)
    settings = grpo.Config(groups=2, members=3, minibatch=8, anchor=1.0, entropy_weight=1.0)
    whole = played(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    pieces = grpo.batches(policy, first, whole, settings, torch.Generator().manual_seed(0))
    assert [(len(piece.action), piece.share) for piece in pieces] == [(8, 1 / 8), (4, 1 / 8)]
    said = grpo.losses(policy, pieces[1], settings)
    chances, other = (p.head(grpo.looked(p, pieces[1].observation, None)) for p in (policy, first))
    assert chances.divergence(other).sum() > 0.1
    torch.testing.assert_close(said["loss/anchor"], chances.divergence(other).sum() / 8)
    torch.testing.assert_close(said["loss/entropy"], -chances.entropy().sum() / 8)


def test_each_turn_plays_other_beginnings_at_a_smaller_rate(tmp_path, monkeypatch):
    """And the running mean of what is seen moves only once the policy has learned by the one it acted with."""
    told, rates, order, play, make = [], [], [], grpo.Beginnings.play, grpo.batches

    def seen(self, policy, seeds, *more):
        told.append(tuple(seeds.tolist()))
        return play(self, policy, seeds, *more)

    monkeypatch.setattr(grpo.Beginnings, "play", seen)
    monkeypatch.setattr(grpo, "batches", lambda *given: order.append("learn") or make(*given))
    monkeypatch.setattr(grpo, "update", lambda p, flat, adam, *more: rates.append(adam.lr) or {"loss": torch.zeros(())})
    monkeypatch.setattr(grpo.Driver, "observe", lambda self, seen: order.append("observe"))
    settings = replace(grpo.DEBUG, steps=600, horizon=0, network=Network(hidden=(8,), normalise=True))
    run = Run(tmp_path, quiet=True, checkpoint_every=10**9)
    run.begin("grpo", config.to_json(settings))
    grpo.train(settings, run)
    assert order == ["learn", "observe"] * len(told)
    assert len(set(told)) == len(told) > 1
    assert rates[0] == settings.lr > rates[-1]


def test_a_group_of_which_a_world_broke_teaches_nothing():
    """What it returned by then is no outcome of what was done."""
    whole = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    found, teaches = grpo.advantages(played(whole, lost=np.array([[False] * 3, [True, False, False]])), True)
    assert teaches.tolist() == [True, False]
    assert not found[1].any()


class Says:
    """A policy whose distribution gives its two choices these chances."""

    def __init__(self, *chances):
        self.policy = build_policy(CHOICES, Network(hidden=()), "categorical")
        (weight,), (bias,) = self.policy.head.net.weights, self.policy.head.net.biases
        weight.data.zero_()
        bias.data = torch.tensor(chances).log()


def batch(old, advantage, share=0.5):
    seen, action = {STATE: torch.zeros(len(old), 2)}, torch.zeros(len(old), dtype=torch.long)
    return grpo.Batch(seen, None, action, torch.tensor(advantage), torch.tensor(old).log(), None, share)


@pytest.mark.parametrize(
    ("old", "advantage", "wanted"),
    [
        (0.6, 1.0, -1.0),  # where it was
        (0.5, 1.0, -1.2),  # has risen by a fifth, as it may
        (0.3, 1.0, -1.28),  # has doubled, which counts as far as it may
        (0.3, -1.0, 2.0),  # the wrong way: all of it counts
        (0.9, -1.0, 0.8),  # has fallen by a third: no further
        (0.9, 1.0, -2 / 3),
    ],
)
def test_the_loss_is_the_sum_done_by_hand(old, advantage, wanted):
    policy = Says(0.6, 0.4).policy
    found = grpo.losses(policy, batch([old, old], [advantage, advantage]), grpo.Config())
    assert found["loss/policy"].item() == pytest.approx(wanted, rel=1e-5)


def test_a_step_weighs_the_same_in_a_short_piece_as_in_a_long_one():
    policy = Says(0.6, 0.4).policy
    two, one = (grpo.losses(policy, batch([0.6] * n, [1.0] * n), grpo.Config())["loss/policy"].item() for n in (2, 1))
    assert two == pytest.approx(2 * one)


def test_members_share_their_beginning_and_groups_do_not():
    worlds = grpo.Beginnings("cartpole", 2, 3)
    policy = build_policy(worlds.sample_spec, LEAN, "categorical")
    played = worlds.play(policy, np.array([5, 6]), 20, torch.Generator().manual_seed(0))
    first = played.observation[STATE][:6]
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[3])
    assert played.lengths.max() <= 20
    assert len(played.action) == played.lengths.sum() == played.returns.sum()
    counts = torch.bincount(played.episode, minlength=6).reshape(2, 3)
    np.testing.assert_array_equal(counts, played.lengths)
    again = worlds.play(policy, np.array([5, 6]), 20, torch.Generator().manual_seed(0))
    assert torch.equal(again.action, played.action)
    worlds.close()


def test_a_group_without_differences_is_dropped_and_the_first_ratio_is_one():
    policy = build_policy(CHOICES, LEAN, "categorical")
    settings = grpo.Config(members=3, groups=2, minibatch=4)
    pieces = grpo.batches(policy, None, played(RETURNS), settings, torch.Generator().manual_seed(0))
    assert [len(piece.action) for piece in pieces] == [4, 2]
    for piece in pieces:
        assert grpo.losses(policy, piece, settings)["log_ratio"].abs().max() < 1e-6


def test_what_went_better_becomes_likelier_and_what_went_worse_less_likely():
    policy = build_policy(CHOICES, LEAN, "categorical")
    settings = grpo.Config(members=3, groups=2, minibatch=12, epochs=1)
    random, flat = Randomness(0), Flat(policy.parameters())
    pieces = grpo.batches(policy, None, played(RETURNS), settings, random.torch)
    (piece,) = pieces
    grpo.update(policy, flat, Adam(flat, 1e-3), pieces, settings, random.torch)
    rise = grpo.losses(policy, piece, settings)["log_ratio"]
    assert float((rise * piece.advantage).sum()) > 0


@pytest.mark.parametrize("tune", ["frozen", "lora"])
def test_a_vision_language_model_learns_in_groups(tune, tmp_path):
    """What may learn changes, what is frozen stays; that the first ratio is 1 is asserted on the way."""
    git = str(hub.git(tmp_path / "git"))
    network = Network(hidden=(16,), activation="relu", backbone=git, tune=tune)
    settings = replace(grpo.DEBUG, env="cartpole-pixels", steps=100, horizon=12, minibatch=32, network=network)
    torch.manual_seed(settings.seed)
    before = grpo.begin(settings, spec_of(settings.env)).state_dict()
    torch.manual_seed(settings.seed)
    after = trained(settings, tmp_path / "run").state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any(key.startswith("head.") for key in changed)
    of_the_model = [key for key in changed if key.startswith("reader.vlm.")]
    assert all("lora" in key for key in of_the_model)
    assert bool(of_the_model) == (tune == "lora")


def test_a_vision_language_model_is_held_where_it_began(tmp_path):
    network = Network(hidden=(16,), activation="relu", backbone=str(hub.git(tmp_path / "git")), tune="lora")
    settings = replace(grpo.DEBUG, env="cartpole-pixels", steps=100, horizon=12, minibatch=32, lr=1e-2)
    trained(replace(settings, network=network), tmp_path / "first")
    trained(replace(settings, policy=str(tmp_path / "first"), anchor=1.0), tmp_path / "held")
    said = [row["loss/anchor"] for row in read_metrics(tmp_path / "held") if "loss/anchor" in row]
    assert said
    assert max(said) > 0


def test_what_is_frozen_stays_and_the_head_learns_the_same_as_an_unfrozen_one(toy_worlds, tmp_path):
    """Where encoders have no weights, looking once or at every pass is all the same."""
    settings = replace(grpo.DEBUG, env="identity", network=LEAN)
    trained(settings, tmp_path / "first")
    more = replace(settings, policy=str(tmp_path / "first"), anchor=0.1)
    free, frozen = (trained(replace(more, freeze=f), tmp_path / str(f)).state_dict() for f in (False, True))
    assert all(torch.equal(free[key], frozen[key]) for key in free)
    deep = replace(settings, network=replace(LEAN, state_layers=(8,)))
    trained(deep, tmp_path / "deep")
    held = trained(replace(deep, policy=str(tmp_path / "deep"), freeze=True, lr=1e-2), tmp_path / "held").state_dict()
    before = checkpoint.load_policy(tmp_path / "deep").state_dict()
    assert {key.split(".")[0] for key in before if not torch.equal(before[key], held[key])} == {"head"}


def test_the_last_beginnings_are_counted_whole(toy_worlds, tmp_path):
    trained(replace(grpo.DEBUG, steps=50, horizon=20), tmp_path)
    assert read_metrics(tmp_path)[-1]["step"] > 50


def trained(settings, folder):
    run = Run(folder, checkpoint_every=10**9, quiet=True)
    run.begin("grpo", config.to_json(settings))
    return grpo.train(settings, run)


@pytest.mark.slow
def test_where_every_return_is_the_same_nothing_changes(toy_worlds, tmp_path):
    settings = replace(grpo.DEBUG, env="constant", network=LEAN)
    torch.manual_seed(settings.seed)
    before = grpo.begin(settings, spec_of("constant")).state_dict()
    torch.manual_seed(settings.seed)
    after = trained(settings, tmp_path).state_dict()
    rows = read_metrics(tmp_path)
    assert all(row["watch/dropped"] == 1 for row in rows)
    assert all(row["loss"] == 0 for row in rows)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.slow
def test_from_groups_that_do_not_share_their_returns_nothing_is_learned(toy_worlds, tmp_path, monkeypatch):
    """The control: returns dealt to the members at random."""
    learned = replace(
        grpo.DEBUG, env="identity", steps=8_000, horizon=0, groups=4, members=8, lr=2e-2, minibatch=128, epochs=4
    )

    def mean(policy):
        return np.mean([episode.total for episode in rollout(policy, "identity", range(50))])

    true = mean(trained(learned, tmp_path / "true"))
    deal, play = np.random.default_rng(0), grpo.Beginnings.play

    def dealt(self, *given):
        played = play(self, *given)
        return played._replace(returns=deal.permuted(played.returns, axis=1))

    monkeypatch.setattr(grpo.Beginnings, "play", dealt)
    assert mean(trained(learned, tmp_path / "dealt")) < 5 < 6.5 < true


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"members": 1}, "two members or more, got 2 and 1"),
        ({"anchor": 0.1}, "there is none; add --policy"),
        ({"network": replace(LEAN, memory="gru")}, "have no memory"),
        ({"network": replace(LEAN, dropout=0.1)}, "network.dropout 0"),
        ({"network": replace(LEAN, normalise=True), "freeze": True}, "a new one knows nothing"),
        ({"head": "squashed", "env": "pendulum"}, "categorical or gaussian head, got 'squashed'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, says):
    settings = replace(grpo.DEBUG, **changes)
    with pytest.raises(BadConfig, match=says):
        grpo.begin(settings, spec_of(settings.env))
