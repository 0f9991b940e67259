"""Work on rows of pixels or on rays, divided among threads: the compiled loops let go of Python while they run."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

MOST_HANDS = 8
HANDS = max(1, min(MOST_HANDS, os.cpu_count() or 1))
POOL = ThreadPoolExecutor(max(1, HANDS - 1), thread_name_prefix="draw")


def divided(count: int, work: Callable[[int, int], None], least: int) -> None:
    """work(first, last) for pieces of range(count), side by side; a piece of fewer than `least` is not worth a thread. What
    comes out does not depend on how many there are."""
    hands = max(1, min(HANDS, count // least))
    together([partial(work, count * i // hands, count * (i + 1) // hands) for i in range(hands)])


def dealt(count: int, work: Callable[[int, int], None], least: int) -> None:
    """work(first, step): every so many of range(count), as cards are dealt, where some are far more work than others."""
    hands = max(1, min(HANDS, count // least))
    together([partial(work, i, hands) for i in range(hands)])


def together(pieces: list[Callable[[], None]]) -> None:
    waiting = [POOL.submit(piece) for piece in pieces[1:]]
    pieces[0]()
    for one in waiting:
        one.result()
