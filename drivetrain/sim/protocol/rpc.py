"""The calls: msgpack-rpc over TCP, one connection per client, many calls in flight.

    [0, id, method, [[asynchronous], arg, ...]]  ->  [1, id, error, result]

A connection that sends what is not msgpack-rpc is closed; a call that cannot be answered gets an error that names it.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from drivetrain.sim.errors import NotOffered, SimError
from drivetrain.sim.protocol.codec import Codec, WireError
from drivetrain.sim.protocol.versions import Answer, Release

MOST_BYTES = 64 << 20  # of one message; a large OpenDRIVE file is some 20 MB
MOST_UNSENT_BYTES = 64 << 20  # answers to a client that asks and never reads
MOST_ITEMS = 1 << 16
MOST_TOLD = 1000  # about one client
RECEIVE_BYTES = 1 << 16

Handler = Callable[..., Any]


class Methods:
    """Handlers by name, with the codecs of one release round them."""

    def __init__(self, release: Release, codec: Codec, handlers: Mapping[str, Handler]):
        offered = {name for name, call in release.calls.items() if not call.left_out}
        assert offered == set(handlers), offered ^ set(handlers)
        self.release, self.handlers = release, handlers
        self.decoders = {name: [codec.decoder(a) for a in call.args] for name, call in release.calls.items()}
        self.encoders = {name: codec.encoder(call.returns or bool) for name, call in release.calls.items()}

    def call(self, name: str, raw: list[Any]) -> Any:
        """The result as it goes on the wire. Raises SimError where the call itself is wrong or fails."""
        kind = self.release.calls.get(name)
        if kind is None:
            raise SimError(f"CARLA {self.release.name} has no call {name!r:.80}, or this server does not know it")
        if kind.left_out:
            raise NotOffered(name, kind.left_out)
        decoders = self.decoders[name]
        if len(raw) != len(decoders):
            raise WireError(f"{name}: got {len(raw)} arguments, expected {len(decoders)}")
        try:
            args = [decode(one) for decode, one in zip(decoders, raw, strict=True)]
        except (WireError, RecursionError) as error:
            raise WireError(f"{name}: {error}") from error
        value = self.handlers[name](*args)
        if kind.answer is Answer.VOID:
            return [[False]]
        if kind.answer is Answer.BATCH:
            return [[[0, [one.error]]] if one.error else [[1, one.actor]] for one in value]
        encode = self.encoders[name]
        return [[1, encode(value) if encode else value]]

    def failure(self, name: str, message: str) -> tuple[Any, Any]:
        """(error, result) of a call that failed: the client raises RuntimeError(message) for each."""
        kind = self.release.calls.get(name)
        if kind is None or kind.answer is Answer.BATCH:
            return message, None
        return None, [[True, [message]]] if kind.answer is Answer.VOID else [[0, [message]]]


class RpcConnection:
    """One client. Never blocks: what it does not read waits here, and too much of that ends it."""

    def __init__(self, connection: socket.socket, methods: Methods, tell: Callable[[str], None]):
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket, self.methods, self.tell = connection, methods, tell
        self.unsent = bytearray()
        self.told: set[str] = set()
        self.packer = msgpack.Packer(autoreset=True)
        self.unpacker = msgpack.Unpacker(
            raw=False,
            object_pairs_hook=tuple,  # no call takes a map, and one made of lists could not be a dict
            unicode_errors="replace",
            max_buffer_size=MOST_BYTES,
            max_array_len=MOST_ITEMS,
            max_map_len=MOST_ITEMS,
        )

    def readable(self) -> bool:
        """Answers whatever has arrived; False where the connection is over."""
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        try:
            self.unpacker.feed(data)
            for message in self.unpacker:
                if not self.handle(message):
                    return False
        except Exception as error:  # noqa: BLE001  whatever the bytes do to the unpacker, the others must live on
            self.tell(f"closed a client that does not speak msgpack-rpc: {error!r:.80}")
            return False
        return self.writable()

    def handle(self, message: Any) -> bool:
        if type(message) is not list or len(message) != 4 or message[0] != 0:
            self.tell(f"closed a client that sent {message!r:.60} where [0, id, method, arguments] was expected")
            return False
        _, number, name, args = message
        if type(number) is not int or type(name) is not str or type(args) is not list:
            self.tell(f"closed a client that sent {message!r:.60} where [0, id, method, arguments] was expected")
            return False
        error, result = self.outcome(name, args)
        self.unsent += self.packer.pack([1, number, error, result])
        return len(self.unsent) <= MOST_UNSENT_BYTES and self.writable()

    def outcome(self, name: str, args: list[Any]) -> tuple[Any, Any]:
        asynchronous = bool(args and type(args[0]) is list and args[0] and args[0][0])
        try:
            return None, self.methods.call(name, args[1:])
        except SimError as error:
            failure = self.methods.failure(name, str(error))
            if asynchronous or failure[0]:  # nobody reads the answer, or the client hides its text
                self.tell_once(str(error) if str(error).startswith(name) else f"{name}: {error}")
            return failure
        except Exception as error:  # noqa: BLE001  one client's call must not end every client's world
            self.tell(f"a bug of ours in {name}:\n{traceback.format_exc()}")
            return self.methods.failure(name, f"{name} failed inside the server: {error!r}")

    def tell_once(self, text: str) -> None:
        """A client that draws in every tick is told once that there is nothing to draw on."""
        if text not in self.told and len(self.told) < MOST_TOLD:
            self.told.add(text)
            self.tell(text)

    def writable(self) -> bool:
        while self.unsent:
            try:
                sent = self.socket.send(self.unsent)
            except BlockingIOError:
                return True
            except OSError:
                return False
            del self.unsent[:sent]
        return True

    def wants_to_write(self) -> bool:
        return bool(self.unsent)

    def close(self) -> None:
        self.socket.close()
