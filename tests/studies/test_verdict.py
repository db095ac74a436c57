"""The verdict on made-up results: every outcome, its limits, and what there is no verdict for."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from studies.results import Row
from studies.study import Arm, Expectation
from studies.verdict import decide
from tests.studies.made_up import CLASSES, ERROR, IMAGES, a_study, errors, lower, rows_of

FEW, MANY = errors(4, 5, 6, 5, 4), errors(20, 24, 22, 19, 23)
CLOSE, CLOSE_TOO = errors(4, 8, 6, 5, 9), errors(5, 9, 7, 6, 10)


def finding_of(expectation, a, b, **kwargs):
    """The finding of a study with one statement on two arms."""
    rows = rows_of("residual", a, expectation.measure) + rows_of("plain", b, expectation.measure)
    return decide(a_study(expectation, seeds=len(a), **kwargs), "5min", rows).findings[0]


@pytest.mark.parametrize(
    ("a", "b", "outcome"),
    [
        (FEW, MANY, "supported"),
        (MANY, FEW, "not supported"),
        (CLOSE, CLOSE_TOO, "undecided at this budget"),
        (FEW, FEW, "undecided at this budget"),
        (errors(4, 5), errors(20, 24), "undecided at this budget"),
    ],
)
def test_outcomes_of_lower_and_higher(a, b, outcome):
    found = finding_of(lower(), a, b)
    assert found.outcome == outcome
    mirrored = finding_of(Expectation(ERROR, "higher", "plain", "residual"), a, b)
    assert mirrored.outcome == outcome
    assert mirrored.p == found.p


def test_p_and_interval_are_those_of_welch():
    found = finding_of(lower(), CLOSE, CLOSE_TOO)
    expected = stats.ttest_ind(CLOSE, CLOSE_TOO, equal_var=False)
    assert found.method == "Welch"
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.99)), rel=1e-9)
    assert found.means == pytest.approx((np.mean(CLOSE), np.mean(CLOSE_TOO)))
    assert found.difference == pytest.approx(-1 / IMAGES)


@pytest.mark.parametrize(
    ("points", "outcome"), [(0, "supported"), (3, "supported"), (4.7, "undecided at this budget"), (8, "not supported")]
)
def test_a_smallest_difference_that_counts(points, outcome):
    found = finding_of(lower(by=points / 100), FEW, MANY)  # the means differ by 4.67 points
    assert found.outcome == outcome
    shifted = stats.ttest_ind(np.array(FEW) + points / 100, MANY, equal_var=False)
    assert found.p == pytest.approx(shifted.pvalue, rel=1e-9)
    low, high = found.interval
    assert (found.outcome == "undecided at this budget") == (low <= -points / 100 <= high)


@pytest.mark.parametrize(
    ("factor", "outcome"), [(50, "supported"), (160, "undecided at this budget"), (9e2, "not supported")]
)
def test_a_factor_is_tested_in_logarithms(factor, outcome):
    a, b = [600, 500, 700, 650, 580], [4, 3.5, 5, 3.9, 3]
    expectation = Expectation("norm", "higher", "residual", "plain", factor=factor)
    found = finding_of(expectation, a, b)
    assert found.outcome == outcome
    logs = stats.ttest_ind(np.log(a), np.log(b) + math.log(factor), equal_var=False)
    assert found.p == pytest.approx(logs.pvalue, rel=1e-9)
    assert found.difference == pytest.approx(stats.gmean(a) / stats.gmean(b))
    assert found.interval[0] < found.difference < found.interval[1]


@pytest.mark.parametrize(
    ("points", "outcome"), [(4, "supported"), (1, "undecided at this budget"), (0.05, "undecided at this budget")]
)
def test_equal_within(points, outcome):
    found = finding_of(Expectation(ERROR, "equal", "residual", "plain", by=points / 100), CLOSE, CLOSE_TOO)
    assert found.outcome == outcome
    low, high = found.interval
    assert (outcome == "supported") == (-points / 100 < low and high < points / 100)


def test_equal_is_not_supported_outside_its_range():
    for a, b in [(FEW, MANY), (MANY, FEW)]:
        assert finding_of(Expectation(ERROR, "equal", "residual", "plain", by=0.01), a, b).outcome == "not supported"


@pytest.mark.parametrize(
    ("a", "b", "points", "outcome"),
    [
        (FEW, MANY, 1, "supported"),
        (CLOSE, CLOSE_TOO, 3, "supported"),
        (CLOSE, CLOSE_TOO, 0.5, "undecided at this budget"),
        (MANY, FEW, 1, "not supported"),
        (MANY, FEW, 10, "supported"),
    ],
)
def test_no_worse_may_be_better(a, b, points, outcome):
    found = finding_of(Expectation(ERROR, "not_higher", "residual", "plain", by=points / 100), a, b)
    assert found.outcome == outcome
    assert found.p == pytest.approx(stats.ttest_ind(np.array(a) - points / 100, b, equal_var=False).pvalue, rel=1e-9)
    mirrored = finding_of(Expectation(ERROR, "not_lower", "plain", "residual", by=points / 100), a, b)
    assert (mirrored.outcome, mirrored.p) == (outcome, pytest.approx(found.p))
    words = {
        "supported": "no more than",
        "not supported": "is more than",
        "undecided at this budget": "evidence whether",
    }
    assert words[outcome] in found.sentence()
    assert f"{points} point{'s' * (points != 1)} higher than plain" in found.sentence()
    assert f"{points} point{'s' * (points != 1)} lower than residual" in mirrored.sentence()


@pytest.mark.parametrize(
    ("relation", "number", "outcome"),
    [
        ("lower", 0.05, "supported"),
        ("higher", 0.05, "not supported"),
        ("lower", 0.0135, "undecided at this budget"),
        ("equal", 0.013, "supported"),
    ],
)
def test_an_arm_against_a_number(relation, number, outcome):
    by = 0.01 if relation == "equal" else 0.0
    found = finding_of(Expectation(ERROR, relation, "residual", number, by=by), FEW, [])
    assert (found.outcome, found.method, found.n) == (outcome, "t", (5, 0))
    if relation != "equal":
        assert found.p == pytest.approx(stats.ttest_1samp(FEW, number).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("expectation", "a", "b", "outcome"),
    [
        (lower(measure="parameters"), [18], [25], "supported"),
        (lower(measure="parameters"), [25], [25], "not supported"),
        (lower(measure="parameters", by=7), [18], [25], "supported"),
        (lower(measure="parameters", by=8), [18], [25], "not supported"),
        (lower(measure="parameters", factor=25 / 18), [18], [25], "supported"),
        (lower(measure="parameters", factor=1.4), [18], [25], "not supported"),
        (Expectation("parameters", "equal", "residual", "plain", by=0.5), [7, 7], [7, 7], "supported"),
        (Expectation("fc_share", "higher", "residual", 0.8), [0.86], [], "supported"),
        (lower(measure="val/steps"), [3, 3, 3], [4, 4, 4], "supported"),
    ],
)
def test_measures_without_spread_are_compared_exactly(expectation, a, b, outcome):
    found = finding_of(expectation, a, b)
    assert (found.outcome, found.method, found.p, found.interval) == (outcome, "exact", None, None)


def test_equal_errors_of_all_seeds_are_rounded_and_not_exact():
    found = finding_of(lower(), errors(7, 7, 7), errors(8, 8, 8))
    assert found.outcome == "undecided at this budget"
    assert found.p > 0.01
    assert finding_of(lower(), errors(7, 7, 7), errors(20, 20, 20)).outcome == "supported"


def test_a_factor_of_errors_knows_their_rounding():
    a, b = errors(7, 7, 7, 7, 7), errors(8, 8, 8, 8, 8)
    assert finding_of(lower(factor=1.01), a, b).p == pytest.approx(finding_of(lower(by=0.0001), a, b).p, rel=0.5)


def test_runs_that_diverged_count_as_guessing():
    found = finding_of(lower(), FEW, [None] * 5)
    assert found.outcome == "supported"
    assert found.means[1] == 1 - 1 / CLASSES
    assert found.diverged == (0, 5)
    assert "(90.00 %; 5 of 5 runs diverged)" in found.sentence()
    loss = finding_of(lower(measure="train/loss"), [0.1, 0.2, 0.15], [None] * 3)
    assert loss.means[1] == math.log(CLASSES)
    top5 = finding_of(lower(measure="test/top5_error"), errors(1, 2, 1), [None] * 3)
    assert top5.means[1] == 0.5
    some = finding_of(lower(), [*FEW[:4], None], MANY)
    assert some.outcome == "undecided at this budget"
    assert some.means[0] > 0.18


def test_arms_that_all_diverged_are_not_compared():
    found = finding_of(lower(), [None] * 3, [None] * 3)
    assert found.reason == "All runs of residual and of plain diverged."


def test_a_run_that_diverged_was_tested_on_no_images():
    lost = [Row("plain", seed, "diverged", {ERROR: None}, "0", 0, CLASSES) for seed in range(5)]
    assert decide(a_study(lower()), "5min", rows_of("residual", FEW) + lost).outcome == "supported"
    some = rows_of("plain", MANY[:4]) + lost[4:]
    assert decide(a_study(lower()), "5min", rows_of("residual", FEW) + some).findings[0].reason == ""


def test_a_run_that_diverged_has_the_parameters_of_the_others():
    rows = rows_of("residual", [18, 18], "parameters") + rows_of("plain", [25, None], "parameters")
    rows[3] = Row("plain", 1, "diverged", {"parameters": None}, "0")
    assert decide(a_study(lower(measure="parameters"), seeds=2), "5min", rows).outcome == "supported"


def test_a_run_that_diverged_has_what_was_measured_before():
    rows = [Row("residual", seed, "diverged", {"train/loss@1": 1.0 + seed}, "0", num_classes=10) for seed in range(3)]
    rows += rows_of("plain", [5.0, 6.0, 5.5], "train/loss@1")
    assert decide(a_study(lower(measure="train/loss@1"), seeds=3), "5min", rows).findings[0].means == (2.0, 5.5)


def test_arms_that_all_diverged_are_compared_by_what_was_measured_before():
    measure, values = "gradient_flow/first", {"residual": [1.0, 1.2, 0.9], "plain": [600.0, 700.0, 650.0]}
    rows = [
        Row(arm, seed, "diverged", {measure: value}, "0", num_classes=CLASSES)
        for arm, found in values.items()
        for seed, value in enumerate(found)
    ]
    assert decide(a_study(lower(measure=measure, factor=100.0), seeds=3), "5min", rows).outcome == "supported"


@pytest.mark.parametrize(
    ("a", "b", "measure", "reason"),
    [
        ([1.0, 2.0, None], [1.0, 2.0, 3.0], "norm", "residual has no norm in 1 of 3 results because it diverged."),
        ([1.0, 2.0, math.nan], [1.0, 2.0, 3.0], "norm", "residual has no norm in 1 of 3 results."),
        (
            [[1.0], [2.0]],
            [[1.0], [2.0]],
            "curve:train/loss",
            "curve:train/loss is a list of values: compare one of them.",
        ),
        ([1.0], [2.0], "norm", "residual has 1 result, and a test over seeds needs 3 of each arm."),
        ([1.0, 2.0, 3.0], [], "norm", "plain has no results yet."),
    ],
)
def test_what_cannot_be_compared_says_why(a, b, measure, reason):
    found = finding_of(lower(measure=measure), a, b)
    assert (found.outcome, found.method, found.reason) == ("undecided at this budget", None, reason)
    assert reason in found.sentence()
    assert found.takes == reason


def test_a_ratio_needs_values_above_0():
    found = finding_of(Expectation("norm", "higher", "residual", "plain", factor=10.0), [5.0, 4, 3], [0.0, 1, 2])
    assert found.reason == "The norm of plain is not above 0 for each seed, and has no ratio."
    found = finding_of(Expectation("norm", "higher", "residual", 0.0, factor=10.0), [5.0, 4, 3], [])
    assert found.reason == "0.0 is not above 0, and has no ratio."


def test_arms_tested_on_other_images_are_not_compared():
    rows = rows_of("residual", FEW) + rows_of("plain", MANY, test_images=10_000)
    found = decide(a_study(lower()), "5min", rows).findings[0]
    assert found.reason == "residual and plain were tested on different images."


def test_two_measurements_of_the_same_nets_are_paired():
    arms = [Arm("residual", test_settings={"data.protocol": "ten_crop"}), Arm("plain")]
    ten_crops, one_crop = errors(10, 30, 50, 21, 40), errors(13, 34, 53, 25, 43)
    found = finding_of(lower(), ten_crops, one_crop, arms=arms)
    assert (found.method, found.outcome) == ("paired t", "supported")
    assert found.p == pytest.approx(stats.ttest_rel(ten_crops, one_crop).pvalue, rel=1e-9)
    assert finding_of(lower(), ten_crops, one_crop).outcome == "undecided at this budget"  # nets of their own: Welch


def test_holm_corrects_for_the_statements_that_are_tested():
    borderline, other = errors(5, 6, 7, 8, 9), errors(10, 11, 12, 13, 14)
    alone = finding_of(lower(), borderline, other)
    assert alone.outcome == "supported"
    assert 0.005 > alone.p > 0.0005
    rows = [*rows_of("residual", borderline), *rows_of("plain", other)]
    rows = [
        Row(
            row.arm,
            row.seed,
            "finished",
            row.measures | {f"noise{k}": [3.0, 1, 2, 5, 4][row.seed] for k in range(20)},
            "0",
            IMAGES,
        )
        for row in rows
    ]
    noise = [lower(measure=f"noise{k}") for k in range(20)]
    several = decide(a_study(lower(), *noise), "5min", rows).findings[0]
    assert several.p == alone.p
    assert several.p_holm == pytest.approx(21 * alone.p)
    assert several.outcome == "undecided at this budget"


def test_exact_comparisons_cost_the_others_nothing():
    rows = rows_of("residual", CLOSE) + rows_of("plain", CLOSE_TOO)
    rows = [Row(row.arm, row.seed, "finished", row.measures | {"parameters": 7}, "0", IMAGES) for row in rows]
    verdict = decide(a_study(lower(), lower(measure="parameters")), "5min", rows)
    assert verdict.findings[0].p_holm == verdict.findings[0].p
    assert verdict.outcome == "not supported"  # as many parameters are not fewer


def test_a_study_is_supported_if_all_statements_are():
    rows = rows_of("residual", FEW) + rows_of("plain", MANY) + rows_of("other", CLOSE)
    arms = ["plain", "residual", "other"]
    statements = {
        "supported": [lower(), lower("other", "plain")],
        "undecided at this budget": [lower(), lower("residual", "other")],
        "not supported": [lower("plain", "residual"), lower("residual", "other")],
    }
    for outcome, expectations in statements.items():
        verdict = decide(a_study(*expectations, arms=arms), "5min", rows)
        assert verdict.outcome == outcome
        assert verdict.lead().startswith(outcome.capitalize() + ".")


def test_what_it_would_take_is_a_number_of_seeds():
    found = finding_of(lower(), CLOSE, CLOSE_TOO)
    needed = found.seeds_needed
    spread = [np.std(values, ddof=1) for values in (CLOSE, CLOSE_TOO)]
    p_values = [
        stats.ttest_ind_from_stats(
            np.mean(CLOSE), spread[0], n, np.mean(CLOSE_TOO), spread[1], n, equal_var=False
        ).pvalue
        for n in (needed - 1, needed)
    ]
    assert p_values[1] < 0.01 <= p_values[0]
    assert found.takes == f"about {needed} seeds per arm, if difference and spread stay"
    nothing = finding_of(lower(), FEW, FEW)
    assert nothing.seeds_needed is None
    assert nothing.takes.startswith("more than 100 seeds")
    verdict = decide(a_study(lower()), "5min", rows_of("residual", FEW) + rows_of("plain", FEW))
    assert verdict.lead().endswith(
        "To decide: more than 100 seeds per arm if difference and spread stay, or --budget 30min."
    )
    last = decide(a_study(lower()), "30min", rows_of("residual", FEW) + rows_of("plain", FEW))
    assert last.lead().endswith("spread stay.")


def test_a_study_that_still_runs_has_no_verdict():
    rows = rows_of("residual", FEW) + rows_of("plain", MANY[:3]) + rows_of("gone", FEW)
    verdict = decide(a_study(lower()), "5min", rows)
    assert verdict.outcome == "undecided at this budget"
    assert verdict.lead() == "8 of 10 results so far: no verdict before all are there."
    assert verdict.findings[0].outcome == "supported"
    assert decide(a_study(lower()), "5min", rows, seeds=3).outcome == "supported"
    assert decide(a_study(lower()), "5min", []).lead().startswith("0 of 10 results")


def test_sentences_name_arms_values_and_evidence():
    assert finding_of(lower(), FEW, MANY).sentence() == (
        "Test error: residual (1.33 %) is lower than plain (6.00 %), p < 0.0001."
    )
    assert (
        finding_of(lower(by=0.01), FEW, MANY)
        .sentence()
        .endswith("is lower than plain (6.00 %), by more than 1 point, p < 0.0001.")
    )
    assert (
        finding_of(lower(by=0.08), FEW, MANY)
        .sentence()
        .endswith("is lower than plain (6.00 %), but not by more than 8 points, p < 0.0001.")
    )
    assert finding_of(lower(), MANY, FEW).sentence() == (
        "Test error: residual (6.00 %) is higher than plain (1.33 %), p < 0.0001."
    )
    assert finding_of(lower(), CLOSE, CLOSE_TOO).sentence() == (
        "Test error: no evidence of a difference between residual (1.78 %) and plain (2.06 %), p = 0.47."
    )
    assert finding_of(lower(measure="parameters"), [18], [18]).sentence() == (
        "Number of parameters: residual (18) is equal to plain (18)."
    )


def test_everything_can_be_written_as_json():
    rows = rows_of("residual", [None] * 5) + rows_of("plain", MANY)
    text = json.dumps(decide(a_study(lower(), lower(measure="norm")), "5min", rows).to_plain(), allow_nan=False)
    assert json.loads(text)["diverged"] == 5
