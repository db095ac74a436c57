"""Heat maps of the gradients that `callbacks.GradientNorms` logs: how much of them reaches each layer."""

import re
from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np

from errors import printable
from reports.line_charts import choose_evenly, round_values
from reports.plots import INK, fluid
from reports.run import Run

PREFIX = "grad_norm/"
EPOCHS, LAYERS = 40, 60  # that are drawn at most, evenly chosen
HEADS = ("fc", "classifier", "head", "linear", "last_linear", "logits")  # layers that come last, however they sort


def gradient_norm_charts(groups: Mapping[str, Sequence[Run]]) -> dict[str, alt.Chart]:
    """For each group that logged them the norm of the gradient by layer and epoch, all in the same colours."""
    norms = {group: found for group, runs in groups.items() if (found := mean_norms(runs)) is not None}
    positive = [values[values > 0] for _, _, values in norms.values()]
    if not sum(map(len, positive)):
        return {}
    limits = [float(f"{limit(np.concatenate(positive)):.3g}") for limit in (np.min, np.max)]
    return {group: _draw(*found, limits) for group, found in norms.items()}


def mean_norms(runs: Sequence[Run]) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    """Layers by depth, [T] epochs and [layers, T] geometric means of the norms over the runs; None without any.

    Only the epochs count that all runs have.
    """
    runs = [run for run in runs if any(name.startswith(PREFIX) for name in run.curves)]
    if not runs:
        return None
    names = set.intersection(*({name for name in run.curves if name.startswith(PREFIX)} for run in runs))
    layers = sorted((name.removeprefix(PREFIX) for name in names), key=depth_key)
    layers = [layers[index] for index in choose_evenly(len(layers), LAYERS)]
    curves = [[run.curves[PREFIX + layer] for layer in layers] for run in runs]
    common = set.intersection(*(set(curve.epochs) for each in curves for curve in each)) if layers else set()
    epochs = np.array(sorted(common))[choose_evenly(len(common), EPOCHS)]
    if not len(epochs):
        return None
    values = np.array([[curve.values[np.isin(curve.epochs, epochs)] for curve in each] for each in curves])
    with np.errstate(divide="ignore", invalid="ignore"):
        return layers, epochs, np.exp(np.log(values).mean(axis=0))


def depth_key(layer: str) -> list[tuple[int, int, str]]:
    """A key that sorts the names of layers by depth: numbers in them as numbers, the classifier last."""
    parts = re.findall(r"\d+|[^\d.]+", layer)
    first = layer.split(".")[0]
    stage = 2 if first.rstrip("0123456789") in HEADS else 0 if first.startswith(("conv", "stem")) else 1
    return [(stage, 0, ""), *((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)]


def _draw(layers: list[str], epochs: np.ndarray, norms: np.ndarray, limits: list[float]) -> alt.Chart:
    names = [printable(layer) for layer in layers]
    # A cell reaches from the epoch before to its own
    before = np.concatenate([[max(0.0, epochs[0] - 1)], epochs[:-1]])
    rows = [
        {"layer": name, "epoch": round_values(epochs), "before": round_values(before), "norm": round_values(values)}
        for name, values in zip(names, norms, strict=True)
    ]
    colour = alt.Scale(type="log", scheme="viridis", domain=limits)
    legend = alt.Legend(
        title="gradient norm",
        orient="top",
        titleFontWeight="normal",
        titleColor=INK,
        format=".1~g",
        tickCount=4,
        gradientThickness=8,
    )
    chart = (
        alt.Chart(alt.Data(values=rows), width="container", height=min(14 * len(names) + 6, 320))
        .transform_flatten(["epoch", "before", "norm"])
        .transform_filter("datum.norm > 0")
        .mark_rect()
        .encode(
            alt.X("before:Q").title("epoch").scale(nice=False, zero=False).axis(grid=False, tickMinStep=1),
            alt.X2("epoch:Q"),
            alt.Y("layer:N")
            .title(None)
            .scale(domain=names)
            .axis(labelLimit=130, labelPadding=6, ticks=False, domain=False, labelOverlap=True),
            alt.Color("norm:Q").scale(colour).legend(legend),
            tooltip=[alt.Tooltip("layer:N"), alt.Tooltip("epoch:Q"), alt.Tooltip("norm:Q", format=".3~g")],
        )
    )
    return fluid(chart)
