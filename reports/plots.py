"""Charts of the reports, described with Altair.

What is drawn in `INK` takes the colour of the page's text, light or dark.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from errors import printable
from reports.metrics import BINS, Reliability

BLUE, ORANGE = "#2f7ebc", "#d97b28"  # legible on white and on black
INK = "currentColor"
FONT = "Helvetica Neue, Helvetica, Arial, system-ui, sans-serif"  # that of the page's captions


def cost_chart(rows: Sequence[dict[str, Any]]) -> alt.LayerChart:
    """Top-1 error against forward passes per image, with intervals; a series for single models and one for ensembles.

    Args:
        rows: see `reports.protocols.measure`. Dashes show each model; rows at one point share a label.
    """
    axis = alt.Axis(values=sorted({row["cost"] for row in rows}), format=",d", grid=False)
    base = chart(rows).transform_calculate(series="datum.models + (datum.models > 1 ? ' models' : ' model')")
    base = base.encode(
        alt.X("cost:Q").title("forward passes per image").scale(type="log", nice=False, padding=40).axis(axis),
        alt.Y("top1_error:Q").title("top-1 error").scale(zero=False).axis(format=".3~p", tickCount=6),
        alt.Color("series:N").sort(None).title(None).scale(range=[BLUE, ORANGE]),
    )
    points = base.transform_aggregate(rows="values(protocol)", groupby=["series", "cost", "top1_error"])
    names = points.transform_calculate(label="join(pluck(datum.rows, 'protocol'), ', ')")
    return styled(
        base.mark_rule(strokeWidth=1.2).encode(y="top1_interval[0]:Q", y2="top1_interval[1]:Q")
        + base.mark_line(strokeWidth=1.2, point={"size": 45})
        + base.transform_flatten(["each"]).mark_tick(orient="horizontal", size=10).encode(y="each.top1_error:Q")
        + names.mark_text(align="left", dx=7, dy=-7).encode(text="label:N", color=alt.value(INK))
    )


def ensemble_size_chart(curve: Sequence[dict[str, float]]) -> alt.LayerChart:
    """Top-1 error of ensembles of 1 to M members: the mean as a line, best to worst as a band.

    Args:
        curve: see `reports.ensemble.error_by_size`.
    """
    axis = alt.Axis(values=[row["members"] for row in curve], format="d", grid=False)
    base = chart(curve).encode(alt.X("members:Q").scale(zero=False, nice=False, padding=20).axis(axis))
    error = alt.Y("top1_error:Q").title("top-1 error").axis(format=".3~p", tickCount=6)
    return styled(
        base.mark_area(color=BLUE, opacity=0.2).encode(y="least:Q", y2="most:Q")
        + base.mark_line(color=BLUE, strokeWidth=1.2, point={"size": 45, "color": BLUE}).encode(error)
    )


def confusion_chart(confusion: np.ndarray, names: Sequence[str]) -> alt.LayerChart:
    """A confusion matrix, [K, K]: the darker an error, the larger its share of the images of its class."""
    names = [printable(name) for name in names]
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    cells = [
        {"class": names[row], "predicted": names[column], "images": int(confusion[row, column])}
        | {"share": float(shares[row, column])}
        for row, column in np.argwhere(confusion)
    ]
    axis: dict[str, Any] = {"bandPosition": 0, "grid": True, "ticks": False, "domain": False}
    angle = 0 if max(map(len, names)) < 4 else -90
    base = chart(cells, 30 * len(names), 30 * len(names)).encode(
        alt.X("predicted:N").title("predicted class").scale(domain=list(names)).axis(**axis, labelAngle=angle),
        alt.Y("class:N").title("class").scale(domain=list(names)).axis(**axis),
    )
    errors = base.transform_filter("datum.class != datum.predicted").mark_rect(color=ORANGE)
    return styled(
        errors.encode(alt.Opacity("share:Q").legend(None).scale(domainMin=0, range=[0.25, 0.95]))
        + base.mark_text(color=INK).encode(text="images:Q")
    )


def reliability_chart(series: dict[str, Reliability]) -> alt.VConcatChart:
    """Accuracy by confidence, above the number of images by confidence.

    Args:
        series: the bins of each series, by its name.
    """
    values = [
        {"series": name, "images": int(bins.images[k]), "left": (k + 0.1 + 0.8 * number / len(series)) / BINS}
        | {"confidence": bins.confidence[k] if bins.images[k] else (k + 0.5) / BINS}
        | {"accuracy": bins.accuracy[k] if bins.images[k] else None}  # interrupts the line
        for number, (name, bins) in enumerate(series.items())
        for k in range(BINS)
    ]
    colour = alt.Color("series:N").sort(None).title(None).scale(range=[BLUE, ORANGE]).legend(orient="top-left")
    base, unit = chart(values, 380, 280).encode(colour), alt.Scale(domain=[0, 1])
    dots = base.encode(alt.X("confidence:Q").title(None).scale(unit), alt.Y("accuracy:Q").scale(unit))
    diagonal = chart([{"x": 0}, {"x": 1}], 380, 280).encode(alt.X("x:Q"), alt.Y("x:Q").title(None))
    bars = base.transform_calculate(right=f"datum.left + {0.8 / len(series) / BINS}").properties(height=90)
    return styled(
        diagonal.mark_line(color=INK, opacity=0.5, strokeDash=[4, 4], strokeWidth=1)
        + dots.mark_line(strokeWidth=1, opacity=0.6)
        + dots.mark_circle(opacity=1).encode(alt.Size("images:Q").legend(None).scale(range=[15, 200]))
        & bars.mark_bar().encode(
            alt.X("left:Q").title("confidence (probability of the predicted class)").scale(unit),
            alt.Y("images:Q").scale(type="symlog").axis(values=[0, 1, 10, 100, 1000, 10000], format="~s"),
            x2="right:Q",
            y2=alt.datum(0),
        )
    )


def chart(values: Sequence[dict[str, Any]], width: int = 560, height: int = 260) -> alt.Chart:
    """A chart of rows of values, with its size in pixels."""
    return alt.Chart(alt.Data(values=list(values)), width=width, height=height)


def fluid(drawing: Any) -> Any:
    """The common look for a chart that is as wide as what holds it, and 640 pixels in a file."""
    return styled(drawing).configure_view(stroke=None, continuousWidth=640)


def styled(drawing: Any) -> Any:
    """The common look of all charts."""
    inks = dict.fromkeys(("labelColor", "titleColor", "gridColor", "domainColor", "tickColor"), INK)
    drawing = drawing.configure(background="transparent", aria=False, font=FONT)
    drawing = drawing.configure_view(stroke=None).configure_legend(labelColor=INK, labelLimit=0, symbolOpacity=1)
    return drawing.configure_axis(
        **inks, gridOpacity=0.12, titlePadding=12, titleFontWeight="normal", labelFontSize=11, titleFontSize=12
    )
