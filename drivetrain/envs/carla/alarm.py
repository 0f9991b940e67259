"""Wakes CARLA's TrafficManager where it sleeps through a tick, for which the client would then wait for ever.

    alarm = Alarm(manager.get_port())
    with alarm:
        world.tick()

In synchronous mode each tick sets a flag and calls the manager's thread without holding the lock under which that looks at
the flag (0.9.16, `TrafficManagerLocal`). A thread that has looked, and does not sleep yet, misses the call; the answer can be
lost in the same way. On a busy machine that happens every few hundred ticks. Leaving synchronous mode calls once more, but from
within this process it waits for the tick itself; so it is asked for at the manager's port, and synchronous mode again at once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

PATIENCE_S = 3.0
ASK = b"\x94\x00\x01\xb4set_synchronous_mode\x91"  # msgpack: [request, number, name, [
LEAVE, ENTER = ASK + b"\xc2", ASK + b"\xc3"  # false, true


class Alarm:
    """Rings where what stands in `with` takes longer than `patience_s`, and again as long as it goes on."""

    def __init__(self, port: int, patience_s: float = PATIENCE_S):
        self.port, self.patience_s = port, patience_s
        self.began: float | None = None
        self.rung = 0
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="alarm", daemon=True).start()

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.began = None

    def _watch(self) -> None:
        since = 0.0
        while not self._over.wait(self.patience_s / 4):
            began = self.began
            if began is not None and time.monotonic() - max(began, since) > self.patience_s:
                self.rung += 1
                wake(self.port)
                since = time.monotonic()

    def close(self) -> None:
        self._over.set()


def wake(port: int) -> None:
    """A manager that is gone needs no waking."""
    with contextlib.suppress(OSError):
        for request in (LEAVE, ENTER):
            with socket.create_connection(("127.0.0.1", port), 1.0) as line:
                line.sendall(request)
                line.recv(64)
