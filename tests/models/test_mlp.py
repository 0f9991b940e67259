"""The backward pass written by hand, against autograd's."""

import copy
import math

import pytest
import torch
from torch import nn

from drivetrain.errors import UnknownName
from drivetrain.models import product
from drivetrain.models.mlp import ACTIVATIONS, BY_HAND, MLP
from drivetrain.training.flat import Flat

SHAPES = [(7, (5, 16, 8, 2)), (7, (5, 1, 1)), (7, (5, 3)), (1, (5, 2, 32))]  # rows, and layers
SHAPES += [(300, (5, 64, 256, 2)), (256, (400, 300, 1))]  # so large that other routines compute the products


def made(activation="tanh", sizes=(5, 16, 8, 2), **how):
    torch.manual_seed(0)
    return MLP(sizes, activation, **how)


def inputs(rows=7, size=5, dtype=torch.float32):
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


TOLERANCE = {
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.float64: {"rtol": 1e-9, "atol": 1e-9},
    torch.bfloat16: {"rtol": 0.1, "atol": 0.1},
}


def slopes(out, x, mlp):
    """Of a sum in which no two entries weigh the same."""
    weights = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view_as(out)
    return torch.autograd.grad((out.square() * weights).sum(), [x, *mlp.parameters()])


@pytest.fixture(params=["highest", "medium"])
def way(request):
    """Both ways to multiply: large products sent to oneDNN by hand, and all of them torch's own."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(product.ONEDNN is None, reason="torch was built without oneDNN")
def test_large_products_are_sent_by_hand_where_torch_would_not(way):
    large = torch.zeros(512, 256), torch.zeros(256, 256)
    assert product.large(*large) == (way == "highest")
    assert not product.large(large[0][:2], large[1])


@pytest.mark.usefixtures("way")
def test_a_linear_layer_is_the_same_either_way():
    torch.manual_seed(0)
    plain, x = nn.Linear(256, 300), torch.randn(4, 128, 256, requires_grad=True)
    quick = product.quicken(copy.deepcopy(plain))
    found, wanted = (torch.autograd.grad(m(x).square().sum(), [x, *m.parameters()]) for m in (quick, plain))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-2)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("rows", "sizes"), SHAPES)
def test_the_backward_pass_is_that_of_autograd(activation, dtype, rows, sizes):
    mlp = made(activation, sizes).to(dtype)
    x = inputs(rows, sizes[0], dtype).requires_grad_()
    ours, theirs = mlp(x), mlp.plain(x)
    tolerance = TOLERANCE[dtype]
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs, **tolerance)
    for one, other in zip(slopes(ours, x, mlp), slopes(theirs, x, mlp), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("activation", BY_HAND)
def test_a_coarse_one_is_nearly_as_exact_and_keeps_its_ends_whole(activation):
    mlp = made(activation, (5, 64, 64, 64, 1))
    x = inputs(300).requires_grad_()
    exact = mlp(x)
    wanted = slopes(exact, x, mlp)
    mlp.coarse = True
    said = mlp(x)
    assert said.dtype == torch.float32
    assert not torch.equal(said, exact), "it must multiply otherwise"
    torch.testing.assert_close(said, exact, rtol=0.02, atol=0.02)
    torch.testing.assert_close(said, mlp.plain(x), rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), said, rtol=0, atol=0)
    for one, other in zip(slopes(said, x, mlp), wanted, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.08 * other.norm()
    assert said.unique().numel() > 290, "the last layer's numbers are not rounded"


def test_a_coarse_one_of_two_layers_has_nothing_between_its_ends():
    mlp, x = made("relu", (5, 16, 2)), inputs()
    exact = mlp(x)
    mlp.coarse = True
    assert torch.equal(mlp(x), exact)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_numerical_derivatives_agree(activation):
    mlp = made(activation, (3, 4, 2)).double()
    x = inputs(2, 3, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(mlp, x)


def test_it_is_a_row_of_linear_layers():
    mlp, x = made("relu"), inputs()
    layers = [nn.Linear(i, o) for i, o in ((5, 16), (16, 8), (8, 2))]
    for layer, weight, bias in zip(layers, mlp.weights, mlp.biases, strict=True):
        layer.weight.data, layer.bias.data = weight.data, bias.data
    theirs = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])(x)
    torch.testing.assert_close(mlp(x), theirs)


@pytest.mark.parametrize("shape", [(5,), (0, 5), (1, 5), (2, 3, 5), (2, 3, 4, 5)])
def test_any_leading_dimensions(shape):
    mlp, x = made(), torch.ones(shape)
    assert mlp(x).shape == (*shape[:-1], 2)
    torch.testing.assert_close(mlp(x).reshape(-1, 2), mlp(x.reshape(-1, 5)))


@pytest.mark.parametrize("frozen", ["x", "weights", "biases", "everything"])
def test_only_what_is_wanted_has_a_gradient(frozen):
    mlp, x = made(), inputs().requires_grad_(frozen == "weights")
    if frozen == "weights":
        for p in mlp.parameters():
            p.requires_grad_(False)
    if frozen == "biases":
        for p in mlp.biases:
            p.requires_grad_(False)
    if frozen == "everything":
        for p in mlp.parameters():
            p.requires_grad_(False)
        assert not mlp(x).requires_grad
        return
    wanted = [p for p in [x, *mlp.parameters()] if p.requires_grad]
    for one, other in zip(
        torch.autograd.grad(mlp(x).square().sum(), wanted),
        torch.autograd.grad(mlp.plain(x).square().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_what_is_given_is_not_changed():
    mlp, x = made("tanh"), inputs()
    before = x.clone(), copy.deepcopy(mlp.state_dict())
    mlp(x).sum().backward()
    with torch.no_grad():
        mlp(x)
    assert torch.equal(x, before[0])
    assert all(torch.equal(value, before[1][key]) for key, value in mlp.state_dict().items())


def test_the_same_numbers_with_and_without_gradient():
    for activation in ACTIVATIONS:
        mlp, x = made(activation), inputs()
        with torch.no_grad():
            quiet = mlp(x)
        torch.testing.assert_close(quiet, mlp(x), rtol=0, atol=1e-6)


def test_inputs_that_are_views_count_as_well():
    """A slice of a wider tensor, and a transpose: neither is contiguous."""
    mlp = made()
    for x in (torch.randn(7, 9)[:, 2:7], torch.randn(5, 7).T):
        x = x.requires_grad_()
        for one, other in zip(slopes(mlp(x), x, mlp), slopes(mlp.plain(x), x, mlp), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_an_expanded_number():
    """As `out.sum()` gives it: one number in every place."""
    mlp, x = made(), inputs().requires_grad_()
    for one, other in zip(
        torch.autograd.grad(mlp(x).sum(), [x, *mlp.parameters()]),
        torch.autograd.grad(mlp.plain(x).sum(), [x, *mlp.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_dropout_drops_in_training_alone():
    mlp, x = made(dropout=0.5), inputs()
    assert not torch.equal(mlp(x), mlp(x))
    mlp.eval()
    torch.testing.assert_close(mlp(x), mlp.plain(x))


def test_orthogonal_layers():
    mlp = made().orthogonal(last_gain=0.01)
    assert not any(bias.any() for bias in mlp.biases)
    for weight in mlp.weights:
        gain = 0.01 if weight is mlp.weights[-1] else math.sqrt(2)
        rows = weight if weight.shape[0] <= weight.shape[1] else weight.T
        torch.testing.assert_close(rows @ rows.T, gain**2 * torch.eye(len(rows)), atol=1e-5, rtol=1e-4)


def test_an_unknown_activation_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean relu"):
        MLP([2, 2], "rellu")


def test_exact_to_save_and_load():
    one, two = made("relu"), MLP((5, 16, 8, 2), "relu")
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(inputs()), two(inputs()))


def test_a_row_of_parameters_learns_as_they_would_alone():
    """Adam on `Flat.row` against Adam on the parameters, clipped, over several steps."""
    alone, x = made(), inputs()
    together = copy.deepcopy(alone)
    flat = Flat(together.parameters())
    mine, theirs = (torch.optim.Adam(p, lr=0.01) for p in ([flat.row], alone.parameters()))
    for _ in range(5):
        flat.backward(together(x).square().sum())
        flat.clip(0.5)
        mine.step()
        theirs.zero_grad()
        alone(x).square().sum().backward()
        nn.utils.clip_grad_norm_(alone.parameters(), 0.5)
        theirs.step()
    for one, other in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    together.load_state_dict({key: torch.zeros_like(value) for key, value in together.state_dict().items()})
    assert not flat.row.any(), "loading weights must reach the row"
