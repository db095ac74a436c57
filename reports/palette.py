"""Colours of groups: told apart by readers with any colour vision, legible on white and on black."""

from collections.abc import Collection, Sequence
from typing import Any

import altair as alt

# Each has a contrast of at least 3:1 to #fff and to #111
COLOURS = [
    "#2f7ebc",  # blue
    "#d2701f",  # orange
    "#1ba07d",  # green
    "#8d4f64",  # wine
    "#8578fc",  # violet
    "#71650d",  # olive
    "#f85c79",  # pink
    "#5651cf",  # indigo
    "#8391bc",  # slate
    "#b64294",  # magenta
]
GREY = "#808080"  # of all groups after those


def group_colour(groups: Sequence[str], shown: Collection[str]) -> alt.Color:
    """The colour of each group, and a legend of those shown, in as many columns as the width of the chart allows."""
    shown = [group for group in groups if group in shown]
    scale = alt.Scale(domain=list(groups), range=[*COLOURS, *[GREY] * len(groups)][: len(groups)])
    longest = min(6.5 * max(map(len, shown), default=0), 300)
    # By the size of what holds the chart: `width` changes once more when room for the legend is found. It is named only
    # so that the columns are counted anew when it does
    space = "(isFinite(containerSize()[0]) ? containerSize()[0] : 640) - 80 + 0 * width"
    columns: Any = {"expr": f"max(1, floor(({space}) / {longest + 40}))"}
    legend = alt.Legend(
        title=None,
        orient="top",
        values=shown,
        columns=columns,
        labelLimit=300,
        symbolType="stroke",
        symbolStrokeWidth=3,
    )
    return alt.Color("group:N").scale(scale).legend(legend if len(shown) > 1 else None)
