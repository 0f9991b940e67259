"""One row of parameters, and Adam on it, beside PyTorch's own."""

import torch
from torch import nn

from drivetrain.training.flat import Adam, Flat


def two_alike():
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    theirs = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    theirs.load_state_dict(mine.state_dict())
    return mine, theirs


def test_modules_keep_their_parameters_as_windows_into_the_row():
    mine, theirs = two_alike()
    flat = Flat(mine.parameters())
    assert flat.row.numel() == sum(p.numel() for p in theirs.parameters())
    with torch.no_grad():
        flat.row.zero_()
    assert all(not p.any() for p in mine.parameters())


def test_the_gradient_and_the_step_are_those_of_pytorch():
    mine, theirs = two_alike()
    flat = Flat(mine.parameters())
    adam, reference = Adam(flat, 1e-2, eps=1e-5), torch.optim.Adam(theirs.parameters(), lr=1e-2, eps=1e-5)
    for step in range(20):
        x = torch.randn(11, 5, generator=torch.Generator().manual_seed(step))
        flat.backward(mine(x).square().mean())
        flat.clip(0.05)
        adam.step()
        reference.zero_grad()
        theirs(x).square().mean().backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        reference.step()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_what_the_loss_does_not_reach_gets_no_gradient():
    mine, other = two_alike()
    flat = Flat([*mine.parameters(), *other.parameters()])
    flat.backward(mine(torch.ones(2, 5)).sum())
    reached = torch.cat([torch.full((p.numel(),), any(p is q for q in mine.parameters())) for p in flat.parameters])
    assert flat.row.grad[reached].any()
    assert not flat.row.grad[~reached].any()


def test_small_ones_do_not_shift_the_others():
    """A row that begins elsewhere adds up to other last bits than the same row by itself."""
    one, long = nn.Parameter(torch.ones(1)), nn.Parameter(torch.arange(32.0))
    flat = Flat([one, long])
    assert flat.row.tolist() == [*map(float, range(32)), 1.0]
    assert one.item() == 1.0


def test_adam_goes_on_as_if_it_had_not_stopped():
    mine, other = two_alike()
    ends = []
    for net, stop in ((mine, False), (other, True)):
        flat = Flat(net.parameters())
        adam = Adam(flat, 1e-2)
        for step in range(6):
            if stop and step == 3:
                state = {k: v.clone() if hasattr(v, "clone") else v for k, v in adam.state_dict().items()}
                adam = Adam(flat, 5.0)
                adam.load_state_dict(state)
            flat.backward(net(torch.full((2, 5), float(step))).square().sum())
            adam.step()
        ends.append(flat.row.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)
