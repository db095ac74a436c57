"""Lines of runs, by group: with smoothing, a logarithmic axis, zoom, and a legend that shows and hides groups.

A value that is NaN or infinite interrupts its line. Numbers are rounded to four significant digits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from errors import printable
from reports.palette import group_colour
from reports.plots import INK, fluid

HEIGHT = 300  # pixels
SPAN = "span(domain('y'))"
LONGEST_WINDOW = 50  # of the moving average, epochs


@dataclass(frozen=True)
class Line:
    """The curves of a run, on common positions.

    Args:
        group: name of its group.
        run: its name.
        x: [T] positions, ascending.
        series: [T] values of each series, by its name; NaN where it has none.
    """

    group: str
    run: str
    x: np.ndarray
    series: dict[str, np.ndarray]


@dataclass(frozen=True)
class LineStyle:
    """How lines are drawn.

    Args:
        x, y: titles of the axes; of the position and the value in tooltips too.
        format: of values, as d3-format writes it.
        series: names of the series: the first is drawn solid, the second dashed.
        smooths: whether there is a slider for the moving average.
        logarithmic: whether the axis of values is so at first.
        aligns: whether the runs of a group have their positions in common; if not, the mean of a group is that of the
            first values, of the second ones, and so on.
    """

    x: str
    y: str
    format: str
    series: Sequence[str] = ("value",)
    smooths: bool = True
    logarithmic: bool = False
    aligns: bool = True


def line_chart(lines: Sequence[Line], style: LineStyle, groups: Sequence[str]) -> alt.LayerChart | None:
    """A thin line for each run, and a bold one for the mean of each group where all its runs have a value.

    Args:
        groups: of all charts of a page, so that a group has one colour.

    Returns:
        None if no line has a finite value.
    """
    shown = [name for name in style.series if any(np.isfinite(line.series.get(name, [])).any() for line in lines)]
    if not shown:
        return None
    lines = [line for line in lines if any(np.isfinite(line.series.get(name, [])).any() for name in shown)]
    base = _smoothed(max(len(line.x) for line in lines), shown, style).encode(
        alt.X("x:Q")
        .title(style.x)
        .scale(nice=False, zero=not style.aligns, padding=6)
        .axis(grid=False, tickCount={"expr": "ceil(width / 90)"}, tickMinStep=1 if style.aligns else 0),
        _values(lines, shown, style),
        group_colour([printable(group) for group in groups], {printable(line.group) for line in lines}),
        alt.StrokeDash("series:N").scale(domain=shown, range=[[1, 0], [4, 3]][: len(shown)]).legend(None),
    )
    chart = alt.layer(*_layers(base, shown, style), width="container", height=HEIGHT)
    chart = fluid(chart.add_params(*_controls(lines, style)))
    chart = chart.properties(title=_explanation(lines, shown))
    chart.data = alt.Data(values=_rows(lines, shown))  # last: each step before would copy it
    return chart


def round_values(values: np.ndarray) -> list[float | int | None]:
    """Numbers of four significant digits; None for those that are not finite."""
    shortened = [float(f"{value:.4g}") if math.isfinite(value) else None for value in map(float, values)]
    return [int(value) if value is not None and value.is_integer() else value for value in shortened]


def choose_evenly(size: int, most: int) -> np.ndarray:
    """Indices of at most so many of the items of a list of this size, evenly chosen, its first and last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(int))


def _rows(lines: Sequence[Line], series: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each run, whose values are lists: names are written once."""
    sizes = {name: sum(line.group == name for line in lines) for name in {line.group for line in lines}}
    return [
        {"group": printable(line.group), "run": printable(line.run), "id": index, "runs": sizes[line.group]}
        | {"x": round_values(line.x)}
        | {name: round_values(line.series.get(name, np.full(len(line.x), np.nan))) for name in series}
        for index, line in enumerate(lines)
    ]


def _smoothed(longest: int, series: list[str], style: LineStyle) -> alt.Chart:
    """A row for each value, with its exponential moving average.

    The weights of earlier values fall by e within the window that the slider sets. As a ratio of two cumulative sums,
    the average needs no copy of the data; the exponents are 0 in the middle of a curve of the `longest` length.
    """
    window = f"max(smoothing, {longest / 1400})"  # below, the exponents overflow
    weight = f"isValid(datum.raw) ? exp((datum.index - {longest / 2}) / {window}) : 0"
    by_run: dict[str, Any] = {"groupby": ["id", "series"], "sort": [alt.SortField("x")]}
    return (
        alt.Chart()
        .transform_flatten(["x", *series])
        .transform_fold([*series], as_=["series", "raw"])
        .transform_window(index="row_number()", before="lag(raw)", after="lead(raw)", **by_run)
        .transform_calculate(
            weight=weight,
            weighted="isValid(datum.raw) ? datum.raw * datum.weight : 0",
            alone="isValid(datum.raw) && !isValid(datum.before) && !isValid(datum.after)",
            key="datum.x" if style.aligns else "datum.index",
        )
        .transform_window(sum_of_weights="sum(weight)", weighted_sum="sum(weighted)", frame=[None, 0], **by_run)
        .transform_calculate(
            value="!isValid(datum.raw) ? null : smoothing > 0 ? datum.weighted_sum / datum.sum_of_weights : datum.raw"
        )
    )


def _values(lines: Sequence[Line], series: Sequence[str], style: LineStyle) -> alt.Y:
    """The axis of values. Its scale is linear, and of logarithms where the axis is logarithmic."""
    ticks: Any = {
        "expr": f"!logarithmic || {SPAN} < 0.6 ? null : {SPAN} > 3 ? {_logarithms(1)} : {_logarithms(1, 2, 5)}"
    }
    label = f"format(logarithmic ? pow(10, datum.value) : datum.value, '{style.format}')"
    scale = alt.Scale(zero=False, nice=False, padding=6)
    if (limits := _outlier_limits(lines, series)) is not None:
        end = alt.expr(f"logarithmic ? log({limits[1]}) / LN10 : {limits[0]}")
        scale = alt.Scale(zero=False, nice=False, domainMax=end)
    return (
        alt.Y("y:Q")
        .title(style.y)
        .scale(scale)
        .axis(values=ticks, labelExpr=label, tickCount={"expr": "logarithmic ? 20 : 6"})
    )


def _logarithms(*digits: int) -> list[float | int | None]:
    return round_values(np.array([math.log10(digit * 10.0**power) for power in range(-9, 10) for digit in digits]))


def _outlier_limits(lines: Sequence[Line], series: Sequence[str]) -> tuple[float, float] | None:
    """Where a linear axis ends if a few values are far above all others, and the largest value; else None.

    So are those of a run that diverges, and of BatchNorm's first validations.
    """
    values = np.concatenate([line.series[name] for line in lines for name in series if name in line.series])
    values = values[np.isfinite(values)]
    usual = float(np.quantile(values, 0.95))
    most = float(values.max())
    return (float(f"{1.5 * usual:.3g}"), most) if 0 < 5 * usual < most else None


def _explanation(lines: Sequence[Line], series: Sequence[str]) -> alt.TitleParams:
    """What solid and dashed lines are, and what is above the axis."""
    texts = [f"solid: {series[0]}, dashed: {series[1]}"] if len(series) > 1 else []
    if (limits := _outlier_limits(lines, series)) is not None:
        texts.append(f"values up to {limits[1]:.3g} lie above the linear axis")
    return alt.Title("; ".join(texts), anchor="start", frame="group", fontSize=11, fontWeight="normal", color=INK)


def _controls(lines: Sequence[Line], style: LineStyle) -> list[alt.Parameter]:
    """The slider of the moving average and the switch of the axis."""
    longest = max(len(line.x) for line in lines)
    slider = alt.binding_range(min=0, max=min(LONGEST_WINDOW, longest // 4), step=1, name="smoothing, epochs ")
    switch = alt.binding_checkbox(name="logarithmic axis ")
    smoothing: dict[str, Any] = {"bind": slider} if style.smooths and longest >= 8 else {}
    return [
        alt.param(name="smoothing", value=0, **smoothing),
        alt.param(name="logarithmic", value=style.logarithmic, bind=switch),
    ]


def _layers(base: alt.Chart, series: Sequence[str], style: LineStyle) -> list[alt.Chart]:
    """From the bottom: positions that find the pointer, runs, means, lone values, values at the pointer."""
    chosen = alt.selection_point(name="chosen", fields=["group"], bind="legend")
    zoom = alt.selection_interval(name="zoom", bind="scales")
    over = alt.selection_point(name="over", fields=["group"], on="pointerover", clear="pointerout", empty=False)
    near = alt.selection_point(
        name="near", fields=["key"], on="pointermove", clear="pointerout", nearest=True, empty=False
    )
    y = "logarithmic ? (datum.value > 0 ? log(datum.value) / LN10 : null) : datum.value"
    runs = base.transform_filter(chosen).transform_calculate(y=y)
    means = (
        base.transform_filter(chosen)
        .transform_aggregate(
            x="mean(x)", value="mean(value)", count="valid(value)", groupby=["group", "runs", "series", "key"]
        )
        .transform_calculate(value="datum.count == datum.runs ? datum.value : null")
        .transform_calculate(y=y)
    )
    tooltip = [
        alt.Tooltip("run:N", title="run"),
        alt.Tooltip("series:N", title="of"),
        alt.Tooltip("x:Q", title=style.x, format=",.5~g"),
        alt.Tooltip("value:Q", title=style.y, format=style.format),
    ]
    dots: dict[str, Any] = {"filled": True, "clip": True, "opacity": 1}
    return [
        base.transform_aggregate(x="mean(x)", groupby=["key"])
        .mark_point(opacity=0)
        .encode(y=alt.value(0), color=alt.value(INK), strokeDash=alt.value([1, 0]))
        .add_params(near),
        runs.transform_filter("datum.runs > 1")
        .mark_line(clip=True, strokeWidth=0.8)
        .encode(detail="id:N", opacity=_by_series(series, 0.45, 0.3)),
        means.mark_line(clip=True, strokeJoin="round")
        .encode(
            opacity=_by_series(series, 1, 0.8),
            strokeWidth=alt.when(over).then(alt.value(3.2)).otherwise(alt.value(1.8)),
        )
        .add_params(chosen, zoom),
        runs.transform_filter("datum.alone").mark_point(**dots, size=24),
        runs.transform_filter(near).mark_point(**dots, size=40).encode(tooltip=tooltip).add_params(over),
    ]


def _by_series(series: Sequence[str], first: float, second: float) -> Any:
    """Opacity of the first series and of the second; a scale would be common to all layers."""
    return alt.when(alt.datum.series == series[0]).then(alt.value(first)).otherwise(alt.value(second))
