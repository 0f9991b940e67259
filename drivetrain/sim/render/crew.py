"""Work on rows of pixels or on rays, divided among threads: the compiled loops let go of Python while they run.

Pieces take less than a millisecond, of which a thread pool's queues and conditions would be a third; so each thread waits
at a bare lock of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial

MOST_HANDS = 8
HANDS = max(1, min(MOST_HANDS, os.cpu_count() or 1))
Piece = Callable[[], None]


class Hand:
    """A thread that does one piece at a time."""

    def __init__(self) -> None:
        self.begun, self.done = threading.Lock(), threading.Lock()
        self.begun.acquire()
        self.done.acquire()
        self.piece: Piece | None = None
        self.failed: BaseException | None = None
        threading.Thread(target=self.work, name="draw", daemon=True).start()

    def work(self) -> None:
        while True:
            self.begun.acquire()
            try:
                assert self.piece is not None
                self.piece()
            except BaseException as error:  # noqa: BLE001  told to whoever waits, who raises it
                self.failed = error
            self.piece = None
            self.done.release()

    def begin(self, piece: Piece) -> None:
        self.piece = piece
        self.begun.release()

    def finish(self) -> None:
        self.done.acquire()
        failed, self.failed = self.failed, None
        if failed is not None:
            raise failed


CREW: list[Hand] = []
BUSY = threading.Lock()


def hands_for(count: int, least: int) -> int:
    """Among how many `count` things are divided where fewer than `least` are not worth a thread."""
    return max(1, min(HANDS, count // least))


def dealt(hands: int, work: Callable[[int, int], None]) -> None:
    """work(first, step), side by side: each takes every so many, as cards are dealt, because some are far more work than
    others. What comes out does not depend on how many hands there are."""
    together([partial(work, i, hands) for i in range(hands)])


def together(pieces: list[Piece]) -> None:
    if len(pieces) == 1 or not BUSY.acquire(blocking=False):  # somebody else's pieces are under way
        for piece in pieces:
            piece()
        return
    try:
        while len(CREW) < len(pieces) - 1:
            CREW.append(Hand())
        helping = CREW[: len(pieces) - 1]
        for hand, piece in zip(helping, pieces[1:], strict=True):
            hand.begin(piece)
        try:
            pieces[0]()
        finally:
            for hand in helping:
                hand.finish()
    finally:
        BUSY.release()
