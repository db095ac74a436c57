"""W&B's offline files stand in for metrics.csv and config.yaml."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.run import Run
from reports.run_sources.local import read_run
from reports.run_sources.offline import find_segments, parse_record
from reports.run_sources.wandb_rows import append_session, make_rows, read_summary


@pytest.fixture
def path(real_runs: Path, tmp_path: Path) -> Path:
    """A copy of the real run, without checkpoints and run.json."""
    path = Path(shutil.copytree(real_runs / "digits/resnet20/version_0", tmp_path / "version_0", symlinks=True))
    shutil.rmtree(path / "checkpoints")
    (path / "run.json").unlink()
    return path


def same_curves(run: Run, other: Run) -> bool:
    return run.curves.keys() == other.curves.keys() and all(
        np.array_equal(curve.epochs, run.curves[name].epochs) and np.allclose(curve.values, run.curves[name].values)
        for name, curve in other.curves.items()
    )


def test_curves_and_config_come_from_the_offline_file(path):
    whole = read_run(path)
    (path / "metrics.csv").write_text("")
    (path / "config.yaml").unlink()
    run = read_run(path)
    assert same_curves(run, whole) and len(run.curves) > 5
    assert run.config["model"]["init_args"].items() >= {"depth": 20, "num_classes": 6}.items() and run.seed == 0
    assert (run.state, run.reason) == ("finished", "config.yaml is missing; metrics.csv is empty")
    assert run.experiment == "digits/resnet20"


def test_a_truncated_file_gives_what_can_be_read(path):
    whole = read_run(path)
    (path / "metrics.csv").unlink()
    file, of_test = sorted((path / "wandb").glob("offline-run-*/run-*.wandb"))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * 0.7)])
    run = read_run(path)
    assert run.state == "killed" and "is truncated" in run.reason and "\n" not in run.reason
    found = run.curves["train/batch_loss"].values
    assert 1 < len(found) < 12 and np.allclose(found, whole.curves["train/batch_loss"].values[: len(found)])
    of_test.unlink()
    file.write_bytes(b"no file of W&B")
    run = read_run(path)
    assert run.state == "empty" and run.curves == {} and "run-" in run.reason and "cannot be read" in run.reason


def test_all_segments_of_the_first_run_are_read(tmp_path):
    for name in ("offline-run-20260102_000000-b", "offline-run-20260101_000000-a", "run-20260103_000000-a"):
        folder = tmp_path / "wandb" / name
        folder.mkdir(parents=True)
        (folder / f"run-{name[-1]}.wandb").touch()
    found = [path.parent.name for path in find_segments(tmp_path)]
    assert found == ["offline-run-20260101_000000-a", "run-20260103_000000-a"]


def test_what_a_resumed_run_repeats_is_taken_from_the_later_segment():
    first = make_rows({"trainer/global_step": step, "epoch": 0, "val/loss": 1.0} for step in range(5))
    later = make_rows({"trainer/global_step": step, "epoch": 0, "val/loss": 2.0} for step in range(3, 8))
    rows = append_session(first, later)
    assert [(row["step"], row["val/loss"]) for row in rows] == [(step, 1.0 if step < 3 else 2.0) for step in range(8)]
    test = make_rows([{"trainer/global_step": 0, "test/x": 0.1, "val/center/classes": {}, "val/center/y": 1}])
    assert test == [] and append_session(rows, test) == rows


def test_results_of_tests_stand_in_the_summary(path):
    (local,) = read_run(path).results
    (path / "test-best-center.json").unlink()
    (path / "metrics.csv").unlink()
    (result,) = read_run(path).results
    assert result == replace(local, predictions=None)


def test_a_summary_may_hold_anything():
    summary = {
        "test/top1_error": 0.5,
        "test/images": 3,
        "val/loss": {"min": 1},
        "test/center/classes": {"_type": "table"},
    }
    summary |= {"test/center/images": 360, "test/center/top1_error": 0.25, "test/center/data_hash": ["x"]}
    summary |= {"val/last/ten_crop/top1_error": 0.5, "val/last/ten_crop/images": 3, "test/x/top1_error": 1}
    summary |= {"val/x/center/top1_error": 0.5, "val/x/center/images": "many"}  # these are no results
    summary |= {"val/y/center/top1_error": "NaN", "val/y/center/images": 3}
    center, crops = read_summary(summary)
    assert (center.verb, center.checkpoint, center.protocol, center.images) == ("test", "best", "center", 360)
    assert center.metrics == {"top1_error": 0.25} and center.data_hash is None
    assert (crops.verb, crops.checkpoint, crops.protocol, crops.images) == ("validate", "last", "ten_crop", 3)
    assert crops.metrics == {"top1_error": 0.5}


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b'{"type": 1}', b"\xff", b"[" * 5000])
def test_lines_that_are_no_records_are_passed_over(line):
    assert parse_record(line) == ("", {})
