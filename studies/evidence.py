"""What the rows of two arms say about a measure: its values over the seeds, and the difference with its spread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from errors import pluralize
from reports.hypothesis_tests import WelchTest, rounding_variance, welch_of_moments
from reports.significance import FEWEST_SEEDS
from studies.results import Row
from studies.study import Arm, Expectation, Study
from studies.units import EXACT, guessing_value, is_error, measure_name


@dataclass(frozen=True)
class Sample:
    """The values of a measure over the results of an arm, or a number that it is compared with.

    Args:
        name: of the arm.
        values: [n] by ascending seed, in logarithms if a ratio is expected; one value for a number.
        mean: of the values, as the measure has it; None without values.
        seeds: [n] of the results.
        diverged: how many results diverged, and count as guessing.
        rounding: least variance of a value, from the rounding of an error rate; 0 for other measures.
        nets: what was trained: arms with equal ones measured the same nets; None for a number.
        images: number of test images.
        problem: why the values cannot be compared; empty if they can.
    """

    name: str
    values: np.ndarray
    mean: float | None
    seeds: list[int] = field(default_factory=list)
    diverged: int = 0
    rounding: float = 0.0
    nets: tuple | None = None
    images: int = 0
    problem: str = ""

    @property
    def n(self) -> int:
        """Number of results; 0 for a number."""
        return len(self.seeds)

    @property
    def variance(self) -> float:
        """Of a value; 0 for a number, and where all results are equal."""
        if self.nets is None:
            return 0.0
        return variance_of(self.values, self.rounding)


@dataclass(frozen=True)
class Evidence:
    """A difference with its spread.

    Args:
        method: Welch for two groups of runs; "paired t" for two measurements of the same nets; "t" for the difference
            to a number; "exact" where nothing varies.
        difference: mean of A minus that of B.
        variances: of the values of A and of B; 0 for a number.
        sizes: of A and of B; infinite for a number.
    """

    method: str
    difference: float
    variances: tuple[float, float]
    sizes: tuple[float, float]

    @property
    def is_exact(self) -> bool:
        """Whether nothing varies, so that there is no p-value."""
        return self.method == "exact"

    def test(self, shift: float = 0.0, seeds: np.ndarray | None = None) -> WelchTest:
        """The t-test of the hypothesis that the difference is `shift`.

        Args:
            seeds: numbers of results to assume for each arm in place of what there are.
        """
        sizes = [size if seeds is None or math.isinf(size) else seeds for size in self.sizes]
        return welch_of_moments(self.difference - shift, self.variances, sizes)


def read_sample(study: Study, rows: Sequence[Row], name: str | float, expectation: Expectation) -> Sample:
    """The values of an arm for a statement, or those of a number."""
    if not isinstance(name, str):
        return Sample(str(name), np.array([to_scale(name, expectation)]), float(name))
    measure, arm = expectation.measure, study.arms[name]
    rows = sorted((row for row in rows if row.arm == name), key=lambda row: row.seed)
    if measure in EXACT:  # a run that diverged has none, and that of the others is its own too
        rows = [row for row in rows if row.state == "finished"] or rows
    values = [read_value(row, measure) for row in rows]
    problem = find_problem(name, measure, rows, values)
    if not problem and expectation.factor and not all(value > 0 for value in values):
        problem = f"The {measure_name(measure)} of {name} is not above 0 for each seed, and has no ratio."
    found = Sample(
        name,
        np.array([]),
        None,
        [row.seed for row in rows],
        sum(row.state == "diverged" for row in rows),
        nets=nets_of(arm),
        images=max((row.test_images for row in rows), default=0),
        problem=problem,
    )
    return found if problem else with_values(found, values, expectation)


def with_values(sample: Sample, values: Sequence[float], expectation: Expectation) -> Sample:
    """A sample with the values of its results."""
    scaled = np.array([to_scale(value, expectation) for value in values])
    mean = float(np.exp(scaled.mean()) if expectation.factor else scaled.mean())
    if np.ptp(values) == 0:  # a count stays a whole number
        mean = float(values[0])
    rounding = rounding_variance(sample.images) if is_error(expectation.measure) and sample.images else 0.0
    if expectation.factor:  # of a logarithm, to first order
        rounding /= mean**2
    return replace(sample, values=scaled, mean=mean, rounding=rounding)


def read_value(row: Row, measure: str) -> float:
    """The value of a row; NaN where it has none. An error or a loss at the end of a run that diverged is guessing's."""
    value = row.measures.get(measure)
    if row.state == "diverged" and (guess := guessing_value(measure, row.num_classes)) is not None:
        return guess
    return float(value) if isinstance(value, int | float) else math.nan


def to_scale(value: float, expectation: Expectation) -> float:
    """A value, or its logarithm where a ratio is expected."""
    if not expectation.factor:
        return float(value)
    return math.log(value) if value > 0 else math.nan


def find_problem(name: str, measure: str, rows: Sequence[Row], values: Sequence[float]) -> str:
    """Why the values of an arm cannot be compared; empty if they can."""
    if not rows:
        return f"{name} has no results yet."
    if any(isinstance(row.measures.get(measure), list) for row in rows):
        return f"{measure} is a list of values: compare one of them."
    missing = [row for row, value in zip(rows, values, strict=True) if not math.isfinite(value)]
    if missing:
        diverged = sum(row.state == "diverged" for row in missing)
        why = " because it diverged" if diverged == len(missing) == 1 else ""
        why = " because they diverged" if diverged == len(missing) > 1 else why
        return f"{name} has no {measure_name(measure)} in {len(missing)} of {pluralize(len(rows), 'result')}{why}."
    if measure.startswith("test/") and len({row.test_images for row in rows} - {0}) > 1:
        return f"The results of {name} are of different test images."
    if len(rows) < FEWEST_SEEDS and measure not in EXACT:
        return f"{name} has {pluralize(len(rows), 'result')}, and a test over seeds needs {FEWEST_SEEDS} of each arm."
    return ""


def pair_refusal(a: Sample, b: Sample, expectation: Expectation) -> str:
    """Why two samples cannot be compared; empty if they can be."""
    if a.problem or b.problem:
        return a.problem or b.problem
    if not np.isfinite(b.values).all():
        return f"{b.name} is not above 0, and has no ratio."
    are_guesses = guessing_value(expectation.measure, 2) is not None  # of runs that diverged
    if are_guesses and b.nets is not None and a.n == a.diverged and b.n == b.diverged:
        return f"All runs of {a.name} and of {b.name} diverged."
    if expectation.measure.startswith("test/") and len({a.images, b.images} - {0}) > 1:
        return f"{a.name} and {b.name} were tested on different images."
    return ""


def gather(a: Sample, b: Sample) -> Evidence:
    """The difference of two samples, and the test that its spread asks for.

    Two arms that measured the same nets in two ways, such as with one crop and with ten, are compared net by net. Other
    arms share no more than seeds: these give them equal first weights where their layers are equal, and one order of
    the images, and a few steps later nothing of it is left. Their results are as good as independent, and pairing them
    would halve the degrees of freedom for nothing: Welch.
    """
    difference = float(a.values.mean() - b.values.mean())
    sizes = float(a.n), math.inf if b.nets is None else float(b.n)
    if b.nets is None:
        method, variances = "t", (a.variance, 0.0)
    elif a.nets == b.nets and a.seeds == b.seeds:
        differences = a.values - b.values
        method, variances = "paired t", (variance_of(differences, a.rounding + b.rounding), 0.0)
        sizes = float(a.n), math.inf
    else:
        method, variances = "Welch", (a.variance, b.variance)
    return Evidence(method if any(variances) else "exact", difference, variances, sizes)


def variance_of(values: np.ndarray, least: float) -> float:
    """The variance of values, at least that of their rounding; just 0 where all are equal and nothing is rounded."""
    if len(values) < 2 or np.ptp(values) == 0:
        return least
    return max(float(values.var(ddof=1)), least)


def nets_of(arm: Arm) -> tuple:
    """What decides which nets an arm trains."""
    return arm.configs, sorted((arm.settings or {}).items(), key=str), arm.members, arm.start_from
