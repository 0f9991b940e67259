"""The parts of a world model against sums done by hand, and what may and may not leave a trace."""

import math

import pytest
import torch

from drivetrain.models.rssm import (
    BINS,
    RSSM,
    Numbers,
    Seen,
    Size,
    bins,
    bring_together,
    divergence,
    symexp,
    symlog,
    two_hot,
)

SMALL = Size(deterministic=8, groups=3, classes=4, hidden=16)


def model():
    torch.manual_seed(0)
    return RSSM(5, 2, SMALL)


def test_numbers_are_held_as_unlikely_as_their_two_hots_weigh():
    torch.manual_seed(0)
    head = Numbers(3, 8)
    logits, x = torch.randn(5, BINS).log_softmax(-1), torch.tensor([-7.0, -0.3, 0.0, 0.4, 120.0])
    wanted = [-(two_hot(each, bins()) * logits).sum(-1) for each in (x, 2 * x)]
    torch.testing.assert_close(head.unlikely(logits, x), wanted[0])
    torch.testing.assert_close(head.unlikely(logits, x, 2 * x), wanted[0] + wanted[1])


def test_symlog_and_back():
    x = torch.tensor([-100.0, -1.0, 0.0, 0.5, 1e4])
    assert symlog(x).tolist() == pytest.approx(
        [-math.log(101), -math.log(2), 0, math.log(1.5), math.log(10_001)], rel=1e-5
    )
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-4, atol=1e-5)


def test_a_number_is_told_by_the_two_values_next_to_it():
    values = torch.tensor([-10.0, 0.0, 1.0, 5.0])
    assert two_hot(torch.tensor([0.25, 1.0, 4.0]), values).tolist() == [
        [0, 0.75, 0.25, 0],
        [0, 0, 1, 0],
        [0, 0, 0.25, 0.75],
    ]
    assert two_hot(torch.tensor([-99.0, 99.0]), values).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    x = torch.linspace(-300, 300, 41)
    torch.testing.assert_close((two_hot(x, bins()) * bins()).sum(-1), x, rtol=1e-4, atol=1e-3)


def test_numbers_begin_at_exactly_zero_and_say_what_they_learned():
    head = Numbers(3, 8)
    features = torch.randn(4, 3)
    assert head.mean(features).tolist() == [0, 0, 0, 0]
    with torch.no_grad():
        head.net[-1].bias[200] = 1e4
    assert head.mean(features).tolist() == pytest.approx([float(bins()[200])] * 4, rel=1e-6)
    even = torch.full((2, BINS), -math.log(BINS))
    assert head.unlikely(even, torch.tensor([0.3, -7.0])).tolist() == pytest.approx([math.log(BINS)] * 2, rel=1e-5)


def test_a_little_of_every_chance_is_spread_evenly():
    chances = model().chances(torch.tensor([1e4, 0, 0, 0] * 3))
    assert chances[0].tolist() == pytest.approx([0.99 + 0.0025, 0.0025, 0.0025, 0.0025], abs=1e-6)


def test_the_divergence_is_summed_over_groups_before_it_is_let_off():
    """Two groups of ln 2 each: together above a nat, though each alone is below."""
    one, other = torch.tensor([[1 - 1e-9, 1e-9]] * 2).log(), torch.tensor([[0.5, 0.5]] * 2).log()
    assert divergence(one, other).item() == pytest.approx(2 * math.log(2), rel=1e-5)
    seen = Seen(None, one.view(1, 1, 2, 2), other.view(1, 1, 2, 2))
    found = bring_together(seen, 1.0, 1.0, 0.1)
    assert found["loss/prior"].item() == pytest.approx(2 * math.log(2), rel=1e-5)
    assert found["loss/posterior"].item() == pytest.approx(0.1 * 2 * math.log(2), rel=1e-5)
    free = bring_together(seen, 2.0, 1.0, 0.1)
    assert free["loss/prior"].item() == pytest.approx(2.0)


def test_each_side_learns_from_its_own_part_and_nobody_within_what_is_free():
    raw = {name: torch.randn(1, 1, 3, 4, requires_grad=True) for name in ("posterior", "prior")}
    logits = {name: (8 * value).log_softmax(-1) for name, value in raw.items()}
    found = bring_together(Seen(None, logits["posterior"], logits["prior"]), 0.0, 1.0, 0.1)
    for part, learns, other in (("loss/prior", "prior", "posterior"), ("loss/posterior", "posterior", "prior")):
        mine, theirs = torch.autograd.grad(found[part], (raw[learns], raw[other]), allow_unused=True, retain_graph=True)
        assert mine.abs().sum() > 0
        assert theirs is None
    free = bring_together(Seen(None, logits["posterior"], logits["prior"]), 1e3, 1.0, 0.1)
    assert torch.autograd.grad(free["loss/prior"], raw["prior"])[0].abs().sum() == 0


def test_nothing_of_before_an_episode_is_left_in_it():
    """Neither the state nor the action that came before its first step."""
    rssm, generator = model(), torch.Generator()
    embedded, before = torch.randn(1, 4, 5), torch.randn(1, 4, 2)
    first = torch.tensor([[False, False, True, False]])
    found = []
    for change in (0.0, 9.0):
        seen, done = embedded.clone(), before.clone()
        seen[:, :2] += change
        done[:, :3] += change  # the action before the first step belongs to the episode before
        state = rssm.initial(1)
        found.append(rssm.observe(seen, done, first, state, generator.manual_seed(0)).state.features)
    assert torch.equal(found[0][:, 2:], found[1][:, 2:])
    assert not torch.equal(found[0][:, :2], found[1][:, :2])


def test_what_is_drawn_is_one_of_each_group_and_carries_its_gradient_straight_through():
    rssm = model()
    chances = rssm.chances(torch.randn(64, 12, requires_grad=True))
    drawn = rssm.draw(chances, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.detach().unflatten(-1, (3, 4)).round().sum(-1), torch.ones(64, 3))
    weight = torch.randn(64, 12)
    got = torch.autograd.grad((drawn * weight).sum(), chances, retain_graph=True)[0]
    wanted = torch.autograd.grad((chances.flatten(-2) * weight).sum(), chances)[0]
    torch.testing.assert_close(got, wanted)


def test_draws_come_as_often_as_they_are_likely():
    rssm = RSSM(1, 1, Size(4, 1, 3, 4))
    chances = torch.tensor([[0.6, 0.3, 0.1]]).expand(20_000, 1, 3)
    shares = rssm.draw(chances, torch.Generator().manual_seed(0)).mean(0)
    assert shares.tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.015)


def test_dreaming_follows_the_prior_and_observing_agrees_with_it():
    """What is deterministic of the next state does not depend on whether eyes are open."""
    rssm = model()
    embedded, before, first = torch.randn(3, 1, 5), torch.zeros(3, 1, 2), torch.zeros(3, 1, dtype=torch.bool)
    seen = rssm.observe(embedded, before, first, rssm.initial(3), torch.Generator().manual_seed(0))
    now = type(seen.state)(*(part[:, 0] for part in seen.state))
    action = torch.rand(3, 2)
    dreamed = rssm.dream(now, action, torch.Generator().manual_seed(1))
    looked = rssm.observe(torch.randn(3, 1, 5), action.unsqueeze(1), first, now, torch.Generator().manual_seed(1))
    torch.testing.assert_close(dreamed.deterministic, looked.state.deterministic[:, 0])
    assert not torch.equal(dreamed.stochastic, looked.state.stochastic[:, 0])


def test_actions_beyond_one_count_by_their_direction():
    rssm = model()
    state = rssm.initial(1)
    assert torch.equal(rssm.on(state, torch.tensor([[7.0, -0.5]])), rssm.on(state, torch.tensor([[1.0, -0.5]])))
