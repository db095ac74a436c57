"""What a comparison of runs finds: the errors of groups of runs, and which differences are evidence."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np

from checkpointing.predictions import Predictions
from errors import UserError, expand_home
from reports import metrics
from reports.groups import Group, group_runs
from reports.run import EvaluationResult, Run
from reports.run_sources.results import load_predictions
from reports.significance import Comparison, Sample, compare_pairs

MAX_FOR_ALL_PAIRS = 5  # groups; of more, the pairs of the best one are shown
UNFINISHED = ("running", "killed", "failed", "empty", "unreadable")
SHORT = 6  # digits of a hash that a reader sees


@dataclass(frozen=True)
class Basis:
    """Which errors of the runs are compared.

    Args:
        verb: test, or validate for the validation error at the end of the training, where no run was tested.
        protocol: of the tests, see `datamodules.views`.
        checkpoint: stem of the file that was tested; None for best, or where that was not tested, for another.
    """

    verb: Literal["test", "validate"]
    protocol: str = "center"
    checkpoint: str | None = None

    @property
    def name(self) -> str:
        """Of the errors, for tables and sentences."""
        return "test error" if self.verb == "test" else "validation error"

    def find_result(self, run: Run) -> EvaluationResult | None:
        """The result of a run that is compared; None if it has none."""
        if self.verb == "validate":
            return last_validation(run)
        return run.find_test(self.protocol, self.checkpoint)


def last_validation(run: Run) -> EvaluationResult | None:
    """The validation error at the end of a training, as a result of its last checkpoint."""
    curve = run.curve(["val/top1_error"])
    if curve is None or run.state in UNFINISHED or not (0 <= curve.last <= 1 or math.isnan(curve.last)):
        return None
    data = run.facts.data if run.facts else None
    images, data_hash = (data.val_images, data.val_hash) if data else (0, None)
    return EvaluationResult("validate", "last", "center", {"top1_error": curve.last}, images, data_hash)


def choose_basis(runs: Sequence[Run], protocol: str | None = None, checkpoint: str | None = None) -> Basis:
    """What runs have to be compared by: tests with the protocol that most of them share, or else validation.

    Args:
        runs: that are compared.
        protocol, checkpoint: that the user asks for.

    Raises:
        UserError: if the user asks for tests that no run has.
    """
    names = {"center", *(result.protocol for run in runs for result in run.results)} if protocol is None else {protocol}
    choices = [Basis("test", name, checkpoint) for name in sorted(names)]
    counts = {each: sum(each.find_result(run) is not None for run in runs) for each in choices}
    basis = max(choices, key=lambda each: (counts[each], each.protocol == "center"))
    if counts[basis]:
        return basis
    if protocol or checkpoint:
        flags = f"--data.protocol {basis.protocol}" if protocol else f"--ckpt_path .../checkpoints/{checkpoint}.ckpt"
        tests = {(each.protocol, each.checkpoint) for run in runs for each in run.results if each.verb == "test"}
        found = ", ".join(f"{name} of {stem}.ckpt" for name, stem in sorted(tests)) or "none at all"
        raise UserError(
            f"None of these runs was tested with {flags} (there are tests with {found}): choose one of these, or test "
            "them so first, with `python main.py test`."
        )
    return Basis("validate")


@dataclass
class Entry:
    """A group of runs with what is compared of it.

    Args:
        group: the runs.
        results: of the runs that have one, in their order.
        errors: top-1 error of each of these runs, and NaN for a run that has diverged.
        sample: the same, for the tests of significance.
        predictions: of the runs of `results`, by their location, as far as they were read.
    """

    group: Group
    results: list[tuple[Run, EvaluationResult]]
    errors: list[float]
    sample: Sample
    predictions: dict[str, Predictions] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Of the group."""
        return self.group.label

    @property
    def mean(self) -> float:
        """Of the errors; NaN without any, and where a run has diverged."""
        return float(np.mean(self.errors)) if self.errors else math.nan

    @property
    def diverged(self) -> int:
        """How many of the runs have diverged."""
        return sum(not math.isfinite(error) for error in self.errors)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the errors over the seeds; None of fewer than two, and where a run has diverged."""
        return float(np.std(self.errors, ddof=1)) if len(self.errors) > 1 and math.isfinite(self.mean) else None

    @property
    def selected_on_test(self) -> bool:
        """Whether a checkpoint was chosen by its error on the images of the test."""
        return any(result.selected_on_test for _, result in self.results)


@dataclass
class Findings:
    """A comparison.

    Args:
        basis: which errors are compared.
        entries: the groups, the lowest mean error first, those without errors last.
        pairs: their differences.
        baseline: label of the group with which all others are compared; None for no one group.
    """

    basis: Basis
    entries: list[Entry]
    pairs: list[Comparison]
    baseline: str | None = None

    @property
    def groups(self) -> dict[str, list[Run]]:
        """The runs by label, for charts."""
        return {entry.label: entry.group.runs for entry in self.entries}

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return [run for entry in self.entries for run in entry.group.runs]


def compare(runs: Sequence[Run], basis: Basis, baseline: str | None = None) -> Findings:
    """Compare groups of runs.

    Args:
        runs: each in the group of its recipe, see `reports.groups.group_runs`.
        basis: which of their errors are compared.
        baseline: what begins the label, or is the location, of the group that all others are compared with.

    Raises:
        UserError: if there is no such baseline.
    """
    groups = [part for group in group_runs(runs) for part in split_by_images(group, basis)]
    entries = [make_entry(group, basis) for group in groups]
    entries.sort(key=lambda entry: (not entry.errors, not math.isfinite(entry.mean), entry.mean))
    entries = [entry for of_data in split_by_data(entries) for entry in of_data]
    chosen = find_baseline(entries, baseline) if baseline else None
    pairs, chosen_from = choose_pairs(entries, chosen)
    comparisons = compare_pairs([(a.sample, b.sample) for a, b in pairs], chosen_from=chosen_from)
    return Findings(basis, entries, comparisons, chosen.label if chosen else None)


def split_by_images(group: Group, basis: Basis) -> list[Group]:
    """A group, or, where its runs were tested on different images, a group for each set of them."""
    found = {id(run): (result.images, result.data_hash) for run in group.runs if (result := basis.find_result(run))}
    sets = list(dict.fromkeys(found.values()))
    if len(sets) < 2:
        return [group]
    runs = [[run for run in group.runs if found.get(id(run), sets[0]) == each] for each in sets]
    labels = [f"{group.label} ({images:,} images {(data_hash or 'unknown')[:SHORT]})" for images, data_hash in sets]
    return [Group(label, members, group.values) for label, members in zip(labels, runs, strict=True)]


def make_entry(group: Group, basis: Basis) -> Entry:
    """A group with its errors. The predictions of a single run are read."""
    found = [(run, result) for run in group.runs if (result := basis.find_result(run))]
    is_single = len(group.runs) == 1
    # What a diverged run was tested with lies before its end: it tells of that checkpoint, and not of the recipe
    diverged = [run for run in group.runs if run.state == "diverged" and not (is_single and found)]
    found = [(run, result) for run, result in found if run not in diverged]
    errors = [result.metrics["top1_error"] for _, result in found] + [math.nan] * len(diverged)
    count, data_hash = (found[0][1].images, found[0][1].data_hash) if found else (0, None)
    seeds = [run.seed for run in [*(run for run, _ in found), *diverged]]
    entry = Entry(group, found, errors, Sample(group.label, errors, count, data_hash, seeds=seeds))
    if len(errors) == 1 and (predictions := predictions_of(entry, 0)):
        wrong = metrics.topk_errors(predictions.log_probabilities, predictions.labels)
        entry.sample = Sample(group.label, errors, len(wrong), data_hash, wrong, predictions.indices, seeds)
    return entry


def predictions_of(entry: Entry, index: int) -> Predictions | None:
    """The predictions behind one of an entry's results; None if there are none that can be read."""
    if index >= len(entry.results):
        return None
    run, result = entry.results[index]
    if result.predictions is not None and run.location not in entry.predictions:
        try:
            predictions = load_predictions(result, run)
        except UserError:  # the pair says that they are missing
            return None
        if not np.isfinite(predictions.log_probabilities).all():
            return None
        entry.predictions[run.location] = predictions
    return entry.predictions.get(run.location)


def find_baseline(entries: Sequence[Entry], baseline: str) -> Entry:
    """The group that a user means."""
    exact = [entry for entry in entries if baseline in (entry.label, entry.group.experiment)]
    path = os.path.realpath(expand_home(baseline))
    found = exact or [
        entry
        for entry in entries
        if any(run.name == baseline or os.path.realpath(run.location) == path for run in entry.group.runs)
    ]
    if len(found) == 1:
        return found[0]
    labels = ", ".join(entry.label for entry in found or entries)
    problem = f"means {len(found)} groups" if found else "is none of the groups"
    raise UserError(f"--baseline {baseline} {problem}: give one of {labels}.")


def choose_pairs(entries: Sequence[Entry], baseline: Entry | None) -> tuple[list[tuple[Entry, Entry]], int]:
    """The pairs of groups to show, the better one first; and the number of pairs for which they are corrected.

    All pairs of a few groups; of many those of the best one, which are corrected for all, because it was chosen for its
    error. With a baseline its pairs, which are corrected for themselves. Groups that were tested on different images
    make no pair.
    """
    if baseline:
        pairs = [(entry, baseline) for entry in entries if entry is not baseline and is_comparable(entry, baseline)]
        return pairs, len(pairs)
    pairs = [pair for pair in combinations(entries, 2) if is_comparable(*pair)]
    if len(entries) <= MAX_FOR_ALL_PAIRS:
        return pairs, len(pairs)
    best = {id(of_data[0]) for of_data in split_by_data(entries)}
    return [pair for pair in pairs if id(pair[0]) in best], len(pairs)


def is_comparable(a: Entry, b: Entry) -> bool:
    """Whether two groups were tested on the same images, as far as it is known."""
    hashes = {each.sample.data_hash for each in (a, b)} - {None}
    return len(hashes) < 2


def split_by_data(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The groups by the images on which they were tested; those without a result in the first list."""
    found: dict[str | None, list[Entry]] = {}
    first = next((entry.sample.data_hash for entry in entries if entry.results), None)
    for entry in entries:
        found.setdefault(entry.sample.data_hash if entry.results else first, []).append(entry)
    return list(found.values())
