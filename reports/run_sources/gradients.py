"""Gradient norms of runs, from gradient_flow.csv and from rows that W&B holds."""

from collections.abc import Iterable
from pathlib import Path

from checkpointing.gradient_flow import FILE, GradientFlowTable, collect_logged, parse_gradient_flow
from errors import UserError
from reports.run_sources.curves import Row
from reports.run_sources.run_files import LARGEST, read_bytes


def read_norms(run_dir: Path, problems: list[str]) -> GradientFlowTable | None:
    """What gradient_flow.csv of a run holds; None without it, or if it cannot be read, which the problems then say."""
    try:
        content = read_bytes(run_dir, run_dir / FILE, LARGEST)
        return parse_gradient_flow(content) if content else None
    except UserError as error:
        problems.append(str(error))
        return None


def collect_norms(rows: Iterable[Row], problems: list[str]) -> GradientFlowTable | None:
    """The norms among the rows of W&B; None without any, or if there are too many."""
    try:
        return collect_logged(rows)
    except UserError as error:
        problems.append(str(error))
        return None
