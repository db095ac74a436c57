"""McNemar's and Welch's tests: equal to scipy's and statsmodels', seldom wrong of equals, and seldom blind."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from reports import metrics
from reports.hypothesis_tests import ALPHA, LEVEL, McNemarTest, holm, holm_levels, mcnemar, welch

CLOSE = {"rel": 1e-12, "abs": 1e-12}
PAIRS = 1000


def errors_of(rng, *rates, images, easy=0.0):
    """[PAIRS, N] bool for each rate of errors. `easy` is a share of the images on which nobody errs: it makes errors
    correlated, as those of real nets are."""
    hard = rng.random((PAIRS, images), dtype=np.float32) >= easy
    return [hard & (rng.random((PAIRS, images), dtype=np.float32) < rate / (1 - easy)) for rate in rates]


# Known cases


@pytest.mark.parametrize(
    ("a_alone", "b_alone"), [(0, 0), (1, 0), (0, 8), (7, 7), (12, 3), (40, 71), (0, 300), (5000, 4800)]
)
def test_mcnemar_is_the_exact_binomial_test(a_alone, b_alone):
    p = float(McNemarTest(np.int64(a_alone), np.int64(b_alone), 10_000).p)
    if a_alone + b_alone:
        assert p == pytest.approx(stats.binomtest(a_alone, a_alone + b_alone).pvalue, **CLOSE)
        table = [[100, a_alone], [b_alone, 100]]
        assert p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue, **CLOSE)
    else:
        assert p == 1


def test_mcnemar_counts_discordant_images():
    a = np.array([1, 1, 1, 0, 0, 1, 0, 0], dtype=bool)
    b = np.array([1, 0, 0, 0, 1, 0, 0, 0], dtype=bool)
    test = mcnemar(a, b)
    assert (test.a_alone, test.b_alone, test.images) == (3, 1, 8)
    assert test.difference == a.mean() - b.mean() == 0.25


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0.081, 0.085, 0.079], [0.092, 0.0911, 0.0987]),
        ([0.0812, 0.0853, 0.0791, 0.08, 0.0822], [0.0805, 0.0849, 0.0837]),
        ([0.5, 0.1, 0.9, 0.3, 0.2], [0.0101, 0.0102, 0.0103, 0.0104, 0.0105]),
    ],
)
def test_welch_is_that_of_scipy_and_statsmodels(a, b):
    test = welch(np.array(a), np.array(b), images=10_000)
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert float(test.p) == pytest.approx(expected.pvalue, **CLOSE)
    assert float(test.degrees) == pytest.approx(expected.df, **CLOSE)
    assert test.interval() == pytest.approx(tuple(expected.confidence_interval(LEVEL)), **CLOSE)
    means = CompareMeans(DescrStatsW(a), DescrStatsW(b))
    assert test.interval() == pytest.approx(means.tconfint_diff(1 - LEVEL, usevar="unequal"), **CLOSE)


@pytest.mark.parametrize("count", [0, 1, 45])
def test_holm_is_that_of_statsmodels(count):
    p_values = np.random.default_rng(count).beta(0.2, 2, size=count)
    p_values[-3:] = p_values[:1]  # some are equal
    expected = multipletests(p_values, ALPHA, method="holm") if count else ([], [])
    assert holm(p_values) == pytest.approx(expected[1], **CLOSE)
    assert (holm(p_values) < ALPHA).tolist() == list(expected[0])


def test_levels_of_holm_decide_as_holm_does():
    for seed in range(50):
        p_values = np.random.default_rng(seed).beta(0.15, 3, size=12)
        levels = holm_levels(p_values)
        assert ((holm(p_values) < ALPHA) == (p_values < levels)).all()
        assert levels.min() >= ALPHA / 12
    assert holm_levels(np.array([0.5, 0.5, 0.5, 0.5])) == pytest.approx([ALPHA / 4] * 4)
    assert holm_levels(np.array([0.5, 1e-9, 1e-9, 0.4])) == pytest.approx([ALPHA / 2, ALPHA / 3, ALPHA / 3, ALPHA / 2])


def test_interval_over_images_is_the_paired_bootstrap():
    rng = np.random.default_rng(3)
    a, b = rng.random(2000) < 0.2, rng.random(2000) < 0.1
    low, high = mcnemar(a, b).interval()
    difference = a.astype(int) - b
    assert (low, high) == metrics.bootstrap_interval(difference, 0.99)
    expected = stats.norm.interval(0.99, difference.mean(), difference.std() / math.sqrt(2000))
    assert (low, high) == pytest.approx(expected, abs=0.002)


def test_an_interval_over_images_always_has_a_width():
    interval = {counts: McNemarTest(*map(np.int64, counts), 36).interval() for counts in [(0, 0), (36, 0), (0, 36)]}
    others = interval[0, 0][1]
    assert stats.binom.pmf(0, 36, others) == pytest.approx(0.01)
    assert interval[36, 0] == pytest.approx((1 - 2 * others, 1))
    assert interval[0, 36] == pytest.approx((-1, 2 * others - 1))
    assert McNemarTest(np.int64(1), np.int64(0), 1).interval() == pytest.approx((-0.98, 1))


# The smallest difference that would count


@pytest.mark.parametrize("level", [0.01, 0.01 / 3, 0.01 / 45, 2.0**-7])
@pytest.mark.parametrize("discordant", [9, 20, 101, 400])
def test_smallest_difference_of_mcnemar_is_at_the_edge(discordant, level):
    for a_alone in range(discordant + 1):
        test = McNemarTest(np.int64(a_alone), np.int64(discordant - a_alone), 1000)
        smallest = test.smallest_detectable(level)
        if smallest * 1000 <= discordant:
            assert (test.p < level) == (abs(test.difference) >= smallest - 1e-12)
        else:
            assert test.p >= level


def test_few_discordant_images_cannot_count():
    assert McNemarTest(np.int64(3), np.int64(0), 360).smallest_detectable(0.01) == 8 / 360  # 2 / 2^8 < 0.01 < 2 / 2^7
    assert McNemarTest(np.int64(0), np.int64(0), 360).smallest_detectable(2 / 2**7) == 8 / 360
    assert McNemarTest(np.int64(3), np.int64(0), 5).smallest_detectable(0.01) is None


def test_smallest_difference_of_welch_is_at_the_edge():
    a = np.array([0.081, 0.085, 0.079, 0.08])
    smallest = welch(a, a, 10_000).smallest_detectable(0.002)
    for factor in (0.999, 1.001):
        assert (welch(a, a + factor * smallest, 10_000).p < 0.002) == (factor > 1)


# Runs with equal errors


def test_equal_errors_of_all_seeds_are_no_certainty():
    """Without a least variance the t-statistic of one image more would be infinite."""
    seven, eight, ten = (np.full(3, errors) / 360 for errors in (7, 8, 10))
    assert welch(seven, eight, 360).p > ALPHA
    assert 1e-6 < welch(seven, ten, 360).p < ALPHA
    assert welch(seven, seven, 360).p == 1
    rounding = math.sqrt(2 / 12 / 3) / 360
    assert welch(seven, eight, 360).standard_error == pytest.approx(rounding, rel=1e-12)


# Equals are seldom called unequal


@pytest.mark.parametrize(
    ("images", "rate", "easy"),
    [(10_000, 0.01, 0.0), (10_000, 0.08, 0.8), (10_000, 0.3, 0.5), (360, 0.02, 0.9), (360, 0.1, 0.0)],
)
def test_mcnemar_under_the_null(images, rate, easy):
    rng = np.random.default_rng(images + int(100 * rate))
    tests = mcnemar(*errors_of(rng, rate, rate, images=images, easy=easy))
    assert np.mean(tests.p < ALPHA) <= 0.02


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("images", "spread"), [(10**9, 0.0025), (360, 0.0005), (360, 0.0025), (360, 0.01)])
def test_welch_under_the_null(seeds, images, spread):
    rng = np.random.default_rng(seeds)
    a, b = (np.round(rng.normal(0.08, spread, (PAIRS, seeds)) * images) / images for _ in range(2))
    assert np.mean(welch(a, b, images).p < ALPHA) <= 0.02


# A difference of 2 points is seldom missed


def test_mcnemar_finds_two_points():
    tests = mcnemar(*errors_of(np.random.default_rng(0), 0.08, 0.10, images=10_000))
    assert np.mean((tests.p < ALPHA) & (tests.difference < 0)) >= 0.95


def test_welch_finds_two_points():
    rng = np.random.default_rng(0)
    a, b = (np.round(rng.normal(rate, 0.0025, (PAIRS, 5)), 4) for rate in (0.10, 0.08))
    tests = welch(a, b, 10_000)
    assert np.mean((tests.p < ALPHA) & (tests.difference > 0)) >= 0.95
