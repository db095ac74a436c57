"""Figures of a study: dots of the seeds by arm, lines over a sweep, and curves over epochs or layers.

Each function returns None where there is nothing to draw.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import altair as alt
import numpy as np

from errors import printable
from reports.line_charts import round_values
from reports.palette import group_colour
from reports.plots import INK, fluid
from studies.results import Row
from studies.study import Study, is_number
from studies.summary import Summary, expects_ratio, is_list, mean_with_interval, spans_decades, summarize
from studies.units import EXACT, is_share, list_axis, measure_name

BAND, HEIGHT = 46, 300  # pixels of an arm among the dots, and of a chart of lines
STACKED = 5  # pixels between dots of equal value
STATE_SHAPE = alt.Shape("state:N").scale(domain=["finished", "diverged"], range=["circle", "cross"]).legend(None)
STATE_SIZE = alt.when(alt.datum.state == "diverged").then(alt.value(110)).otherwise(alt.value(34))
Chart = alt.LayerChart | None


def main_chart(study: Study, rows: Sequence[Row], measure: str) -> Chart:
    """The figure of a measure: lines over the sweep if there is one of numbers, curves of lists, dots of others."""
    if is_list(rows, measure):
        return curve_chart(study, rows, measure)
    if study.sweep and all(is_number(arm.point) for arm in study.arms.values()):
        return sweep_chart(study, rows, measure)
    return dot_chart(study, rows, measure)


def dot_chart(study: Study, rows: Sequence[Row], measure: str) -> Chart:
    """For each arm a dot for each seed, crosses for runs that diverged, the mean and its interval."""
    found = [each for each in summarize(study, rows, measure) if each.values]
    if not found:
        return None
    names = [printable(each.arm) for each in found]
    numbers = numbers_of(study, measure)
    shown = [*with_ends(found), *((number, number, number) for number in numbers)]
    axis = value_axis(study, measure, shown, alt.X("value:Q"))
    size: dict[str, Any] = {"width": "container", "height": BAND * len(names) + 4}
    band = alt.Y("group:N").title(None).scale(domain=names, padding=0).axis(None)
    colour = group_colour(names, [])
    dots = alt.Chart(alt.Data(values=[row for each in found for row in dot_rows(each)]), **size).encode(axis, band)
    means = alt.Chart(alt.Data(values=[mean_row(each) for each in found]), **size).encode(band)
    form = axis_format(measure)
    tooltip = [
        alt.Tooltip("group:N", title="arm"),
        alt.Tooltip("seed:Q"),
        alt.Tooltip("value:Q", title=measure_name(measure), format=form),
    ]
    layers = [
        *reference_lines(numbers, size),
        means.mark_text(align="left", color=INK, fontSize=12, dy=-15, limit=alt.expr("width")).encode(
            x=alt.value(0), text="group:N"
        ),
        means.mark_rule(strokeWidth=2, yOffset=8, clip=True).encode(alt.X("low:Q"), colour, x2="high:Q"),
        dots.mark_point(filled=True, opacity=0.65, yOffset=alt.expr("8 + datum.nudge")).encode(
            colour, STATE_SHAPE, size=STATE_SIZE, tooltip=tooltip
        ),
        means.mark_tick(thickness=2.5, height=18, yOffset=8, opacity=1).encode(alt.X("mean:Q"), colour),
    ]
    return fluid(alt.layer(*layers))


def with_ends(found: Sequence[Summary]) -> Iterator[tuple[float, float, float]]:
    """Each value of the arms with the ends of its arm's interval."""
    for each in found:
        for value in each.values:
            yield (value, *(each.interval or (value, value)))


def dot_rows(summary: Summary) -> list[dict[str, Any]]:
    """A row for each seed; dots of equal value stand side by side."""
    values = round_values(np.array(summary.values))
    ties = [[k for k, other in enumerate(values) if other == value] for value in values]
    return [
        {"group": printable(summary.arm), "seed": seed, "value": value, "state": "diverged" if lost else "finished"}
        | {"nudge": nudge(equal.index(index), len(equal))}
        for index, (value, equal, seed, lost) in enumerate(
            zip(values, ties, summary.seeds, summary.diverged, strict=True)
        )
    ]


def nudge(index: int, count: int) -> float:
    """Pixels by which one of so many equal dots is moved: never more than the band holds."""
    return (index - (count - 1) / 2) * min(STACKED, 24 / count)


def mean_row(summary: Summary) -> dict[str, Any]:
    """The mean of an arm with its interval."""
    assert summary.mean is not None
    ends = summary.interval or (summary.mean, summary.mean)
    mean, low, high = round_values(np.array([summary.mean, *ends]))
    return {"group": printable(summary.arm), "mean": mean, "low": low, "high": high}


def numbers_of(study: Study, measure: str) -> list[float]:
    """The numbers that arms are compared with."""
    return sorted(
        {each.other for each in study.expectations if each.measure == measure and not isinstance(each.other, str)}
    )


def reference_lines(numbers: Sequence[float], size: dict[str, Any]) -> list[alt.Chart]:
    """Dashed lines at numbers."""
    rule: dict[str, Any] = {"color": INK, "strokeDash": [4, 3], "strokeWidth": 1, "opacity": 0.6}
    return [
        alt.Chart(alt.Data(values=[{"at": number}]), **size).mark_rule(**rule).encode(alt.X("at:Q"))
        for number in numbers
    ]


def sweep_chart(study: Study, rows: Sequence[Row], measure: str) -> Chart:
    """Lines over the values of the sweep with bands of the intervals, and a dot for each seed."""
    found = [each for each in summarize(study, rows, measure) if each.values]
    if not found:
        return None
    arms = [study.arms[each.arm] for each in found]
    points = sorted({float(arm.point) for arm in arms if arm.point is not None})
    groups = [printable(name) for name in dict.fromkeys(arm.series for arm in study.arms.values())]
    shared = [{"group": printable(arm.series), "at": arm.point} for arm in arms]
    means = [point | mean_row(each) | point for point, each in zip(shared, found, strict=True)]
    dots = [row | point for point, each in zip(shared, found, strict=True) for row in dot_rows(each)]
    x = alt.X("at:Q").title(sweep_name(study)).scale(**point_scale(points)).axis(values=points, format="~g", grid=False)
    y = value_axis(study, measure, list(with_ends(found)), alt.Y("mean:Q"))
    return lines_with_bands(means, dots, x, y, groups, (sweep_name(study), measure))


def lines_with_bands(
    means: list[dict[str, Any]], dots: list[dict[str, Any]], x: alt.X, y: alt.Y, groups: list[str], names: Sequence[str]
) -> alt.LayerChart:
    """Means as lines, intervals as bands, values as dots, on common axes.

    Args:
        names: of the position and of the measure.
    """
    position, measure = names
    size: dict[str, Any] = {"width": "container", "height": HEIGHT}
    colour = group_colour(groups, groups)
    base = alt.Chart(alt.Data(values=means), **size).encode(x, colour)
    tooltip = [
        alt.Tooltip("group:N", title="arm"),
        alt.Tooltip("at:Q", title=position),
        alt.Tooltip("mean:Q", title=measure_name(measure), format=axis_format(measure)),
    ]
    layers = [
        base.mark_area(opacity=0.15, clip=True).encode(alt.Y("low:Q"), alt.Y2("high:Q")),
        base.mark_line(strokeWidth=1.8, clip=True).encode(y),
        base.mark_point(size=50, filled=True, opacity=1 if dots else 0, clip=True).encode(
            alt.Y("mean:Q"), tooltip=tooltip
        ),
    ]
    if dots:
        seeds = alt.Chart(alt.Data(values=dots), **size).encode(
            x, alt.Y("value:Q"), colour, STATE_SHAPE, size=STATE_SIZE
        )
        layers.append(seeds.mark_point(filled=True, opacity=0.5))
    return fluid(alt.layer(*layers))


def curve_chart(study: Study, rows: Sequence[Row], measure: str) -> Chart:
    """The mean of the lists of each arm as a line, with a band of its interval at each index."""
    by_arm = {name: lists_of(rows, name, measure) for name in study.arms}
    values = [value for lists in by_arm.values() for each in lists for value in each if math.isfinite(value)]
    if not values:
        return None
    logarithmic = expects_ratio(study, measure) or spans_decades(values)
    means = [row for name, lists in by_arm.items() for row in curve_rows(printable(name), lists, logarithmic)]
    if not means:
        return None
    groups = [printable(name) for name in study.arms]
    title, apart = list_axis(measure)
    for row in means:
        row["at"] *= apart
    ticks = whole_ticks(max(row["at"] for row in means))
    x = alt.X("at:Q").title(title).scale(nice=False, zero=False, padding=6).axis(grid=False, format="d", values=ticks)
    y = value_axis(study, measure, [(row["mean"], row["low"], row["high"]) for row in means], alt.Y("mean:Q"))
    return lines_with_bands(means, [], x, y, groups, (title, measure))


def lists_of(rows: Sequence[Row], arm: str, measure: str) -> list[list[float]]:
    """The lists of an arm's results; NaN for a value that is missing."""
    found = [row.measures.get(measure) for row in rows if row.arm == arm]
    return [[value if is_number(value) else math.nan for value in each] for each in found if isinstance(each, list)]


def curve_rows(group: str, lists: Sequence[list[float]], logarithmic: bool) -> list[dict[str, Any]]:
    """A row for each index of the lists where all of them have a value."""
    rows = []
    for at, values in enumerate(zip_longest(*lists, fillvalue=math.nan), start=1):
        if all(math.isfinite(value) for value in values):
            mean, interval = mean_with_interval(values, logarithmic and min(values) > 0)
            assert mean is not None
            numbers = round_values(np.array([mean, *(interval or (mean, mean))]))
            rows.append({"group": group, "at": at} | dict(zip(("mean", "low", "high"), numbers, strict=True)))
    return rows


def value_axis(study: Study, measure: str, found: Sequence[tuple[float, float, float]], axis: Any) -> Any:
    """The axis of a measure: logarithmic where a ratio is expected, or the values span decades.

    Args:
        found: each value, and the ends of its interval. An interval may reach beyond the axis.
    """
    values, lows, highs = np.array(found).T
    if min(values) > 0 and (expects_ratio(study, measure) or spans_decades(values)):
        limits = np.exp(axis_limits(*map(np.log, (values, np.maximum(lows, min(values) / 1e9), highs))))
        scale = alt.Scale(type="log", nice=False, domain=limits.tolist())
        ticks: dict[str, Any] = {"values": log_ticks(*limits)}
    else:
        low, high = axis_limits(values, lows, highs)
        low = max(low, 0.0) if min(values) >= 0 else low
        scale = alt.Scale(zero=False, nice=False, domain=[low, high])
        ticks = {"tickCount": {"expr": "ceil(width / 90)"} if isinstance(axis, alt.X) else 6}
    return axis.title(measure_name(measure)).scale(scale).axis(format=axis_format(measure), **ticks)


def axis_limits(values: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
    """Where an axis begins and ends: it holds the values, and of their intervals as much as leaves them room."""
    size = float(np.ptp(values)) or abs(float(values[0])) or 1.0
    low, high = max(lows.min(), values.min() - size), min(highs.max(), values.max() + size)
    pad = 0.05 * (high - low) or 0.05 * size
    return np.array([low - pad, high + pad])


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, or more where these are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        ticks = [float(f"{digit * 10.0**power:.6g}") for power in powers for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            break
    return ticks


def whole_ticks(last: int) -> list[int]:
    """At most 12 ticks of an axis that counts from 1."""
    step = next(step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if last <= 12 * step)
    return [1, *range(step, last + 1, step)] if step > 1 else list(range(1, last + 1))


def axis_format(measure: str) -> str:
    """How d3-format writes the values of a measure."""
    if is_share(measure):
        return ".3~p"
    return ".4~s" if measure in EXACT else ",.6~g"


def point_scale(points: Sequence[float]) -> dict[str, Any]:
    """The scale of a sweep: logarithmic if its values span a decade."""
    if points[0] > 0 and points[-1] >= 10 * points[0]:
        return {"type": "log", "nice": False, "padding": 12}
    return {"zero": False, "nice": False, "padding": 12}


def sweep_name(study: Study) -> str:
    """The flag that is swept, for an axis."""
    name = study.sweep.rpartition(".")[2]
    return "learning rate" if name == "lr" else name.replace("_", " ")
