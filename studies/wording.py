"""The findings of a study in sentences."""

from typing import TYPE_CHECKING

from errors import pluralize
from reports.significance import format_p
from studies.study import Expectation
from studies.units import format_margin, format_number, format_value, measure_name

if TYPE_CHECKING:
    from studies.verdict import Finding

NO_WORSE = {"not_higher": "higher", "not_lower": "lower"}
DIRECTIONS = {-1: "lower than", 0: "equal to", 1: "higher than"}


def state_finding(finding: "Finding") -> str:
    """What was found of a statement, with its numbers."""
    expectation = finding.expectation
    if finding.method is None:
        return f"{expectation.arm} and {expectation.other} are not compared: {finding.reason}"
    if finding.outcome == "undecided at this budget":
        return state_undecided(finding)
    if expectation.relation == "equal":
        verb = "is within" if finding.outcome == "supported" else "differs by more than"
        joint = "of" if finding.outcome == "supported" else "from"
        return f"{subject(finding)} {verb} {margin(expectation)} {joint} {target(finding)}{evidence(finding)}."
    if expectation.relation in NO_WORSE:
        size = "no" if finding.outcome == "supported" else ""
        amount = f"{size} more than {margin(expectation)} {NO_WORSE[expectation.relation]}".strip()
        return f"{subject(finding)} is {amount} than {target(finding)}{evidence(finding)}."
    claimed = f"{expectation.relation} than"
    found = DIRECTIONS[sign(finding)]
    if finding.outcome == "supported":
        return f"{subject(finding)} is {claimed} {target(finding)}{by(finding)}{evidence(finding)}."
    if found == claimed:
        return f"{subject(finding)} is {claimed} {target(finding)}, but not{by(finding, ' ')}{evidence(finding)}."
    return f"{subject(finding)} is {found} {target(finding)}{evidence(finding)}."


def state_claim(expectation: Expectation) -> str:
    """The statement that was to be tested: "test error of residual lower than that of plain, by more than 1 point"."""
    measure, other = expectation.measure, expectation.other
    against = f"that of {other}" if isinstance(other, str) else format_value(measure, other)
    start = f"{measure_name(measure)} of {expectation.arm}"
    least = margin(expectation)
    if expectation.relation == "equal":
        return f"{start} within {least} of {against}"
    if expectation.relation in NO_WORSE:
        return f"{start} no more than {least} {NO_WORSE[expectation.relation]} than {against}"
    return f"{start} {expectation.relation} than {against}{f', by more than {least}' if least else ''}"


def state_undecided(finding: "Finding") -> str:
    """That there is no evidence for a statement, nor against it."""
    expectation = finding.expectation
    if margin(expectation):
        least, relation = margin(expectation), NO_WORSE.get(expectation.relation, expectation.relation)
        side = f"lies within {least} of" if relation == "equal" else f"is more than {least} {relation} than"
        return f"No evidence whether {subject(finding, 'the')} {side} {target(finding)}{evidence(finding)}."
    return f"No evidence of a difference between {subject(finding, 'the')} and {target(finding)}{evidence(finding)}."


def subject(finding: "Finding", article: str = "The") -> str:
    """The arm with its mean: "The test error of residual (1.61 %)"."""
    return f"{article} {measure_name(finding.expectation.measure)} of {finding.expectation.arm}{mean(finding, 0)}"


def target(finding: "Finding") -> str:
    """The other arm with its mean, or the number."""
    other = finding.expectation.other
    if not isinstance(other, str):
        return format_value(finding.expectation.measure, other)
    return f"that of {other}{mean(finding, 1)}"


def mean(finding: "Finding", index: int) -> str:
    """The mean of an arm, and how many of its runs diverged, in brackets."""
    count = finding.diverged[index]
    diverged = f"; {count} of {pluralize(finding.n[index], 'run')} diverged" if count else ""
    return f" ({format_value(finding.expectation.measure, finding.means[index])}{diverged})"


def margin(expectation: Expectation) -> str:
    """The smallest difference that counts; empty if any does."""
    if expectation.factor:
        return f"a factor of {format_number(expectation.factor)}"
    return format_margin(expectation.measure, expectation.by) if expectation.by else ""


def by(finding: "Finding", comma: str = ", ") -> str:
    """How large a difference was asked for; empty if any does."""
    least = margin(finding.expectation)
    return f"{comma}by more than {least}" if least else ""


def evidence(finding: "Finding") -> str:
    """The p-value; nothing where the seeds do not differ."""
    return "" if finding.p_holm is None else f", {format_p(finding.p_holm)}"


def sign(finding: "Finding") -> int:
    """The direction of the difference."""
    assert finding.difference is not None
    difference = finding.difference - 1 if finding.expectation.factor else finding.difference
    return (difference > 0) - (difference < 0)
