"""The rows in the offline W&B files of a run, of which a resumed run removes those that it logs again."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from checkpointing import gradient_flow
from checkpointing.atomic import end_run_if_unwritable
from checkpointing.metrics_file import is_validation, read_metrics
from checkpointing.run_dir import unused_name
from checkpointing.transaction_log import parse_record, read_records, write_records
from errors import UserError

Row = dict[str, Any]
STEP = "trainer/global_step"


def truncate_offline_rows(run_dir: Path, step: int, validates: bool = False) -> list[Row]:
    """Remove what W&B has logged offline from an optimizer step on, as `metrics_file.truncate_metrics` does.

    The whole file is kept beside. Rows that were uploaded already are on the server and stay, and a file that cannot be
    read is left alone.

    Args:
        run_dir: of the run.
        step: the first one to remove.
        validates: whether the run goes on with the validation after the step before, whose row is then removed too.

    Returns:
        The rows that are left, of all files.
    """
    left: list[Row] = []
    for log in sorted(run_dir.glob("wandb/*run-*/run-*.wandb")):
        try:
            records = list(read_records(log))
            contents = [parse_record(record, log) for record in records]
        except UserError:
            continue
        rows = {number: read_row(content) for number, content in enumerate(contents) if content.HasField("history")}
        ours = {number: row for number, row in rows.items() if isinstance(row.get(STEP), int)}
        repeated = [n for n, row in ours.items() if row[STEP] >= step - (validates and is_validation(row))]
        is_offline = log.parent.name.startswith("offline-run-") and not os.path.exists(f"{log}.synced")
        if repeated and is_offline:
            before = [number for number in rows if number < repeated[0]]
            logged = (number for number, content in enumerate(contents) if content.HasField("summary"))
            end = before[-1] + 1 if before else min(repeated[0], next(logged, repeated[0]))
            with end_run_if_unwritable(log):
                shutil.copyfile(log, unused_name(log.with_name(f"{log.name}-until_step_{max_step(ours)}")))
                write_records(log, records[:end])
            ours = {number: row for number, row in ours.items() if number < end}
        left += ours.values()
    return left


def max_step(rows: dict[int, Row]) -> int:
    """The last step of the rows."""
    return max(row[STEP] for row in rows.values())


def read_row(record: Any) -> Row:
    """The values of a record of the history by their names; empty where it is malformed."""
    try:
        return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
    except (ValueError, RecursionError):
        return {}


def find_missing(logged: Iterable[Row], metrics: Path) -> list[Row]:
    """What metrics.csv and gradient_flow.csv hold and W&B's files lack.

    A process that is killed takes along what W&B has not yet written.

    Where this command is the first to have such a file, nothing is missing: the others were left elsewhere.

    Args:
        logged: rows in W&B's files.
        metrics: path of metrics.csv, in the run directory.

    Returns:
        Rows of numbers, each with its `step`, and its `epoch` where it has one.
    """
    known: dict[int, set[str]] = {}
    if not os.path.isfile(metrics) or len(list(metrics.parent.glob("wandb/*run-*"))) < 2:
        return []
    for row in logged:
        known.setdefault(row[STEP], {"epoch", "step"}).update(row)
    missing = []
    for text in [*read_metrics(metrics)[1], *gradient_flow.logged_rows(metrics.parent)]:
        names = known.get(int(text["step"]), {"epoch", "step"})
        if any(value and name not in names for name, value in text.items()):
            kept = {name: value for name, value in text.items() if name not in names or name in ("epoch", "step")}
            missing.append({name: number for name, value in kept.items() if (number := read_number(value)) is not None})
    return missing


def read_number(text: str) -> float | int | None:
    """A value of metrics.csv; None for no number."""
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return None
