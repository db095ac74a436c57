"""The results of an arm as a page shows them: mean and interval of each measure over the seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.hypothesis_tests import LEVEL, rounding_variance, welch_of_moments
from reports.significance import FEWEST_SEEDS
from studies.evidence import read_value, variance_of
from studies.results import Row
from studies.study import Study
from studies.units import is_error, is_share

DECADES = 30  # a ratio of values beyond which an axis is logarithmic


@dataclass(frozen=True)
class Summary:
    """The values of a measure over the results of an arm.

    Args:
        arm: its name.
        values: [n] by ascending seed, without those that are missing.
        seeds: [n] of them.
        diverged: [n] whether the result is that of a run that diverged.
        mean: geometric on a logarithmic axis; None without values.
        interval: 99 % interval of the mean over the seeds; None of fewer than three values.
    """

    arm: str
    values: list[float]
    seeds: list[int]
    diverged: list[bool]
    mean: float | None
    interval: tuple[float, float] | None


def summarize(study: Study, rows: Sequence[Row], measure: str) -> list[Summary]:
    """A measure of each arm, in the order of the study."""
    logarithmic = expects_ratio(study, measure)
    return [summarize_arm(name, [row for row in rows if row.arm == name], measure, logarithmic) for name in study.arms]


def summarize_arm(name: str, rows: Sequence[Row], measure: str, logarithmic: bool) -> Summary:
    """A measure of one arm."""
    rows = sorted(rows, key=lambda row: row.seed)
    found = [(row, value) for row in rows if math.isfinite(value := read_value(row, measure))]
    values = [value for _, value in found]
    images = max((row.test_images for row in rows), default=0)
    rounding = rounding_variance(images) if is_error(measure) and images else 0.0
    mean, interval = mean_with_interval(values, logarithmic and all(value > 0 for value in values), rounding)
    if interval and is_share(measure):
        interval = max(0.0, interval[0]), min(1.0, interval[1])
    diverged = [row.state == "diverged" for row, _ in found]
    if all(diverged):  # guessing's value has no interval
        interval = None
    return Summary(name, values, [row.seed for row, _ in found], diverged, mean, interval)


def mean_with_interval(
    values: Sequence[float], logarithmic: bool = False, rounding: float = 0.0
) -> tuple[float | None, tuple[float, float] | None]:
    """Mean of values and its interval.

    Args:
        logarithmic: whether both are geometric.
        rounding: least variance of a value, that of its rounding.
    """
    if not len(values):
        return None, None
    scaled = np.log(values) if logarithmic else np.asarray(values, dtype=float)
    mean, back = float(scaled.mean()), math.exp if logarithmic else float
    if len(values) < FEWEST_SEEDS:
        return back(mean), None
    variance = variance_of(scaled, rounding / back(mean) ** 2 if logarithmic else rounding)
    if not variance:
        return back(mean), (back(mean), back(mean))
    low, high = welch_of_moments(mean, (variance, 0.0), (len(values), math.inf)).interval(LEVEL)
    return back(mean), (back(low), back(high))


def expects_ratio(study: Study, measure: str) -> bool:
    """Whether a statement of the study is about a ratio of this measure."""
    return any(each.factor is not None for each in study.expectations if each.measure == measure)


def is_list(rows: Sequence[Row], measure: str) -> bool:
    """Whether the results hold lists of this measure."""
    return any(isinstance(row.measures.get(measure), list) for row in rows)


def spans_decades(values: Sequence[float]) -> bool:
    """Whether values are all above 0, and so far apart that a linear axis would hide the smaller ones."""
    return bool(len(values)) and min(values) > 0 and max(values) > DECADES * min(values)
