"""The sections of a comparison of runs, and the same in numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from checkpointing.predictions import Predictions
from errors import UserError
from reports import run_charts
from reports.class_chart import class_difference_chart
from reports.comparison import Entry, Findings, predictions_of, split_by_data
from reports.comparison_notes import notes
from reports.comparison_tables import (
    best_validation,
    environment_parts,
    images_per_second,
    main_table,
    multiply_adds,
    pair_table,
    parameters,
    run_table,
    seconds,
    settings_table,
)
from reports.disagreement import class_differences, class_table, disagreement_section
from reports.gradient_flow import gradient_flow_figures
from reports.html_page import Figure, Part, Section
from reports.hypothesis_tests import LEVEL
from reports.pareto import Point, pareto_chart
from reports.run import Run
from reports.run_images import Thumbnails, thumbnails

MAX_ROWS_FIRST = 12  # of a table that leaves room for the curves on the first screen
MAX_PAIRS = 3  # of groups whose classes and images are shown: the best group, or the baseline, with the next ones


def overview(findings: Findings) -> list[Section]:
    """What the terminal shows too: the table and the learning curves on the first screen, differences and settings."""
    errors: list[Part] = [
        main_table(findings),
        Figure("Top-1 error against epochs", run_charts.error_chart(findings.groups)),
    ]
    if len(findings.entries) > MAX_ROWS_FIRST:
        errors.reverse()
    pairs: list[Part] = [pair_table(findings)] if findings.pairs else []
    settings = settings_table(findings)
    return [
        Section("Errors", [*errors, *notes(findings)]),
        Section("Differences", pairs),
        Section("Settings", [settings] if settings else []),
    ]


def details(findings: Findings, flags: Sequence[str]) -> list[Section]:
    """What the page folds; `flags` of main.py say where the images are."""
    groups = findings.groups
    curves: list[Part] = [
        Figure("Loss against epochs", run_charts.loss_chart(groups)),
        Figure("Learning rate", run_charts.learning_rate_chart(groups)),
        Figure("Validation error against training time", run_charts.error_by_time_chart(groups)),
    ]
    return [
        Section("Learning curves", curves, folded=True),
        Section("Error and cost", cost_figures(findings), folded=True),
        Section("Classes and images", image_parts(findings, flags), folded=True),
        Section("Gradients", gradient_flow_figures(groups), folded=True),
        Section("Runs", [run_table(findings)], folded=True),
        Section("Environment", environment_parts(findings), folded=True),
    ]


def cost_figures(findings: Findings) -> list[Part]:
    """Error against parameters and against multiply-adds, for each set of images on which these differ."""
    sets = split_by_data(findings.entries)
    figures: list[Part] = []
    for entries in sets:
        points = [point for entry in entries if (point := make_point(entry))]
        if len({(point.parameters, point.multiply_adds) for point in points}) < 2:
            continue
        names = ", ".join(dict.fromkeys(entry.group.experiment.partition("/")[0] for entry in entries))
        where = f" on {names}" if len(sets) > 1 else ""
        bars = f"; bars: {LEVEL:.0%} intervals over seeds" if any(point.interval for point in points) else ""
        text = f"{findings.basis.name.capitalize()}{where} against {{}}; dashed: the Pareto front{bars}"
        figures.append(Figure(text.format("parameters"), pareto_chart(points, "parameters")))
        figures.append(Figure(text.format("multiply-adds"), pareto_chart(points, "multiply_adds")))
    return figures


def make_point(entry: Entry) -> Point | None:
    """A group as a point of error and cost; None where one of them is unknown."""
    facts = next((run.facts for run in entry.group.runs if run.facts), None)
    if facts is None or not np.isfinite(entry.mean):
        return None
    interval = mean_interval(entry.errors) if len(entry.errors) > 2 else None
    model = facts.model
    return Point(entry.label, entry.label, entry.mean, model.parameters, model.multiply_adds, interval)


def mean_interval(errors: Sequence[float]) -> tuple[float, float]:
    """Student's interval of the mean error over seeds."""
    from scipy import stats

    mean, half = float(np.mean(errors)), float(stats.sem(errors) * stats.t.isf((1 - LEVEL) / 2, len(errors) - 1))
    return mean - half, mean + half


def image_parts(findings: Findings, flags: Sequence[str]) -> list[Part]:
    """Per class and per image, how a run of the best group, or of the baseline, differs from those of others."""
    return [part for center, other in leading_pairs(findings) for part in compare_images(center, other, flags)]


def leading_pairs(findings: Findings) -> list[tuple[Entry, Entry]]:
    """The best group, or the baseline, with the best of the others on the same images."""
    entries = [entry for entry in findings.entries if entry.results]
    center = next((entry for entry in entries if entry.label == findings.baseline), next(iter(entries), None))
    if center is None or findings.basis.verb == "validate":
        return []
    others = [entry for entry in entries if entry is not center]
    others = [entry for entry in others if entry.sample.data_hash == center.sample.data_hash]
    return [(center, other) for other in others[:MAX_PAIRS]]


def compare_images(a: Entry, b: Entry, flags: Sequence[str]) -> list[Part]:
    """Where two runs of two groups differ: of one seed if there is one that both have."""
    chosen = choose_runs(a, b)
    if chosen is None:
        return []
    (run_a, of_a), (run_b, of_b) = chosen
    names = f"{a.label} (seed {run_a.seed})", f"{b.label} (seed {run_b.seed})"

    def load(rows: Sequence[int]) -> Thumbnails:
        found = thumbnails(run_a, of_a, rows, flags=flags)
        return thumbnails(run_b, of_b, rows, flags=flags) if found.note else found

    try:
        classes = class_differences(of_a, of_b)
        disagreement = disagreement_section(names, (of_a, of_b), load)
    except UserError:  # not the same images after all: the pair says so
        return []
    title = f"Difference of the errors by class: {names[0]} minus {names[1]}"
    chart = Figure(title, class_difference_chart(classes, *names))
    return [chart, class_table(names, classes), *disagreement.parts]


def choose_runs(a: Entry, b: Entry) -> tuple[tuple[Run, Predictions], tuple[Run, Predictions]] | None:
    """A run of each group with its predictions, of the same seed if possible; None where there are no predictions."""
    seeds = {run.seed for run, _ in b.results}
    order_a = sorted(range(len(a.results)), key=lambda index: a.results[index][0].seed not in seeds)
    for index in order_a:
        seed = a.results[index][0].seed
        for other in sorted(range(len(b.results)), key=lambda k: b.results[k][0].seed != seed):
            of_a, of_b = predictions_of(a, index), predictions_of(b, other)
            if of_a and of_b:
                return (a.results[index][0], of_a), (b.results[other][0], of_b)
    return None


def facts(findings: Findings) -> dict[str, Any]:
    """Everything in numbers, for JSON."""
    return {
        "compared": {"error": findings.basis.name, "protocol": findings.basis.protocol},
        "groups": [
            {
                "name": entry.label,
                "runs": [run.location for run in entry.group.runs],
                "errors": entry.errors,
                "mean": entry.mean if entry.errors else None,
                "standard_deviation": entry.deviation,
                "selected_on_test": entry.selected_on_test,
            }
            for entry in findings.entries
        ],
        "runs": [run_facts(run, entry) for entry in findings.entries for run in entry.group.runs],
        "tests": [pair.to_plain() for pair in findings.pairs],
        "notes": notes(findings),
    }


def run_facts(run: Run, entry: Entry) -> dict[str, Any]:
    """A run in numbers."""
    return {
        "run": run.location,
        "name": run.name,
        "group": entry.label,
        "seed": run.seed,
        "state": run.state,
        "reason": run.reason,
        "config_differences": entry.group.values,
        "last": {name: curve.last for name, curve in run.curves.items() if name.startswith(("train/", "val/"))},
        "best": {"val/top1_error": best_validation(run)},
        "tests": [
            {"verb": each.verb, "checkpoint": each.checkpoint, "protocol": each.protocol, "images": each.images}
            | {"metrics": each.metrics, "selected_on_test": each.selected_on_test, "partial": each.partial}
            | {"data_hash": each.data_hash}
            for each in run.results
        ],
        "parameters": parameters(run),
        "multiply_adds": multiply_adds(run),
        "images_per_s": images_per_second(run),
        "seconds": seconds(run),
    }
