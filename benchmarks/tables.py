"""Tables of measured results: for the terminal, and in Markdown between two comments of a document."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from errors import UserError
from reports.html_page import Table, markdown_table

Result = dict[str, Any]
HOME = Path(__file__).parent.parent
IMAGES_PER_S = "{:,.0f}".format
RATIO = "{:.2f}".format
# Column: key of a result, and how its value is shown
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "plain loop": ("plain_images_per_s", IMAGES_PER_S),
    "timm": ("timm_images_per_s", IMAGES_PER_S),
    "our fit": ("fit_images_per_s", IMAGES_PER_S),
    "bare step": ("limit_images_per_s", IMAGES_PER_S),
    "fit / plain": ("fit_over_plain", RATIO),
    "fit / timm": ("fit_over_timm", RATIO),
    "fit / bare": ("fit_over_limit", RATIO),
    "bound / bare": ("bound_over_limit", RATIO),
    "loader per core": ("loader_images_per_s_per_core", IMAGES_PER_S),
    "plain loader": ("plain_loader_images_per_s_per_core", IMAGES_PER_S),
    "memory, GiB": ("peak_memory_bytes", lambda number: f"{number / 2**30:.1f}"),
    "first step, s": ("first_step_s", "{:.1f}".format),
    "of the GPU's peak": ("utilisation", "{:.1%}".format),
}
# Of the cases that are no training beside the bare step
EVALUATION: dict[str, tuple[str, Callable[[Any], str]]] = {
    "our test": ("test_images_per_s", "{:.2f}".format),
    "plain passes": ("passes_images_per_s", "{:.2f}".format),
    "test / passes": ("test_over_passes", RATIO),
}
PREDICTION: dict[str, tuple[str, Callable[[Any], str]]] = {
    "our predict": ("predict_images_per_s", IMAGES_PER_S),
    "plain passes": ("passes_images_per_s", IMAGES_PER_S),
    "predict / passes": ("predict_over_passes", RATIO),
}
CALLBACKS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "our fit": ("fit_images_per_s", IMAGES_PER_S),
    "without callbacks": ("without_images_per_s", IMAGES_PER_S),
    "fit / without": ("fit_over_without", RATIO),
}
TABLES = {  # kind of table, by a key that its results have: what was measured, and its columns
    "limit_images_per_s": ("in training", COLUMNS),
    "test_over_passes": ("in a test with 144 crops of each", EVALUATION),
    "predict_over_passes": ("in a prediction on image files", PREDICTION),
    "fit_over_without": ("in training a tiny net with the default callbacks", CALLBACKS),
}
# <!-- FILE: COLUMN, COLUMN --> and <!-- end -->; without columns, all of them, and the commands
BLOCK = re.compile(r"(<!-- (benchmarks/\S+\.json)(?:: (.+?))? -->\n).*?(<!-- end -->)", re.DOTALL)


def speed_tables(results: Sequence[Result]) -> list[Table]:
    """A table for each kind of measurement, with a row for each case, without columns that are empty in all of them."""
    parts = [(what, columns, [row for row in results if key in row]) for key, (what, columns) in TABLES.items()]
    return [make_table(what, columns, rows) for what, columns, rows in parts if rows]


def make_table(what: str, columns: dict[str, tuple[str, Callable[[Any], str]]], rows: Sequence[Result]) -> Table:
    """The table of one kind of measurement."""
    used = {name: column for name, column in columns.items() if any(row.get(column[0]) for row in rows)}
    cells = [[row["case"], *(show(row[key]) if row.get(key) else "" for key, show in used.values())] for row in rows]
    turns = " or ".join(sorted({str(len(row["turns"])) for row in rows}))
    return Table(f"Images per second {what} on {rows[0]['device']}: medians of {turns} turns", ["<case", *used], cells)


def command_table(results: Sequence[Result]) -> Table:
    """The command by which each case was measured."""
    rows = [[row["case"], row["command"]] for row in results if "command" in row]
    return Table("Commands of these measurements", ["<case", "<command"], rows)


def update_documents(paths: Sequence[Path]) -> None:
    """Make the tables of documents anew from the JSON files that their comments name.

    Raises:
        UserError: if a document has no such comment, or its file is missing.
    """
    for path in paths:
        text = path.read_text()
        if not BLOCK.search(text):
            raise UserError(
                f"{path} has no table to update: it begins with <!-- benchmarks/results/FILE.json --> and ends with "
                "<!-- end -->."
            )
        path.write_text(BLOCK.sub(lambda block: fill_block(*block.groups()), text))


def fill_block(start: str, file: str, columns: str | None, end: str) -> str:
    """A block of a document, with the tables of a JSON file."""
    try:
        results = json.loads((HOME / file).read_text())
    except FileNotFoundError as error:
        raise UserError(f"There is no {file}, of which a document shows a table.") from error
    tables = [*speed_tables(results), command_table(results)] if columns is None else [speed_tables(results)[0]]
    if columns is not None:
        tables[0] = select_columns(tables[0], columns.split(", "))
    return "\n\n".join([start.rstrip("\n"), *(markdown_table(table) for table in tables if table.rows), end])


def select_columns(table: Table, names: Sequence[str]) -> Table:
    """The first column of a table, and those with these names that it has."""
    kept = [0, *(table.names.index(name) for name in names if name in table.names)]
    return Table(table.title, [table.columns[at] for at in kept], [[row[at] for at in kept] for row in table.rows])
