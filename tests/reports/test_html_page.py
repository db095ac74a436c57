"""Pages, Markdown and tables in the terminal."""

import re

import altair
import pytest

from reports import html_page, plots
from reports.command import print_sections
from reports.html_page import Figure, Section, Table, format_table, with_interval


def line_chart():
    values = altair.Data(values=[{"x": 1, "y": 3}, {"x": 2, "y": 4}])
    return plots.styled(altair.Chart(values, title="a < b").mark_line(color=plots.INK).encode(x="x:Q", y="y:Q"))


@pytest.fixture
def sections():
    table = Table("Errors & costs", ["<net", "error, %"], [["a<b>", "1.0"], ["c|d", "2.0"]])
    figure = Figure("A line", line_chart())
    return [Section("One", ["Some text.", table, figure]), Section("Two", [Table("Empty", ["x"], [])])]


def test_a_page_needs_nothing_beside_it(sections):
    text = html_page.html("A <report>", sections)
    assert "http" not in text and "src=" not in text and "<script" not in text and "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert text.count("<table>") == 2 and text.count("<svg") == 1 and text.count("<h2>") == 2
    assert "<td>a&lt;b&gt;</td><td class=r>1.0</td>" in text and "Errors &amp; costs" in text
    assert "<title>A &lt;report&gt;</title>" in text and "color-scheme: light dark" in text
    assert text.startswith("<!doctype html>") and text.endswith("</html>\n")
    svg = sections[0].parts[2].svg()
    assert "xmlns" not in svg and "xlink" not in svg and svg.count("currentColor") > 3
    assert re.findall(r'href="(?!#)', svg) == []
    assert " id=" not in svg  # two figures of a page would share it


def test_a_figure_is_the_same_text_twice(sections):
    assert Figure("", line_chart()).svg() == sections[0].parts[2].svg()


def test_markdown_has_the_same_tables(sections):
    lines = html_page.markdown("A report", sections).splitlines()
    start = lines.index("Errors & costs:")
    assert lines[start + 2 : start + 6] == ["| net | error, % |", "| --- | --: |", "| a<b> | 1.0 |", "| c\\|d | 2.0 |"]
    assert lines[0] == "# A report" and "## Two" in lines and "Some text." in lines


def test_a_terminal_shows_cells_as_they_are(capsys):
    print_sections([Section("", [Table("", ["<net", "error"], [["[bold]x[/bold]", "1 [0, 2]"]])])])
    assert re.search(r"net +error *\n.*\n +\[bold\]x\[/bold\] +1 \[0, 2\]", capsys.readouterr().out)


def test_cells_are_formatted_and_signs_are_in_the_heading():
    rows = [{"net": "a", "error": 0.0278, "ends": (0.0111, 0.0444)}]
    columns = {"<net": "{net}", "error, %": with_interval("error", "ends"), "share": "{error:.1%}"}
    table = format_table("Errors", rows, columns)
    assert table.rows == [["a", "2.78 [1.11, 4.44]", "2.8%"]]
    assert table.names == ["net", "error, %", "share"] and table.alignments == ["left", "right", "right"]
