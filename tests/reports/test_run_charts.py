"""Charts of runs: what is drawn is what the runs logged."""

import json
import re

import numpy as np
import pytest

from checkpointing.run_facts import DataFacts, ModelFacts, RunFacts
from reports import run_charts
from reports.class_chart import class_difference_chart
from reports.disagreement import ClassDifference
from reports.labels import place_labels
from reports.palette import COLOURS, GREY
from reports.pareto import Point, pareto_chart, pareto_front
from reports.run import Curve, Run, training_seconds

FACTS = RunFacts(0, ModelFacts("LitResNet", 269722, 40_000_000, 32), DataFacts("CIFAR10", 10, 45000, 5000))
CHARTS = (
    run_charts.error_chart,
    run_charts.loss_chart,
    run_charts.learning_rate_chart,
    run_charts.error_by_time_chart,
)


def make_run(epochs: int, version: int = 0, seed: int = 0, name: str = "cifar10/resnet20", **values) -> Run:
    """A run with the usual curves; `values` replace the values of some, None removes one (slashes as __)."""
    rng, x = np.random.default_rng(seed), np.arange(1.0, epochs + 1)
    falling = 0.9 * np.exp(-x / 20) + 0.05 + rng.uniform(0, 0.02, epochs)
    curves = {"val/top1_error": falling, "train/top1_error": falling * 0.8, "val/loss": 3 * falling}
    curves |= {"train/loss": 2 * falling, "lr-SGD": 0.1 / x, "train/images_per_s": np.full(epochs, 900.0)}
    curves |= {key.replace("__", "/"): value for key, value in values.items()}
    drawn = {key: Curve(x, np.asarray(value)) for key, value in curves.items() if value is not None}
    return Run(f"runs/{name}/{version}", name, f"version_{version}", "finished", facts=FACTS, curves=drawn)


def rows_of(chart):
    """The rows of its data; several layers have them in common."""
    spec = chart.to_dict()
    return spec.get("data", spec.get("layer", [{}])[0].get("data"))["values"]


def svg_of(chart) -> str:
    import vl_convert

    return vl_convert.vegalite_to_svg(chart.to_dict())


def test_values_are_those_of_the_runs():
    runs = [make_run(30, 0), make_run(12, 1, seed=1)]
    rows = rows_of(run_charts.error_chart({"a group": runs}))
    assert [row["run"] for row in rows] == ["cifar10/resnet20/version_0", "cifar10/resnet20/version_1"]
    for row, run in zip(rows, runs, strict=True):
        assert row["x"] == list(range(1, len(row["x"]) + 1)) and row["runs"] == 2 and row["group"] == "a group"
        for key, name in (("validation", "val/top1_error"), ("training", "train/top1_error")):
            np.testing.assert_allclose(row[key], run.curves[name].values, rtol=5e-4)
    rates = rows_of(run_charts.learning_rate_chart({"a": runs}))
    assert rates[0]["value"][:3] == [0.1, 0.05, 0.03333]


def test_curves_that_were_measured_at_different_epochs_share_their_positions():
    run = make_run(4, val__top1_error=None)
    run.curves["val/top1_error"] = Curve(np.array([2.0, 4.0]), np.array([0.5, 0.25]))
    [row] = rows_of(run_charts.error_chart({"a": [run]}))
    assert row["x"] == [1, 2, 3, 4] and row["validation"] == [None, 0.5, None, 0.25]


def test_values_that_are_not_finite_interrupt_the_line():
    values = np.array([0.5, np.nan, 0.4, 0.3, np.inf, -np.inf, 0.2])
    chart = run_charts.error_chart({"a": [make_run(7, val__top1_error=values, train__top1_error=None)]})
    [row] = rows_of(chart)
    assert row["validation"] == [0.5, None, 0.4, 0.3, None, None, 0.2]
    svg = svg_of(chart)
    [line] = re.findall(r'd="(M[^"]*)"[^>]*stroke="#2f7ebc" stroke-width="1.8"', svg)
    assert line.count("M") == 3 and line.count("L") == 1  # three pieces, two of them points
    # Values without a neighbour are no line, but points
    assert len(re.findall(r'<path[^>]*transform="translate[^>]*fill="#2f7ebc"', svg)) >= 2


def test_smoothing_is_an_exponential_moving_average():
    values = np.random.default_rng(3).uniform(0.1, 0.9, 24)
    spec = run_charts.error_chart({"a": [make_run(24, val__top1_error=values, train__top1_error=None)]}).to_dict()
    import vl_convert

    next(param for param in spec["params"] if param["name"] == "smoothing")["value"] = 4
    svg = vl_convert.vegalite_to_svg(spec)
    [line] = re.findall(r'd="(M[^"]*)"[^>]*stroke="#2f7ebc" stroke-width="1.8"', svg)
    drawn = np.array(re.findall(r"[ML]([-\d.]+),([-\d.]+)", line), dtype=float)[:, 1]
    weights = [np.exp((np.arange(t + 1) - t) / 4) for t in range(24)]
    expected = np.array([values[: t + 1] @ weights[t] / weights[t].sum() for t in range(24)])
    slope, offset = np.polyfit(expected, drawn, 1)  # the axis
    assert slope < -10 and np.abs(slope * expected + offset - drawn).max() < 0.2


@pytest.mark.parametrize("draw", CHARTS)
def test_without_values_there_is_no_chart(draw):
    nothing = Run("runs/x", "x", "version_0", "empty")
    assert draw({}) is None and draw({"a": []}) is None and draw({"a": [nothing]}) is None
    diverged = make_run(3, **{key: np.full(3, np.nan) for key in ("val__top1_error", "train__top1_error", "val__loss")})
    diverged.curves["train/loss"] = diverged.curves["lr-SGD"] = diverged.curves["val/loss"]
    assert draw({"a": [diverged]}) is None


@pytest.mark.parametrize("draw", CHARTS)
def test_runs_of_any_length_are_drawn(draw):
    hostile = make_run(1, 3, name="</script>\x1b[31m\u2028<b>")
    unlike = [make_run(40), make_run(3, 1, seed=1), make_run(1, 2, seed=2), hostile]
    chart = draw({"a": unlike, "one epoch": [make_run(1)], "zero": [make_run(2, val__top1_error=[0.0, 0.0])]})
    svg = svg_of(chart)
    assert "NaN" not in svg and svg.count("<path") > 10
    assert all("\x1b" not in row["run"] for row in rows_of(chart))


def test_runs_without_validation_show_their_training():
    run = make_run(5, val__top1_error=None)
    [row] = rows_of(run_charts.error_chart({"a": [run]}))
    assert "validation" not in row and len(row["training"]) == 5
    assert run_charts.error_by_time_chart({"a": [run]}) is None


@pytest.mark.slow
def test_fifty_runs_are_small():
    groups = {
        f"cifar10/an experiment with a long name {index}": [
            make_run(200, version, seed=10 * index + version, name=f"cifar10/an experiment with a long name {index}")
            for version in range(5)
        ]
        for index in range(10)
    }
    charts = [draw(groups) for draw in CHARTS]
    assert sum(len(json.dumps(chart.to_dict(), separators=(",", ":"))) for chart in charts) < 1_200_000


def test_a_spike_does_not_flatten_the_curves():
    values = np.where(np.arange(40) == 30, 1e9, 0.5)
    chart = run_charts.loss_chart({"a": [make_run(40, val__loss=values, train__loss=None)]})
    text = json.dumps(chart.to_dict())
    assert "logarithmic ? log(1000000000.0) / LN10 : 0.75" in text and "values up to 1e+09 lie above" in text
    assert 1e9 in rows_of(chart)[0]["validation"]


def test_seconds_are_images_by_images_per_second():
    run = make_run(3, train__images_per_s=np.array([900.0, 450.0, 900.0]))
    np.testing.assert_allclose(training_seconds(run).values, [50, 150, 200])
    run.config = {"trainer": {"limit_train_batches": 9}, "data": {"class_path": "x", "init_args": {"batch_size": 100}}}
    np.testing.assert_allclose(training_seconds(run).values, [1, 3, 4])
    run.config = {"trainer": {"limit_train_batches": 0.5}, "data": "malformed"}
    np.testing.assert_allclose(training_seconds(run).values, [25, 75, 100])
    assert list(training_seconds(make_run(3, train__images_per_s=[9, np.nan, 9])).epochs) == [1]
    assert training_seconds(make_run(2, train__images_per_s=None)) is None
    run.facts = None
    assert training_seconds(run) is None


def test_error_by_time_stops_where_the_time_is_unknown():
    run = make_run(4, train__images_per_s=np.array([900.0, 900.0, np.nan, 900.0]))
    [row] = rows_of(run_charts.error_by_time_chart({"a": [run]}))
    assert row["x"] == [50, 100] and len(row["value"]) == 2
    assert "training time, seconds" in json.dumps(run_charts.error_by_time_chart({"a": [run]}).to_dict())


def luminance(colour: str) -> float:
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_colours_are_legible_on_white_and_black():
    assert len(set(COLOURS)) == 10
    for colour in [*COLOURS, GREY]:
        assert (
            1.05 / (luminance(colour) + 0.05) >= 3 and (luminance(colour) + 0.05) / (luminance("#111111") + 0.05) >= 3
        )


def test_a_group_has_one_colour_in_all_charts():
    groups = {f"group {index}": [make_run(3)] for index in range(12)}
    groups["group 1"] = [make_run(3, val__top1_error=None, train__top1_error=None)]
    scales = [json.dumps(draw(groups).to_dict()) for draw in CHARTS[:2]]
    for scale in scales:
        domain, colours = re.search(r'"domain": (\[[^]]*group 0[^]]*\]), "range": (\[[^]]*\])', scale).groups()
        assert json.loads(domain) == list(groups) and json.loads(colours) == [*COLOURS, GREY, GREY]


def test_front_is_what_no_other_beats():
    costs, errors = np.array([1.0, 2, 3, 3, 4, 1]), np.array([0.5, 0.4, 0.4, 0.3, 0.35, 0.5])
    assert pareto_front(costs, errors).tolist() == [True, True, False, True, False, True]


def test_pareto_chart_has_points_intervals_and_labels():
    points = [
        Point("resnet20", "resnet20", 0.08, 269722, 40_000_000, (0.078, 0.082)),
        Point("plain20", "p", 0.09, 269722),
    ]
    chart = pareto_chart([*points, Point("unknown", "u", 0.05, None), Point("nan", "n", float("nan"), 5)], "parameters")
    rows = rows_of(chart)
    assert [(row["name"], row["error"], row["low"], row["high"], row["front"]) for row in rows] == [
        ("resnet20", 0.08, 0.078, 0.082, True),
        ("plain20", 0.09, 0.09, 0.09, False),
    ]
    assert [row["nudge"] for row in rows] == [-4, 4] and ">resnet20<" in svg_of(chart)
    assert pareto_chart(points[1:], "multiply_adds") is None and pareto_chart([], "parameters") is None
    assert ">40M<" in svg_of(pareto_chart(points[:1], "multiply_adds"))


def test_labels_do_not_cover_each_other():
    rng = np.random.default_rng(0)
    spots = rng.uniform(30, 270, (25, 2))
    names = [f"network {index}" for index in range(25)]
    labels = place_labels(names, spots, np.stack([spots[:, 1]] * 2, axis=1), 0, 300)
    boxes = []
    for name, (x, y), (align, dx, dy, shown) in zip(names, spots, labels, strict=True):
        left = x + dx - {"left": 0, "center": 0.5, "right": 1}[align] * 6.2 * len(name)
        boxes += [(left, y + dy - 6.5, left + 6.2 * len(name), y + dy + 6.5)] * shown
    assert 5 < len(boxes) < 25
    for index, (left, top, right, bottom) in enumerate(boxes):
        assert all(left >= b[2] or b[0] >= right or top >= b[3] or b[1] >= bottom for b in boxes[:index])
        assert all(not (left < x < right and top < y < bottom) for x, y in spots)


def class_difference(name, difference):
    interval = (difference - 0.1, difference + 0.1)
    return ClassDifference(name, 100, 0.2 + difference, 0.2, difference, interval, p_holm=0.001)


def test_bars_of_classes_are_sorted():
    rng = np.random.default_rng(0)
    classes = [class_difference(f"class {k}", value) for k, value in enumerate(rng.normal(0, 0.1, 30))]
    chart = class_difference_chart(classes, "A", "B")
    values = [row["difference"] for row in rows_of(chart)]
    assert len(values) == 30 and values == sorted(values)
    assert "A errs less" in svg_of(chart)
    assert class_difference_chart([class_difference("x", 0.0)], "A", "B") is None
