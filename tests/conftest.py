"""What all tests share: the tiny worlds of `toys.py`, by name, and one processor thread."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))  # so that `toys` and `victim` can be imported, here and in child processes

import toys

from drivetrain import processor
from drivetrain.cli import main


@pytest.fixture(autouse=True)
def one_thread():
    """Sums are the same bits only where they are cut into the same pieces, and multiplied in the same way."""
    before = torch.get_num_threads()
    processor.use(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def toy_worlds():
    """The worlds of `toys.py` are in the catalog while a test runs."""
    with toys.in_catalog():
        yield


@pytest.fixture
def refused(capsys):
    """Runs a command that must be refused, and gives the line it says."""

    def said_by(*arguments):
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        out, line = capsys.readouterr()
        assert (status, out) == (2, ""), f"status {status}, stdout {out!r}, stderr {line!r}"
        assert line.count("\n") == 1, line
        return line.strip()

    return said_by
