"""Measures of runs, tests and ensembles."""

import json
from pathlib import Path

import numpy as np
import pytest

from checkpointing.predictions import Predictions
from checkpointing.run_facts import DataFacts, ModelFacts, RunFacts
from errors import UserError
from reports.run import Curve, Run
from studies.measures import TestMetrics, check_measures, read_first_gradients, read_measures, read_metrics

FLOW = "step,epoch,layer,gradient,weight,update\n0,0,conv,4.0,1,1\n0,0,fc,2.0,1,1\n5,1,conv,1.0,1,1\n5,1,fc,8.0,1,1\n"


@pytest.fixture
def trained(tmp_path: Path) -> Run:
    (tmp_path / "gradient_flow.csv").write_text(FLOW)
    curve = Curve(np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.123456789, np.nan]))
    facts = RunFacts(0, ModelFacts("LitResNet", 1000, 5000, 32), DataFacts("Digits", 3, 10, 0))
    return Run(str(tmp_path), "tiny/a", "version_0", "finished", facts=facts, curves={"train/loss": curve})


def write_predictions(path: Path, probabilities: list[list[float]]) -> Path:
    log_probs = np.log(np.array(probabilities, dtype=np.float32))
    names = np.array(["a", "b", "c"])
    indices = np.arange(2)
    Predictions(
        indices, np.array([], dtype=str), np.array([0, 2]), log_probs, names, "center", 1, "x", "y", "z", True
    ).write(path)
    return path


def test_measures_of_one_run(trained: Run) -> None:
    names = ["test/top1_error", "train/loss@2", "train/loss", "curve:train/loss", "parameters", "multiply_adds"]
    test = TestMetrics({"test/top1_error": 0.02777777798473835}, 360)
    values = read_measures(names, [trained], [test], [])
    assert [*values.values()] == [0.0277778, 1.12346, None, [2.0, 1.12346, None], 1000, 5000]


def test_measures_of_gradients(trained: Run) -> None:
    names = [f"gradient_flow/{name}" for name in ("first", "first_over_last", "profile", "profile_at_end")]
    values = read_measures(names, [trained], [TestMetrics({}, 1)], [])
    assert [*values.values()] == [4.0, 2.0, [4.0, 2.0], [1.0, 8.0]]
    Path(trained.location, "gradient_flow.csv").unlink()
    with pytest.raises(UserError, match=r"has no gradient_flow/first: log it with the overlay"):
        read_measures(names, [trained], [TestMetrics({}, 1)], [])


def test_the_first_gradients_of_a_run_that_diverged_are_results(trained: Run) -> None:
    names = ["test/top1_error", "gradient_flow/first", "gradient_flow/profile", "gradient_flow/profile_at_end"]
    assert [*read_first_gradients(names, [trained]).values()] == [None, 4.0, [4.0, 2.0], None]
    Path(trained.location, "gradient_flow.csv").unlink()
    assert read_first_gradients(names, [trained]) == dict.fromkeys(names)


def test_an_ensemble_is_the_mean_of_the_probabilities(trained: Run, tmp_path: Path) -> None:
    first = write_predictions(tmp_path / "a.npz", [[0.8, 0.1, 0.1], [0.5, 0.1, 0.4]])  # label 2 of the second: wrong
    second = write_predictions(tmp_path / "b.npz", [[0.2, 0.4, 0.4], [0.1, 0.1, 0.8]])
    names = ["test/top1_error", "test/loss", "parameters", "train/loss@2", "gradient_flow/profile"]
    tests = [TestMetrics({"test/top1_error": 0.5}, 2)] * 2
    values = read_measures(names, [trained, trained], tests, [first, second])
    loss = -(np.log(0.5) + np.log(0.6)) / 2
    assert [*values.values()] == [0.0, pytest.approx(loss, rel=1e-5), 2000, 1.12346, [4.0, 2.0]]


def test_measures_that_are_not_there(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names the measure test/top1_eror: did you mean test/top1_error\?"):
        check_measures(["test/top1_eror"], "x.yaml")
    with pytest.raises(UserError, match=r"names the measure colour: there are test/top1_error"):
        check_measures(["colour"], "x.yaml")
    check_measures(["curve:val/loss", "train/loss@3", "shake/alpha", "gradient_flow/first", "fc_share"], "x.yaml")
    with pytest.raises(UserError, match=r"has no train/los: did you mean train/loss\?"):
        read_measures(["train/los"], [trained], [TestMetrics({}, 1)], [])
    with pytest.raises(UserError, match=r"has no train/loss@9: it has 3 epochs"):
        read_measures(["train/loss@9"], [trained], [TestMetrics({}, 1)], [])
    (tmp_path / "test.json").write_text(json.dumps({"metrics": {}}))
    with pytest.raises(UserError, match=r"test.json cannot be read .*remove it, and run the study again"):
        read_metrics(tmp_path / "test.json")
