"""Data of charts, as a page holds them: each data set once, by columns."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]  # a chart's description in Vega-Lite
Rows = Sequence[Mapping[str, Any]]


class Datasets:
    """The data sets of several charts.

    Attributes:
        columns: by name; see `encode_rows`.
    """

    def __init__(self) -> None:
        self.columns: dict[str, Any] = {}
        self._names: dict[str, str] = {}  # by content

    def extract(self, spec: Spec) -> Spec:
        """A chart's description whose rows of data are moved here and called by name."""
        return self._visit(spec, spec.get("datasets", {}))

    def _visit(self, node: Any, own: Mapping[str, Rows]) -> Any:
        if isinstance(node, list):
            return [self._visit(item, own) for item in node]
        if isinstance(node, float) and not math.isfinite(node):
            return None
        if not isinstance(node, dict):
            return node
        visited = {key: self._visit(value, own) for key, value in node.items() if key not in ("data", "datasets")}
        if "data" in node:
            data = node["data"]
            rows = find_rows(data, own)
            visited["data"] = self._visit(data, own) if rows is None else {"name": self._add(rows)}
        return visited

    def _add(self, rows: Rows) -> str:
        encoded = encode_rows(rows)
        key = json.dumps(encoded)
        if key not in self._names:
            self._names[key] = f"data{len(self._names)}"
            self.columns[self._names[key]] = encoded
        return self._names[key]


def find_rows(data: Any, datasets: Mapping[str, Rows]) -> Rows | None:
    """The rows of a chart's `data`; None where they are made by the chart, as a sequence is."""
    if not isinstance(data, dict):
        return None
    rows = data["values"] if "values" in data else datasets.get(data.get("name", ""))
    return rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else None


def draws_nothing(spec: Spec) -> bool:
    """Whether a chart has data sets and all of them are empty."""
    found: list[Rows] = []

    def visit(node: Any) -> None:
        for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            visit(item)
        rows = find_rows(node.get("data"), spec.get("datasets", {})) if isinstance(node, dict) else None
        if rows is not None:
            found.append(rows)

    visit({key: value for key, value in spec.items() if key != "datasets"})
    return bool(found) and not any(found)


def encode_rows(rows: Rows) -> dict[str, Any]:
    """Rows as columns: the names of the columns are held once, and so is each text of a column.

    Returns:
        By name a list of values, or of texts {"texts": the distinct ones, "indices": for each row that of its text, -1
        for none}; null where a row has no value or one that is no finite number.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: encode_column([row.get(name) for row in rows]) for name in names}


def encode_column(values: list[Any]) -> Any:
    """A column of `encode_rows`."""
    if all(isinstance(value, str | None) for value in values):
        indices = {text: index for index, text in enumerate(dict.fromkeys(text for text in values if text is not None))}
        return {"texts": list(indices), "indices": [-1 if text is None else indices[text] for text in values]}
    return [replace_nonfinite(value) for value in values]


def replace_nonfinite(value: Any) -> Any:
    """A value of JSON, with null for each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [replace_nonfinite(item) for item in value]
    return {name: replace_nonfinite(item) for name, item in value.items()} if isinstance(value, dict) else value


def script_json(value: Any) -> str:
    """JSON that may stand in a <script> element: ASCII, and without "<", which could end the element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
