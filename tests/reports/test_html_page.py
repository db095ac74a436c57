"""Pages, Markdown and tables in the terminal."""

import base64
import hashlib
import json
import re

import altair
import pytest

from reports import html_page, plots
from reports.chart_data import Datasets, encode_rows, script_json
from reports.command import print_sections
from reports.html_page import Figure, Image, Images, Section, Table, format_table, with_interval

HOSTILE = "a</script><script>alert(1)</script>\u2028<!--<img src=x onerror=alert(1)>\"'&{{7*7}}\x07"


def line_chart(values=((1, 3), (2, 4))):
    data = altair.Data(values=[{"x": x, "y": y, "name": HOSTILE} for x, y in values])
    return altair.Chart(data, title="a < b").mark_line(color=plots.INK).encode(x="x:Q", y="y:Q")


@pytest.fixture
def sections():
    table = Table("Errors & costs", ["<net", "error, %"], [["a<b>", "1.0"], ["c|d", "2.0"]], best=1, note="A note.")
    return [
        Section("One", ["Some text.", table, Figure("A line", line_chart())]),
        Section("Two", [Table("Empty", ["x"], [])], folded=True),
        Section("Three", [Images("Mistakes", [Image(b"\x89PNG...", "cat <or> dog"), Image(None, "b.jpg")])]),
    ]


def without_scripts(page):
    """A page's own markup, without what its <script> elements hold."""
    return re.sub(r"(<script[^>]*>).*?</script>", r"\1</script>", page, flags=re.DOTALL)


def figures_of(page):
    """The charts and data sets that a page holds."""
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)[1])


def test_a_page_needs_nothing_beside_it(sections):
    page = html_page.html("A <report>", sections, "A is <better>.")
    text = without_scripts(page)
    assert "http" not in text.replace("http-equiv", "") and "@import" not in text and not re.search(r"url\((?!#)", text)
    assert re.findall(r'src="(.{10})', text) == ["data:image"] and "src=" not in text.replace('src="data:', "")
    assert re.findall(r'href="(?!#)', text) == []
    assert text.count("<table>") == 2 and text.count('class="chart"') == 1 and text.count("<h2>") == 3
    assert "<tr class=best><td>c|d</td><td class=r>2.0</td>" in text and "<td>a&lt;b&gt;</td>" in text
    assert "Errors &amp; costs" in text and '<p class="note">A note.</p>' in text and "A is &lt;better&gt;." in text
    assert "<title>A &lt;report&gt;</title>" in text and "color-scheme: light dark" in text
    assert text.startswith("<!doctype html>") and text.endswith("</html>\n")
    assert re.findall(r"<b>(.*?)\.</b>", text) == ["Table 1", "Figure 1", "Table 2", "Figure 2"]
    assert text.count("<details") == 1 and 'href="#section-2"' in text and '<details id="section-2">' in text
    assert "cat &lt;or&gt; dog" in text and text.count("<img") == 1


def test_only_the_scripts_of_the_page_may_run(sections):
    page = html_page.html("A", sections)
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    hashes = re.findall(r"'sha256-(.*?)'", page)
    assert [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts] == hashes
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]
    assert policy.startswith("default-src 'none'; ") and "connect-src" not in policy and len(hashes) == 2


def test_text_of_strangers_stays_text():
    chart = line_chart()
    parts = [HOSTILE, Table(HOSTILE, [HOSTILE], [[HOSTILE]], note=HOSTILE), Figure(HOSTILE, chart)]
    sections = [Section(HOSTILE, [*parts, Images(HOSTILE, [Image(None, HOSTILE)])])] * 3
    page = html_page.html(HOSTILE, sections, HOSTILE)
    assert page.count("<script") == page.count("</script>") == 3  # the data, Vega and the page's own
    text = without_scripts(page)
    assert "<img" not in text and "alert(1)&lt;/script&gt;" in text and "\u2028" not in page and "\x07" not in page
    assert "{{7*7}}" in text and "\\u2028" in text
    content = figures_of(page)
    [columns] = content["datasets"].values()
    assert columns["name"] == {"texts": [HOSTILE], "indices": [0, 0]} and len(content["specs"]) == 3


def test_data_are_held_once_and_by_columns():
    chart = line_chart()
    datasets = Datasets()
    specs = [datasets.extract((chart & chart).to_dict()), datasets.extract(line_chart().to_dict())]
    assert list(datasets.columns) == ["data0"] and "values" not in json.dumps(specs[0]["vconcat"])
    assert specs[1]["data"] == {"name": "data0"} and "datasets" not in specs[0]
    rows = [{"x": 1.5, "run": "a"}, {"x": float("nan"), "run": "b"}, {"run": "a", "x": 2, "ends": (1, float("inf"))}]
    assert encode_rows(rows) == {
        "x": [1.5, None, 2],
        "run": {"texts": ["a", "b"], "indices": [0, 1, 0]},
        "ends": [None, None, [1, None]],
    }
    assert "<" not in script_json(["</script>", "<!--"]) and json.loads(script_json("\u2028</")) == "\u2028</"


def test_what_is_empty_is_left_out():
    parts = [Figure("No chart", None), Figure("No data", line_chart([])), Images("No images", []), ""]
    page = html_page.html("A", [Section("Empty", parts), Section("Kept", ["Text.", *parts])])
    text = without_scripts(page)
    assert "Empty" not in text and "No chart" not in page and "No data" not in page and "No images" not in page
    assert "Kept" in text and len(page) < 30_000  # without Vega
    assert "Empty" not in html_page.markdown("A", [Section("Empty", parts)])


def test_a_page_is_the_same_text_twice(sections):
    pages = [html_page.html("A", [*sections, Section("", [Figure("", line_chart())])]) for _ in range(2)]
    assert pages[0] == pages[1]


def test_images_say_what_they_are():
    starts = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff\xe0", "webp": b"RIFF....WEBP"}
    for kind, start in starts.items():
        assert Image(start, "").address == f"data:image/{kind};base64,{base64.b64encode(start).decode()}"
    assert Image(None, "").address == ""


def test_markdown_has_the_same_tables(sections):
    lines = html_page.markdown("A report", sections, "A is better.").splitlines()
    start = lines.index("Errors & costs:")
    assert lines[start + 2 : start + 6] == [
        "| net | error, % |",
        "| --- | --: |",
        r"| a\<b> | 1.0 |",
        "| c\\|d | 2.0 |",
    ]
    assert lines[:3] == ["# A report", "", "**A is better.**"] and "## Two" in lines and "Some text." in lines
    assert "A note." in lines


def test_a_terminal_shows_cells_as_they_are(capsys):
    print_sections([Section("", [Table("", ["<net", "error"], [["[bold]x[/bold]", "1 [0, 2]"]])])])
    assert re.search(r"net +error *\n.*\n +\[bold\]x\[/bold\] +1 \[0, 2\]", capsys.readouterr().out)


def test_no_text_controls_a_terminal(capsys):
    """A name of somebody else's run may stand anywhere."""
    evil = "run\x1b[2J"
    table = Table(evil, [f"<{evil}", "b"], [[evil, "1"]], note=evil)
    print_sections([Section(evil, [table, evil])], lead=evil)
    printed = capsys.readouterr().out
    assert "\x1b[2J" not in printed and printed.count("run\\x1b[2J") == 6


def test_cells_are_formatted_and_signs_are_in_the_heading():
    rows = [{"net": "a", "error": 0.0278, "ends": (0.0111, 0.0444)}]
    columns = {"<net": "{net}", "error, %": with_interval("error", "ends"), "share": "{error:.1%}"}
    table = format_table("Errors", rows, columns)
    assert table.rows == [["a", "2.78 [1.11, 4.44]", "2.8%"]]
    assert table.names == ["net", "error, %", "share"] and table.alignments == ["left", "right", "right"]
