"""The findings of a study in sentences."""

from typing import TYPE_CHECKING

from errors import pluralize
from reports.significance import format_p
from studies.study import Expectation
from studies.units import format_margin, format_number, format_value, is_share, measure_name

if TYPE_CHECKING:
    from studies.verdict import Finding

NO_WORSE = {"not_higher": "higher", "not_lower": "lower"}
DIRECTIONS = {-1: "lower than", 0: "equal to", 1: "higher than"}


def state_finding(finding: "Finding") -> str:
    """What was found of a statement, with its numbers: "Test error: residual (1.61 %) is lower than plain (4 %)"."""
    expectation = finding.expectation
    if finding.method is None:
        return f"{expectation.arm} and {describe_other(expectation)} are not compared: {finding.reason}"
    name = measure_name(expectation.measure)
    return f"{name[:1].upper()}{name[1:]}: {state_result(finding)}{evidence(finding)}."


def state_claim(expectation: Expectation) -> str:
    """The statement that was to be tested: "test error: residual lower than plain, by more than 1 point"."""
    start = f"{measure_name(expectation.measure)}: {expectation.arm}"
    relation, other, least = expectation.relation, describe_other(expectation), margin(expectation)
    if relation == "equal":
        return f"{start} within {least} of {other}"
    if relation in NO_WORSE:
        return f"{start} no more than {least} {NO_WORSE[relation]} than {other}"
    return f"{start} {relation} than {other}{f', by more than {least}' if least else ''}"


def state_result(finding: "Finding") -> str:
    """How the arms compare, without the measure."""
    relation, least = finding.expectation.relation, margin(finding.expectation)
    arm, other = f"{finding.expectation.arm}{mean(finding, 0)}", target(finding)
    if finding.outcome == "undecided at this budget":
        return state_undecided(finding, arm, other)
    is_supported = finding.outcome == "supported"
    if relation == "equal":
        return f"{arm} {'is within' if is_supported else 'is not within'} {least} of {other}"
    if relation in NO_WORSE:
        return f"{arm} is {'no ' if is_supported else ''}more than {least} {NO_WORSE[relation]} than {other}"
    found = DIRECTIONS[sign(finding)]
    claimed = found == f"{relation} than"
    by = f"{', ' if is_supported else ', but not '}by more than {least}" if least and claimed else ""
    return f"{arm} is {found} {other}{by}"


def state_undecided(finding: "Finding", arm: str, other: str) -> str:
    """That there is no evidence for a statement, nor against it."""
    least, relation = margin(finding.expectation), finding.expectation.relation
    if not least:
        return f"no evidence of a difference between {arm} and {other}"
    side = (
        f"is within {least} of"
        if relation == "equal"
        else f"is more than {least} {NO_WORSE.get(relation, relation)} than"
    )
    return f"no evidence whether {arm} {side} {other}"


def describe_other(expectation: Expectation) -> str:
    """The other arm, or the number."""
    other = expectation.other
    if isinstance(other, str):
        return other
    return f"{100 * other:.3g} %" if is_share(expectation.measure) else format_number(other)


def target(finding: "Finding") -> str:
    """The other arm with its mean, or the number."""
    is_arm = isinstance(finding.expectation.other, str)
    return f"{describe_other(finding.expectation)}{mean(finding, 1) if is_arm else ''}"


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


def evidence(finding: "Finding") -> str:
    """The p-value; nothing where the seeds do not differ."""
    return "" if finding.p_holm is None else f", {format_p(finding.p_holm)}"


def sign(finding: "Finding") -> int:
    """The direction of the difference."""
    assert finding.difference is not None
    difference = finding.difference - 1 if finding.expectation.factor else finding.difference
    return (difference > 0) - (difference < 0)
