"""Curves of searches: a mean over seeds with its interval, for each method."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np
from scipy import stats

from reports.hypothesis_tests import LEVEL
from reports.line_charts import choose_evenly, round_values
from reports.palette import group_colour
from reports.plots import BLUE, INK, fluid, styled
from reports.significance import FEWEST_SEEDS

MOST_POINTS = 160  # of a curve
HEIGHT = 300  # pixels


class Band(NamedTuple):
    """A mean over seeds, and the ends of its interval: [T] each. The ends of one or two seeds are the mean."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def mean_interval(values: np.ndarray, level: float = LEVEL) -> Band:
    """The mean of [seeds, ...] accuracies with Student's interval, within [0, 1]."""
    mean, count = values.mean(axis=0), len(values)
    half = np.zeros_like(mean)
    if count >= FEWEST_SEEDS:
        half = stats.t.isf((1 - level) / 2, count - 1) * values.std(axis=0, ddof=1) / np.sqrt(count)
    return Band(mean, (mean - half).clip(0), (mean + half).clip(max=1))


def search_chart(curves: Mapping[str, np.ndarray], title: str) -> alt.LayerChart:
    """A line for each method, the mean over its seeds, in the band of its 99 % interval.

    Args:
        curves: by method, [seeds, evaluations] accuracies in [0, 1]; those before a curve begins are NaN.
        title: of the axis of values.
    """
    rows = [curve_row(method, values) for method, values in curves.items()]
    base = (
        alt.Chart()
        .transform_flatten(["x", "mean", "low", "high"])
        .encode(
            alt.X("x:Q").title("evaluations").scale(nice=False, zero=False).axis(grid=False, tickCount=8),
            group_colour(list(curves), set(curves)),
        )
    )
    scale = alt.Scale(zero=False, nice=False, domain=value_limits(rows))
    y = alt.Y("mean:Q").title(title).scale(scale).axis(format=".1~%", tickCount=6)
    values = {"from": "low", title: "mean", "to": "high"}
    tooltip = [alt.Tooltip("group:N", title="method"), alt.Tooltip("x:Q", title="evaluations")]
    tooltip += [alt.Tooltip(f"{column}:Q", title=name, format=".2%") for name, column in values.items()]
    bands = base.mark_area(opacity=0.16, clip=True).encode(alt.Y("low:Q").scale(scale), alt.Y2("high:Q"))
    lines = base.mark_line(strokeWidth=2, clip=True).encode(y)
    points = base.mark_point(size=60, opacity=0, clip=True).encode(y, tooltip=tooltip)
    chart = alt.layer(bands, lines, points, width="container", height=HEIGHT, data=alt.Data(values=rows))
    return fluid(chart)


def curve_row(method: str, values: np.ndarray) -> dict[str, Any]:
    """A method's curve and band, as lists, at evaluations that are evenly chosen."""
    shown = choose_evenly(values.shape[1], MOST_POINTS)
    shown = shown[np.isfinite(values[:, shown]).all(axis=0)]
    columns = [round_values(column) for column in (shown + 1.0, *mean_interval(values[:, shown]))]
    return {"group": method} | dict(zip(("x", "mean", "low", "high"), columns, strict=True))


def value_limits(rows: Sequence[dict[str, Any]]) -> list[float]:
    """The ends of the axis: the first few evaluations, far below all later ones, are left out."""
    means = np.stack([row["mean"] for row in rows])
    least, most = (
        float(means[:, means.shape[1] // 18 :].min()),
        max(float(means.max()), *(row["high"][-1] for row in rows)),
    )
    margin = 0.04 * (most - least) or 0.01
    return [max(least - margin, 0.0), min(most + margin, 1.0)]


def proposals_chart(shares: Mapping[str, Mapping[str, Mapping[str, float]]]) -> alt.FacetChart:
    """How often each operation is proposed at each part of the cell: a map for each method, darker for larger shares.

    Args:
        shares: in [0, 1], by method, part and operation.
    """
    rows = [
        {"method": method, "part": part, "operation": operation, "share": share}
        for method, parts in shares.items()
        for part, operations in parts.items()
        for operation, share in operations.items()
    ]
    first = next(iter(shares.values()))
    parts, operations = list(first), list(next(iter(first.values())))
    base = alt.Chart(width=44 * len(parts), height=26 * len(operations)).encode(
        alt.X("part:N").sort(parts).title("edge").axis(labelAngle=0, ticks=False, domain=False),
        alt.Y("operation:N").sort(operations).title(None).axis(ticks=False, domain=False),
    )
    cells = base.mark_rect(color=BLUE).encode(alt.Opacity("share:Q").scale(domain=[0, 1], range=[0, 0.9]).legend(None))
    labels = base.mark_text(color=INK, fontSize=11).encode(alt.Text("share:Q", format=".0%"))
    column = alt.Facet("method:N").sort(list(shares)).title(None).header(labelColor=INK, labelFontSize=12)
    return styled(alt.layer(cells, labels, data=alt.Data(values=rows)).facet(column, columns=2, spacing=24))
