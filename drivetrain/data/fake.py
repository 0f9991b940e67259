"""Valid nonsense in the shape of a spec: what the `DEBUG` of an algorithm and the quick checks train on.

    open_fake(env.sample_spec, episodes=4, length=12, seed=0)

Values lie within their bounds (within -1 and 1 where there are none), choices below their number, and the padding of a
ragged feature is zero. Odd episodes end in a truncation, even ones in a termination.
"""

from __future__ import annotations

import numpy as np

from drivetrain.data.episodes import Episodes
from drivetrain.sample import REWARD, TERMINATED, TRUNCATED, Feature, Spec


def open_fake(spec: Spec, episodes: int = 4, length: int = 12, seed: int = 0) -> Episodes:
    """Episodes of half of `length` to `length` frames."""
    random = np.random.default_rng(seed)
    lengths = random.integers(max(1, length // 2), length + 1, episodes)
    ends = np.cumsum(lengths) - 1
    count = int(lengths.sum())
    arrays: dict[str, np.ndarray] = {}
    for key, feature in spec.features.items():
        arrays[key] = nonsense(feature, count, random)
        if feature.ragged:
            arrays[f"{key}.count"] = rows = random.integers(0, feature.shape[0] + 1, count)
            arrays[key][np.arange(feature.shape[0]) >= rows[:, None]] = 0
    arrays[REWARD] = random.standard_normal(count).astype(np.float32)
    arrays[TERMINATED], arrays[TRUNCATED] = np.zeros((2, count), dtype=bool)
    arrays[TERMINATED][ends[::2]] = True
    arrays[TRUNCATED][ends[1::2]] = True
    return Episodes(spec, arrays, lengths)


def nonsense(feature: Feature, count: int, random: np.random.Generator) -> np.ndarray:
    """[count, *shape] random values that the feature allows."""
    shape, dtype = (count, *feature.shape), np.dtype(feature.dtype)
    if feature.choices:
        return random.integers(0, feature.choices, shape).astype(dtype)
    if dtype == np.uint8:
        return random.integers(0, 256, shape, dtype=np.uint8)
    if dtype == np.bool_:
        return random.integers(0, 2, shape).astype(bool)
    low, high = (np.nan_to_num(bound, posinf=1.0, neginf=-1.0) for bound in feature.bounds())
    high = np.maximum(low, high)
    if dtype.kind in "iu":
        return np.floor(random.uniform(low, high + 1, shape)).clip(low, high).astype(dtype)
    return np.clip(random.uniform(low, high, shape), low, high).astype(dtype)
