"""The results as a table."""

from typing import Any

from reports.html_page import Table

Result = dict[str, Any]
# Column: key of a result, format, unit
COLUMNS = {
    "plain loop": ("plain_images_per_s", "{:,.0f}", 1),
    "our fit": ("fit_images_per_s", "{:,.0f}", 1),
    "bare step": ("limit_images_per_s", "{:,.0f}", 1),
    "fit / plain": ("fit_over_plain", "{:.2f}", 1),
    "fit / bare": ("fit_over_limit", "{:.2f}", 1),
    "loader per core": ("loader_images_per_s_per_core", "{:,.0f}", 1),
    "plain loader": ("plain_loader_images_per_s_per_core", "{:,.0f}", 1),
    "memory, GiB": ("peak_memory_bytes", "{:.1f}", 2**30),
    "first step, s": ("first_step_s", "{:.1f}", 1),
    "of the GPU's peak": ("utilisation", "{:.1%}", 1),
}


def speed_table(results: list[Result]) -> Table:
    """A row for each case, without columns that are empty in all of them."""
    columns = {name: column for name, column in COLUMNS.items() if any(result.get(column[0]) for result in results)}
    rows = [
        [result["case"], *(format_cell(result.get(key), form, unit) for key, form, unit in columns.values())]
        for result in results
    ]
    title = f"Images per second in training on {results[0]['device']}: medians of {len(results[0]['turns'])} turns"
    return Table(title, ["<case", *columns], rows)


def format_cell(value: float | None, form: str, unit: float) -> str:
    return "" if value is None else form.format(value / unit)
