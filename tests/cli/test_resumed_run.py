"""What may not be said beside --ckpt_path, and what the record of a resumed run says."""

import shutil
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace

from checkpointing.record import RECORD_KEY
from cli.config_files import read_flags
from cli.layer_notes import describe_unused
from cli.resumed_run import keep_place
from tests.conftest import DIGITS, TINY

SHORT = [*TINY, "--trainer.limit_train_batches", 1, "--trainer.limit_val_batches", 1, "--trainer.max_epochs"]


def recorded(folder: Path) -> list[object]:
    record = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)[RECORD_KEY]["config"]
    return [str(record["runs"]), record["run_name"], record["model"]["init_args"]["weights"]]


@pytest.mark.slow
def test_a_run_goes_on_in_its_own_place_with_its_own_weights(run, fails, here, capsys):
    fit = ["fit", "--config", DIGITS, *SHORT]
    run(*fit, 1, "--run_name", "x/b")
    weights = "runs/x/b/version_0/checkpoints/last.ckpt"
    begun = ["--run_name", "x/a", "--model.weights", weights]
    run(*fit, 1, *begun)
    assert recorded(here / "runs/x/a/version_0") == ["runs", "x/a", weights]
    resume = ["fit", "--ckpt_path", "runs/x/a", "--trainer.max_epochs", 2]
    for name, value in (("run_name", "other/name"), ("runs", "elsewhere")):
        said = fails(*resume, f"--{name}", value)
        assert f"{name} is {value}, but a resumed run goes on in its own folder" in said
    for verb in ("fit", "validate", "test"):
        said = fails(verb, *resume[1:3], "--model.weights", "B/last.ckpt")
        assert "weights is B/last.ckpt here, but runs/x/a" in said and f"begun with {weights}: leave it out" in said
    assert not Path("elsewhere").exists() and not Path("runs/other").exists()
    Path(weights).unlink()  # no file is read again
    run(*resume, *begun, "--runs", here / "runs")  # as a requeued job does
    assert recorded(here / "runs/x/a/version_0") == [str(here / "runs"), "x/a", weights]
    (here / "moved/y").mkdir(parents=True)
    shutil.move("runs/x/a", "moved/y/c")
    run("fit", "--ckpt_path", "moved/y/c", "--trainer.max_epochs", 3)
    assert recorded(here / "moved/y/c/version_0") == [str(here / "moved"), "y/c", weights]
    assert "note: " not in capsys.readouterr().err


def test_the_place_of_a_run_whose_name_has_other_than_two_parts(tmp_path):
    for name in ("a", "a/b", "a/b/c"):
        folder = tmp_path / "runs" / name / "version_3" / "checkpoints"
        config = Namespace(runs=tmp_path / "runs", run_name=name)
        keep_place(config, folder / "last.ckpt", [f"--run_name={name}", "--runs", str(tmp_path / "runs")])
        assert config == Namespace(runs=tmp_path / "runs", run_name=name)
        config = Namespace(runs=Path("runs"), run_name=name)
        keep_place(config, folder / "last.ckpt", [])
        assert config.runs == tmp_path / "runs"
    config = Namespace(runs=Path("runs"), run_name="a/b")
    keep_place(config, tmp_path / "last.ckpt", ["--run_name=a/b"])  # in no version folder: a new run directory
    assert config == Namespace(runs=Path("runs"), run_name="a/b")


def test_weights_that_would_not_be_used_are_refused(fails, tiny_run):
    for verb in ("fit", "validate", "test"):
        said = fails(verb, "--ckpt_path", tiny_run, "--model.weights", "B/last.ckpt")
        assert "weights is B/last.ckpt here" in said and "begun with random ones: leave it out" in said
    said = fails("fit", "--ckpt_path", tiny_run, "--run_name", "other/name")
    assert "run_name is other/name, but a resumed run goes on in its own folder" in said


def test_predict_prepares_and_names_as_the_checkpoint_was_trained(fails, tiny_run):
    predict = ["predict", "--ckpt_path", tiny_run, "--data.paths", "x.png"]
    said = fails(*predict, "--data.class_names", "[a, b, c, d, e, f]")
    assert "class_names is ['a', 'b', 'c', 'd', 'e', 'f'] here, but predict takes that of the checkpoint" in said
    assert "preprocessing is {'size': 8} here" in fails(*predict, "--data.preprocessing", "{size: 8}")
    said = fails(*predict[:3], "--data", "datamodules.Synthetic")
    assert "data is datamodules.Synthetic, but predict takes image files" in said
    for verb, flag in (("test", "optimizer"), ("validate", "optimizer.lr"), ("predict", "lr_scheduler")):
        said = fails(verb, *predict[1:3], f"--model.{flag}", "torch.optim.Adam")
        assert f"--model.{flag} is a setting of a training, and {verb} builds no optimizer: leave it out." in said
    said = fails("fit", *predict[1:3], "--trainer.max_epochs", 9, "--model.optimizer", "torch.optim.Adam")
    assert "The optimizer is torch.optim.Adam here, but this run was begun with torch.optim.SGD" in said


def test_flags_of_the_trainer_without_an_effect_are_said():
    words = ["--trainer.max_epochs", "3", "--trainer={min_steps: 2}", "--trainer.limit_test_batches=1"]
    flags = read_flags(words)
    said = [
        f"--trainer.{name} has no effect on validate." for name in ("max_epochs", "min_steps", "limit_test_batches")
    ]
    assert list(describe_unused("validate", flags)) == said
    assert list(describe_unused("test", flags)) == [line.replace("validate", "test") for line in said[:2]]
    assert list(describe_unused("fit", flags)) == []


@pytest.mark.parametrize("unit", ["epochs", "steps"])
def test_more_to_do_at_least_than_at_most_is_refused(fails, unit, here):
    said = fails("fit", "--config", DIGITS, *TINY, f"--trainer.min_{unit}", 5, f"--trainer.max_{unit}", 1)
    assert f"min_{unit} is 5, but max_{unit} 1 ends the run before: raise it to 5." in said
    assert not [*Path("runs").glob("*")]
