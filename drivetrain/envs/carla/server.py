"""A CARLA server at an address: found there, or started and looked after. What it did not start, it never ends.

    borrow("127.0.0.1", 2000, traffic=0)     whoever listens there; ours is started where nobody does
    borrow("127.0.0.1", 0, traffic=20)       one of ours at a port of its own

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
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from drivetrain.errors import MissingExtra, UserError

START_S = 180.0  # compiling takes a minute, the first time
ANSWER_S = 10.0  # for one call
LOAD_S = 120.0
KNOCKS = 5  # times a server that listens is asked for its version
GUARD = threading.Lock()  # over who idles and who is lent
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
    heard: int = 0  # bytes of it
    kind: tuple[int, ...] = ()
    lent: tuple[str, int] = ("", 0)

    @property
    def ours(self) -> bool:
        return self.process is not None

    @property
    def running(self) -> bool:
        return self.process is None or self.process.poll() is None

    def hear(self) -> list[str]:
        """What a server of ours has said on stderr since it was last heard."""
        if self.said is None:
            return []
        text = os.pread(self.said.fileno(), 1 << 20, self.heard)  # the server writes where this file's own mark is
        self.heard += len(text)
        return [line for line in text.decode(errors="replace").splitlines() if line.strip()]

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
        if self in STARTED:
            STARTED.remove(self)


def command(port: int, traffic: int) -> list[str]:
    return [sys.executable, "-m", "drivetrain", "sim", "--port", str(port), "--traffic", str(traffic)]


def start(port: int = 0, traffic: int = 0, start_s: float = START_S) -> Server:
    """A server of ours in a process of its own; port 0 takes any that is free."""
    for package in ("msgpack", "numba"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "carla", "the embedded CARLA server")
    said = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the server
    process = STARTER.submit(
        subprocess.Popen,
        command(port, traffic),
        stdout=subprocess.PIPE,
        stderr=said,
        process_group=0,
        preexec_fn=linked,
    ).result()
    server = Server("127.0.0.1", port, process, said, kind=(port, traffic))
    STARTED.append(server)
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], start_s)
    line = process.stdout.readline().decode() if ready else ""
    if " (streams" not in line:
        last = (server.hear() or [line or "no word from it"])[-1]
        server.end()
        raise NoServer(f"NoServer: the embedded server did not start (waited {start_s:.0f} s at most): {last}")
    server.port = int(line.split(" (streams")[0].rpartition(":")[2])
    return server


def linked() -> None:
    """On Linux a server of ours ends where its parent is killed; Linux means the thread that made it, so one makes them all.
    A group of its own keeps Ctrl-C for the parent, which then ends it."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


STARTER = ThreadPoolExecutor(1, thread_name_prefix="servers")
STARTED: list[Server] = []
IDLE: list[Server] = []
LENT: set[tuple[str, int]] = set()  # addresses in use by an environment of this process


@atexit.register
def end_all() -> None:
    for server in list(STARTED):
        server.end()
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


def borrow(host: str, port: int, traffic: int) -> Server:
    """The server at that address, or one of ours: from those that idle, or a new one. An address serves one at a time."""
    with GUARD:  # worlds side by side begin in threads
        if port and (host, port) in LENT:
            raise NoServer(
                f"NoServer: {host}:{port} already serves an environment of this process, and a server has one world; "
                "take one lane or world, or leave port out: then each has a server of its own"
            )
        found = next((server for server in IDLE if server.kind == (port, traffic) and server.running), None)
        if found is not None:
            IDLE.remove(found)
        if port:
            LENT.add((host, port))
    try:
        found = found or reached(host, port, traffic)
    except BaseException:
        LENT.discard((host, port))
        raise
    if port:
        found.lent = (host, port)
    return found


def reached(host: str, port: int, traffic: int) -> Server:
    """Whoever listens there, or a new one of ours."""
    if port and listening(host, port):
        return Server(host, port)
    if port and host not in LOCAL:
        raise NoServer(f"NoServer: nobody listens at {host}:{port}; start CARLA there, or leave host and port out")
    if port:
        print(f"nobody listens at {host}:{port}: starting the embedded server there", file=sys.stderr)
    return start(port, traffic)


def give_back(server: Server) -> None:
    """For the next who asks for the same."""
    with GUARD:
        LENT.discard(server.lent)
        if server.ours and server.running and server not in IDLE:
            IDLE.append(server)


def speaks(host: str, port: int, wait_s: float = 2.0) -> bool:
    """Whether an answer to `version` looks like one of CARLA's; the client aborts the process over any other. Who says nothing
    may be busy."""
    try:
        with socket.create_connection((host, port), wait_s) as one:
            one.settimeout(wait_s)
            one.sendall(b"\x94\x00\x00\xa7version\x91\x91\xc2")  # [request, number, method, [[not asynchronous]]]
            return one.recv(2) in (b"\x94\x01", b"\x94")
    except OSError:
        return True


def connect(server: Server, answer_s: float = ANSWER_S, knocks: int = KNOCKS) -> Any:
    """A client of the official package, whose version fits."""
    if importlib.util.find_spec("carla") is None:
        raise MissingExtra("carla", "carla", "driving in CARLA")
    import carla

    if not speaks(server.host, server.port):
        raise NoServer(f"NoServer: who listens at {server.host}:{server.port} is not CARLA; give CARLA's port")
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
