"""The results as a table and as a chart."""

from pathlib import Path
from typing import Any

from reports.html_page import Table

Result = dict[str, Any]
# Column: key of a result, format, unit
COLUMNS = {
    "plain loop": ("plain_images_per_s", "{:,.0f}", 1),
    "our fit": ("fit_images_per_s", "{:,.0f}", 1),
    "bare step": ("limit_images_per_s", "{:,.0f}", 1),
    "fit / plain": ("fit_over_plain", "{:.2f}", 1),
    "fit / bare": ("fit_over_limit", "{:.2f}", 1),
    "loader per core": ("loader_images_per_s_per_core", "{:,.0f}", 1),
    "plain loader": ("plain_loader_images_per_s_per_core", "{:,.0f}", 1),
    "memory, GiB": ("peak_memory_bytes", "{:.1f}", 2**30),
    "first step, s": ("first_step_s", "{:.1f}", 1),
    "of the GPU's peak": ("utilisation", "{:.1%}", 1),
}
COMPETITORS = {"plain": "plain loop", "fit": "our fit", "limit": "bare step"}
COLOURS = ["#b8bec6", "#2f7ebc", "#e0a458"]


def speed_table(results: list[Result]) -> Table:
    """A row for each case, without columns that are empty in all of them."""
    columns = {name: column for name, column in COLUMNS.items() if any(result.get(column[0]) for result in results)}
    rows = [
        [result["case"], *(format_cell(result.get(key), form, unit) for key, form, unit in columns.values())]
        for result in results
    ]
    title = f"Images per second in training on {results[0]['device']}: medians of {len(results[0]['turns'])} turns"
    return Table(title, ["<case", *columns], rows)


def format_cell(value: float | None, form: str, unit: float) -> str:
    return "" if value is None else form.format(value / unit)


def speed_ratios(results: list[Result]) -> list[dict[str, Any]]:
    """A row for each turn: the speed as a multiple of the plain loop's, or of the bare step's where there is none."""
    rows = []
    for result in results:
        base = "plain" if "plain" in result["turns"][0] else "limit"
        for turn in result["turns"]:
            for key, images_per_s in turn.items():
                row = {"case": result["case"], "competitor": COMPETITORS[key], "ratio": images_per_s / turn[base]}
                rows.append(row | {"label": f"{result[f'{key}_images_per_s']:,.0f} images/s"})
    return rows


def save_plot(results: list[Result], path: Path) -> None:
    """Write the chart: .png, .svg, .pdf or .html."""
    import altair as alt  # a second, so only where it is needed

    order = list(COMPETITORS.values())
    chart = alt.Chart(alt.Data(values=speed_ratios(results)), title=results[0]["device"], width=520).encode(
        alt.Y("case:N").sort(None).title(None).scale(paddingInner=0.3).axis(domain=False, ticks=False, labelPadding=10),
        alt.YOffset("competitor:N").sort(order).scale(paddingInner=0.12),
    )
    colour = alt.Color("competitor:N").sort(None).title(None).scale(domain=order, range=COLOURS).legend(orient="top")
    ratio = alt.X("median(ratio):Q").title("speed, as a multiple of the plain loop; each dot is a turn")
    dots = chart.mark_circle(color="black", size=9, opacity=0.55).encode(x="ratio:Q")
    labels = chart.mark_text(align="left", dx=7, fontSize=11).encode(x="max(ratio):Q", text="label:N")
    layers = chart.mark_bar(cornerRadiusEnd=2).encode(ratio, colour) + dots + labels
    layers = layers.configure_view(stroke=None).configure_axis(gridOpacity=0.5, titleFontWeight="normal")
    layers.configure_title(anchor="start", fontWeight="normal").save(str(path), scale_factor=2)
