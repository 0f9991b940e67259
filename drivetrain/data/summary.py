"""The statistics that a LeRobot data set carries: per feature min, max, mean, std, count and five quantiles.

Numbers are summed up per entry of the last axis, pictures per channel, scaled to 0..1 and shaped (3, 1, 1), from a few
hundred evenly spaced frames. A data set's quantiles are, as LeRobot's own, the mean of its episodes' weighted by count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Summary = dict[str, np.ndarray]


def of_numbers(values: np.ndarray, count: int = 0) -> Summary:
    """Of [T, *shape], per entry of the last axis; `count` where the rows are not the frames."""
    flat = values.astype(np.float64).reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
    flat = flat if len(flat) else np.zeros((1, flat.shape[1]))
    summary = {"min": flat.min(0), "max": flat.max(0), "mean": flat.mean(0), "std": flat.std(0)}
    quantiles = dict(zip(QUANTILES, np.quantile(flat, list(QUANTILES.values()), axis=0), strict=True))
    return {**summary, "count": np.array([count or len(values)]), **quantiles}


def of_pictures(frames: np.ndarray) -> Summary:
    """Of uint8 [T, H, W, C], per channel; a grey picture counts as three equal channels."""
    chosen = frames[evenly(len(frames))]
    channels = [_of_bytes(np.bincount(chosen[..., c].reshape(-1), minlength=256)) for c in range(frames.shape[-1])]
    channels = channels * 3 if len(channels) == 1 else channels
    summary = {name: np.array([c[name] for c in channels]).reshape(-1, 1, 1) for name in channels[0]}
    return {**summary, "count": np.array([len(chosen)])}


def evenly(count: int) -> np.ndarray:
    """The frames of an episode that its pictures are summed up from: all, down to a power of their number."""
    wanted = max(min(count, 100), min(int(count**0.75), 10_000))
    return np.round(np.linspace(0, count - 1, wanted)).astype(np.int64)


def together(parts: Sequence[Summary]) -> Summary:
    """The summary of a data set from those of its episodes."""
    counts = np.array([float(part["count"][0]) for part in parts])
    weights = counts / counts.sum()

    def weighted(name: str) -> np.ndarray:
        return np.tensordot(weights, np.stack([part[name] for part in parts]), axes=1)

    mean = weighted("mean")
    variance = np.tensordot(weights, np.stack([p["std"] ** 2 + (p["mean"] - mean) ** 2 for p in parts]), axes=1)
    low, high = np.min([part["min"] for part in parts], axis=0), np.max([part["max"] for part in parts], axis=0)
    summary = {"min": low, "max": high, "mean": mean, "std": np.sqrt(variance), "count": np.array([int(counts.sum())])}
    return {**summary, **{name: weighted(name) for name in QUANTILES}}


def serial(summary: Summary) -> dict[str, Any]:
    return {name: value.tolist() for name, value in summary.items()}


def parsed(parts: dict[str, Any]) -> Summary:
    return {name: np.asarray(value) for name, value in parts.items()}


def _of_bytes(histogram: np.ndarray) -> dict[str, float]:
    levels, total = np.arange(256) / 255.0, histogram.sum()
    there = levels[histogram > 0]
    mean = float((levels * histogram).sum() / total)
    std = float(np.sqrt((((levels - mean) ** 2) * histogram).sum() / total))
    reached = np.cumsum(histogram)
    quantiles = {name: float(levels[np.searchsorted(reached, q * total)]) for name, q in QUANTILES.items()}
    return {"min": float(there[0]), "max": float(there[-1]), "mean": mean, "std": std, **quantiles}
