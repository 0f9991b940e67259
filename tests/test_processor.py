import pytest
import torch

from drivetrain import processor


@pytest.fixture(autouse=True)
def as_it_was():
    before, fused = torch.get_float32_matmul_precision(), torch.backends.cuda.flash_sdp_enabled()
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cuda.enable_flash_sdp(fused)


def test_products_stay_exact():
    torch.set_float32_matmul_precision("highest")
    quick = processor.multiply_quickly()
    assert torch.get_float32_matmul_precision() == ("medium" if quick else "highest")
    assert not (quick and torch.backends.cuda.flash_sdp_enabled()), "its small products would each pay the overhead"
    a, b = torch.randn(300, 200), torch.randn(100, 200)
    assert (torch.nn.functional.linear(a, b).double() - a.double() @ b.double().T).abs().max() < 1e-3


def test_where_it_is_not_as_exact_nothing_changes(monkeypatch):
    torch.set_float32_matmul_precision("highest")
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda a, b: linear(a.bfloat16(), b.bfloat16()).float())
    assert not processor.multiply_quickly()
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_gpus_products_are_left_alone(monkeypatch):
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not processor.multiply_quickly()
    assert torch.get_float32_matmul_precision() == "highest"
