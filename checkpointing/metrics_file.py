"""metrics.csv of a run: rows that a killed process has cut off are mended, those that a resumed run repeats removed.

The same holds for other files of rows with a step, such as gradient_flow.csv.
"""

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpointing.atomic import atomic_write, end_run_if_unwritable
from checkpointing.run_dir import unused_name

Row = Mapping[str, Any]
STEP = re.compile("[0-9]{1,18}")  # no run takes more; a file is named after it


def read_metrics(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of metrics.csv and its whole rows that have a step."""
    columns, rows = read_rows(path)
    return columns, [row for row in rows if has_step(row)]


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of metrics.csv and its whole rows, without those that a killed process or a full disk has cut off.

    Nor is a line whole that holds zero bytes, as a power failure leaves them. A row has no empty values.
    """
    text = path.read_bytes().decode(errors="replace")
    columns, *lines = map(split_line, text[: text.rfind("\n") + 1].split("\n"))
    whole = (line for line in lines if len(line) == len(columns))
    return columns, [{name: value for name, value in zip(columns, line, strict=True) if value} for line in whole]


def has_step(row: Mapping[str, str]) -> bool:
    """Whether a row says at which step it was written."""
    return bool(STEP.fullmatch(row.get("step", "")))


def split_line(line: str) -> list[str]:
    """The values of a line of metrics.csv; none where it is damaged."""
    try:
        return [] if "\0" in line else next(csv.reader([line]), [])
    except csv.Error:  # a value longer than any that was written
        return []


def write_metrics(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write metrics.csv anew."""
    with atomic_write(path, newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def append_metrics(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """Add rows to metrics.csv, which is written anew where it does not exist or has other columns.

    Args:
        path: of metrics.csv.
        columns: of the file, as far as this process knows them already.
        rows: to add; they may have more columns.

    Returns:
        The columns of the file.
    """
    rows = list(rows)
    if os.path.isfile(path) and columns:
        all_columns = sorted({*columns, *(name for row in rows for name in row)})
        if all_columns == list(columns):
            with path.open("a", newline="") as file:
                csv.DictWriter(file, columns).writerows(rows)
            return all_columns
    known, earlier = read_metrics(path) if os.path.isfile(path) else ([], [])
    all_columns = sorted({*known, *(name for row in rows for name in row)})
    write_metrics(path, all_columns, [*earlier, *rows])
    return all_columns


def truncate_metrics(path: Path, step: int, unlogged: Sequence[Row] = (), validates: bool = False) -> None:
    """Remove the rows of metrics.csv from an optimizer step on, and those without a step.

    If there are any, the whole file is kept.

    Args:
        path: of metrics.csv, whose copy is called metrics-until_step_N.csv; or of another such file.
        step: the first one to remove.
        unlogged: rows of the step before, which Lightning logs after the checkpoint is written; they are added where
            a kill came between.
        validates: whether the run goes on with the validation after the step before, whose row is then removed too.
    """
    if not os.path.isfile(path):
        return
    columns, whole = read_rows(path)
    rows = [row for row in whole if has_step(row)]
    earlier: list[Row] = [row for row in rows if int(row["step"]) < step - (validates and is_validation(row))]
    earlier += missing_rows(earlier, unlogged)
    if earlier == rows and path.read_bytes().count(b"\n") == len(rows) + 1 and path.read_bytes().endswith(b"\n"):
        return
    steps = [int(row["step"]) for row in rows]
    is_lost = any(not has_step(row) and any(row.values()) for row in whole)
    with end_run_if_unwritable(path):
        if is_lost or any(each >= step for each in steps):
            copy = unused_name(path.with_name(f"{path.stem}-until_step_{max(steps, default=0)}.csv"))
            with atomic_write(copy, "wb") as file:
                file.write(path.read_bytes())
        write_metrics(path, sorted({*columns, *(name for row in unlogged for name in row)}), earlier)


def add_missing_rows(path: Path, unlogged: Sequence[Row]) -> None:
    """Add rows that Lightning logs after a checkpoint is written, where a kill came between."""
    columns, rows = read_rows(path)
    if missing := missing_rows([row for row in rows if has_step(row)], unlogged):
        write_metrics(path, sorted({*columns, *(name for row in missing for name in row)}), [*rows, *missing])


def missing_rows(rows: Sequence[Row], unlogged: Sequence[Row]) -> list[Row]:
    """Those of some rows that a file does not hold yet."""
    return [row for row in unlogged if not any(contains(other, row) for other in rows)]


def is_validation(row: Row) -> bool:
    """Whether a row holds results of a validation."""
    return any(value for name, value in row.items() if name.startswith("val/"))


def contains(row: Row, part: Row) -> bool:
    """Whether a row of the file has values of the same step under all names of another row."""
    return row["step"] == str(part["step"]) and all(row.get(name) for name in part)
