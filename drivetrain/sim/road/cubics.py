"""Piecewise cubic polynomials: how OpenDRIVE writes elevation, lane offset, width and border along a road."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cubics:
    """value(s) = a + b u + c u^2 + d u^3 with u = s - start of the last piece that starts at or before s."""

    start: Floats  # [K], ascending
    factors: Floats  # [K, 4]: a b c d

    @staticmethod
    def of(pieces: Iterable[tuple[float, float, float, float, float]]) -> Cubics:
        rows = np.array(sorted(pieces, key=lambda piece: piece[0]), dtype=np.float64).reshape(-1, 5)
        return Cubics(rows[:, 0], rows[:, 1:])

    def __bool__(self) -> bool:
        return len(self.start) > 0

    def shifted(self, by_m: float) -> Cubics:
        return Cubics(self.start + by_m, self.factors)

    @property
    def is_constant(self) -> bool:
        return len(self.start) <= 1 and not self.factors[:, 1:].any()

    @property
    def is_linear(self) -> bool:
        return not self.factors[:, 2:].any()

    def _at(self, s_m: Floats) -> tuple[Floats, Floats]:
        piece = np.maximum(np.searchsorted(self.start, s_m, side="right") - 1, 0)
        return self.factors[piece].T, s_m - self.start[piece]

    def value(self, s_m: Floats) -> Floats:
        if not self:
            return np.zeros_like(s_m)
        (a, b, c, d), u = self._at(s_m)
        return a + u * (b + u * (c + u * d))

    def slope(self, s_m: Floats) -> Floats:
        if not self:
            return np.zeros_like(s_m)
        (_, b, c, d), u = self._at(s_m)
        return b + u * (2 * c + u * 3 * d)
