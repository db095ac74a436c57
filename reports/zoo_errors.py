"""Errors of the zoo's architectures: what their papers print, and what runs of this repository found."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reports.html_page import Figure, Part, Section
from reports.papers.architectures import Architecture
from reports.pareto import Point, pareto_chart
from reports.run import Run
from reports.run_sources.local import find_runs, read_run
from reports.run_sources.run_files import get_item

TITLES = {"imagenet": "ImageNet", "cifar10": "CIFAR-10"}
DATASETS = {"datamodules.ImageNet": "imagenet", "datamodules.CIFAR10": "cifar10"}
OURS = "ours"


def published_top1(error: str) -> float | None:
    """Top-1 error, in [0, 1], of a text such as "29.6 / 10.4 %" or "6.43 (best of 5) %"; None if it has none."""
    found = re.match(r"\d+(\.\d+)?", error)
    return float(found[0]) / 100 if found else None


def read_runs(folder: Path) -> list[Run]:
    """The runs below a folder that have a whole test with one crop.

    Raises:
        UserError: if there are no runs.
    """
    runs = [read_run(path) for path in find_runs([str(folder)])]
    return [run for run in runs if run.find_test()]


def find_errors(row: Architecture, runs: Sequence[Run]) -> list[float]:
    """Top-1 errors, with one crop, of the runs that train an architecture on its data set; none of diverged runs."""
    tests = [run.find_test() for run in runs if is_run_of(row, run)]
    return [error for test in tests if test and np.isfinite(error := test.metrics["top1_error"])]


def is_run_of(row: Architecture, run: Run) -> bool:
    """Whether a run trains an architecture on its data set, by its config."""
    family, arguments = (get_item(run.config, "model", key) for key in ("class_path", "init_args"))
    module, _, name = str(get_item(run.config, "data", "class_path")).rpartition(".")
    dataset = DATASETS.get(f"{module.partition('.')[0]}.{name}")
    if dataset != row.dataset or not isinstance(family, str):
        return False
    return row.matches_network(family, arguments if isinstance(arguments, dict) else {})


def error_sections(measured: Sequence[Mapping[str, Any]]) -> list[Section]:
    """For each data set, error against parameters and against multiply-adds.

    Args:
        measured: see `reports.zoo.measure`.
    """
    return [
        Section(f"Error and cost on {title}", error_figures(title, [row for row in measured if row["dataset"] == name]))
        for name, title in TITLES.items()
    ]


def error_figures(title: str, rows: Sequence[Mapping[str, Any]]) -> list[Part]:
    """The two figures of one data set, of the rows that have an error."""
    points = [
        Point(row["name"], row["family"].removeprefix("Lit"), row["published_top1_error"], *counts(row))
        for row in rows
        if row["published_top1_error"] is not None
    ]
    points += [
        Point(f"{row['name']} ({OURS})", OURS, row["our_top1_error"], *counts(row)) for row in rows if row["our_runs"]
    ]
    text = (
        f"Top-1 error on {title} as published, each with its paper's protocol, against {{}}; dashed: the Pareto front"
    )
    return [
        Figure(text.format("parameters"), pareto_chart(points, "parameters")),
        Figure(text.format("multiply-adds of one forward pass"), pareto_chart(points, "multiply_adds")),
    ]


def counts(row: Mapping[str, Any]) -> tuple[int, int]:
    """Parameters and multiply-adds."""
    return row["parameters"], row["multiply_adds"]
