"""Pages of studies in a browser: every figure is drawn, at any width, and nothing is complained about."""

import pytest

from studies.page import write_page
from studies.report import make_report
from tests.reports.test_page_in_browser import browser, pytestmark  # noqa: F401
from tests.studies.test_page import CASES

pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("case", CASES)
def test_every_figure_is_drawn(case, width, browser, tmp_path):  # noqa: F811
    study, rows = CASES[case]()
    write_page(make_report(study, "5min", rows), tmp_path)
    page = browser.new_page(viewport={"width": width, "height": 4000})
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "made_up-5min.html").as_uri())
    page.wait_for_function("document.querySelectorAll('.chart').length == document.querySelectorAll('.ready').length")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for chart in page.query_selector_all(".chart"):
        assert chart.query_selector_all("svg path").__len__() > 3
        assert "NaN" not in chart.inner_html()
    assert not complaints
    page.close()
