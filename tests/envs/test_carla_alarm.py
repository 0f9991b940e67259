"""A TrafficManager that sleeps through a tick is woken; who is awake is left alone."""

import socket
import threading
import time

import msgpack
import pytest

from drivetrain.envs.carla.alarm import Alarm


@pytest.fixture
def manager():
    """A port, and what it was asked for, as MessagePack-RPC."""
    asked, heard = [], threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            while True:
                try:
                    line, _ = listening.accept()
                except OSError:
                    return
                with line:
                    asked.append(msgpack.unpackb(line.recv(256)))
                    line.sendall(msgpack.packb([1, asked[-1][1], None, None]))
                if len(asked) == 2:
                    heard.set()

        threading.Thread(target=answer, daemon=True).start()
        yield listening.getsockname()[1], asked, heard


def test_a_tick_that_takes_too_long_is_woken(manager):
    port, asked, heard = manager
    alarm = Alarm(port, patience_s=0.05)
    with alarm:
        assert heard.wait(30)
    alarm.close()
    assert asked[:2] == [[0, 1, "set_synchronous_mode", [False]], [0, 1, "set_synchronous_mode", [True]]]
    assert alarm.rung >= 1


def test_nobody_is_woken_between_ticks(manager):
    port, asked, _ = manager
    alarm = Alarm(port, patience_s=0.2)
    for _ in range(3):
        with alarm:
            pass
    time.sleep(0.6)
    alarm.close()
    assert not asked
    assert alarm.rung == 0


def test_a_manager_that_is_gone_is_not_missed():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    alarm = Alarm(port, patience_s=0.05)
    with alarm:
        time.sleep(0.5)
    alarm.close()
    assert alarm.rung >= 1
