"""McNemar's and Welch's tests with their intervals, and Holm's correction.

Errors are in [0, 1]. A difference is the error of A minus that of B.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from reports import metrics

ALPHA = 0.01  # of all pairs of a report together
LEVEL = 0.99  # of the intervals


class McNemarTest(NamedTuple):
    """McNemar's exact test of two checkpoints; the counts may be arrays, of many tests at once.

    Args:
        a_alone: number of images on which A alone is wrong.
        b_alone: number of images on which B alone is wrong.
        images: N, tested.
    """

    a_alone: np.ndarray
    b_alone: np.ndarray
    images: int

    @property
    def difference(self) -> np.ndarray:
        """Error of A minus that of B."""
        return (self.a_alone - self.b_alone) / self.images

    @property
    def p(self) -> np.ndarray:
        """Two-sided p-value: under the null hypothesis A alone is wrong on half of the discordant images, at random."""
        fewer = np.minimum(self.a_alone, self.b_alone)
        return np.minimum(1.0, 2 * stats.binom.cdf(fewer, self.a_alone + self.b_alone, 0.5))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Paired percentile bootstrap over the images.

        If all images are alike (the runs agree on each, or A alone is wrong on each) it would have no width. Then the
        exact upper bound of the share of other images is taken, and the interval holds what they could change.
        """
        a, b = int(self.a_alone), int(self.b_alone)
        counts = [a, b, self.images - a - b]
        if max(counts) == self.images:
            middle, others = (a - b) / self.images, 1 - (1 - level) ** (1 / self.images)
            change = others * (1 + abs(middle))  # from 1 to -1 it is two
            return max(-1.0, middle - change), min(1.0, middle + change)
        return metrics.bootstrap_interval(np.repeat([1, -1, 0], counts), level)

    def smallest_detectable(self, level: float) -> float | None:
        """The smallest absolute difference with p < level and as many discordant images.

        If that many cannot be significant: with the fewest that can, when A alone is wrong on all of them. None if
        these are more than all images.
        """
        discordant = int(self.a_alone + self.b_alone)
        fewest = math.floor(1 - math.log2(level)) + 1  # 2 * 0.5^n < level
        if discordant < fewest:
            return fewest / self.images if fewest <= self.images else None
        fewer = stats.binom.ppf(level / 2, discordant, 0.5) - 1  # 2 * cdf(fewer) < level
        return float(discordant - 2 * fewer) / self.images


def mcnemar(a_wrong: np.ndarray, b_wrong: np.ndarray) -> McNemarTest:
    """McNemar's exact test: [..., N] bool each, whether the predictions of A and of B are wrong for each image."""
    a_alone, b_alone = (a_wrong & ~b_wrong).sum(axis=-1), (b_wrong & ~a_wrong).sum(axis=-1)
    return McNemarTest(a_alone, b_alone, a_wrong.shape[-1])


class WelchTest(NamedTuple):
    """Welch's t-test of two groups; the values may be arrays, of many tests at once.

    Args:
        difference: mean error of A minus that of B.
        standard_error: of the difference.
        degrees: of freedom.
    """

    difference: np.ndarray
    standard_error: np.ndarray
    degrees: np.ndarray

    @property
    def p(self) -> np.ndarray:
        """Two-sided p-value."""
        return 2 * stats.t.sf(np.abs(self.difference) / self.standard_error, self.degrees)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Interval of the difference that training runs with other seeds would have."""
        half = self._critical(1 - level)
        return float(self.difference) - half, float(self.difference) + half

    def smallest_detectable(self, level: float) -> float:
        """The smallest absolute difference with p < level, with the same spread."""
        return self._critical(level)

    def _critical(self, alpha: float) -> float:
        return float(stats.t.isf(alpha / 2, self.degrees) * self.standard_error)


def welch(a_errors: np.ndarray, b_errors: np.ndarray, images: int) -> WelchTest:
    """Welch's t-test over seeds.

    An error rate on N images is a multiple of 1/N: whatever a recipe's error would be on an endless test set of the
    same kind, it is known to the nearest 1/N at best. This rounding has a variance of 1/(12 N^2) by itself (that of a
    uniform distribution over an interval of 1/N, Sheppard's correction), and a group whose runs all have the same
    number of errors shows that its spread is below it, not that it is 0. So no group's variance is taken to be less
    than that. Without it, three runs with 7 errors each against three with 8 would give p = 0. Where the spread is
    larger, the result is that of `scipy.stats.ttest_ind(equal_var=False)`.

    Args:
        a_errors: [..., n] error rates of the runs of A, n >= 2, none NaN.
        b_errors: the same of B.
        images: N.
    """
    rounding = rounding_variance(images)
    variances = [np.maximum(errors.var(axis=-1, ddof=1), rounding) for errors in (a_errors, b_errors)]
    sizes = [float(errors.shape[-1]) for errors in (a_errors, b_errors)]
    return welch_of_moments(a_errors.mean(axis=-1) - b_errors.mean(axis=-1), variances, sizes)


def rounding_variance(images: int) -> float:
    """The variance of rounding an error rate to a multiple of 1/N."""
    return 1 / (12 * images**2)


def welch_of_moments(
    difference: np.ndarray | float, variances: Sequence[np.ndarray | float], sizes: Sequence[np.ndarray | float]
) -> WelchTest:
    """Welch's t-test of two groups whose means differ by so much.

    Args:
        difference: mean of A minus that of B.
        variances: of A and of B, each estimated from its values; 0 for a number that is known.
        sizes: numbers of values; infinite for a number that is known.
    """
    squares = [variance / size for variance, size in zip(variances, sizes, strict=True)]
    total = np.asarray(squares[0] + squares[1])
    freedom = [size - 1 for size in sizes]
    degrees = total**2 / (squares[0] ** 2 / freedom[0] + squares[1] ** 2 / freedom[1])
    return WelchTest(np.asarray(difference), np.sqrt(total), degrees)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979): [m]."""
    order = np.argsort(p_values, kind="stable")
    steps = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps * p_values[order]))
    return corrected


def holm_levels(p_values: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """The level below which each p-value counts as evidence, given all others: [m], from alpha / m to alpha.

    With r of the others rejected, whatever this one is, Holm's procedure leaves alpha / (m - r) for it.
    """
    m = len(p_values)
    others = np.where(np.eye(m, dtype=bool), 1.0, p_values)  # a row for each pair, which is the last to be rejected
    limits = alpha / np.arange(m, 0, -1)
    rejected = np.logical_and.accumulate(np.sort(others, axis=1) < limits, axis=1).sum(axis=1)
    return alpha / (m - rejected)
