"""Returns on the scale of D4RL: 0 is a random policy and 100 its expert, by the reference values it publishes.

They are of the runners' version 2, in the simulator of that day; in version 5 a score is near, not equal.
"""

from __future__ import annotations

REFERENCE = {  # of a random policy, and of an expert
    "hopper": (-20.272305, 3234.3),
    "halfcheetah": (-280.178953, 12135.0),
    "walker2d": (1.629008, 4592.3),
}


def normalised(env: str, value: float) -> float | None:
    """A return as D4RL's score, or None of a world that has none."""
    name = env.partition(":")[0]
    if name not in REFERENCE:
        return None
    low, high = REFERENCE[name]
    return 100 * (value - low) / (high - low)
