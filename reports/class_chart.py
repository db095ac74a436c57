"""Bars of the classes in whose error two runs differ most."""

from collections.abc import Sequence

import altair as alt
import numpy as np

from errors import printable
from reports.disagreement import ClassDifference
from reports.line_charts import round_values
from reports.palette import COLOURS
from reports.plots import INK, fluid


def class_difference_chart(classes: Sequence[ClassDifference], first: str, second: str) -> alt.LayerChart | None:
    """Bars of the differences by class, sorted, faint where they are no evidence; None where no class differs.

    Args:
        classes: see `disagreement.class_differences`.
        first, second: names of A and B.
    """
    shown = sorted((each for each in classes if each.difference), key=lambda each: each.difference)
    if not shown:
        return None
    fewer = {True: f"{printable(first)} errs less", False: f"{printable(second)} errs less"}
    rows = [
        {
            "class": printable(each.name),
            "difference": value,
            "low": low,
            "high": high,
            "fewer": fewer[each.difference < 0],
        }
        | {"evidence": each.is_evidence}
        for each in shown
        for value, low, high in [round_values(np.array([each.difference, *each.interval]))]
    ]
    label = "datum.value == 0 ? '0' : format(datum.value, '+.3~p')"
    base = alt.Chart(alt.Data(values=rows), width="container", height=16 * len(rows) + 8).encode(
        alt.Y("class:N").title(None).sort(None).axis(labelLimit=140, ticks=False, domain=False, grid=False)
    )
    colour = alt.Color("fewer:N").title(None).scale(domain=list(fewer.values()), range=COLOURS[:2])
    tooltip = [alt.Tooltip(f"{key}:Q", format="+.2%") for key in ("difference", "low", "high")]
    return fluid(
        base.mark_bar(size=10).encode(
            alt.X("difference:Q").title("difference of the error").axis(labelExpr=label, tickCount=6),
            colour.legend(orient="top", symbolType="square", columns=1, labelLimit=300),
            opacity=alt.when(alt.datum.evidence).then(alt.value(0.95)).otherwise(alt.value(0.45)),
            tooltip=[alt.Tooltip("class:N"), *tooltip],
        )
        + base.mark_rule(color=INK, strokeWidth=1, opacity=0.7).encode(x="low:Q", x2="high:Q")
        + alt.Chart(alt.Data(values=[{}])).mark_rule(color=INK, strokeWidth=1).encode(x=alt.datum(0))
    )
