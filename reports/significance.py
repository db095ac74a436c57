"""Is one run, or one group of runs, better than another? One rule decides each pair: see `compare_pairs`.

Errors are in [0, 1], and lower is better. A difference is that of A minus that of B.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from errors import pluralize
from reports.hypothesis_tests import ALPHA, McNemarTest, WelchTest, holm, holm_levels, mcnemar, welch

FEWEST_SEEDS = 3  # of a group: two runs say next to nothing about their spread
IMAGES_COVER = "the test images, for these two checkpoints"
SEEDS_COVER = "training runs that differ in their seed"
Verdict = Literal["A is better", "B is better", "no evidence of a difference", "not tested"]


@dataclass(frozen=True)
class Sample:
    """One run, or a group of runs that differ in their seed alone, as it was tested.

    Args:
        name: of the run or the group.
        errors: [n] error rate of each run, NaN for one that has diverged.
        images: N, on which each run was tested.
        data_hash: SHA-256 of these images; None if unknown.
        wrong: [N] bool of a single run: whether its prediction is wrong; None if its predictions are missing.
        indices: [N] of the images in their set, if `wrong` leaves some out; None for 0 to N - 1.
        seeds: [n] of the runs, as far as they are known; runs of one seed are no independent ones.
    """

    name: str
    errors: Sequence[float]
    images: int
    data_hash: str | None
    wrong: np.ndarray | None = None
    indices: np.ndarray | None = None
    seeds: Sequence[int | None] = ()

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.errors)


@dataclass(frozen=True)
class Comparison:
    """A pair of samples, A and B.

    Args:
        a, b: their names.
        method: the test that decided; None if none did.
        n: number of runs of each.
        difference: mean error of A minus that of B, in [-1, 1]; None where there is none.
        interval: 99 % interval of the difference.
        interval_covers: the kind of variation that the interval is about.
        p: p-value of the test, two-sided.
        p_holm: p-value after Holm's correction for all pairs.
        smallest_detectable: the smallest absolute difference that would have counted as evidence, with as many images,
            and as many of them on which A and B disagree, or with as many seeds and their spread; None if none would.
        verdict: by `p_holm` < ALPHA.
        reason: why the pair is not tested, and what to do about it: one sentence.
        wrong_alone: number of images on which A alone is wrong, and B alone; of single runs.
    """

    a: str
    b: str
    method: Literal["McNemar", "Welch"] | None
    n: tuple[int, int]
    difference: float | None = None
    interval: tuple[float, float] | None = None
    interval_covers: str = ""
    p: float | None = None
    p_holm: float | None = None
    smallest_detectable: float | None = None
    verdict: Verdict = "not tested"
    reason: str = ""
    wrong_alone: tuple[int, int] | None = None

    def to_plain(self) -> dict[str, Any]:
        """Everything, for JSON."""
        plain = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def sentence(self) -> str:
        """The verdict with its numbers, in the names of the samples."""
        if self.p_holm is None or self.difference is None:
            return f"{self.a} and {self.b} are not tested against each other: {self.reason}"
        p = format_p(self.p_holm)
        if self.verdict == "no evidence of a difference":
            limit, unit = self.smallest_detectable, "points of error"
            least = "no difference could have been" if limit is None else f"{100 * limit:.2f} {unit} would have been"
            return f"No evidence of a difference between {self.a} and {self.b} ({p}); {least} enough."
        better, worse = (self.a, self.b) if self.verdict == "A is better" else (self.b, self.a)
        return f"{better} is better than {worse} by {100 * abs(self.difference):.2f} points of error ({p})."


def format_p(p: float) -> str:
    """A p-value for a sentence, such as "p = 0.0012" or "p < 0.0001"."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def compare_pairs(
    pairs: Sequence[tuple[Sample, Sample]], alpha: float = ALPHA, chosen_from: int = 0
) -> list[Comparison]:
    """Compare the samples of each pair, and correct the p-values for the number of pairs that are tested.

    - One run against one run, with predictions on the same images: McNemar's exact test. It is a statement about these
      two checkpoints: another seed may turn it round.
    - Two groups of at least 3 runs each, tested on the same images: Welch's t-test over the seeds. It is a statement
      about the two recipes.
    - Anything else is not tested; `Comparison.reason` says why.

    Args:
        pairs: all that a report shows.
        alpha: probability of saying "better" of any pair of equals.
        chosen_from: number of pairs among which these were chosen for their errors, such as those of the best sample:
            they are corrected for all of them, the p-values of the others being taken to be 1.
    """
    tests = [_test(a, b) for a, b in pairs]
    p_values = np.array([test.p for test in tests if isinstance(test, McNemarTest | WelchTest)])
    p_values = np.append(p_values, np.ones(max(chosen_from - len(pairs), 0)))
    corrected = zip(holm(p_values).tolist(), holm_levels(p_values, alpha).tolist(), strict=True)
    return [
        Comparison(a.name, b.name, None, (a.n, b.n), _difference(a, b), reason=test)
        if isinstance(test, str)
        else _compare(a, b, test, *next(corrected), alpha)
        for (a, b), test in zip(pairs, tests, strict=True)
    ]


def _test(a: Sample, b: Sample) -> McNemarTest | WelchTest | str:
    """The test that decides a pair, or the reason why none does."""
    if reason := refusal(a, b):
        return reason
    if a.n == 1:
        assert a.wrong is not None and b.wrong is not None
        return mcnemar(a.wrong, b.wrong)
    return welch(np.array(a.errors), np.array(b.errors), a.images)


def _compare(
    a: Sample, b: Sample, test: McNemarTest | WelchTest, p_holm: float, level: float, alpha: float
) -> Comparison:
    difference = float(test.difference)
    evidence: Verdict = "A is better" if difference < 0 else "B is better"
    method: Literal["McNemar", "Welch"] = "McNemar" if isinstance(test, McNemarTest) else "Welch"
    return Comparison(
        a.name,
        b.name,
        method,
        (a.n, b.n),
        difference,
        test.interval(),
        IMAGES_COVER if method == "McNemar" else SEEDS_COVER,
        float(test.p),
        p_holm,
        test.smallest_detectable(level),
        evidence if p_holm < alpha else "no evidence of a difference",
        wrong_alone=(int(test.a_alone), int(test.b_alone)) if isinstance(test, McNemarTest) else None,
    )


def _difference(a: Sample, b: Sample) -> float | None:
    """Of the mean errors, for a pair that is not tested; None where they are not of the same images."""
    if not a.n or not b.n or a.data_hash is None or a.data_hash != b.data_hash:
        return None
    difference = float(np.mean(a.errors) - np.mean(b.errors))
    return difference if math.isfinite(difference) else None


def refusal(a: Sample, b: Sample) -> str:
    """Why a pair cannot be tested, and what to do about it; empty if it can be."""
    names = f"{a.name} and {b.name}"
    for each in (a, b):
        if not each.n:
            return f"{each.name} has no result: run `main.py test` on it."
        if diverged := int(np.sum(~np.isfinite(each.errors))):
            if diverged == each.n:
                return f"{each.name} diverged: there is no error to compare."
            return (
                f"{pluralize(diverged, 'run')} of {each.name} of {each.n} diverged, and the others alone would flatter "
                "it: leave the diverged runs out yourself, if you mean to compare the others."
            )
        if each.data_hash is None or not each.images:
            return f"It is not known on which images {each.name} was tested: rerun `main.py test` on it."
    if a.data_hash != b.data_hash or a.images != b.images:
        return f"{names} were tested on different images: test both on the same, with --data.root."
    if a.n == b.n == 1:
        return _refuse_predictions(a, b)
    few = [each for each in (a, b) if each.n < FEWEST_SEEDS]
    if few:
        counts = " and ".join(f"{each.name} has {pluralize(each.n, 'run')}" for each in few)
        return f"{counts}, and a test over seeds needs {FEWEST_SEEDS} of each group: train with more seeds."
    for each in (a, b):
        known = [seed for seed in each.seeds if seed is not None]
        if len(set(known)) < len(known):
            return f"Runs of {each.name} have the same seed, and are not independent: leave out all but one of them."
        if len(known) < len(each.seeds):
            return f"The seeds of some runs of {each.name} are unknown, which may be copies of each other."
    return ""


def _refuse_predictions(a: Sample, b: Sample) -> str:
    """`refusal` of two single runs on the same set."""
    missing = " and ".join(each.name for each in (a, b) if each.wrong is None)
    if missing:
        return f"The predictions of {missing} are missing: rerun `main.py test`, which leaves them beside the run."
    indices = [np.arange(each.images) if each.indices is None else each.indices for each in (a, b)]
    if not np.array_equal(indices[0], indices[1]):
        return (
            f"{a.name} and {b.name} were tested on different images, since some could not be read: repair the files "
            "and test both again."
        )
    return ""
