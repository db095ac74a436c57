"""Loggers of Lightning beside the run's own, added by their names."""

import csv
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from cli import file_loggers
from cli.file_loggers import place_file_loggers
from errors import UserError
from tests.conftest import DIGITS, TINY

RUN = Path("runs/digits/resnet20/version_0")


def read_events(folder: Path, tag: str) -> dict[int, float]:
    """The values of a metric by step, as TensorBoard shows them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(tag)}


def read_metrics(path: Path, name: str) -> dict[int, float]:
    return {int(row["step"]): float(row[name]) for row in csv.DictReader(path.open()) if row[name]}


def test_one_flag_adds_tensorboard_and_a_resumed_run_goes_on_there(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run("fit", "--config", DIGITS, *TINY, "--trainer.max_epochs", 2, "--trainer.logger+=TensorBoardLogger")
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    names = [logger["class_path"].rpartition(".")[2] for logger in config["trainer"]["logger"]]
    assert names[0] == "RunLogger" and names[-1] == "TensorBoardLogger" and len(names) == 3
    assert read_events(RUN / "tensorboard", "val/loss") == pytest.approx(read_metrics(RUN / "metrics.csv", "val/loss"))

    moved = Path("elsewhere/digits/resnet20/version_0")
    moved.parent.mkdir(parents=True)
    shutil.move(RUN, moved)
    run("fit", "--ckpt_path", moved, "--trainer.max_epochs", 3)
    ours = read_metrics(moved / "metrics.csv", "val/loss")
    assert read_events(moved / "tensorboard", "val/loss") == pytest.approx(ours) and len(ours) == 3
    last = max((moved / "tensorboard").glob("events*"), key=lambda path: path.stat().st_mtime)
    # What a killed run would have logged behind the checkpoint is dropped
    assert [event.step for event in EventFileLoader(str(last)).Load() if event.HasField("session_log")] == [8]
    assert not RUN.exists() and not list(Path().glob("lightning_logs"))


@pytest.mark.slow
def test_a_config_adds_loggers_of_several_kinds(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    Path("loggers.yaml").write_text("trainer: {logger+: [CSVLogger, {class_path: CSVLogger}]}")
    run("fit", "--config", DIGITS, "--config", "loggers.yaml", *TINY, "--trainer.max_epochs", 1)
    ours = read_metrics(RUN / "metrics.csv", "val/loss")
    for folder in ("csv", "csv_2"):
        assert read_metrics(RUN / folder / "version_0/metrics.csv", "val/loss") == ours
    run("fit", "--ckpt_path", RUN, "--trainer.max_epochs", 2)
    assert read_metrics(RUN / "csv/version_0/metrics.csv", "val/loss") == ours  # kept
    assert len(read_metrics(RUN / "csv/version_1/metrics.csv", "val/loss")) == 1


def test_a_logger_without_its_package_is_one_sentence(fails, monkeypatch):
    monkeypatch.setattr(file_loggers, "find_spec", lambda name: None if "tensor" in name else find_spec(name))
    said = fails("fit", "--config", DIGITS, *TINY, "--trainer.logger+=TensorBoardLogger")
    assert "TensorBoardLogger needs the package tensorboard, which is not installed" in said
    assert "-m pip install tensorboard`" in said and not Path("runs").exists()


def test_mlflow_writes_into_the_run_directory():
    logger = Namespace(class_path="lightning.pytorch.loggers.MLFlowLogger", init_args=Namespace(save_dir="runs"))
    place_file_loggers([logger], Path("runs/digits/resnet20/version_3"), None)
    assert logger.init_args.save_dir == "runs/digits/resnet20/version_3/mlflow"
    assert logger.init_args.run_name == "resnet20/version_3"
    if not find_spec("mlflow"):
        with pytest.raises(UserError, match="pip install mlflow"):
            file_loggers.refuse_missing_packages([logger])
