"""Run directories are found, read whole or in parts, and their states are told."""

import fcntl
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from checkpointing.metrics_file import append_metrics
from checkpointing.predictions import Predictions
from checkpointing.run_facts import read_run_facts
from errors import UserError
from reports.run import Run
from reports.run_sources.curves import MAX_POINTS, make_curves
from reports.run_sources.local import find_runs, read_run
from reports.run_sources.results import load_predictions
from tests.reports.run_folders import FACTS, STEPS, make_config, make_rows, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a run directory belongs that does not exist yet."""
    return tmp_path / "runs" / "digits" / "resnet20" / "version_0"


def names(paths: list[Path], root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path in paths]


# Finding


def test_runs_are_found_from_a_run_an_experiment_a_folder_a_file_and_a_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits/a/version_10", "digits/a/version_2", "digits/b/version_0", "cifar10/c/version_0"):
        (tmp_path / "runs" / name / "checkpoints").mkdir(parents=True)
    checkpoint = tmp_path / "runs/digits/a/version_2/checkpoints/best.ckpt"
    checkpoint.touch()
    a = ["runs/digits/a/version_2", "runs/digits/a/version_10"]
    assert names(find_runs(["runs/digits/a/version_10"]), tmp_path) == a[1:]
    assert names(find_runs(["runs/digits/a"]), tmp_path) == a
    assert names(find_runs(["runs/digits"]), tmp_path) == [*a, "runs/digits/b/version_0"]
    assert names(find_runs(["runs"]), tmp_path) == ["runs/cifar10/c/version_0", *a, "runs/digits/b/version_0"]
    assert names(find_runs([str(checkpoint)]), tmp_path) == a[:1]
    assert names(find_runs(["runs/digits/a/version_2/checkpoints"]), tmp_path) == a[:1]
    assert names(find_runs(["runs/digits/*/version_0"]), tmp_path) == ["runs/digits/b/version_0"]
    assert names(find_runs(["runs/**/version_?"]), tmp_path)[1:] == [a[0], "runs/digits/b/version_0"]
    both = find_runs(["runs/digits/b", "runs/digits/a", "runs/digits/a/version_2"])
    assert names(both, tmp_path) == ["runs/digits/b/version_0", *a]  # each once, in the order of the arguments
    monkeypatch.chdir(tmp_path / "runs/digits/a/version_10")
    assert [path.resolve() for path in find_runs(["."])] == [tmp_path / a[1]]


def test_a_renamed_run_is_known_by_what_it_holds(tmp_path):
    write_run(tmp_path / "downloads" / "their best run")
    (found,) = find_runs([str(tmp_path)])
    run = read_run(found)
    assert (run.experiment, run.version) == ("digits/resnet20", "their best run")


def test_the_folder_of_an_ensemble_is_no_run(tmp_path):
    run = write_run(tmp_path / "digits" / "a" / "version_0")
    ensemble = tmp_path / "digits" / "ensemble" / "version_0"
    ensemble.mkdir(parents=True)
    (ensemble / "ensemble.json").touch()
    assert find_runs([str(tmp_path)]) == [run]
    with pytest.raises(UserError, match="holds no run"):
        find_runs([str(ensemble)])


def test_links_in_a_circle_and_closed_folders_do_not_end_the_search(tmp_path):
    run = write_run(tmp_path / "runs" / "digits" / "a" / "version_0")
    (tmp_path / "runs" / "again").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "nowhere").symlink_to("nowhere")
    (tmp_path / "runs" / "link").symlink_to(run)
    closed = tmp_path / "runs" / "closed"
    closed.mkdir(mode=0)
    assert find_runs([str(tmp_path / "runs")]) in ([run], [tmp_path / "runs" / "link"])
    closed.chmod(0o700)


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("nowhere", "There is no nowhere"),
        ("no*where", "Nothing matches no*where"),
        ("fold*", "No run is in what matches fold*"),
        ("folder", "The folder folder holds no run"),
        ("folder/file.txt", "The file folder/file.txt lies in no run directory"),
        ("dead", "dead is a link that leads nowhere"),
        ("\0", "cannot be looked up"),
        ("x" * 300, "cannot be looked up"),
    ],
)
def test_a_wrong_path_is_one_sentence(tmp_path, monkeypatch, argument, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file.txt").touch()
    (tmp_path / "dead").symlink_to("nowhere")
    with pytest.raises(UserError, match=".") as error:
        find_runs([argument])
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_no_argument_is_one_sentence():
    with pytest.raises(UserError, match="No runs are given"):
        find_runs([])


# A real run


def test_a_real_run_is_read(real_runs):
    (path,) = find_runs([str(real_runs)])
    run = read_run(path)
    assert (run.name, run.state, run.reason, run.seed) == ("digits/resnet20/version_0", "finished", "", 0)
    assert run.config["model"]["class_path"] == "lit_models.LitResNet"
    assert run.facts == read_run_facts(path)
    assert run.facts and (run.facts.data.train_images, run.facts.data.num_classes) == (32, 6)
    text = (path / "metrics.csv").read_text().splitlines()
    columns = text[0].split(",")
    for name in ("val/top1_error", "train/loss", "val/loss"):
        written = [float(value) for line in text[1:] if (value := line.split(",")[columns.index(name)])]
        assert run.curves[name].values.tolist() == written and run.curves[name].epochs.tolist() == [1, 2, 3]
    assert run.curves["train/images_per_s"].epochs.tolist() == [1, 2, 3]
    assert run.curves["train/batch_loss"].epochs.tolist() == [n / 4 for n in range(1, 13)]
    (result,) = run.results
    stored = json.loads((path / "test-best-center.json").read_text())
    assert result.metrics["top1_error"] == stored["metrics"]["test/top1_error"] and result.images == 11
    assert (result.verb, result.checkpoint, result.protocol, result.partial) == ("test", "best", "center", False)
    predictions = load_predictions(result, run)
    wrong = predictions.log_probabilities.argmax(1) != predictions.labels
    assert wrong.mean() == pytest.approx(result.metrics["top1_error"])


def test_without_run_json_the_checkpoint_tells(real_runs, tmp_path):
    path = Path(shutil.copytree(real_runs / "digits/resnet20/version_0", tmp_path / "version_0", symlinks=True))
    facts = read_run(path).facts
    (path / "run.json").unlink()
    config = read_run(path).config
    (path / "config.yaml").write_text("{")
    run = read_run(path)
    assert run.state == "finished" and run.facts and facts and run.results
    assert run.config == config and run.reason.startswith("config.yaml, line 1: this is no YAML")
    (path / "config.yaml").unlink()
    assert run.facts.model == replace(facts.model, multiply_adds=None)
    assert run.facts.data == replace(facts.data, train_images=0, val_images=0)
    (path / "metrics.csv").unlink()
    shutil.rmtree(path / "wandb")
    run = read_run(path)
    assert (run.state, run.reason) == ("finished", "config.yaml is missing; metrics.csv is missing")
    for file in (path / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    run = read_run(path)
    assert run.state == "unreadable" and "best.ckpt cannot be read" in run.reason and "last.ckpt" in run.reason


def test_results_of_another_checkpoint_or_other_images_do_not_count(real_runs, tmp_path):
    path = Path(shutil.copytree(real_runs / "digits/resnet20/version_0", tmp_path / "version_0", symlinks=True))
    run = read_run(path)
    predictions = path / "predictions-best-center.npz"
    result = path / "test-best-center.json"
    os.utime(path / "checkpoints" / "best.ckpt")  # newer than the result, but of this very content
    assert read_run(path).results == run.results
    whole = Predictions.read(predictions)
    replace(whole, checkpoint_hash="0" * 64).write(predictions)
    with pytest.raises(UserError, match="another state of best.ckpt.*rerun `main.py test"):
        load_predictions(run.results[0], run)
    os.utime(path / "checkpoints" / "best.ckpt", (2e9, 2e9))
    assert read_run(path).results == []
    os.utime(path / "checkpoints" / "best.ckpt", (1e9, 1e9))
    replace(whole, data_hash="0" * 64).write(predictions)
    with pytest.raises(UserError, match="for other images than the result beside it"):
        load_predictions(run.results[0], run)
    predictions.unlink()
    (bare,) = read_run(path).results
    assert bare.predictions is None
    with pytest.raises(UserError, match=r"has no predictions for best.ckpt: rerun"):
        load_predictions(bare, run)
    content = json.loads(result.read_text())
    for change in ({"data_hash": "0" * 64}, {"is_run_data": False}):
        result.write_text(json.dumps(content | change))
        assert read_run(path).results == []
    result.write_text(json.dumps(content)[:50])
    assert read_run(path).reason == "test-best-center.json is truncated or no JSON"


def test_predictions_count_without_their_checkpoint(real_runs, tmp_path):
    path = Path(shutil.copytree(real_runs / "digits/resnet20/version_0", tmp_path / "version_0", symlinks=True))
    shutil.rmtree(path / "checkpoints")
    run = read_run(path)
    assert len(load_predictions(run.results[0], run).labels) == 11


def test_predictions_of_a_validation_are_a_result(real_runs, tmp_path):
    path = Path(shutil.copytree(real_runs / "digits/resnet20/version_0", tmp_path / "version_0", symlinks=True))
    facts = read_run_facts(path)
    assert facts and facts.data.val_hash
    shown = Predictions.read(path / "predictions-best-center.npz")
    replace(shown, data_hash=facts.data.val_hash).write(path / "val_predictions-best-center.npz")
    replace(shown, data_hash="0" * 64).write(path / "val_predictions-last-center.npz")
    run = read_run(path)
    (result,) = (each for each in run.results if each.verb == "validate")
    assert (result.checkpoint, result.protocol, result.images, result.metrics) == ("best", "center", 11, {})
    assert len(load_predictions(result, run).labels) == 11


# States


def state(folder: Path) -> tuple[str, str]:
    run = read_run(folder)
    return run.state, run.reason


@pytest.mark.parametrize(
    ("outcome", "epochs", "reason", "state_and_reason"),
    [
        ("finished", 20, "", ("finished", "")),
        ("stopped", 6.5, "", ("stopped", "Stopped in epoch 7 of 20")),
        ("failed", 6.5, "no space left.", ("failed", "Failed in epoch 7 of 20: no space left")),
        ("failed", 0, "no space left", ("failed", "Failed in epoch 1 of 20: no space left; metrics.csv is missing")),
        (
            "diverged",
            1.5,
            "The loss is nan at step 15: this training has diverged. Start again.",
            ("diverged", "The loss is nan at step 15"),
        ),
        ("running", 6.5, "", ("killed", "Killed in epoch 7 of 20")),
        ("running", 0.5, "", ("killed", "Killed in epoch 1 of 20")),
        ("running", 20, "", ("finished", "")),
        (None, 20, "", ("finished", "")),
        (None, 6.5, "", ("killed", "Killed in epoch 7 of 20")),
        (None, 0, "", ("empty", "No epoch has ended; metrics.csv is missing")),
    ],
)
def test_the_state_follows_the_outcome_or_what_is_left(folder, outcome, epochs, reason, state_and_reason):
    assert state(write_run(folder, epochs, outcome=outcome, reason=reason)) == state_and_reason


@pytest.mark.parametrize("outcome", ["finished", "stopped", "running", None])
def test_a_last_loss_that_is_nan_is_a_divergence(folder, outcome):
    write_run(folder, 8, outcome=outcome, loss=[math.nan, 1.0, math.nan, math.inf])
    assert state(folder) == ("diverged", "The training loss is inf since epoch 7")
    assert np.isnan(read_run(folder).curves["val/loss"].values).tolist() == [False] * 4 + [True, False, True, False]


def test_a_run_that_is_trained_now_is_known_by_its_lock_which_stays_as_it_is(folder):
    write_run(folder, 6.5, outcome="running")
    assert state(folder)[0] == "killed" and not (folder / ".lock").exists()
    with (folder / ".lock").open("w") as lock:
        assert state(folder)[0] == "killed"
        before = (folder / ".lock").stat().st_mtime_ns
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert state(folder) == ("running", "Training now, in epoch 7 of 20")
        assert (folder / ".lock").stat().st_mtime_ns == before
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert state(folder)[0] == "killed"
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the report holds it no longer


def test_max_steps_is_told_where_there_are_no_epochs_to_make(folder):
    config = make_config(trainer__max_epochs=-1, trainer__max_steps=100)
    assert state(write_run(folder, 6.5, config, "running")) == ("killed", "Killed after step 65 of 100")
    assert state(write_run(folder.with_name("version_1"), 10, config, None)) == ("finished", "")


# Curves


def test_curves_are_over_epochs_trained(folder):
    run = read_run(write_run(folder, 20))
    assert run.curves["val/top1_error"].epochs.tolist() == list(range(1, 21))
    assert run.curves["val/top1_error"].values.tolist() == [0.5 / epoch for epoch in range(1, 21)]
    rate = run.curves["lr-SGD"]
    assert rate.epochs.tolist() == pytest.approx([0, 11.9, 12, 19.9]) and rate.values.tolist() == [0.1, 0.1, 0.01, 0.01]
    assert run.curves["train/batch_loss"].epochs.tolist() == pytest.approx([n / 2 for n in range(1, 41)])
    assert set(run.curves["train/images_per_s"].values) == {1000.0}  # of whole epochs


def test_an_epoch_that_has_not_ended_is_a_part(folder):
    run = read_run(write_run(folder, 2.5, outcome="running"))
    assert run.curves["train/batch_loss"].epochs.tolist() == [0.5, 1, 1.5, 2, 2.5]
    first = read_run(write_run(folder.with_name("version_1"), 0.5, outcome="running"))
    assert first.curves["train/batch_loss"].epochs.tolist() == [0.5]  # by the number of images in run.json


def test_max_steps_inside_an_epoch_ends_it_at_a_part():
    def last(epoch, step, **more):
        return {"step": step, "epoch": epoch, "train/loss": 1.0} | more

    rows = [last(0, 9), last(1, 19), last(2, 24)]  # Lightning logs the end of an epoch there too
    assert make_curves(rows).curves["train/loss"].epochs.tolist() == [1, 2, 2.5]
    resumed = [*rows, last(2, 29), last(3, 39)]
    assert make_curves(resumed).curves["train/loss"].epochs.tolist() == [1, 2, 2.5, 3, 4]
    assert make_curves([last(0, 4)], epoch_steps=10).curves["train/loss"].epochs.tolist() == [0.5]
    assert make_curves([last(0, 4)]).curves["train/loss"].epochs.tolist() == [1]
    assert make_curves([last(0, 4), {"step": 5, "lr-SGD": 1.0}]).curves["lr-SGD"].epochs.tolist() == [1]


def test_validation_within_epochs_lies_between_their_ends():
    rows = [{"step": step, "epoch": step // 10, "val/loss": 1.0} for step in (2, 5, 9, 12, 15, 19)]
    rows += [{"step": 9, "epoch": 0, "train/loss": 1.0}, {"step": 19, "epoch": 1, "train/loss": 1.0}]
    rows += [{"step": 22, "epoch": 2, "val/loss": 2.0}]
    found = make_curves(rows).curves["val/loss"]
    assert found.epochs.tolist() == pytest.approx([0.3, 0.6, 1, 1.3, 1.6, 2, 2.3]) and found.last == 2
    without_training_loss = make_curves(rows[:6]).curves["val/loss"]
    assert without_training_loss.epochs.tolist() == pytest.approx([0.3, 0.6, 1, 1.3, 1.6, 2])


def test_rows_that_a_resumed_run_repeats_count_once():
    rows = [{"step": 9, "epoch": 0, "val/loss": value} for value in (1.0, 2.0)]
    found = make_curves(rows).curves["val/loss"]
    assert (found.epochs.tolist(), found.values.tolist()) == ([1], [2.0])


def test_long_curves_of_batches_keep_extremes_and_nan_and_rates_their_corners():
    rng = np.random.default_rng(0)
    values = rng.normal(size=20_000)
    values[7_000], values[9_000], values[11_000] = 50, -50, math.nan
    rows = [{"step": step, "train/batch_loss": value} for step, value in enumerate(values)]
    rates = [min(1, step / 1000) * (1 + math.cos(math.pi * step / 20_000)) for step in range(20_000)]
    rows += [{"step": step, "lr-SGD": rate} for step, rate in enumerate(rates)]
    rows += [{"step": step * 100 + 99, "epoch": step, "train/loss": 1.0, "val/loss": 1.0} for step in range(200)]
    curves = make_curves(rows).curves
    loss, rate = curves["train/batch_loss"], curves["lr-SGD"]
    assert MAX_POINTS - 10 <= len(loss.epochs) <= MAX_POINTS + 2 and np.nanmax(loss.values) == 50
    assert np.nanmin(loss.values) == -50 and np.isnan(loss.values).sum() == 1
    assert len(rate.epochs) <= MAX_POINTS and rate.values.max() == max(rates)
    drawn = np.interp(np.arange(20_000) / 100, rate.epochs, rate.values)
    assert np.abs(drawn - rates).max() < 0.01
    assert len(curves["val/loss"].epochs) == len(curves["train/loss"].epochs) == 200


# Half-written runs


def test_what_is_cut_off_or_of_another_kind_is_told(folder):
    write_run(folder)
    shutil.rmtree(folder / "checkpoints")
    text = (folder / "metrics.csv").read_bytes()
    (folder / "metrics.csv").write_bytes(text[: len(text) // 2])
    assert state(folder) == ("finished", "") and 8 < len(read_run(folder).curves["val/loss"].values) < 12
    for content, said in ((b"", "is empty"), (text[:20], "holds no rows"), (b"\0" * 100, "holds no rows")):
        (folder / "metrics.csv").write_bytes(content)
        assert state(folder) == ("finished", f"metrics.csv {said}")
    (folder / "metrics.csv").unlink()
    (folder / "metrics.csv").mkdir()
    assert state(folder)[1] == "metrics.csv is no file"
    (folder / "run.json").write_text('{"seed": 1')
    assert state(folder) == (
        "empty",
        "No epoch has ended; run.json is truncated or no JSON; metrics.csv is no file",
    )
    (folder / "config.yaml").write_text("model: [")
    run = read_run(folder)
    assert run.state == "unreadable" and run.config == {} and run.reason.startswith("config.yaml, line 1: this is no Y")


def test_nothing_outside_of_the_run_is_read(folder, tmp_path):
    secret = tmp_path / "secret.yaml"
    secret.write_text("password: 1\n")
    write_run(folder)
    for name in ("config.yaml", "metrics.csv", "run.json"):
        (folder / name).unlink()
        (folder / name).symlink_to(secret)
    (folder / "test-best-center.json").symlink_to(secret)
    os.mkfifo(folder / ".lock")
    os.mkfifo(folder / "val_predictions-best-center.npz")
    os.mkfifo(folder / "predictions-last-center.npz")
    result = {"checkpoint": "last.ckpt", "protocol": "center", "images": 1, "metrics": {}}
    (folder / "test-last-center.json").write_text(json.dumps(result))
    os.utime(folder / "test-last-center.json", (0, 0))
    (folder / "checkpoints" / "last.ckpt").touch()
    run = read_run(folder)
    assert run.state == "unreadable" and "password" not in repr(run)
    for name in ("config.yaml", "metrics.csv", "run.json", "test-best-center.json"):
        assert f"{name} is a link that leads out of the run" in run.reason


def test_names_in_other_encodings_are_read_and_reasons_are_printable(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/runs/caf\xe9/\x1b[31m/version_0"))
    write_run(folder, outcome="failed", reason="\x1b[31mred\nline " + "x" * 1000)
    (found,) = find_runs([str(tmp_path)])
    run = read_run(found)
    assert run.version == "version_0" and run.state == "failed"
    assert run.reason.isprintable() and len(run.reason) < 400 and "\\x1b[31mred\\nline" in run.reason


def test_columns_that_are_no_numbers_are_left_out(folder):
    write_run(folder, 3)
    rows = [{**row, "note": "text", "val/huge": "1" * 400} for row in make_rows(3)]
    (folder / "metrics.csv").unlink()
    append_metrics(folder / "metrics.csv", [], rows)
    run = read_run(folder)
    assert "note" not in run.curves and run.curves["val/huge"].last == math.inf and "val/loss" in run.curves


def test_facts_of_other_types_are_no_facts(folder):
    write_run(folder)
    content = json.loads((folder / "run.json").read_text())
    for change in (
        {"model": content["model"] | {"multiply_adds": "many"}},
        {"data": content["data"] | {"test_hash": [1]}},
        {"sessions": [content["sessions"][0] | {"outcome": "unheard of"}]},
        {"sessions": [content["sessions"][0] | {"environment": {"device": [1]}}]},
    ):
        (folder / "run.json").write_text(json.dumps(content | change))
        run = read_run(folder)
        assert run.facts is None and run.reason == "run.json is not as this project writes it"
    assert FACTS.sessions and STEPS


def test_the_place_of_a_run_names_it(tmp_path):
    def name(path: str) -> str:
        run: Run = read_run(write_run(tmp_path / path))
        return run.name

    assert name("runs/digits/resnet20/version_3") == "digits/resnet20/version_3"
    assert name("runs/digits/renamed/version_3") == "digits/renamed/version_3"
    assert name("moved/version_3") == "digits/resnet20/version_3"
