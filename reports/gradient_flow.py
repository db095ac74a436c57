"""Gradient norms over depth and over time, of runs in which `callbacks.GradientFlow` has measured them."""

from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np

from checkpointing.gradient_flow import GradientFlowTable
from errors import printable
from reports.html_page import Figure
from reports.line_charts import Line, LineStyle, choose_evenly, line_chart, round_values
from reports.plots import INK, fluid
from reports.run import Run

STEPS, LAYERS = 40, 60  # of a heat map at most, evenly chosen
POINTS = 300  # layers of a profile at most
VALUES = {"gradient": "gradient norm", "update_ratio": "update-to-weight ratio"}


def gradient_flow_figures(groups: Mapping[str, Sequence[Run]]) -> list[Figure]:
    """The profile over depth of all groups, and heat maps of each group that was measured."""
    profile = Figure("Gradient norm by layer, from the input to the classifier", profile_chart(groups))
    heat_maps = [
        Figure(f"{title[0].upper()}{title[1:]} by layer and step: {group}", chart)
        for name, title in VALUES.items()
        for group, chart in heat_map_charts(groups, name).items()
    ]
    return [profile, *heat_maps]


def profile_chart(groups: Mapping[str, Sequence[Run]]) -> alt.LayerChart | None:
    """Gradient norm against depth at the first measured step and at the last; None where nothing was measured."""
    lines = []
    for group, runs in groups.items():
        for run in runs:
            if (table := run.gradient_flow) is None:
                continue
            chosen = choose_evenly(len(table.layers), POINTS)
            series = {"first step": table.gradient[0, chosen]}
            if len(table.steps) > 1:
                series["last measured step"] = table.gradient[-1, chosen]
            lines.append(Line(group, run.name, chosen + 1.0, series))
    names = ("first step", "last measured step")
    style = LineStyle("layer", "gradient norm", ".4~g", names, smooths=False, logarithmic=True)
    return line_chart(lines, style, list(groups))


def heat_map_charts(groups: Mapping[str, Sequence[Run]], name: str) -> dict[str, alt.Chart]:
    """For each group that was measured a heat map of a value by layer and step, all in the same colours.

    Args:
        name: one of VALUES, an attribute of `GradientFlowTable`.
    """
    means = {group: found for group, runs in groups.items() if (found := mean_over_runs(runs, name)) is not None}
    positive = np.concatenate([np.zeros(0), *(each[2][each[2] > 0] for each in means.values())])
    positive = positive[np.isfinite(positive)]
    if not len(positive):
        return {}
    limits = [float(f"{limit(positive):.3g}") for limit in (np.min, np.max)]
    return {group: _draw(*found, limits, VALUES[name]) for group, found in means.items()}


def mean_over_runs(runs: Sequence[Run], name: str) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    """Layers, [T] steps and [T, layers] geometric means of a value over the runs; None without any.

    Only the steps and layers count that all measured runs have; there must be two steps or more.
    """
    tables = [run.gradient_flow for run in runs if run.gradient_flow is not None]
    if not tables:
        return None
    steps = np.array(sorted(set.intersection(*(set(table.steps) for table in tables))))
    common = set.intersection(*(set(table.layers) for table in tables))
    layers = [layer for layer in tables[0].layers if layer in common]
    if len(steps) < 2 or not layers:  # the profile shows a single step
        return None
    steps = steps[choose_evenly(len(steps), STEPS)]
    layers = [layers[index] for index in choose_evenly(len(layers), LAYERS)]
    values = np.array([select(table, name, steps, layers) for table in tables])
    with np.errstate(divide="ignore", invalid="ignore"):
        return layers, steps, np.exp(np.log(values).mean(axis=0))


def select(table: GradientFlowTable, name: str, steps: np.ndarray, layers: Sequence[str]) -> np.ndarray:
    """[T, layers] values of a table at some of its steps and layers."""
    values: np.ndarray = getattr(table, name)
    columns = [table.layers.index(layer) for layer in layers]
    return values[np.isin(table.steps, steps)][:, columns]


def _draw(layers: list[str], steps: np.ndarray, values: np.ndarray, limits: list[float], title: str) -> alt.Chart:
    names = [printable(layer) for layer in layers]
    # A cell reaches from its own step to the next one
    ends = np.append(steps[1:], 2 * steps[-1] - steps[-2])
    rows = [
        {"layer": name, "step": round_values(steps), "end": round_values(ends), "value": round_values(column)}
        for name, column in zip(names, values.T, strict=True)
    ]
    colour = alt.Scale(type="log", scheme="viridis", domain=limits)
    legend = alt.Legend(
        title=title,
        orient="top",
        titleFontWeight="normal",
        titleColor=INK,
        titleLimit=400,
        format=".4~g",
        tickCount=4,
        gradientThickness=8,
    )
    chart = (
        alt.Chart(alt.Data(values=rows), width="container", height=min(14 * len(names) + 6, 320))
        .transform_flatten(["step", "end", "value"])
        .transform_filter("datum.value > 0")
        .mark_rect()
        .encode(
            alt.X("step:Q").title("optimizer step").scale(nice=False, zero=False).axis(grid=False, tickMinStep=1),
            alt.X2("end:Q"),
            alt.Y("layer:N")
            .title(None)
            .scale(domain=names)
            .axis(labelLimit=130, labelPadding=6, ticks=False, domain=False, labelOverlap=True),
            alt.Color("value:Q").scale(colour).legend(legend),
            tooltip=[
                alt.Tooltip("layer:N"),
                alt.Tooltip("step:Q", format=","),
                alt.Tooltip("value:Q", title=title, format=".3~g"),
            ],
        )
    )
    return fluid(chart)
