"""The streams: one connection per subscription, each with a queue of its own that drops the oldest.

A reader that stalls loses messages and delays nobody. A subscription to a stream that is not there (the client opens
one again each time a stream is closed) stays open and silent for `GHOST_S`, so that its client does not spin.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass, field

from drivetrain.sim.protocol.binary import LENGTH

MOST_BYTES = 32 << 20  # waiting for one reader; beyond it the oldest go
MOST_MESSAGES = 256
GHOST_S = 60.0  # a subscription to nothing lives so long
STALL_S = 60.0  # and one with a full queue that reads nothing
MOST_GHOSTS = 512
HELLO_S = 10.0  # a connection that does not say which stream it wants
EXPECTED_S = 0.25  # how long a tick waits for a subscription that has been announced


@dataclass(eq=False)
class Subscriber:
    socket: socket.socket
    since_s: float  # of the last progress
    hello: bytes = b""
    stream: int | None = None
    current: memoryview | None = None  # half sent; it is never dropped, for the length has gone out
    waiting: deque[bytes] = field(default_factory=deque)
    waiting_bytes: int = 0
    dropped: int = 0
    watched_for_writing: bool = False

    def push(self, message: bytes) -> None:
        self.waiting.append(message)
        self.waiting_bytes += len(message)
        while len(self.waiting) > 1 and (self.waiting_bytes > MOST_BYTES or len(self.waiting) > MOST_MESSAGES):
            self.waiting_bytes -= len(self.waiting.popleft())
            self.dropped += 1

    def send(self) -> bool:
        """Sends what the reader takes now; False where it is gone."""
        while self.current or self.waiting:
            if not self.current:
                message = self.waiting.popleft()
                self.waiting_bytes -= len(message)
                self.current = memoryview(message)
            try:
                sent = self.socket.send(self.current)
            except BlockingIOError:
                return True
            except OSError:
                return False
            self.since_s = time.monotonic()
            self.current = self.current[sent:]
        self.current = None
        return True


class Streams:
    """Has a selector of its own, so that a tick can wait for an announced subscription and for nothing else."""

    def __init__(self, listener: socket.socket):
        listener.setblocking(False)
        self.listener = listener
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, None)
        self.subscribers: set[Subscriber] = set()
        self.by_stream: dict[int, list[Subscriber]] = {}
        self.live: set[int] = set()
        self.last: dict[int, bytes] = {}  # what a new subscriber is given at once
        self.expected: dict[int, float] = {}  # until when, by stream

    def fileno(self) -> int:
        return self.selector.fileno()  # type: ignore[attr-defined,no-any-return]

    def open(self, stream: int) -> None:
        self.live.add(stream)

    def close(self, stream: int) -> None:
        self.live.discard(stream)
        self.last.pop(stream, None)
        self.expected.pop(stream, None)

    def has_listeners(self, stream: int) -> bool:
        return bool(self.by_stream.get(stream))

    def expect(self, stream: int) -> None:
        """A client has asked for the token: it will subscribe in a moment."""
        if stream in self.live:
            self.expected[stream] = time.monotonic() + EXPECTED_S

    def wait_for_expected(self) -> None:
        while self.expected:
            now = time.monotonic()
            self.expected = {stream: until for stream, until in self.expected.items() if until > now}
            if self.expected:
                self.pump(min(self.expected.values()) - now)

    def publish(self, stream: int, body: bytes, *, keep: bool = False, later: bool = False) -> None:
        """Sends to all who listen; with `keep`, also at once to whoever comes next; with `later`, together with the next."""
        message = LENGTH.pack(len(body)) + body
        if keep:
            self.last[stream] = message
        for subscriber in tuple(self.by_stream.get(stream, ())):
            if later:
                subscriber.push(message)
            else:
                self.give(subscriber, message)

    def give(self, subscriber: Subscriber, message: bytes) -> None:
        subscriber.push(message)
        self.flush(subscriber)

    def flush(self, subscriber: Subscriber) -> None:
        if not subscriber.send():
            self.forget(subscriber)
            return
        wants = subscriber.current is not None
        if wants != subscriber.watched_for_writing:
            subscriber.watched_for_writing = wants
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wants else 0)
            self.selector.modify(subscriber.socket, events, subscriber)

    def pump(self, timeout_s: float) -> None:
        for key, events in self.selector.select(timeout_s):
            if key.data is None:
                self.accept()
            elif key.data in self.subscribers:
                if events & selectors.EVENT_READ:
                    self.read(key.data)
                if events & selectors.EVENT_WRITE and key.data in self.subscribers:
                    self.flush(key.data)

    def accept(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        subscriber = Subscriber(connection, time.monotonic())
        self.subscribers.add(subscriber)
        self.selector.register(connection, selectors.EVENT_READ, subscriber)

    def read(self, subscriber: Subscriber) -> None:
        try:
            data = subscriber.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.forget(subscriber)
        elif subscriber.stream is None:  # what comes after the stream's number means nothing
            subscriber.hello += data
            if len(subscriber.hello) >= 4:
                self.subscribe(subscriber, int.from_bytes(subscriber.hello[:4], "little"))

    def subscribe(self, subscriber: Subscriber, stream: int) -> None:
        subscriber.stream, subscriber.since_s = stream, time.monotonic()
        self.by_stream.setdefault(stream, []).append(subscriber)
        self.expected.pop(stream, None)
        if stream in self.last:
            self.give(subscriber, self.last[stream])

    def reap(self) -> None:
        """Ends what leads nowhere. Called about once a second."""
        now = time.monotonic()
        ghosts = []
        for subscriber in tuple(self.subscribers):
            idle_s = now - subscriber.since_s
            if subscriber.stream is None:
                if idle_s > HELLO_S:
                    self.forget(subscriber)
            elif subscriber.stream not in self.live:
                ghosts.append(subscriber)
            elif subscriber.current is not None and idle_s > STALL_S:
                self.forget(subscriber)
        ghosts.sort(key=lambda one: one.since_s)
        for subscriber in ghosts[: max(0, len(ghosts) - MOST_GHOSTS)]:
            self.forget(subscriber)
        for subscriber in ghosts:
            if now - subscriber.since_s > GHOST_S:
                self.forget(subscriber)

    def forget(self, subscriber: Subscriber) -> None:
        if subscriber not in self.subscribers:
            return
        self.subscribers.discard(subscriber)
        if subscriber.stream is not None:
            left = self.by_stream[subscriber.stream]
            left.remove(subscriber)
            if not left:
                del self.by_stream[subscriber.stream]
        self.selector.unregister(subscriber.socket)
        subscriber.socket.close()

    def shut(self) -> None:
        for subscriber in tuple(self.subscribers):
            self.forget(subscriber)
        self.selector.close()
        self.listener.close()
