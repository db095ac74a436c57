"""Charts of training runs by group: learning curves, learning rate, error against time.

Each function takes the runs of each group and returns None where no run has what it draws.
"""

from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np

from reports.line_charts import Line, LineStyle, choose_evenly, line_chart
from reports.run import Curve, Run, training_seconds

Groups = Mapping[str, Sequence[Run]]  # runs by the name of their group
FEW_LEVELS = 6  # a schedule of steps is told from a smooth one by the number of its learning rates
POINTS = 1000  # of a curve at most
UNITS = {"hours": 3600.0, "minutes": 60.0, "seconds": 1.0}


def error_chart(groups: Groups) -> alt.LayerChart | None:
    """Top-1 error of validation and training against epochs."""
    names = {"validation": "val/top1_error", "training": "train/top1_error"}
    return line_chart(_lines(groups, names), LineStyle("epoch", "top-1 error", ".3~p", list(names)), list(groups))


def loss_chart(groups: Groups) -> alt.LayerChart | None:
    """Loss of validation and training against epochs."""
    names = {"validation": "val/loss", "training": "train/loss"}
    return line_chart(_lines(groups, names), LineStyle("epoch", "loss", ".3~g", list(names)), list(groups))


def learning_rate_chart(groups: Groups) -> alt.LayerChart | None:
    """Learning rate of the first parameter group against epochs; one line if it is the same in all runs."""
    lines = [
        Line(group, run.name, curve.epochs, {"value": curve.values})
        for group, runs in groups.items()
        for run in runs
        for curve in [limit_points(run.curves[name]) for name in sorted(run.curves) if name.startswith("lr-")][:1]
    ]
    if len({(line.x.tobytes(), line.series["value"].tobytes()) for line in lines}) == 1:
        lines = lines[:1]
    levels = {value for line in lines for value in line.series["value"]}
    style = LineStyle("epoch", "learning rate", ".3~g", smooths=False, logarithmic=1 < len(levels) <= FEW_LEVELS)
    return line_chart(lines, style, list(groups))


def error_by_time_chart(groups: Groups) -> alt.LayerChart | None:
    """Top-1 error of validation against the time that training took."""
    lines = [
        line for group, runs in groups.items() for run in runs if (line := _error_by_seconds(group, run)) is not None
    ]
    longest = max((float(line.x[-1]) for line in lines), default=0.0)
    unit = next((name for name, seconds in UNITS.items() if longest >= 2 * seconds), "seconds")
    lines = [Line(line.group, line.run, line.x / UNITS[unit], line.series) for line in lines]
    return line_chart(lines, LineStyle(f"training time, {unit}", "top-1 error", ".3~p", aligns=False), list(groups))


def _error_by_seconds(group: str, run: Run) -> Line | None:
    error, seconds = run.curve(["val/top1_error"]), training_seconds(run)
    if error is None or seconds is None:
        return None
    error = limit_points(error)
    timed = error.epochs <= seconds.epochs[-1]
    spent = np.interp(error.epochs[timed], [0, *seconds.epochs], [0, *seconds.values])
    return Line(group, run.name, spent, {"value": error.values[timed]}) if timed.any() else None


def _lines(groups: Groups, names: Mapping[str, str]) -> list[Line]:
    """Curves of each run.

    Args:
        names: of the metric that each series shows.
    """
    lines = []
    for group, runs in groups.items():
        for run in runs:
            curves = {key: limit_points(run.curves[name]) for key, name in names.items() if name in run.curves}
            if curves:
                epochs = np.unique(np.concatenate([curve.epochs for curve in curves.values()]))
                series = {key: _spread(curve, epochs) for key, curve in curves.items()}
                lines.append(Line(group, run.name, epochs, series))
    return lines


def _spread(curve: Curve, epochs: np.ndarray) -> np.ndarray:
    """[T] values at the epochs; NaN where it was not measured."""
    values = np.full(len(epochs), np.nan)
    values[np.searchsorted(epochs, curve.epochs)] = curve.values
    return values


def limit_points(curve: Curve) -> Curve:
    """At most `POINTS` values, evenly chosen, the last one among them."""
    indices = choose_evenly(len(curve.epochs), POINTS)
    return Curve(curve.epochs[indices], curve.values[indices])
