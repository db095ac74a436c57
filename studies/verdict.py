"""The verdict on a study: which of its statements the rows of its arms support, and what it would take to decide.

One rule decides each statement, see `decide`. Differences are those of the arm minus the other one.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from errors import pluralize
from reports.chart_data import replace_nonfinite
from reports.hypothesis_tests import ALPHA, LEVEL, holm, holm_levels
from reports.significance import FEWEST_SEEDS
from studies.evidence import Evidence, Sample, gather, pair_refusal, read_sample
from studies.results import Row
from studies.study import Expectation, Study
from studies.wording import state_finding

Outcome = Literal["supported", "not supported", "undecided at this budget"]
MOST_SEEDS = 100  # per arm that anybody would train
FIRST = 2  # findings in the sentences of a verdict


@dataclass(frozen=True)
class Finding:
    """A statement of the claim, and what the results say of it.

    Args:
        expectation: the statement.
        outcome: by `p_holm` < ALPHA, or by comparison where the seeds do not differ.
        n: number of results of the arm and of the other one; 0 for a number.
        diverged: how many of them diverged, and count as guessing.
        means: of both over the seeds, geometric ones with a factor; None where there is none.
        method: the test; "exact" where the seeds do not differ, None where nothing was compared.
        difference: mean of the arm minus that of the other, or their ratio with a factor.
        interval: 99 % interval of the difference, or of the ratio.
        p: two-sided p-value of the hypothesis that the difference is the smallest one that counts.
        p_holm: the same after Holm's correction for all statements of the study that are tested.
        seeds_needed: results of each arm that would decide, if difference and spread stay; None if more than 100, or
            where it is not undecided.
        reason: why nothing was compared; empty otherwise.
    """

    expectation: Expectation
    outcome: Outcome
    n: tuple[int, int]
    diverged: tuple[int, int]
    means: tuple[float | None, float | None]
    method: str | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    p_holm: float | None = None
    seeds_needed: int | None = None
    reason: str = ""

    def sentence(self) -> str:
        """What was found, with its numbers."""
        return state_finding(self)

    @property
    def takes(self) -> str:
        """What would decide an undecided statement; empty for others."""
        if self.outcome != "undecided at this budget":
            return ""
        if self.method is None:
            return self.reason
        number = f"about {self.seeds_needed}" if self.seeds_needed else f"more than {MOST_SEEDS}"
        return f"{number} seeds per arm, if difference and spread stay"


@dataclass(frozen=True)
class Verdict:
    """The verdict on a study.

    Args:
        study: its name.
        budget: name of its size.
        outcome: supported if all statements are, not supported if any is not.
        findings: the statements.
        results: number of results that are there.
        expected: number of results of the whole study.
        diverged: how many of them diverged.
        larger: names of the study's larger budgets.
    """

    study: str
    budget: str
    outcome: Outcome
    findings: list[Finding]
    results: int
    expected: int
    diverged: int
    larger: list[str]

    @property
    def is_complete(self) -> bool:
        """Whether all results are there."""
        return self.results >= self.expected

    @property
    def progress(self) -> str:
        """How many results there are: "3 of 10 results"."""
        return f"{self.results} of {pluralize(self.expected, 'result')}"

    def lead(self) -> str:
        """The verdict in a few sentences with numbers."""
        if not self.is_complete:
            return f"{self.progress} so far: no verdict before all are there."
        order = sorted(self.findings, key=lambda finding: finding.outcome != self.outcome)
        sentences = [finding.sentence() for finding in order[:FIRST]]
        more = len(order) - FIRST
        rest = f"{more} more {'statement' if more == 1 else 'statements'}: see below." if more > 0 else ""
        return " ".join(filter(None, [f"{self.outcome.capitalize()}.", *sentences, rest, self.takes()]))

    def takes(self) -> str:
        """What would decide an undecided study, in a sentence; empty for others."""
        undecided = [each for each in self.findings if each.outcome == "undecided at this budget"]
        if self.outcome != "undecided at this budget" or not undecided:
            return ""
        tested = [each for each in undecided if each.method is not None]
        larger = f"--budget {self.larger[0]}" if self.larger else ""
        if not tested:
            return f"A larger budget may decide: {larger}." if larger else ""
        needed = [each.seeds_needed for each in tested]
        most = max((each for each in needed if each), default=0)
        number = f"about {most}" if all(needed) else f"more than {MOST_SEEDS}"
        return f"To decide: {number} seeds per arm if difference and spread stay{', or ' * bool(larger)}{larger}."

    def to_plain(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return replace_nonfinite(asdict(self) | {"lead": self.lead()})


def decide(study: Study, budget: str, rows: Sequence[Row], seeds: int | None = None) -> Verdict:
    """The verdict that the rows of a study give.

    Each statement is a difference, or a ratio, that is to be larger than the smallest one that counts (`by`, `factor`).
    A two-sided t-test over the seeds asks whether it is just that one, and Holm's correction makes the chance of any
    wrong answer in a study at most ALPHA. Then a statement is supported if the difference is on the claimed side of the
    smallest one, and not supported if it is on the other side. Without evidence it is undecided. "equal" asks for the
    nearer end of its range: that is the test of equivalence by two one-sided tests.

    Args:
        study: its arms and statements.
        budget: name of its size.
        rows: of this size, with one of each arm and seed. Those of other arms are left out.
        seeds: results of each arm that are waited for; None for those of the budget.
    """
    rows = [row for row in rows if row.arm in study.arms]
    each = seeds or study.budget(budget).seeds
    counts = [sum(row.arm == name for row in rows) for name in study.arms]
    findings = assess(study, rows)
    diverged = sum(row.state == "diverged" for row in rows)
    results = sum(min(count, each) for count in counts)
    names = list(study.budgets)
    larger = names[names.index(budget) + 1 :]
    outcome = overall(findings) if results >= each * len(counts) else "undecided at this budget"
    return Verdict(study.name, budget, outcome, findings, results, each * len(counts), diverged, larger)


def overall(findings: Iterable[Finding]) -> Outcome:
    """The verdict on a study whose statements have these outcomes."""
    outcomes = [finding.outcome for finding in findings]
    if "not supported" in outcomes:
        return "not supported"
    return "supported" if outcomes and set(outcomes) == {"supported"} else "undecided at this budget"


def assess(study: Study, rows: Sequence[Row]) -> list[Finding]:
    """What the rows say of each statement, corrected for all that are tested."""
    found = [compare(study, rows, expectation) for expectation in study.expectations]
    tested = [
        float(each.test(bound(each.difference, of)).p)
        for (_, _, each), of in zip(found, study.expectations, strict=True)
        if isinstance(each, Evidence) and not each.is_exact
    ]
    corrected = iter(zip(holm(np.array(tested)).tolist(), holm_levels(np.array(tested)).tolist(), strict=True))
    findings = []
    for expectation, (a, b, evidence) in zip(study.expectations, found, strict=True):
        if isinstance(evidence, str):
            findings.append(undecided(expectation, a, b, evidence))
        elif evidence.is_exact:
            findings.append(conclude(expectation, a, b, evidence))
        else:
            findings.append(conclude(expectation, a, b, evidence, *next(corrected)))
    return findings


def compare(study: Study, rows: Sequence[Row], expectation: Expectation) -> tuple[Sample, Sample, Evidence | str]:
    """The values of both arms, and their difference or the reason why there is none."""
    names = expectation.arm, expectation.other
    a, b = (read_sample(study, rows, name, expectation) for name in names)
    reason = pair_refusal(a, b, expectation)
    return a, b, reason or gather(a, b)


def bound(difference: float, expectation: Expectation) -> float:
    """The smallest difference that counts, with its sign; for "equal" the end of the range that is nearer."""
    least = math.log(expectation.factor) if expectation.factor else expectation.by
    if expectation.relation == "equal":
        return math.copysign(least, difference)
    return least if expectation.relation in ("higher", "not_higher") else -least


def holds(difference: float, expectation: Expectation) -> bool:
    """Whether a difference is what a statement says, without regard to chance."""
    limit = bound(difference, expectation)
    close = math.isclose(difference, limit, rel_tol=1e-9) and limit != 0
    if expectation.relation == "equal":
        return close or abs(difference) < abs(limit)
    return close or (difference > limit if expectation.relation in ("higher", "not_lower") else difference < limit)


def conclude(
    expectation: Expectation, a: Sample, b: Sample, evidence: Evidence, p_holm: float | None = None, level: float = 0.0
) -> Finding:
    """The finding on a statement whose arms could be compared.

    Args:
        p_holm: corrected p-value; None where the seeds do not differ.
        level: below which the p-value by itself counts as evidence, given those of the other statements.
    """
    answer: Outcome = "supported" if holds(evidence.difference, expectation) else "not supported"
    scale = math.exp if expectation.factor else float
    found = Finding(
        expectation,
        answer,
        (a.n, b.n),
        (a.diverged, b.diverged),
        (a.mean, b.mean),
        evidence.method,
        scale(evidence.difference),
    )
    if p_holm is None:
        return found
    shift = bound(evidence.difference, expectation)
    low, high = evidence.test().interval(LEVEL)
    tested = replace(found, interval=(scale(low), scale(high)), p=float(evidence.test(shift).p), p_holm=p_holm)
    if p_holm < ALPHA:
        return tested
    needed = seeds_needed(evidence, shift, level)
    return replace(tested, outcome="undecided at this budget", seeds_needed=needed)


def undecided(expectation: Expectation, a: Sample, b: Sample, reason: str) -> Finding:
    """The finding on a statement whose arms cannot be compared."""
    return Finding(
        expectation, "undecided at this budget", (a.n, b.n), (a.diverged, b.diverged), (a.mean, b.mean), reason=reason
    )


def seeds_needed(evidence: Evidence, shift: float, level: float) -> int | None:
    """The fewest results of each arm that would be evidence with the same difference and spread; None above 100."""
    sizes = np.arange(FEWEST_SEEDS, MOST_SEEDS + 1, dtype=float)
    enough = sizes[evidence.test(shift, sizes).p < level]
    return int(max(enough[0], min(evidence.sizes) + 1)) if len(enough) else None
