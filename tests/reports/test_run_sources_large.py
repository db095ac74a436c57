"""Files of a run directory that would fill the memory, and folders that only look like runs."""

import os

import pytest

from checkpointing import predictions
from errors import UserError
from reports.run_sources import local
from reports.run_sources.local import find_runs, read_run
from reports.run_sources.results import load_predictions
from tests.reports.run_folders import write_run
from tests.reports.test_compare import write_test, wrong


def test_predictions_that_unpack_to_more_than_any_have_are_not_read(tmp_path, monkeypatch):
    run = read_run(write_test(write_run(tmp_path / "version_0"), wrong(100)))
    load_predictions(run.results[0], run)
    monkeypatch.setattr(predictions, "LARGEST", 20_000)
    with pytest.raises(UserError, match="it holds 0.0 GiB"):
        load_predictions(run.results[0], run)


def test_more_values_than_a_training_logs_are_not_read(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "version_0")
    assert read_run(folder).curves
    monkeypatch.setattr(local, "MOST_VALUES", 1000)
    run = read_run(folder)
    assert not run.curves and "metrics.csv has more values than can be read" in run.reason


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "test-best-center.json"])
def test_a_text_larger_than_any_of_its_kind_is_not_read(tmp_path, name):
    folder = write_run(tmp_path / "version_0")
    (folder / name).write_text("{" + "\n" * 2**21 + "}")
    assert f"{name} has 2.0 MiB, too many to be read" in read_run(folder).reason


def test_runs_below_a_folder_called_checkpoints_are_not_taken_for_it(tmp_path):
    run = write_run(tmp_path / "checkpoints/digits/a/version_0")
    assert find_runs([str(tmp_path / "checkpoints/digits")]) == [run]


def test_a_folder_of_versions_is_no_run_whatever_lies_beside_them(tmp_path):
    runs = [write_run(tmp_path / f"digits/a/version_{number}") for number in range(2)]
    (tmp_path / "digits/a/config.yaml").touch()
    os.mkdir(tmp_path / "digits/a/checkpoints")
    assert find_runs([str(tmp_path)]) == find_runs([str(tmp_path / "digits/a")]) == runs
