"""What all tests share: the tiny worlds of `toys.py`, by name, one processor thread, and an end to what takes long.

Slow tests come last. With `--minutes N` what has not begun by then is skipped, and told as skipped: a machine that is busy with
other things still says in good time what it can say.
"""

import os
import sys
import time
from pathlib import Path

import hypothesis
import pytest
import torch

sys.path.append(str(Path(__file__).parent))  # so that `toys` and `victim` can be imported, here and in child processes

import toys

from drivetrain import processor
from drivetrain.cli import main

hypothesis.settings.register_profile("patient", deadline=None)  # a machine that stalls is no mistake of ours
hypothesis.settings.load_profile("patient")
OVER = "are over"
BEGAN = "DRIVETRAIN_TESTS_BEGAN"  # handed down to those who test side by side


def pytest_addoption(parser):
    parser.addoption("--minutes", type=float, default=0.0, help="skip tests that have not begun by then; 0: never")


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        os.environ[BEGAN] = str(time.time())


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_runtest_setup(item):
    minutes = item.config.getoption("--minutes")
    if minutes and time.time() - float(os.environ[BEGAN]) > 60 * minutes:
        pytest.skip(f"{minutes:g} minutes {OVER}")


def pytest_sessionfinish(session):
    """What was left out is told, and where it is most of the tests, nothing has been shown."""
    told = session.config.pluginmanager.get_plugin("terminalreporter")
    late = sum(OVER in str(report.longrepr) for report in told.stats.get("skipped", [])) if told else 0
    if late:
        told.write_line(f"\n{late} tests had not begun in time; MINUTES=0 runs them all")
        session.exitstatus = session.exitstatus or int(late > len(told.stats.get("passed", [])))


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
