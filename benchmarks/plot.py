"""The results as a chart."""

import statistics
from pathlib import Path
from typing import Any

from benchmarks.table import Result

COMPETITORS = {"plain": "plain loop", "fit": "our fit", "limit": "bare step"}
COLOURS = ["#b8bec6", "#2f7ebc", "#e0a458"]


def bars(results: list[Result]) -> list[dict[str, Any]]:
    """A bar for each case and competitor: its speed as a multiple of the plain loop's (else of the bare step's)."""
    rows = []
    for result in results:
        base = "plain" if result.get("plain_images_per_s") else "limit"
        for key, name in COMPETITORS.items():
            if not (images_per_s := result.get(f"{key}_images_per_s")):
                continue
            ratios = [turn[key] / turn[base] for turn in result["turns"]]
            row = {"case": result["case"], "competitor": name, "ratio": statistics.median(ratios), "turns": ratios}
            rows.append(row | {"end": max(ratios), "label": f"{images_per_s:,.0f} images/s"})
    return rows


def save_plot(results: list[Result], path: Path) -> None:
    """Write the chart: .png, .svg, .pdf or .html."""
    import altair as alt  # a second, so only where it is needed

    offset = alt.YOffset("competitor:N").sort(list(COMPETITORS.values())).scale(paddingInner=0.12)
    case = alt.Y("case:N").sort(None).title(None).scale(paddingInner=0.3)
    colour = alt.Color("competitor:N").sort(None).title(None).scale(domain=list(COMPETITORS.values()), range=COLOURS)
    ratio = alt.X("ratio:Q").title("speed, as a multiple of the plain loop; each dot is a turn")
    chart = alt.Chart(alt.Data(values=bars(results)), title=results[0]["device"], width=520)
    chart = chart.encode(case.axis(domain=False, ticks=False, labelPadding=10, labelFontSize=13), offset)
    dots = chart.transform_flatten(["turns"]).mark_circle(color="black", size=9, opacity=0.55).encode(x="turns:Q")
    labels = chart.mark_text(align="left", dx=7, fontSize=11).encode(x="end:Q", text="label:N")
    layers = chart.mark_bar(cornerRadiusEnd=2).encode(ratio, colour) + dots + labels
    layers = layers.configure_view(stroke=None).configure_legend(orient="top", labelFontSize=12, symbolType="square")
    layers = layers.configure_axis(gridOpacity=0.5, titleFontWeight="normal", titleFontSize=12, titlePadding=10)
    layers.configure_title(anchor="start", fontWeight="normal", color="#555", offset=8).save(str(path), scale_factor=2)
