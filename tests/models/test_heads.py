"""Distributions against torch's own, where torch has them, and at their edges."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import distributions as theirs

from drivetrain.models import heads
from drivetrain.models.heads import Beta, Categorical, Deterministic, Gaussian, Greedy, SquashedGaussian, log_tanh_slope

SHAPE = (6, 3)


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pairs():
    """Ours, torch's, and some actions."""
    mean, log_std = numbers(*SHAPE), numbers(*SHAPE, seed=1) / 3
    alpha, beta = 1 + numbers(*SHAPE, seed=2).abs(), 1 + numbers(*SHAPE, seed=3).abs()
    free = numbers(*SHAPE, seed=4)
    normal = theirs.Normal(mean, log_std.exp())
    stretched = theirs.TransformedDistribution(theirs.Beta(alpha, beta), theirs.AffineTransform(-1, 2))
    squashed = theirs.TransformedDistribution(normal, theirs.TanhTransform())
    return {
        "categorical": (Categorical(mean), theirs.Categorical(logits=mean), torch.tensor([0, 2, 1, 1, 0, 2])),
        "gaussian": (Gaussian(mean, log_std), theirs.Independent(normal, 1), free),
        "squashed": (SquashedGaussian(mean, log_std), theirs.Independent(squashed, 1), free.tanh()),
        "beta": (Beta(alpha, beta), theirs.Independent(stretched, 1), free.tanh()),
    }


@pytest.mark.parametrize("name", ["categorical", "gaussian", "squashed", "beta"])
def test_log_probabilities_are_those_of_torch(name):
    ours, torchs, action = pairs()[name]
    torch.testing.assert_close(ours.log_prob(action), torchs.log_prob(action), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["categorical", "gaussian"])
def test_entropies_are_those_of_torch(name):
    ours, torchs, _ = pairs()[name]
    torch.testing.assert_close(ours.entropy(), torchs.entropy())


def test_the_entropy_of_a_beta_is_that_of_torch_stretched_to_twice_the_width():
    ours, torchs, _ = pairs()["beta"]
    torch.testing.assert_close(ours.entropy(), torchs.base_dist.base_dist.entropy().sum(-1) + 3 * math.log(2))


@pytest.mark.parametrize("name", ["gaussian", "squashed", "beta"])
def test_samples_follow_the_density(name):
    """The mean of exp(-log_prob) times a narrow window's share of samples is the window's width."""
    one = {
        "gaussian": Gaussian(torch.tensor([0.3]), torch.tensor([-0.5])),
        "squashed": SquashedGaussian(torch.tensor([0.3]), torch.tensor([-0.5])),
        "beta": Beta(torch.tensor([2.5]), torch.tensor([1.5])),
    }[name]
    generator = torch.Generator().manual_seed(0)
    many = type(one)(*(p.expand(200_000, 1).clone() for p in _numbers_of(one)))
    drawn = many.sample(generator)
    for centre in (-0.5, 0.0, 0.4, 0.8):
        share = ((drawn - centre).abs() < 0.05).double().mean()
        assert float(share) == pytest.approx(0.1 * float(one.log_prob(torch.tensor([centre])).exp()), rel=0.06)


def _numbers_of(one):
    if isinstance(one, Beta):
        return one.alpha, one.beta
    inner = one.inner if isinstance(one, SquashedGaussian) else one
    return inner.mean, inner.log_std


def test_choices_are_drawn_in_proportion():
    chances = torch.tensor([0.1, 0.6, 0.3])
    drawn = Categorical(chances.log().expand(100_000, 3)).sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.bincount(drawn) / 100_000, chances, atol=0.006, rtol=0)


@pytest.mark.parametrize("name", ["categorical", "gaussian", "squashed", "beta"])
def test_a_generator_decides_the_sample(name):
    ours, _, _ = pairs()[name]
    one, again, other = (ours.sample(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", ["categorical", "gaussian", "beta"])
def test_the_mode_is_the_likeliest(name):
    ours, _, _ = pairs()[name]
    best = ours.log_prob(ours.mode())
    for seed in range(50):
        assert (best >= ours.log_prob(ours.sample(torch.Generator().manual_seed(seed)))).all()


def test_a_squashed_sample_and_its_chance_belong_together():
    ours, _, _ = pairs()["squashed"]
    action, log_prob = ours.sample_with_log_prob(torch.Generator().manual_seed(0))
    assert torch.equal(action, ours.sample(torch.Generator().manual_seed(0)))
    torch.testing.assert_close(log_prob, ours.log_prob(action), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mean", [-50.0, -12.0, 0.0, 12.0, 50.0])
def test_squashing_far_out_neither_overflows_nor_loses_its_slope(mean):
    centre = torch.full((4, 2), mean, requires_grad=True)
    spread = torch.full((4, 2), -1.0, requires_grad=True)
    action, log_prob = SquashedGaussian(centre, spread).sample_with_log_prob(torch.Generator().manual_seed(0))
    log_prob.sum().backward()
    assert action.abs().max() <= 1
    for value in (log_prob, centre.grad, spread.grad):
        assert torch.isfinite(value).all()
    at_edge = SquashedGaussian(centre, spread).log_prob(torch.tensor([[1.0, -1.0]]).expand(4, 2))
    assert torch.isfinite(at_edge).all()


def test_the_slope_of_tanh_in_a_form_that_does_not_overflow():
    x = torch.linspace(-8, 8, 101, dtype=torch.float64)
    torch.testing.assert_close(log_tanh_slope(x), (1 - x.tanh().square()).log(), rtol=1e-6, atol=1e-6)
    far = torch.tensor([-500.0, 500.0])
    torch.testing.assert_close(log_tanh_slope(far), 2 * math.log(2) - 2 * far.abs())


def test_reparametrised_samples_carry_the_gradient():
    for kind in (Gaussian, SquashedGaussian):
        mean, log_std = torch.zeros(5, 2, requires_grad=True), torch.zeros(5, 2, requires_grad=True)
        kind(mean, log_std).sample(torch.Generator().manual_seed(0)).sum().backward()
        assert mean.grad.all()
        assert log_std.grad.all()


def test_beta_stays_inside_and_finite_at_its_edges():
    alpha, beta = torch.tensor([[1.0 + 1e-6, 500.0]]), torch.tensor([[40.0, 1.0 + 1e-6]])
    extreme = Beta(alpha.expand(10_000, 2), beta.expand(10_000, 2))
    drawn = extreme.sample(torch.Generator().manual_seed(0))
    assert drawn.abs().max() < 1
    assert torch.isfinite(extreme.log_prob(drawn)).all()


def test_beta_can_be_taught_what_lies_at_its_bounds():
    alpha = torch.full((3, 1), 2.0, requires_grad=True)
    (slope,) = torch.autograd.grad(
        Beta(alpha, alpha.detach()).log_prob(torch.tensor([[-1.0], [1.0], [0.0]])).sum(), alpha
    )
    assert torch.isfinite(slope).all()
    assert slope[1] > 0 > slope[0]


def test_a_categorical_far_from_even_is_finite():
    chances = Categorical(torch.tensor([[1000.0, 0.0, -1000.0]]))
    assert float(chances.log_prob(torch.tensor([2]))) == -2000
    assert float(chances.entropy()) == 0


def test_deterministic_likelihood_is_regression():
    one = Deterministic(torch.tensor([[0.5, -0.5]]))
    assert float(one.log_prob(torch.tensor([[1.0, 0.0]]))) == -0.5
    assert torch.equal(one.sample(), one.mode())


def test_greedy_takes_the_best():
    one = Greedy(torch.tensor([[1.0, 3.0, 2.0]]))
    assert one.mode().tolist() == one.sample().tolist() == [1]
    assert one.log_prob(torch.tensor([1])).tolist() == [0]
    assert one.log_prob(torch.tensor([0])).tolist() == [-math.inf]


@pytest.mark.parametrize("name", heads.HEADS)
@pytest.mark.parametrize("shape", [(4,), (4, 5)])
def test_every_head_speaks_the_same_language(name, shape):
    head = heads.HEADS[name](8, 3, (16,), "tanh", 0.0)
    chances = head(torch.randn(*shape, 8))
    for action in (chances.sample(torch.Generator().manual_seed(0)), chances.mode()):
        assert action.shape == (shape if name in heads.DISCRETE else (*shape, 3))
        assert chances.log_prob(action).shape == chances.entropy().shape == shape


def test_twin_critics_are_two_and_see_the_action():
    critics = heads.TwinQ(4, 2, (16,))
    seen, action = torch.randn(5, 4), torch.randn(5, 2)
    found = critics(seen, action)
    assert found.shape == (2, 5)
    assert not torch.equal(found[0], found[1])
    assert (critics(seen, action + 1) != found).all()


def test_golden_squashed_log_probability():
    """From Stable-Baselines3's SquashedDiagGaussianDistribution, mean (0.2, -1), deviation (0.5, 2), pre-tanh (0.9, -0.4)."""
    golden = json.loads((Path(__file__).parent.parent / "training" / "golden.json").read_text())["sb3"]["squashed"]
    one = SquashedGaussian(torch.tensor([0.2, -1.0]), torch.tensor([0.5, 2.0]).log())
    free = torch.tensor([0.9, -0.4])
    assert float(one.log_prob(free.tanh())) == pytest.approx(golden["log_prob"], abs=1e-4)
