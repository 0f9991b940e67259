"""What CARLA's Leaderboard makes of a drive, by and large: route completion, times a factor for each infraction.

The factors are those of Leaderboard 2.0: a walker 0.50, a vehicle 0.60, something that stands 0.65, a red light 0.70, a stop
sign 0.80. What is driven off the lanes or against the traffic does not count towards completion. A drive ends at the route's
end, 30 m off the route, after 60 s without moving, or when its time is up. Leaderboard's penalties for being slower than the
others, for missed scenarios and for not giving way to emergency vehicles are not here, and its limits of time are others in
each of its versions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

FACTORS = {"walker": 0.50, "vehicle": 0.60, "static": 0.65, "red_light": 0.70, "stop_sign": 0.80}
DEVIATED_M = 30.0
BLOCKED_S, BLOCKED_MPS = 60.0, 0.1
SECONDS_PER_M, EXTRA_S = 0.8, 30.0
AGAIN_S = 3.0  # a touch that goes on is one collision
DONE_M = 3.0  # before its end a route counts as driven


class Touch(NamedTuple):
    """A collision, as its sensor tells it."""

    other: tuple[int, ...]  # who; of things that stand also where, because they have no number
    kind: str  # walker, vehicle or static
    ahead_rad: float  # from the nose to where the push came from
    speed_mps: float  # of ours, before


@dataclass
class Score:
    """One drive along a route of `length_m`, told of every step."""

    length_m: float
    stray_m: float = DEVIATED_M
    lost_m: float = 0.0  # driven outside
    best_m: float = 0.0  # furthest along
    time_s: float = 0.0
    still_s: float = 0.0
    driven_m: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FACTORS, 0))
    caused: int = 0  # collisions that were ours to avoid
    touched: dict[tuple[int, ...], float] = field(default_factory=dict)  # by actor, when
    ended: str = ""  # finished, deviated, blocked or timeout

    def step(self, dt_s: float, at_m: float, off_m: float, speed_mps: float, outside: bool) -> None:
        """at_m: along the route; off_m: aside of it; outside: off the lanes, or against the traffic."""
        self.time_s += dt_s
        self.driven_m += speed_mps * dt_s
        gained = max(0.0, at_m - self.best_m)
        self.best_m += gained
        if outside:
            self.lost_m += gained
        self.still_s = 0.0 if speed_mps > BLOCKED_MPS else self.still_s + dt_s
        if self.best_m >= self.length_m - DONE_M:
            self.best_m, self.ended = self.length_m, "finished"
        elif off_m > self.stray_m:
            self.ended = "deviated"
        elif self.still_s >= BLOCKED_S:
            self.ended = "blocked"
        elif self.time_s >= self.length_m * SECONDS_PER_M + EXTRA_S:
            self.ended = "timeout"

    def touch(self, touch: Touch) -> bool:
        """A collision; says whether it is a new one."""
        before = self.touched.get(touch.other, -math.inf)
        self.touched[touch.other] = self.time_s
        if self.time_s - before < AGAIN_S:
            return False
        self.counts[touch.kind] += 1
        moving = touch.speed_mps > 0.5
        self.caused += moving and (touch.kind == "static" or abs(touch.ahead_rad) < math.radians(100))
        return True

    def infringe(self, kind: str) -> None:
        self.counts[kind] += 1

    @property
    def completion(self) -> float:
        """0 to 1."""
        return max(0.0, self.best_m - self.lost_m) / self.length_m

    @property
    def penalty(self) -> float:
        return math.prod(FACTORS[kind] ** count for kind, count in self.counts.items())

    @property
    def driving(self) -> float:
        """The driving score, 0 to 1."""
        return self.completion * self.penalty

    def to_json(self) -> dict[str, Any]:
        return {
            "completion": self.completion,
            "penalty": self.penalty,
            "driving": self.driving,
            "driven_m": self.driven_m,
            "time_s": self.time_s,
            "caused": int(self.caused),
            "infractions": dict(self.counts),
            "ended": self.ended,
        }
