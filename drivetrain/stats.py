"""How sure a number is: intervals, and whether one policy differs from another.

    stats.summary(returns)          mean, deviation, IQM, and a 95% interval of each of the two centres
    stats.nested([a, b, c])         the mean over trainings, each with returns of its own
    stats.paired(mine, theirs)      "better", "worse" or "no difference shown", on the same seeds
    stats.wilson(successes, trials) a rate
    stats.per(events, exposure)     how often something happens per kilometre or hour
    stats.correlation(a, b)         Pearson's

Intervals of means are bootstrapped (percentile, widened for small samples as Hesterberg 2015 does, because plain
percentiles are too narrow below some thirty values). IQM is the mean of the middle half, as in Agarwal et al. 2021.
Everything is a function of the values and a seed. One value has no interval: its ends are None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from drivetrain.errors import BadConfig, NotANumber

Values = Sequence[float] | np.ndarray
Verdict = Literal["better", "worse", "no difference shown"]

CONFIDENCE = 0.95
RESAMPLES = 10_000
EXACT = 20_000  # tests try every rearrangement where there are at most so many, and draw RESAMPLES of them otherwise
BLOCK = 2_000_000  # numbers drawn at a time


@dataclass(frozen=True)
class Interval:
    """A number and where it could as well lie; `low` and `high` are None where one value leaves that open."""

    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Summary:
    """What a handful of returns says."""

    n: int
    mean: float
    std: float  # of the sample, n - 1 below; 0 for one value
    low: float | None  # the mean's interval
    high: float | None
    iqm: float
    iqm_low: float | None
    iqm_high: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Paired:
    """One policy against another on the same seeds."""

    n: int
    difference: float  # mean of mine minus theirs
    low: float | None
    high: float | None
    p: float  # of a difference this large by chance, from flipped signs
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summary(values: Values, *, confidence: float = CONFIDENCE, seed: int = 0) -> Summary:
    x = _checked(values)
    centre = mean_interval(x, confidence=confidence, seed=seed)
    middle = iqm_interval(x, confidence=confidence, seed=seed)
    std = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    return Summary(len(x), centre.value, std, centre.low, centre.high, middle.value, middle.low, middle.high)


def mean_interval(values: Values, *, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    return _bootstrap(values, lambda rows: rows.mean(axis=-1), confidence, seed)


def iqm_interval(values: Values, *, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    return _bootstrap(values, _middle, confidence, seed)


def nested(groups: Sequence[Values], *, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """The mean over groups, as trainings are: drawn anew are the groups first, then the values within each, because values of
    one group are more alike than those of two. A few groups have a wide interval, however many values they hold."""
    found = [_checked(values) for values in groups]
    if not found:
        raise BadConfig("BadConfig: there is no group to take a mean of")
    if len(found) == 1:
        return mean_interval(found[0], confidence=confidence, seed=seed)
    value = float(np.mean([x.mean() for x in found]))
    random = np.random.default_rng(seed)
    drawn = np.empty((RESAMPLES, len(found)))
    picked = random.integers(len(found), size=drawn.shape)
    for group, x in enumerate(found):
        places = picked == group
        drawn[places] = x[random.integers(len(x), size=(int(places.sum()), len(x)))].mean(axis=1)
    tail = _widened_tail(confidence, len(found))
    low, high = np.quantile(drawn.mean(axis=1), (tail, 1 - tail))
    return Interval(value, min(float(low), value), max(float(high), value))


def iqm(values: Values) -> float:
    """The mean without the lowest and the highest quarter; of fewer than four values the plain mean."""
    return float(_middle(_checked(values)))


def wilson(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """A rate of successes; honest for small counts and near 0 and 1, where the usual formula is not."""
    if trials < 1 or not 0 <= successes <= trials:
        raise BadConfig(f"BadConfig: {successes} successes of {trials} trials; expected 0 to {trials} of 1 or more")
    z = _z(confidence)
    rate, scale = successes / trials, 1 + z * z / trials
    middle = (rate + z * z / (2 * trials)) / scale
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == trials else middle + half
    return Interval(rate, low, high)


def per(events: int, exposure: float, *, confidence: float = CONFIDENCE) -> Interval:
    """Events per unit of exposure, with Garwood's exact interval for a Poisson count."""
    if events < 0 or exposure <= 0:
        raise BadConfig(f"BadConfig: a rate needs 0 events or more and some exposure, got {events} in {exposure}")
    tail = (1 - confidence) / 2

    def at_most(count: int, expected: float) -> float:
        if expected == 0:
            return 1.0
        return sum(math.exp(k * math.log(expected) - expected - math.lgamma(k + 1)) for k in range(count + 1))

    def where(share: Callable[[float], float], wanted: float) -> float:
        """The expected count at which a falling share is as wanted."""
        low, high = 0.0, 10.0 * (events + 10)
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if share(middle) > wanted else (low, middle)
        return middle

    high = where(lambda expected: at_most(events, expected), tail)
    low = where(lambda expected: at_most(events - 1, expected), 1 - tail) if events else 0.0
    return Interval(events / exposure, low / exposure, high / exposure)


def correlation(a: Values, b: Values, *, confidence: float = CONFIDENCE) -> Interval:
    """Pearson's, with Fisher's interval; 0 where either is constant, for one answer to everything tells nothing."""
    one, other = _checked(a), _checked(b)
    if len(one) != len(other):
        raise BadConfig(f"BadConfig: a correlation needs as many values on both sides, got {len(one)} and {len(other)}")
    value = 0.0 if one.std() == 0 or other.std() == 0 else float(np.corrcoef(one, other)[0, 1])
    if len(one) < 4:
        return Interval(value, None, None)
    middle, reach = math.atanh(max(min(value, 1 - 1e-12), 1e-12 - 1)), _z(confidence) / math.sqrt(len(one) - 3)
    return Interval(value, math.tanh(middle - reach), math.tanh(middle + reach))


def paired(mine: Values, theirs: Values, *, confidence: float = CONFIDENCE, seed: int = 0) -> Paired:
    """A difference is shown when chance would give it rarely enough and its interval leaves 0 out.

    Fewer than six pairs can never show one at 95%: all their signs agree by chance once in 16 times.
    """
    apart = _differences(mine, theirs)
    between = mean_interval(apart, confidence=confidence, seed=seed)
    p = _sign_flip(apart, seed)
    verdict: Verdict = "no difference shown"
    if p < 1 - confidence and between.low is not None and between.high is not None:
        verdict = "better" if between.low > 0 else "worse" if between.high < 0 else verdict
    return Paired(len(apart), between.value, between.low, between.high, p, verdict)


def sign_flip_test(mine: Values, theirs: Values, *, seed: int = 0) -> float:
    """Two-sided p of the mean difference of pairs: were the two alike, any of them could have had the other sign."""
    return _sign_flip(_differences(mine, theirs), seed)


def permutation_test(mine: Values, theirs: Values, *, seed: int = 0) -> float:
    """Two-sided p of the difference of two means: were the two alike, any value could have come from either."""
    a, b = _checked(mine), _checked(theirs)
    pool, count = np.concatenate([a, b]), len(a)
    sums = _every_choice(pool, count) if math.comb(len(pool), count) <= EXACT else _drawn_choices(pool, count, seed)
    means = sums / count - (pool.sum() - sums) / len(b)
    exact = math.comb(len(pool), count) <= EXACT
    return _share_as_large(means, float(a.mean() - b.mean()), float(np.abs(pool).max()), exact)


def _bootstrap(values: Values, centre: Callable[[np.ndarray], Any], confidence: float, seed: int) -> Interval:
    x = _checked(values)
    value = float(centre(x))
    if len(x) == 1:
        return Interval(value, None, None)
    drawn = np.concatenate([centre(x[rows]) for rows in _resampled(len(x), seed)])
    tail = _widened_tail(confidence, len(x))
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Interval(value, min(float(low), value), max(float(high), value))


def _resampled(n: int, seed: int) -> Iterator[np.ndarray]:
    """RESAMPLES rows of n indices, a block at a time."""
    random = np.random.default_rng(seed)
    for count in _blocks(n):
        yield random.integers(n, size=(count, n))


def _blocks(n: int) -> Iterator[int]:
    """RESAMPLES rows in parts, each of at most BLOCK numbers where a row has n."""
    size = max(BLOCK // n, 1)
    for start in range(0, RESAMPLES, size):
        yield min(size, RESAMPLES - start)


def _widened_tail(confidence: float, n: int) -> float:
    """The percentile whose normal quantile is the t quantile, times what a sample's own deviation lacks."""
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * _t(confidence, n - 1))


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise BadConfig(f"BadConfig: confidence must be between 0 and 1, got {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _t(confidence: float, freedom: int) -> float:
    """Student's t quantile by its Cornish-Fisher series: within 1% from 3 degrees of freedom up."""
    z = _z(confidence)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom ** (i + 1) for i, term in enumerate(terms))


def _middle(rows: np.ndarray) -> Any:
    n = rows.shape[-1]
    cut = n // 4
    return np.sort(rows, axis=-1)[..., cut : n - cut].mean(axis=-1)


def _sign_flip(apart: np.ndarray, seed: int) -> float:
    n = len(apart)
    exact = 2**n <= EXACT
    if exact:
        signs = (np.arange(2**n)[:, None] >> np.arange(n)) % 2 * 2 - 1  # [2^n, n]
        means = signs @ apart / n
    else:
        random = np.random.default_rng(seed)
        means = np.concatenate([(random.integers(2, size=(c, n)) * 2 - 1) @ apart / n for c in _blocks(n)])
    return _share_as_large(means, float(apart.mean()), float(np.abs(apart).max()), exact)


def _every_choice(pool: np.ndarray, count: int) -> np.ndarray:
    return np.array([pool[list(chosen)].sum() for chosen in combinations(range(len(pool)), count)])


def _drawn_choices(pool: np.ndarray, count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = (random.permuted(np.tile(pool, (c, 1)), axis=1) for c in _blocks(len(pool)))
    return np.concatenate([row[:, :count].sum(axis=1) for row in rows])


def _share_as_large(means: np.ndarray, seen: float, scale: float, exact: bool) -> float:
    """How often chance is at least as far from 0; what was seen counts as one draw more where not all were tried."""
    slack = 1e-12 * scale  # equal sums in another order differ in their last bits
    hits = int((np.abs(means) >= abs(seen) - slack).sum())
    return hits / len(means) if exact else (hits + 1) / (len(means) + 1)


def _differences(mine: Values, theirs: Values) -> np.ndarray:
    a, b = _checked(mine), _checked(theirs)
    if len(a) != len(b):
        raise BadConfig(f"BadConfig: a paired comparison needs the same seeds on both sides, got {len(a)} and {len(b)}")
    return a - b


def _checked(values: Values) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64).ravel()
    if not len(x):
        raise BadConfig("BadConfig: statistics of no values; give one at least")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).sum())
        raise NotANumber(f"NotANumber: {bad} of {len(x)} values are NaN or infinite; find where they come from first")
    return x
