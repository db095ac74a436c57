"""The page of a comparison of many runs in a browser."""

import pytest

from tests.reports.run_folders import make_config, write_run
from tests.reports.test_compare import type_it, write_test, wrong
from tests.reports.test_page_in_browser import DRAWN, browser, open_page, pytestmark  # noqa: F401

pytestmark = [pytestmark, pytest.mark.slow]
FIGURES = 7  # one of the errors, three of curves, one for each of three pairs; all nets cost the same


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page of 50 runs of 200 epochs, each of them a group."""
    folder = tmp_path_factory.mktemp("runs")
    for number in range(50):
        config = make_config(
            run_name=f"digits/n{number}", trainer__max_epochs=200, model__init_args__optimizer__init_args__lr=number / 9
        )
        run = write_run(folder / f"digits/n{number}/version_0", 200, config)
        write_test(run, wrong(100 + number, number))
    type_it(folder, "--html", folder / "c.html")
    return (folder / "c.html").as_uri()


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_of_fifty_runs_is_drawn_and_fits(open_page, width):  # noqa: F811
    page = open_page(width)
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    charts = page.query_selector_all(".chart")
    for chart in charts:
        chart.scroll_into_view_if_needed()
        page.wait_for_timeout(200)
    page.wait_for_function(f"{DRAWN} === {len(charts)}")
    assert len(charts) == FIGURES
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = page.eval_on_selector_all(".chart", "all => all.map((each) => [each.scrollWidth, each.clientWidth])")
    assert all(inner <= outer for inner, outer in boxes), boxes
    marks = page.eval_on_selector_all("svg.marks", "all => all.map((each) => each.querySelectorAll('path').length)")
    assert min(marks) > 5, marks


def test_the_first_screen_answers_and_the_legend_and_the_columns_react(open_page):  # noqa: F811
    page = open_page(1280)
    assert page.inner_text("header p").startswith("digits/n0 has the lowest test error: 10.00 %.")
    page.wait_for_function(f"{DRAWN} >= 1")
    lines = ".chart[data-number='0'] .mark-line path"
    before = page.eval_on_selector_all(lines, "all => all.map((each) => each.getAttribute('opacity'))")
    page.locator(".chart[data-number='0'] .role-legend-label text").first.click()
    after = page.eval_on_selector_all(lines, "all => all.map((each) => each.getAttribute('opacity'))")
    assert before != after
    page.locator("th button", has_text="test error, %").first.click()
    page.locator("th button", has_text="test error, %").first.click()
    assert page.inner_text("tbody td").startswith("digits/n49")
