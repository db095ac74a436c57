"""The figures of `reports.protocols`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, ScalarFormatter

from reports.html_page import INK, Figure, canvas, drawn
from reports.metrics import Reliability

BLUE, ORANGE = "#2f7ebc", "#d97b28"  # seen on white and on black


def cost_chart(rows: Sequence[dict[str, Any]]) -> Figure:
    """Top-1 error against forward passes, a line for each number of models."""
    with canvas(7, 3.6) as figure:
        axes = figure.subplots()
        for colour, models in zip((BLUE, ORANGE), sorted({row["models"] for row in rows}), strict=False):
            line = sorted((row for row in rows if row["models"] == models), key=lambda row: row["cost"])
            costs, errors = ([row[key] for row in line] for key in ("cost", "top1_error"))
            ends = np.array([row["top1_interval"] for row in line]).T
            away = 100 * np.abs(ends - errors)
            name = f"{models} models together" if models > 1 else "1 model"
            percent = [100 * error for error in errors]
            axes.errorbar(costs, percent, away, fmt="o-", color=colour, capsize=3, linewidth=1.2, label=name)
            for row in line:
                own = [100 * result["top1_error"] for result in row["each"]]
                axes.plot([row["cost"]] * len(own), own, "_", color=colour, markersize=9, alpha=0.7)
                axes.annotate(
                    row["protocol"],
                    (row["cost"], 100 * row["top1_error"]),
                    xytext=(7, 5),
                    textcoords="offset points",
                    fontsize=8,
                )
        axes.set_xscale("log")
        axes.set_xticks(sorted({row["cost"] for row in rows}))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
        axes.set_xlabel("forward passes for an image")
        axes.set_ylabel("top-1 error, %")
        axes.margins(x=0.12)
        axes.set_ylim(bottom=max(0, axes.get_ylim()[0]))
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
        axes.legend(loc="best")
        title = "Error against cost, with 95 % intervals" + ("; dashes: each model" if rows[0]["each"][1:] else "")
        return Figure(title, drawn(figure))


def curve_chart(curve: Sequence[dict[str, float]]) -> Figure:
    """Top-1 error of ensembles of 1 to M members: the mean over the choices of so many, and from least to most."""
    with canvas(7, 3.4) as figure:
        axes = figure.subplots()
        sizes = [row["members"] for row in curve]
        mean, least, most = ([100 * row[key] for row in curve] for key in ("top1_error", "least", "most"))
        axes.fill_between(sizes, least, most, color=BLUE, alpha=0.2, linewidth=0, label="from the least to the most")
        axes.plot(sizes, mean, "o-", color=BLUE, linewidth=1.2, label="mean over the choices of so many")
        axes.set_xticks(sizes)
        axes.set(xlabel="members", ylabel="top-1 error, %")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
        axes.legend(loc="best")
        return Figure("Error of 1 to all members together", drawn(figure))


def confusion_chart(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """A confusion matrix, [K, K], its mistakes coloured by their share of the class."""
    classes = len(names)
    side = max(3.2, 0.36 * classes + 1.4)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    with canvas(side + 0.6, side) as figure:
        axes = figure.subplots()
        wrong = np.ma.masked_array(shares, np.eye(classes, dtype=bool))
        most = max(float(wrong.max()), 1e-9)
        for row, column in np.argwhere(matrix):
            right = row == column
            if not right:
                square = (column - 0.5, row - 0.5)
                axes.add_patch(Rectangle(square, 1, 1, color=ORANGE, alpha=0.25 + 0.7 * shares[row, column] / most))
            weight = "normal" if right else "bold"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8, weight=weight)
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")
        axes.set_xticks(range(classes), names, rotation=0 if max(map(len, names)) < 4 else 90)
        axes.set_yticks(range(classes), names)
        axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=INK, alpha=0.15, linewidth=0.6)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="taken for", ylabel="class")
        return Figure("Confusion matrix: images of a class (row) taken for each class (column)", drawn(figure))


def reliability_chart(before: Reliability, after: Reliability | None, temperature: float | None) -> Figure:
    """How often guesses are right by how sure they are, and how many are how sure."""
    shown = [("as it is", before, BLUE)]
    if after is not None:
        shown.append((f"at temperature {temperature:.2f}", after, ORANGE))
    with canvas(5.2, 5) as figure:
        top, bottom = figure.subplots(2, sharex=True, height_ratios=[3.2, 1])
        top.plot([0, 1], [0, 1], color=INK, linewidth=0.8, alpha=0.5, linestyle="--")
        bins = len(before.images)
        edges = np.linspace(0, 1, bins + 1)
        for place, (name, bars, colour) in enumerate(shown):
            name = f"{name}, ECE {bars.error:.3f}"
            top.plot(bars.confidence, bars.accuracy, color=colour, linewidth=1, alpha=0.6)
            # As large as the bin: of a few images, chance decides
            area = 6 + 150 * bars.images / bars.images.sum()
            top.scatter(bars.confidence, bars.accuracy, area, color=colour, clip_on=False, zorder=3, label=name)
            width = 0.8 / bins / len(shown)
            bottom.bar(edges[:-1] + (place + 0.625) * width, bars.images, width, color=colour)
        top.set(ylabel="share of right guesses", ylim=(0, 1.02), xlim=(0, 1.01))
        legend = top.legend(loc="best")
        for handle in legend.legend_handles:
            handle.set_sizes([30])
        bottom.set_yscale("symlog", linthresh=1)
        bottom.set(ylabel="images", xlabel="probability of the guess")
        title = f"Reliability in {bins} bins of equal width, dots by the number of images"
        return Figure(title, drawn(figure))
