"""A served world for tests, in a process of its own."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import msgpack

TOWN = Path(__file__).with_name("town.py")


@contextlib.contextmanager
def served(*options):
    """(pid, port of the calls, port of the streams) of a server that dies with the block."""
    process = subprocess.Popen([sys.executable, str(TOWN), *options], stdout=subprocess.PIPE, text=True)
    try:
        port, stream_port = map(int, process.stdout.readline().split())
        yield process.pid, port, stream_port
        assert process.poll() is None, "the server died"
    finally:
        process.kill()
        process.communicate()


class Raw:
    """A client of bare msgpack."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.unpacker = msgpack.Unpacker(raw=False)
        self.number = 0

    def send(self, method, *args, asynchronous=False):
        self.number += 1
        self.socket.sendall(msgpack.packb([0, self.number, method, [[asynchronous], *args]]))

    def receive(self):
        while True:
            for message in self.unpacker:
                return message
            data = self.socket.recv(1 << 16)
            assert data, "the server closed the connection"
            self.unpacker.feed(data)

    def call(self, method, *args):
        self.send(method, *args)
        kind, number, error, result = self.receive()
        assert (kind, number) == (1, self.number)
        return error or result

    def close(self):
        self.socket.close()
