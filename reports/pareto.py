"""Error against what a network costs, with the Pareto front (figure 3 of the DenseNet paper, arXiv 1608.06993)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import numpy as np

from errors import printable
from reports.labels import place_labels
from reports.line_charts import round_values
from reports.palette import group_colour
from reports.plots import INK, fluid

HEIGHT = 300
X_PADDING, Y_PADDING = 30, 22  # pixels between the points and the edge of the plot
WIDE, NARROW = 570, 300  # pixels of the plot, for which labels are placed; below `SWITCH` those for the narrow one show
SWITCH = 480
TITLES = {"parameters": "parameters", "multiply_adds": "multiply-adds per image"}
Cost = Literal["parameters", "multiply_adds"]


@dataclass(frozen=True)
class Point:
    """A network, or a group of runs of one.

    Args:
        name: its label.
        group: that colours it, such as its family.
        error: top-1 error, or the mean of several runs.
        parameters, multiply_adds: what it costs; None if unknown.
        interval: of the error over seeds; None for a single run.
    """

    name: str
    group: str
    error: float
    parameters: int | None
    multiply_adds: int | None = None
    interval: tuple[float, float] | None = None


def pareto_chart(points: Sequence[Point], cost: Cost) -> alt.LayerChart | None:
    """Error against a cost, with the front of those that no other point beats in both; None without a point to draw."""
    points = [point for point in points if getattr(point, cost) and np.isfinite(point.error)]
    if not points:
        return None
    costs, errors = np.array([[getattr(point, cost), point.error] for point in points], dtype=float).T
    base = alt.Chart(alt.Data(values=_rows(points, costs, errors)), width="container", height=HEIGHT).encode(
        alt.X("cost:Q").title(TITLES[cost]).scale(type="log", nice=False, padding=X_PADDING).axis(**_decades(costs)),
        alt.Y("error:Q")
        .title("top-1 error")
        .scale(zero=False, padding=Y_PADDING, nice=False)
        .axis(format=".3~p", tickCount=6),
    )
    groups = list(dict.fromkeys(printable(point.group) for point in points))
    by_name = all(point.group == point.name for point in points)
    colour = group_colour(groups, [] if by_name else groups)
    tooltip = [
        alt.Tooltip("name:N"),
        alt.Tooltip("cost:Q", title=TITLES[cost], format=".4~s"),
        alt.Tooltip("error:Q", title="top-1 error", format=".2%"),
    ]
    nudge = alt.expr("datum.nudge")
    front = base.transform_filter("datum.front")
    return fluid(
        front.mark_line(color=INK, opacity=0.45, strokeWidth=1, strokeDash=[4, 3], interpolate="step-after")
        + base.mark_rule(strokeWidth=1.4, xOffset=nudge).encode(colour, y="low:Q", y2="high:Q")
        + base.mark_circle(size=60, opacity=1, xOffset=nudge).encode(colour, tooltip=tooltip)
        + _label_layer(base)
    )


def pareto_front(costs: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """[N] which points no other one beats: none is at most as costly with a smaller error, or as good for less.

    Args:
        costs, errors: [N], the smaller the better.
    """
    cheaper, better = costs[:, None] <= costs[None], errors[:, None] <= errors[None]
    strictly = (costs[:, None] < costs[None]) | (errors[:, None] < errors[None])
    return np.logical_not((cheaper & better & strictly).any(axis=0))


def _rows(points: Sequence[Point], costs: np.ndarray, errors: np.ndarray) -> list[dict[str, Any]]:
    front = pareto_front(costs, errors)
    order = np.lexsort((errors, ~front))  # the front first: its labels find the most room
    points, costs, errors, front = [points[index] for index in order], costs[order], errors[order], front[order]
    intervals = np.array([point.interval or (point.error, point.error) for point in points])
    names, nudges = [printable(point.name) for point in points], _nudges(costs)
    wide, narrow = (
        place_labels(names, *_pixels(costs, errors, intervals, nudges, width), int(front.sum()), width)
        for width in (WIDE, NARROW)
    )
    return [
        {"name": names[index], "group": printable(point.group), "front": bool(front[index])}
        | dict(zip(("cost", "error"), round_values(np.array([costs[index], errors[index]])), strict=True))
        | dict(zip(("low", "high"), round_values(intervals[index]), strict=True))
        | {"nudge": nudges[index], "wide": wide[index], "narrow": narrow[index]}
        for index, point in enumerate(points)
    ]


def _nudges(costs: np.ndarray) -> list[float]:
    """Pixels by which points of one cost stand side by side, so that their error bars do not cover each other."""
    equals = [np.flatnonzero(costs == cost) for cost in costs]
    return [8 * (int(np.searchsorted(same, index)) - (len(same) - 1) / 2) for index, same in enumerate(equals)]


def _pixels(
    costs: np.ndarray, errors: np.ndarray, intervals: np.ndarray, nudges: Sequence[float], width: float
) -> tuple[np.ndarray, np.ndarray]:
    """[N, 2] positions of the points and ends of their error bars, in pixels."""
    x, y = np.log(costs), np.concatenate([errors, *intervals.T])
    x = X_PADDING + (x - x.min()) / max(np.ptp(x), 1e-9) * (width - 2 * X_PADDING) + nudges
    y = Y_PADDING + (y.max() - y) / max(np.ptp(y), 1e-9) * (HEIGHT - 2 * Y_PADDING)
    center, low, high = np.split(y, 3)
    return np.stack([x, center], axis=1), np.stack([high, low], axis=1)


def _decades(costs: np.ndarray) -> dict[str, Any]:
    """The axis of costs: its ticks are at 1, 2, 5 and so on, or more where these are few."""
    least, most = costs.min(), costs.max()
    if least == most:
        return {"values": [float(least)], "format": ".3~s", "grid": False}
    for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        ticks = [digit * 10.0**power for power in range(16) for digit in digits]
        if sum(least <= tick <= most for tick in ticks) >= 3:
            break
    return {"values": [tick for tick in ticks if least / 2 < tick < most * 2], "format": ".3~s", "grid": False}


def _label_layer(base: alt.Chart) -> alt.Chart:
    """The names, where there is room for them at the width of the chart."""
    position = f"(width < {SWITCH} ? datum.narrow : datum.wide)"
    return base.mark_text(
        fontSize=11,
        color=INK,
        baseline="middle",
        align=alt.expr(f"{position}[0]"),
        dx=alt.expr(f"{position}[1] + datum.nudge"),
        dy=alt.expr(f"{position}[2]"),
        opacity=alt.expr(f"{position}[3]"),
    ).encode(text="name:N")
