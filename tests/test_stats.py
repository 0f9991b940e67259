"""Intervals and comparisons against numbers worked out by hand, and against how often simulated truth is covered."""

import json
import math

import numpy as np
import pytest

from drivetrain import stats
from drivetrain.errors import BadConfig, NotANumber

NONE = "no difference shown"


def covered(interval, truth):
    return interval.low <= truth <= interval.high


def test_the_summary_of_eight_numbers():
    said = stats.summary([2, 4, 4, 4, 5, 5, 7, 9])  # squares of the distances from 5 add up to 32
    assert (said.n, said.mean, said.iqm) == (8, 5.0, 4.5)  # the middle four are 4, 4, 5, 5
    assert said.std == pytest.approx(math.sqrt(32 / 7))
    assert said.low < said.mean < said.high
    assert said.iqm_low <= said.iqm <= said.iqm_high


@pytest.mark.parametrize(
    ("values", "middle"),
    [([9], 9), ([1, 2, 9], 4), ([1, 2, 4, 90], 3), ([0, 0, 5, 7, 1e9], 4), (range(12), 5.5), ([-1e9, *[3] * 6, 8], 3)],
)
def test_the_interquartile_mean_drops_a_quarter_at_each_end(values, middle):
    assert stats.iqm(list(values)) == middle
    assert stats.iqm(list(values)[::-1]) == middle


def test_one_value_has_no_interval():
    said = stats.summary([3.5])
    assert (said.mean, said.std, said.iqm) == (3.5, 0.0, 3.5)
    assert (said.low, said.high, said.iqm_low, said.iqm_high) == (None, None, None, None)


def test_equal_values_are_their_own_interval():
    said = stats.summary([500.0] * 20)
    assert {said.mean, said.low, said.high, said.iqm, said.iqm_low, said.iqm_high} == {500.0}
    assert said.std == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("count", [stats.summary, stats.iqm, stats.mean_interval, lambda x: stats.paired([1, 2], x)])
def test_what_is_no_number_is_refused(count, bad):
    with pytest.raises(NotANumber, match="1 of 2 values are NaN or infinite"):
        count([1.0, bad])


def test_nothing_is_refused():
    with pytest.raises(BadConfig, match="no values"):
        stats.summary([])


def test_the_same_values_and_seed_give_the_same_interval():
    values = np.random.default_rng(1).normal(size=30)
    assert stats.summary(values) == stats.summary(list(values))
    assert stats.mean_interval(values, seed=1) != stats.mean_interval(values, seed=2)


def test_what_is_kept_is_plain_json():
    for said in (stats.summary([1, 2]), stats.summary([1]), stats.paired([1, 2], [2, 1]), stats.wilson(1, 3)):
        assert json.loads(json.dumps(said.to_json(), allow_nan=False)) == said.to_json()


@pytest.mark.parametrize(
    ("confidence", "freedom", "table"), [(0.95, 4, 2.776), (0.95, 9, 2.262), (0.95, 29, 2.045), (0.9, 9, 1.833)]
)
def test_the_t_quantile_is_the_one_in_the_tables(confidence, freedom, table):
    assert stats._t(confidence, freedom) == pytest.approx(table, rel=0.005)


def test_a_normal_samples_interval_is_as_wide_as_students():
    values = np.random.default_rng(0).normal(size=200)
    half = 1.972 * values.std(ddof=1) / math.sqrt(200)  # t with 199 degrees of freedom, from a table
    found = stats.mean_interval(values)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)
    assert stats.mean_interval(values, confidence=0.8).high < found.high


@pytest.fixture
def fewer(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 1000)


@pytest.mark.parametrize("n", [10, 25])
@pytest.mark.usefixtures("fewer")
def test_the_interval_covers_the_mean_19_times_of_20(n):
    random = np.random.default_rng(n)
    hits = sum(covered(stats.mean_interval(random.normal(7, 3, n), seed=i), 7) for i in range(800))
    assert 0.92 < hits / 800 < 0.975  # 0.95 give or take three standard errors


@pytest.mark.usefixtures("fewer")
def test_the_interval_of_the_iqm_covers_it_despite_heavy_tails():
    random = np.random.default_rng(0)
    hits = sum(covered(stats.iqm_interval(random.standard_t(2, 30), seed=i), 0) for i in range(400))
    assert 0.91 < hits / 400 < 0.99


def test_a_large_sample_is_drawn_in_blocks(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    whole = stats.mean_interval(values)
    monkeypatch.setattr(stats, "BLOCK", 50 * 7)
    parts = stats.mean_interval(values)
    assert (parts.low, parts.high) == (whole.low, whole.high)


def test_groups_of_like_values_are_as_many_values_as_groups():
    alike = stats.nested([[500.0] * 20, [500.0] * 20, [100.0] * 20])
    assert alike.value == pytest.approx(1100 / 3)
    assert (alike.low, alike.high) == (100.0, 500.0), "of three trainings one may be what the next are"
    pooled = stats.mean_interval([500.0] * 40 + [100.0] * 20)
    assert pooled.high - pooled.low < 110


def test_groups_that_do_not_differ_are_pooled_nearly():
    random = np.random.default_rng(0)
    groups = [random.normal(0, 1, 50) for _ in range(20)]
    mine, pooled = stats.nested(groups), stats.mean_interval(np.concatenate(groups))
    assert mine.value == pytest.approx(pooled.value)
    assert 0.9 < (mine.high - mine.low) / (pooled.high - pooled.low) < 2.2


def test_one_group_is_its_own_interval():
    assert stats.nested([[1.0, 2.0, 4.0]]) == stats.mean_interval([1.0, 2.0, 4.0])
    with pytest.raises(BadConfig, match="no group"):
        stats.nested([])


@pytest.mark.usefixtures("fewer")
def test_the_interval_of_eight_groups_covers_the_mean():
    random = np.random.default_rng(3)
    hits = 0
    for i in range(200):
        centres = random.normal(7, 3, 8)
        hits += covered(stats.nested([random.normal(centre, 2, 10) for centre in centres], seed=i), 7)
    assert hits / 200 > 0.9


def test_wilson_by_hand():
    said = stats.wilson(8, 10)  # (0.8 + 0.19207 +- 1.95996 * sqrt(0.016 + 0.0096037)) / 1.38415
    assert said.value == 0.8
    assert said.low == pytest.approx(0.49016, abs=1e-5)
    assert said.high == pytest.approx(0.94332, abs=1e-5)


def test_wilson_at_the_ends():
    none, all_ = stats.wilson(0, 10), stats.wilson(10, 10)
    assert (none.low, all_.high) == (0.0, 1.0)
    assert none.high == pytest.approx(3.8415 / 13.8415, abs=1e-4)  # z^2 / (n + z^2)
    assert all_.low == pytest.approx(1 - none.high)


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_wilson_covers_the_rate(rate):
    counts = np.random.default_rng(0).binomial(30, rate, 2000)
    assert 0.92 < np.mean([covered(stats.wilson(int(k), 30), rate) for k in counts]) < 0.985


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(BadConfig, match="successes of"):
        stats.wilson(successes, trials)


def test_an_impossible_confidence_is_refused():
    with pytest.raises(BadConfig, match="between 0 and 1, got 95"):
        stats.mean_interval([1, 2], confidence=95)


def test_flipped_signs_by_hand():
    assert stats.sign_flip_test([1, 2, 3], [0, 0, 0]) == 2 / 8  # all plus or all minus, of eight
    assert stats.sign_flip_test([1, 2, -3], [0, 0, 0]) == 1.0  # a mean of 0 is as near as can be
    assert stats.sign_flip_test([1, 1, 1, -1], [0, 0, 0, 0]) == 10 / 16  # 1 + 4 + 4 + 1 are at least as far from 0


def test_rounding_does_not_hide_an_equal_sum():
    assert stats.sign_flip_test([0.1, 0.2, 0.3], [0, 0, 0]) == 2 / 8
    assert stats.sign_flip_test([0.1, 0.2, -0.3], [0, 0, 0]) == 1.0


def test_permutations_by_hand():
    assert stats.permutation_test([1, 2, 3], [4, 5, 6]) == 2 / 20
    assert stats.permutation_test([1, 2], [3]) == 2 / 3  # 3 alone and 1 alone, of three
    assert stats.permutation_test([5, 5, 5], [5, 5]) == 1.0


def test_drawn_rearrangements_agree_with_all_of_them(monkeypatch):
    random = np.random.default_rng(3)
    a, b = random.normal(0.6, 1, 8), random.normal(0, 1, 8)
    flipped, mixed = stats.sign_flip_test(a, b), stats.permutation_test(a, b)
    monkeypatch.setattr(stats, "EXACT", 0)
    assert 0.01 < flipped < 0.9
    assert 0.01 < mixed < 0.9
    assert stats.sign_flip_test(a, b) == pytest.approx(flipped, abs=0.02)
    assert stats.permutation_test(a, b) == pytest.approx(mixed, abs=0.02)


def test_drawn_rearrangements_never_say_never():
    a = np.arange(40.0)
    assert stats.sign_flip_test(a + 100, a) == 1 / 10_001
    assert stats.permutation_test(a + 100, a) == 1 / 10_001


@pytest.mark.parametrize("test", [stats.sign_flip_test, stats.permutation_test])
@pytest.mark.usefixtures("fewer")
def test_p_is_below_five_percent_in_five_percent_of_the_draws_that_are_alike(test):
    random = np.random.default_rng(0)
    early = sum(test(random.normal(size=16), random.normal(size=16), seed=i) < 0.05 for i in range(500))
    assert 0.02 < early / 500 < 0.09


def test_better_and_worse_are_mirror_images():
    mine, theirs = [10, 12, 9, 11, 13, 10, 12], [7, 8, 9, 7, 9, 6, 8]
    better, worse = stats.paired(mine, theirs), stats.paired(theirs, mine)
    assert (better.verdict, worse.verdict) == ("better", "worse")
    assert better.difference == pytest.approx(23 / 7)
    assert better.difference == -worse.difference
    assert better.p == worse.p == 4 / 128  # one pair is equal: its sign does not matter
    assert better.low > 0 > worse.high


def test_pairing_sees_what_the_spread_of_the_seeds_hides():
    hard = np.random.default_rng(0).normal(0, 100, 20)
    gain = np.random.default_rng(1).normal(3, 1, 20)
    assert stats.paired(hard + gain, hard).verdict == "better"
    assert stats.permutation_test(hard + gain, hard) > 0.5


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [([1] * 5, [1] * 5), ([9], [1]), ([9, 9, 9, 9, 9], [1, 2, 3, 4, 5]), ([1, 5, 2, 8, 3, 9], [2, 4, 3, 7, 4, 8])],
    ids=["equal", "one pair", "five pairs", "small beside the spread"],
)
def test_where_nothing_is_shown_nothing_is_said(mine, theirs):
    assert stats.paired(mine, theirs).verdict == NONE


@pytest.mark.usefixtures("fewer")
def test_policies_that_are_alike_are_rarely_told_apart():
    random = np.random.default_rng(0)
    said = [stats.paired(random.normal(size=20), random.normal(size=20), seed=i).verdict for i in range(400)]
    assert 0 < sum(v != NONE for v in said) < 400 * 0.08
    assert {"better", "worse"} <= set(said)


def test_pairs_must_be_pairs():
    with pytest.raises(BadConfig, match="got 3 and 2"):
        stats.paired([1, 2, 3], [1, 2])


def test_a_constant_answer_correlates_with_nothing():
    assert stats.correlation(np.full(9, 45.0), np.arange(9.0)).value == 0.0
    assert stats.correlation(np.arange(9.0), np.arange(9.0) * 3).value == pytest.approx(1.0)


def test_a_correlation_lies_in_its_interval_as_often_as_said():
    random, inside = np.random.default_rng(0), 0
    for _ in range(400):
        a = random.normal(size=40)
        found = stats.correlation(a, 0.6 * a + 0.8 * random.normal(size=40))
        inside += found.low < 0.6 < found.high
    assert 0.92 < inside / 400 < 0.98


def test_correlations_need_pairs():
    with pytest.raises(BadConfig, match="as many values"):
        stats.correlation([1, 2], [1, 2, 3])
    assert stats.correlation([1, 2, 3], [1, 2, 4]).low is None


def test_rates_have_garwoods_interval():
    none, ten = stats.per(0, 2.0), stats.per(10, 5.0)
    assert (none.value, none.low, none.high) == pytest.approx((0.0, 0.0, 3.6889 / 2), abs=1e-4)
    assert (ten.value, ten.low, ten.high) == pytest.approx((2.0, 4.7954 / 5, 18.3904 / 5), abs=1e-4)
    with pytest.raises(BadConfig, match="exposure"):
        stats.per(1, 0.0)
