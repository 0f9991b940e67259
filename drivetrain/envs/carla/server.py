"""A CARLA server at an address: found there, or started and looked after. What it did not start, it never ends.

    with_server = Servers.at("127.0.0.1", 2000)      whoever listens there; ours is started where nobody does
    with_server = Servers.own(traffic=20)            one of ours at a port of its own

Servers that this process started are kept for the next environment that asks for the same, and end with the process.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from drivetrain.errors import MissingExtra, UserError

START_S = 180.0  # compiling takes a minute, the first time
ANSWER_S = 10.0  # for one call
LOAD_S = 120.0
KNOCKS = 5  # times a server that listens is asked for its version
LOCAL = ("127.0.0.1", "localhost", "::1")


class NoServer(UserError):
    """There is no CARLA server to speak to, or it stopped answering."""


@dataclass
class Server:
    """One server, as an address, and its process where it is ours."""

    host: str
    port: int
    process: subprocess.Popen[bytes] | None = None
    said: Any = field(default=None, repr=False)  # the file that its stderr goes to
    kind: tuple[Any, ...] = ()

    @property
    def ours(self) -> bool:
        return self.process is not None

    @property
    def running(self) -> bool:
        return self.process is None or self.process.poll() is None

    def last_words(self) -> str:
        if self.said is None:
            return ""
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def command(port: int, traffic: int, seed: int, town: str) -> list[str]:
    words = [sys.executable, "-m", "drivetrain", "sim", "--port", str(port), "--traffic", str(traffic)]
    return [*words, "--seed", str(seed), *(["--town", town] if town else [])]


def start(port: int = 0, traffic: int = 0, seed: int = 0, town: str = "", start_s: float = START_S) -> Server:
    """A server of ours in a process of its own; port 0 takes any that is free."""
    for package in ("msgpack", "numba"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "carla", "the embedded CARLA server")
    said = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the server
    process = subprocess.Popen(
        command(port, traffic, seed, town), stdout=subprocess.PIPE, stderr=said, preexec_fn=die_with_parent
    )
    server = Server("127.0.0.1", port, process, said, (port, traffic, seed))
    STARTED.append(server)
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], start_s)
    line = process.stdout.readline().decode() if ready else ""
    if " (streams" not in line:
        server.end()
        raise NoServer(
            f"NoServer: the embedded server did not start within {start_s:.0f} s: {server.last_words() or line}"
        )
    server.port = int(line.split(" (streams")[0].rpartition(":")[2])
    return server


def die_with_parent() -> None:
    """On Linux a server of ours ends even where its parent is killed."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        os.setpgid(0, 0)  # Ctrl-C is for the parent, which ends it


STARTED: list[Server] = []
IDLE: list[Server] = []


@atexit.register
def end_all() -> None:
    for server in STARTED:
        server.end()
    STARTED.clear()
    IDLE.clear()


def listening(host: str, port: int, wait_s: float = 2.0) -> bool:
    try:
        with socket.create_connection((host, port), wait_s):
            return True
    except OSError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def borrow(host: str, port: int, traffic: int, seed: int = 0) -> Server:
    """The server at that address, or one of ours: from those that idle, or a new one."""
    if port and listening(host, port):
        known = [server for server in STARTED if server.port == port and server.running]
        return known[0] if known else Server(host, port)
    if port and host not in LOCAL:
        raise NoServer(f"NoServer: nobody listens at {host}:{port}; start CARLA there, or leave host and port out")
    for server in list(IDLE):
        if server.kind == (port, traffic, seed):
            IDLE.remove(server)
            if server.running:
                return server
    return start(port, traffic, seed)


def give_back(server: Server) -> None:
    """For the next who asks for the same."""
    if server.ours and server.running:
        IDLE.append(server)


def connect(server: Server, answer_s: float = ANSWER_S, knocks: int = KNOCKS) -> Any:
    """A client of the official package, whose version fits."""
    if importlib.util.find_spec("carla") is None:
        raise MissingExtra("carla", "carla", "driving in CARLA")
    import carla

    client = carla.Client(server.host, server.port)
    client.set_timeout(answer_s)
    found = answered(client.get_server_version, server, knocks)
    mine = client.get_client_version()
    if release(found) != release(mine):
        raise NoServer(
            f"NoServer: {server.host}:{server.port} is CARLA {found}, the client is {mine}; "
            f"pip install carla=={found}, or start CARLA {mine}"
        )
    return client


def release(version: str) -> str:
    """0.9.16 of 0.9.16-dirty."""
    return version.strip().split("-")[0]


def answered(ask: Callable[[], Any], server: Server, times: int) -> Any:
    """What a call gives; a server that is busy loading is asked again."""
    for knock in range(times):
        try:
            return ask()
        except RuntimeError as error:
            if knock == times - 1 or not server.running:
                said = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise NoServer(
                    f"NoServer: {server.host}:{server.port} does not answer ({said}); is it CARLA, and has it loaded?"
                ) from None
            time.sleep(0.5 * (knock + 1))
    raise AssertionError("unreachable")


@contextlib.contextmanager
def patience(client: Any, seconds: float) -> Any:
    """A longer wait for what takes long."""
    client.set_timeout(seconds)
    try:
        yield
    finally:
        client.set_timeout(ANSWER_S)
