"""What a comparison comes to, in a sentence or two."""

import math
from collections.abc import Sequence

from errors import pluralize
from reports.comparison import Entry, Findings, split_by_data
from reports.significance import Comparison, format_p

FEW = 4  # names in a sentence


def verdict(findings: Findings) -> str:
    """The answer to "which run is better, and is it real", for each set of images that the groups were tested on."""
    return " ".join(of_set(findings, entries) for entries in split_by_data(findings.entries))


def of_set(findings: Findings, entries: Sequence[Entry]) -> str:
    """The answer for groups that were tested on the same images."""
    labels = {entry.label for entry in entries}
    pairs = [pair for pair in findings.pairs if {pair.a, pair.b} <= labels]
    with_errors = [entry for entry in entries if entry.errors]
    if not with_errors:
        return f"{pluralize(len(entries), 'group')} without a result: nothing to compare yet."
    if len(entries) == 1:
        return f"{describe(entries[0], findings)}."
    if len(entries) == 2:
        errors = "; ".join(describe(entry, findings) for entry in with_errors)
        return f"{pairs[0].sentence() if pairs else ''} {errors}."
    return against_all(findings, with_errors, pairs)


def describe(entry: Entry, findings: Findings) -> str:
    """A group and its error: "digits/resnet20 has 1.17 % test error (mean of 5 runs, standard deviation 0.62)"."""
    if 0 < entry.diverged < len(entry.errors):
        return f"{entry.diverged} of {len(entry.errors)} runs of {entry.label} diverged"
    if entry.diverged:
        return f"{entry.label} has diverged"
    return f"{entry.label} has {100 * entry.mean:.2f} % {findings.basis.name}{spread(entry)}"


def spread(entry: Entry) -> str:
    """What a mean error is the mean of, in brackets; of a single run what it did not survive, or nothing."""
    if entry.deviation is None:
        return " (before it diverged)" if any(run.state == "diverged" for run, _ in entry.results) else ""
    return f" (mean of {len(entry.errors)} runs, standard deviation {100 * entry.deviation:.2f} points)"


def against_all(findings: Findings, entries: Sequence[Entry], pairs: Sequence[Comparison]) -> str:
    """The best of several groups, or the baseline, against each other one."""
    center = findings.baseline if findings.baseline else entries[0].label
    mine = [pair for pair in pairs if center in (pair.a, pair.b)]
    best = entries[0]
    first = f"{best.label} has the lowest {findings.basis.name}: {100 * best.mean:.2f} %{spread(best)}."
    if not math.isfinite(best.mean):
        return f"All {len(entries)} groups have runs that diverged: there is no {findings.basis.name} to compare."
    better: list[str] = []
    worse: list[str] = []
    equal: list[str] = []
    untested: list[str] = []
    for pair in mine:
        other, center_is_a = (pair.b, True) if pair.a == center else (pair.a, False)
        if pair.verdict == "not tested":
            untested.append(other)
        elif pair.verdict == "no evidence of a difference":
            equal.append(other)
        else:
            (better if (pair.verdict == "A is better") == center_is_a else worse).append(other)
    largest = max((pair.p_holm for pair in mine if pair.p_holm is not None and "better" in pair.verdict), default=None)
    evidence = "" if largest is None else f" ({format_p(largest)})"
    if len(better) + len(worse) > 1:
        evidence = evidence.replace("=", "\N{LESS-THAN OR EQUAL TO}")
    subject = "It" if center == best.label else f"The baseline {center}" if findings.baseline else center
    difference = "a difference to" if center == best.label else f"a difference between {center} and"
    parts = [
        f"{subject} is better than {name_some(better)}{evidence}." if better else "",
        f"{name_some(worse)} {'is' if len(worse) == 1 else 'are'} better{evidence}." if worse else "",
        f"There is no evidence of {difference} {name_some(equal)}." if equal else "",
        f"Not tested: {name_some(untested)}." if untested else "",
    ]
    return " ".join(filter(None, [first, *parts]))


def name_some(labels: Sequence[str]) -> str:
    """The first of several names: "a, b and 7 more"."""
    if len(labels) == 1:
        return labels[0]
    if len(labels) > FEW:
        return f"{', '.join(labels[:FEW])} and {len(labels) - FEW} more"
    return f"{', '.join(labels[:-1])} and {labels[-1]}"
