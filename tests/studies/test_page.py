"""The page of a study: what its tables and figures hold."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from reports.html_page import Figure, Table, markdown, shown_sections
from studies.charts import axis_limits, log_ticks, main_chart, whole_ticks
from studies.page import make_sections, print_report, write_page
from studies.report import make_report
from studies.results import Row
from studies.study import Arm, Expectation
from studies.study_file import find_study, list_studies
from studies.summary import mean_with_interval
from studies.units import EXACT, is_curve
from tests.reports.test_html_page import HOSTILE
from tests.studies.made_up import ERROR, IMAGES, a_study, errors, lower, rows_of

FEW, MANY = errors(4, 5, 6, 5, 4), errors(20, 24, 22, 19, 23)
FLOW = "gradient_flow/first_over_last"


def with_dots():
    """Two arms, one of which has a run that diverged."""
    return a_study(lower(by=0.01)), [*rows_of("residual", FEW), *rows_of("plain", [*MANY[:4], None])]


def with_sweep():
    """Two arms over a sweep."""
    arms = [
        Arm(f"{norm}, batch_size {size}", (), {"model.norm": norm, "data.batch_size": size}, series=norm, point=size)
        for norm in ("batch", "group")
        for size in (2, 8, 32)
    ]
    expectation = lower("group, batch_size 2", "batch, batch_size 2")
    rows = [row for k, arm in enumerate(arms) for row in rows_of(arm.name, errors(9 + k, 7 + k, 11 + k))]
    return a_study(expectation, arms=arms, seeds=3, sweep="data.batch_size"), rows


def with_ratio():
    """A ratio that is expected, and a profile over layers."""
    rows = rows_of("plain", [600.0, 500, 700, 650, 580], FLOW) + rows_of("residual", [4.0, 3.5, 5, 3.9, 3], FLOW)
    profiles = [
        replace(row, measures=row.measures | {"gradient_flow/profile": [row.measures[FLOW] / k for k in range(1, 9)]})
        for row in rows
    ]
    expectation = Expectation(FLOW, "higher", "plain", "residual", factor=100.0)
    return a_study(expectation, measures=[FLOW, "gradient_flow/profile"]), profiles


def hostile():
    """Names that hold HTML, links and control characters, and a number to compare with."""
    study = a_study(Expectation(ERROR, "lower", HOSTILE, 0.1), arms=[HOSTILE, "b | c"])
    return replace(study, claim=HOSTILE, notes=HOSTILE, paper=HOSTILE), rows_of(HOSTILE, FEW, code_version=HOSTILE)


CASES = {"dots": with_dots, "sweep": with_sweep, "ratio": with_ratio, "hostile": hostile}


def tables_of(report):
    """The tables of a page by their captions."""
    sections = shown_sections(make_sections(report))
    return {part.title: part for section in sections for part in section.parts if isinstance(part, Table)}


@pytest.mark.parametrize("case", CASES)
def test_every_chart_is_valid(case):
    study, rows = CASES[case]()
    figures = [part for part in make_sections(make_report(study, "5min", rows))[0].parts if isinstance(part, Figure)]
    assert figures
    for figure in figures:
        assert figure.chart is not None
        figure.chart.to_dict()  # validates


@pytest.mark.parametrize("case", ["dots", "hostile"])
def test_pages_are_written(case, tmp_path, capsys):
    study, rows = CASES[case]()
    report = make_report(study, "5min", rows, commands={name: ["python main.py fit"] for name in study.arms})
    print_report(report)
    write_page(report, tmp_path)
    printed = capsys.readouterr().out
    assert f"Wrote {tmp_path}/made_up-5min.html" in printed
    assert "Results at 5min" in printed
    page = (tmp_path / "made_up-5min.html").read_text()
    text = (tmp_path / "made_up-5min.md").read_text()
    assert "://" not in page.partition("<script")[0]
    assert "<script>alert" not in page
    if case != "hostile":
        assert f"# {study.claim}" in text
        assert report.lead in text
        assert "He et al., arXiv 1512.03385, figure 6" in page


@pytest.mark.parametrize(
    "rows", [[], rows_of("residual", FEW[:1]), rows_of("residual", [None] * 5), rows_of("gone", FEW)]
)
def test_a_page_of_few_results_can_be_written(rows):
    report = make_report(a_study(lower(), lower(measure="curve:train/loss")), "5min", rows)
    assert "results so far" in report.lead
    assert "What would support the claim, and what was found so far" in tables_of(report)
    markdown(report.title, make_sections(report), report.lead)


def test_tables_hold_means_intervals_and_evidence():
    study, rows = with_dots()
    tables = tables_of(make_report(study, "5min", rows))
    arms = tables["Results at 5min"]
    assert arms.names == ["arm", "n", "test error, %", "diverged"]
    low, high = mean_with_interval(FEW)[1]
    assert arms.rows[1] == ["residual", "5", f"1.33 [{100 * low:.2f}, {100 * high:.2f}]", "0"]
    assert arms.rows[0][3] == "1"
    statements = tables["What would support the claim, and what was found"]
    assert statements.rows[0][0] == "test error: residual lower than plain, by more than 1 point"
    assert statements.rows[0][4] == "undecided at this budget"
    seeds = tables["Results of the seeds"]
    assert ["plain", "4", "diverged", "none", "0 s"] in seeds.rows
    assert len(seeds.rows) == 10


def make_up(study, budget):
    """Results of a study with all of its measures."""
    noise = np.random.default_rng(0)

    def value(measure, level):
        if is_curve(measure) or measure.endswith("profile"):
            return (level + np.exp(-np.arange(12) / 4) + noise.uniform(0, 0.1, 12)).tolist()
        if measure in EXACT:
            return 0.5 + level
        return round(IMAGES * (level / 10 + noise.uniform(0, 0.02))) / IMAGES + 1 / IMAGES

    return [
        Row(arm, seed, "finished", {name: value(name, 0.1 * k) for name in study.measures}, "0", IMAGES, 10)
        for k, arm in enumerate(study.arms)
        for seed in range(budget.seeds)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", list_studies())
def test_every_study_has_a_page(name):
    study = find_study(name)
    budget = next(iter(study.budgets.values()))
    report = make_report(study, budget.name, make_up(study, budget))
    assert report.verdict.is_complete
    assert all(finding.method for finding in report.verdict.findings)
    for figure in [part for part in make_sections(report)[0].parts if isinstance(part, Figure)]:
        figure.chart.to_dict()
    text = markdown(report.title, make_sections(report), report.lead)
    assert all(arm in text.replace("\\", "") for arm in study.arms)


def test_arms_with_equal_results_are_named(capsys):
    rows = [*rows_of("residual", FEW), *rows_of("plain", FEW)]
    print_report(make_report(a_study(lower()), "5min", rows))
    assert "plain and residual have the same results for each seed" in capsys.readouterr().out
    counts = [*rows_of("residual", [7] * 5, "parameters"), *rows_of("plain", [7] * 5, "parameters")]
    for different in (with_dots()[1], counts, [*rows_of("residual", [None] * 5), *rows_of("plain", [None] * 5)]):
        print_report(make_report(a_study(lower(), lower(measure="parameters")), "5min", different))
        assert "same results" not in capsys.readouterr().out


def test_settings_are_those_in_which_arms_differ():
    study, rows = with_sweep()
    table = tables_of(make_report(study, "5min", rows))["Settings of the arms"]
    assert table.names == ["arm", "model.norm", "data.batch_size"]
    assert table.rows[0] == ["batch, batch_size 2", "batch", "2"]
    crops = Arm("ten crops", test_configs=("a.yaml",), test_settings={"data.protocol": "ten_crop"}, members=5)
    table = tables_of(make_report(a_study(arms=[crops, Arm("one")]), "5min", []))["Settings of the arms"]
    assert table.names == ["arm", "test: config", "test: data.protocol", "members"]
    assert table.rows[1] == ["one", "\N{EN DASH}", "\N{EN DASH}", "\N{EN DASH}"]


def test_figures_are_chosen_by_what_there_is():
    assert main_chart(*with_sweep(), ERROR).to_dict()["layer"][1]["mark"]["type"] == "line"
    study, rows = with_ratio()
    scale = main_chart(study, rows, FLOW).to_dict()["layer"][2]["encoding"]["x"]["scale"]
    assert scale["type"] == "log"
    named = replace(with_sweep()[0], arms={name: Arm(name, series="a", point="relu") for name in with_sweep()[0].arms})
    assert main_chart(named, with_sweep()[1], ERROR).to_dict()["layer"][0]["mark"]["type"] == "text"
    assert main_chart(study, [], FLOW) is None


def test_a_number_that_is_compared_with_lies_on_the_axis():
    study = a_study(Expectation(ERROR, "higher", "plain", 0.5))
    layers = main_chart(study, rows_of("plain", FEW), ERROR).to_dict()["layer"]
    low, high = next(
        domain for each in layers if (domain := each["encoding"].get("x", {}).get("scale", {}).get("domain"))
    )
    assert low < min(FEW) < 0.5 < high


def test_an_interval_may_reach_beyond_the_axis():
    low, high = axis_limits(np.array([1.0, 2.0]), np.array([-100.0, 1.0]), np.array([100.0, 2.0]))
    assert -0.5 < low < 0.0
    assert 3.0 < high < 3.5
    assert axis_limits(*np.full((3, 1), 0.9)).tolist() == pytest.approx([0.855, 0.945])
    assert log_ticks(0.5, 2000) == [1, 10, 100, 1000]
    assert log_ticks(2.1, 6.2) == [3, 4, 5, 6]


def test_epochs_and_layers_have_whole_ticks():
    assert whole_ticks(3) == [1, 2, 3]
    assert whole_ticks(56) == [1, *range(5, 56, 5)]
    assert whole_ticks(1) == [1]
    assert len(whole_ticks(1000)) <= 13


@pytest.mark.parametrize(("values", "logarithmic"), [([1.0, 2, 4], True), ([1.0, 2, 4], False)])
def test_mean_and_interval_may_be_geometric(values, logarithmic):
    mean, (low, high) = mean_with_interval(values, logarithmic)
    half = stats.sem(values) * stats.t.isf(0.005, 2)
    assert logarithmic or (low, high) == pytest.approx((mean - half, mean + half))
    assert mean == pytest.approx(2 if logarithmic else 7 / 3)
    assert low < mean < high
    assert mean_with_interval(values[:2], logarithmic)[1] is None
    assert mean_with_interval([]) == (None, None)


def test_equal_errors_are_known_to_their_rounding():
    low, high = mean_with_interval([0.1] * 3, rounding=1 / (12 * 360**2))[1]
    assert high - low == pytest.approx(2 * 9.925 / 360 / 6, rel=1e-3)
    assert mean_with_interval([7.0] * 3) == (7, (7, 7))
