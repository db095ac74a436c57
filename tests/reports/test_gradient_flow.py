"""Charts of gradient norms, and where the norms are read from."""

import shutil

import numpy as np

from checkpointing.gradient_flow import GradientFlowTable, collect_logged
from reports.gradient_flow import gradient_flow_figures, heat_map_charts, profile_chart
from reports.html_page import is_shown
from reports.run import Run
from reports.run_sources.local import read_run
from reports.run_sources.wandb_rows import make_rows
from tests.reports.test_run_charts import rows_of, svg_of

LAYERS = ["conv1", "layer1.conv", "fc"]


def make_run(gradient: list[list[float]], version: int = 0, steps: tuple[int, ...] = (0, 49)) -> Run:
    """A run of three layers with these norms of the gradient; weights are 2 and updates 0.01."""
    values = np.array(gradient)
    ones = np.ones_like(values)
    table = GradientFlowTable(LAYERS, np.array(steps), values, 2 * ones, 0.01 * ones)
    return Run(f"runs/a/b/{version}", "a/b", f"version_{version}", "finished", gradient_flow=table)


def test_the_profile_has_a_line_for_each_run_at_the_first_step_and_at_the_last():
    runs = [make_run([[4, 2, 1], [0.4, 0.2, 0.1]]), make_run([[9, 3, 1]], 1, steps=(0,))]
    rows = rows_of(profile_chart({"a": runs, "without": [Run("x", "a/c", "version_0", "finished")]}))
    assert [(row["x"], row["first step"]) for row in rows] == [([1, 2, 3], [4, 2, 1]), ([1, 2, 3], [9, 3, 1])]
    assert [row["last measured step"] for row in rows] == [[0.4, 0.2, 0.1], [None] * 3]
    assert "solid: first step, dashed: last measured step" in svg_of(profile_chart({"a": runs}))
    assert profile_chart({"a": [Run("x", "a/c", "version_0", "finished")]}) is None


def test_heat_maps_are_geometric_means_over_the_runs_at_their_common_steps():
    runs = [make_run([[4, 2, np.nan], [0.4, 0, 0.1]]), make_run([[1, 2, 3], [7, 7, 7], [0.9, 0.2, 0.1]], 1, (0, 9, 49))]
    charts = heat_map_charts({"a": runs, "without": [Run("x", "a/c", "version_0", "finished")]}, "gradient")
    assert list(charts) == ["a"]
    assert [(row["layer"], row["value"]) for row in rows_of(charts["a"])] == [
        ("conv1", [2, 0.6]),
        ("layer1.conv", [2, 0]),
        ("fc", [None, 0.1]),
    ]
    assert rows_of(charts["a"])[0]["step"] == [0, 49] and rows_of(charts["a"])[0]["end"] == [49, 98]
    assert svg_of(charts["a"]).count('fill="rgb(') == 4  # neither the 0 nor what is missing
    (ratios,) = heat_map_charts({"a": runs}, "update_ratio").values()
    assert rows_of(ratios)[0]["value"] == [0.005, 0.005]


def test_runs_without_norms_have_no_figures():
    assert not any(map(is_shown, gradient_flow_figures({"a": [Run("x", "a/c", "version_0", "finished")]})))
    huge = make_run([[np.nan] * 3, [np.inf] * 3])
    assert not [each.title for each in gradient_flow_figures({"a": [huge]}) if is_shown(each) and "norm" in each.title]


def test_the_norms_are_those_of_the_file_or_of_wandb(real_runs, tmp_path):
    path = shutil.copytree(real_runs / "digits/resnet20/version_0", tmp_path / "version_0", symlinks=True)
    whole = read_run(path)
    assert whole.gradient_flow.layers[::19] == ["conv1", "fc"] and list(whole.gradient_flow.steps) == [0]
    assert not any(name.startswith("gradient_norm") for name in whole.curves)
    (path / "gradient_flow.csv").unlink()
    (path / "metrics.csv").unlink()
    run = read_run(path)
    assert run.gradient_flow.layers == whole.gradient_flow.layers
    np.testing.assert_allclose(run.gradient_flow.gradient, whole.gradient_flow.gradient, rtol=1e-6)
    assert np.isnan(run.gradient_flow.weight).all() and not any(each.startswith("gradient") for each in run.curves)


def test_a_file_that_cannot_be_read_is_a_problem_of_the_run(real_runs, tmp_path):
    path = shutil.copytree(real_runs / "digits/resnet20/version_0", tmp_path / "version_0", symlinks=True)
    rows = "\n".join(f"0,1,layer{index},{index},1,1" for index in range(5000))
    (path / "gradient_flow.csv").write_text(f"epoch,gradient,layer,step,update,weight\n{rows}\n")
    run = read_run(path)
    assert run.gradient_flow is None and "gradient_flow.csv has more steps and layers than can be read" in run.reason


def test_norms_in_rows_of_wandb_may_be_anything():
    items = [{"trainer/global_step": step, "gradient_norm/1.fc": 2.0, "gradient_norm/0.conv1": 1} for step in (0, 49)]
    items += [{"trainer/global_step": -1, "gradient_norm/0.conv1": 1}, {"gradient_norm/0.conv1": 1}]
    items += [{"trainer/global_step": 99, "gradient_norm/0.conv1": "NaN"}, {"trainer/global_step": "NaN"}]
    items += [{"trainer/global_step": 1e300, "gradient_norm/0.conv1": 1.0}, {"gradient_norm/x": 1}, {"x": [1]}]
    table = collect_logged(make_rows(items))
    assert table.layers == ["conv1", "fc"] and list(table.steps) == [0, 49, 99] and table.first_over_last == 0.5
    np.testing.assert_array_equal(table.gradient, [[1, 2], [1, 2], [np.nan, np.nan]])
    assert collect_logged([]) is None
