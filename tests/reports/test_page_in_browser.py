"""A page in a browser: everything is drawn, works, fits, and asks nobody for anything."""

import shutil
from pathlib import Path

import altair
import numpy as np
import pytest

from reports import plots
from reports.html_page import Figure, Image, Images, Section, Table, html
from reports.metrics import Reliability
from reports.pareto import Point, pareto_chart
from tests.datamodules.test_decode import encoded, photo
from tests.reports.test_html_page import HOSTILE

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
DRAWN = "document.querySelectorAll('.chart svg.marks').length"
TIMEOUT = 60_000  # ms


def curves():
    """Lines of two groups, which a click on the legend shows and hides."""
    picked = altair.selection_point(fields=["group"], bind="legend")
    rows = [{"epoch": epoch, "error": 1 / epoch / k, "group": f"net {k}"} for epoch in range(1, 9) for k in (1, 2)]
    base = altair.Chart(altair.Data(values=rows), width="container").mark_line().add_params(picked)
    opacity = altair.condition(picked, altair.value(1), altair.value(0.1))
    return plots.styled(base.encode(x="epoch:Q", y="error:Q", color="group:N", opacity=opacity))


def report():
    """A page with one of everything, much of it too wide for a telephone."""
    bins = Reliability(np.arange(15) ** 2, np.linspace(0, 1, 15), np.linspace(0, 1, 15))
    rows = [["a", "9.5 [8, 11]", "2 h 3 min", "x" * 60], ["b", "10.2 [9, 12]", "40 s", "y"], ["c", "", "5 min", "z"]]
    table = Table(
        "Errors", ["<run", "error, %", "time", "<a long one", *map(str, range(12))], [[*row, *"0" * 12] for row in rows]
    )
    confusion = np.eye(10, dtype=int) * 30 + np.eye(10, k=1, dtype=int)
    matrix = plots.confusion_chart(confusion, [HOSTILE, *"bcdefghij"])
    points = [Point(f"net {k}", "a" if k % 2 else "b", 0.3 / k, 10**k, 10**k) for k in range(1, 6)]
    pictures = [Image(encoded(photo(20, 30, k)), f"{HOSTILE} {k}") for k in range(5)]
    return [
        Section("Errors", [table, HOSTILE, "word" * 200, Figure("Curves", curves())]),
        Section("Costs", [Figure("Pareto", pareto_chart(points, "parameters"))]),
        Section("Confusions", [Figure("Matrix", matrix)], folded=True),
        Section("Calibration", [Figure("Reliability", plots.reliability_chart({"a": bins, "b": bins}))], folded=True),
        Section("Mistakes", [Images("Mistakes", pictures)], folded=True),
    ]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "a report.html"
    path.write_text(html(f"A report {HOSTILE}", report(), f"A is better. {HOSTILE}"))
    return path.as_uri()


@pytest.fixture
def open_page(browser, address):
    """Open the page; at the end, the console must hold no error, and nothing else may have been asked for."""
    pages, complaints = [], []

    def open_it(width, **options):
        page = browser.new_page(viewport={"width": width, "height": 844}, **options)
        page.set_default_timeout(TIMEOUT)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: complaints.append(request.url) if is_foreign(request.url) else None)
        page.goto(address)
        pages.append(page)
        return page

    def is_foreign(url):
        return url != address and not url.startswith("data:image/")

    yield open_it
    for page in pages:
        page.close()
    assert complaints == []


def unfold(page):
    """Open all sections, and wait for their figures."""
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    for chart in page.query_selector_all(".chart"):
        chart.scroll_into_view_if_needed()
    page.wait_for_function(f"{DRAWN} === 4 && document.querySelectorAll('.chart.ready').length === 4")


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_drawn_and_fits(open_page, width):
    page = open_page(width)
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = page.eval_on_selector_all(".chart", "all => all.map((each) => [each.scrollWidth, each.clientWidth])")
    fluid = boxes[:2] + boxes[3:]  # the cells of the matrix stay legible: it scrolls
    assert all(inner <= outer for inner, outer in fluid), boxes
    marks = page.eval_on_selector_all(
        "svg.marks", "all => all.map((each) => each.querySelectorAll('path, text').length)"
    )
    assert len(marks) == 4 and min(marks) > 10
    assert page.eval_on_selector_all("img", "all => all.map((each) => each.naturalWidth)") == [30] * 5
    assert page.inner_text("h1").startswith("A report a</script><script>alert(1)</script>")


def test_tables_sort_as_numbers_by_mouse_and_keyboard(open_page):
    page = open_page(1280)
    header = page.locator("th", has_text="error, %")

    def shown():
        order = page.eval_on_selector_all("td:first-child", "all => all.map((each) => each.textContent).join('')")
        return order, header.get_attribute("aria-sort")

    header.locator("button").click()
    assert shown() == ("abc", "ascending")  # as text, 10.2 is before 9.5
    page.keyboard.press("Enter")
    assert shown() == ("bac", "descending")  # an empty cell is the last one in any order
    page.locator("th button", has_text="time").press("Space")
    assert shown() == ("bca", "none")


def test_a_click_on_the_legend_and_a_tooltip(open_page):
    page = open_page(1280)
    page.wait_for_function(f"{DRAWN} >= 1")
    opacities = "all => all.map((each) => each.getAttribute('opacity'))"
    lines = ".chart[data-number='0'] .mark-line path"
    assert page.eval_on_selector_all(lines, opacities) == ["1", "1"]
    page.locator(".chart[data-number='0'] .role-legend-label text").first.click()
    assert page.eval_on_selector_all(lines, opacities) == ["1", "0.1"]
    page.locator(".chart[data-number='1']").scroll_into_view_if_needed()
    page.locator(".chart[data-number='1'] .mark-symbol.role-mark path").first.hover()
    assert "net" in page.inner_text("#tooltip")


def test_light_and_dark(open_page):
    page = open_page(390, color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(17, 17, 17)"
    page.wait_for_function(f"{DRAWN} >= 1")
    text = page.locator(".chart text").first
    ink = "each => getComputedStyle(each).fill"
    assert text.evaluate(ink) == "rgb(230, 230, 227)"
    page.click("#theme")
    assert page.evaluate(background) == "rgb(255, 255, 255)" and text.evaluate(ink) == "rgb(26, 26, 26)"
    page.click("#theme")
    assert page.evaluate(background) == "rgb(17, 17, 17)"


def test_a_link_unfolds_its_section_and_paper_shows_all(open_page, tmp_path):
    page = open_page(1280)
    page.click("nav a >> text=Calibration")
    page.wait_for_function("document.querySelectorAll('details[open]').length === 1")
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert page.evaluate(DRAWN) == 4
    assert page.evaluate("document.querySelectorAll('details[open]').length") == 1  # as before
    assert len(Path(tmp_path / "page.pdf").read_bytes()) > 20_000


def test_without_a_script_the_page_says_why_it_has_no_figures(open_page):
    page = open_page(390, java_script_enabled=False)
    assert "drawn by its script" in page.inner_text("noscript") and "9.5 [8, 11]" in page.inner_text("table")
