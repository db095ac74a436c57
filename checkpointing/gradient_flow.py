"""gradient_flow.csv of a run: the size of each layer's gradient, weight and update while it is trained.

`callbacks.GradientFlow` writes a row for each layer of each measured step, the layers in the order of the forward pass:
step and epoch (both counted from 0, as in metrics.csv), the layer's name in the net, and three L2 norms, which are
empty where a layer has none.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from checkpointing.metrics_file import STEP, read_metrics, split_line
from errors import UserError

FILE = "gradient_flow.csv"
LOGGED = re.compile(r"gradient_norm/(?P<index>\d{1,9})\.(?P<layer>.+)")  # the name of a norm in W&B and other loggers
MOST_LOGGED = 60  # layers whose norms other loggers get, evenly chosen
MOST_VALUES = 2**24  # of a file: a million steps of 16 layers


@dataclass(frozen=True)
class GradientFlowTable:
    """Norms of T measured steps of a net of L layers.

    Args:
        layers: [L] names, in the order of the forward pass; the classifier is the last one.
        steps: [T] optimizer steps taken before the measured one, ascending: 0 at the first step of a training.
        gradient: [T, L] L2 norms of the gradients of the layers' weights, before clipping; NaN where there is none.
        weight: [T, L] L2 norms of the weights before the step; NaN where they are unknown.
        update: [T, L] L2 norms of the change of the weights by the step; NaN where they are unknown.
    """

    layers: list[str]
    steps: np.ndarray
    gradient: np.ndarray
    weight: np.ndarray
    update: np.ndarray

    @property
    def update_ratio(self) -> np.ndarray:
        """[T, L] norm of the update by norm of the weight."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.update / self.weight

    @property
    def first(self) -> float:
        """Norm of the first layer's gradient at the first measured step."""
        return float(self.gradient[0, 0])

    @property
    def first_over_last(self) -> float:
        """The same by the norm of the last layer's gradient, which is the classifier's."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(self.gradient[0, 0] / self.gradient[0, -1])


def read_gradient_flow(run_dir: Path) -> GradientFlowTable | None:
    """What `callbacks.GradientFlow` has written into a run directory; None where there is no whole row.

    Raises:
        UserError: in a few words, as `parse_gradient_flow`.
        OSError: if the file cannot be read.
    """
    path = run_dir / FILE
    return parse_gradient_flow(path.read_bytes()) if os.path.isfile(path) else None


def parse_gradient_flow(content: bytes) -> GradientFlowTable | None:
    """The table of a file's content, whose damaged rows are left out; None without any other.

    Raises:
        UserError: in a few words, if it has more steps and layers than any file has.
    """
    columns = split_columns(content.decode(errors="replace"))
    if not {"step", "layer", "gradient", "weight", "update"} <= columns.keys():
        return None
    known = {step for step in set(columns["step"]) if STEP.fullmatch(step)}
    kept = [index for index, step in enumerate(columns["step"]) if step in known]
    if len(kept) < len(columns["step"]):
        columns = {name: [values[index] for index in kept] for name, values in columns.items()}
    return make_table(columns) if kept else None


def split_columns(text: str) -> dict[str, list[str]]:
    """The values of each column, without lines that are damaged or have no end."""
    header, *lines = text[: text.rfind("\n") + 1].replace("\r\n", "\n").split("\n")
    names = split_line(header)
    if '"' in text or "\0" in text:
        rows = [row for row in map(split_line, lines) if len(row) == len(names)]
        return {name: [row[index] for row in rows] for index, name in enumerate(names)}
    # Ten times as fast, of files that may have a million lines
    flat = ",".join(line for line in lines if line.count(",") == len(names) - 1).split(",")
    return {name: flat[index :: len(names)] for index, name in enumerate(names)}


def make_table(columns: Mapping[str, Sequence[Any]]) -> GradientFlowTable:
    """A table from columns of equal length: step, layer and the norms, of which all but the gradient may be missing.

    Raises:
        UserError: in a few words, if there are more steps and layers than any run has.
    """
    layers = list(dict.fromkeys(columns["layer"]))
    steps, rows = np.unique(np.array(columns["step"]).astype(np.int64), return_inverse=True)
    if len(steps) * len(layers) > MOST_VALUES:
        raise UserError(f"{FILE} has more steps and layers than can be read")
    indices = {layer: index for index, layer in enumerate(layers)}
    cells = rows, [indices[layer] for layer in columns["layer"]]

    def norms(name: str) -> np.ndarray:
        values = np.full((len(steps), len(layers)), np.nan)
        values[cells] = to_norms(columns[name]) if name in columns else np.nan
        return values

    return GradientFlowTable(layers, steps, norms("gradient"), norms("weight"), norms("update"))


def to_norms(values: Sequence[Any]) -> np.ndarray:
    """Numbers of the file, or those that a logger holds; NaN for anything else."""
    try:
        return np.array(["nan" if value == "" else value for value in values], dtype=str).astype(float)
    except ValueError:
        return np.array(list(map(to_norm, values)))


def to_norm(value: object) -> float:
    """A number; NaN for anything else."""
    try:
        return float(str(value))
    except ValueError:
        return np.nan


def name_for_loggers(layers: Sequence[str]) -> dict[str, str]:
    """The layers whose gradient norms loggers other than the run's own get, each with the name of its metric.

    The names begin with the layer's position, by which W&B sorts: gradient_norm/07.layer1.2.conv1.
    """
    digits = len(str(len(layers) - 1))
    chosen = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), MOST_LOGGED)).round().astype(int))
    return {layers[index]: f"gradient_norm/{index:0{digits}}.{layers[index]}" for index in chosen}


def logged_rows(run_dir: Path) -> list[dict[str, str]]:
    """The rows that loggers other than the run's own get of a file, as metrics.csv would hold them."""
    path = run_dir / FILE
    rows = [row for row in read_metrics(path)[1] if "layer" in row] if os.path.isfile(path) else []
    names = name_for_loggers(list(dict.fromkeys(row["layer"] for row in rows)))
    logged: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["layer"] in names and "gradient" in row:
            position = {"step": row["step"], "epoch": row.get("epoch", "")}
            logged.setdefault(row["step"], position)[names[row["layer"]]] = row["gradient"]
    return list(logged.values())


def collect_logged(rows: Iterable[Mapping[str, Any]]) -> GradientFlowTable | None:
    """The table of the gradient norms in a logger's rows, which have no weights and updates; None without any.

    Raises:
        UserError: in a few words, as `make_table`.
    """
    found = [
        (int(match["index"]), match["layer"], int(row["step"]), value)
        for row in rows
        if 0 <= float(row["step"]) < 2**53
        for name, value in row.items()
        if (match := LOGGED.fullmatch(name))
    ]
    found.sort(key=lambda each: each[0])
    columns = {name: [each[index] for each in found] for index, name in ((1, "layer"), (2, "step"), (3, "gradient"))}
    return make_table(columns) if found else None
