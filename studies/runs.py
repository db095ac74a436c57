"""The runs of a study, each a version of its arm's experiment, and the files of their tests."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from callbacks.evaluation_mode import evaluation_name
from checkpointing.atomic import PART
from checkpointing.predictions import Predictions, file_hash, predictions_path, result_path
from checkpointing.run_dir import LOCK, has_checkpoint, release_version, version_number
from checkpointing.run_facts import Outcome, read_run_facts
from cli.trainer import resolve_precision
from datamodules.base import image_data
from datamodules.identity import identify_evaluated
from errors import UserError
from reports.evaluation import AlreadyTested
from reports.run_sources.local import read_config
from reports.run_sources.run_files import is_locked

STEP = 1000  # between the versions that runs of one seed and several recipes may have
# What differs between a config that is printed and the one that its run has written, and changes no number
PLACES = {"logger", "default_root_dir", "devices"}


class Busy(Exception):
    """Another process trains or tests this run."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of an arm's run with a seed.

    Args:
        path: version_N, where N is the seed unless a run of another recipe lies there.
        outcome: of its last command; None where the run is still to begin.
    """

    path: Path
    outcome: Outcome | None = None

    @property
    def has_ended(self) -> bool:
        return self.outcome in ("finished", "diverged")

    @property
    def version(self) -> int:
        return version_number(self.path)


def find_run_folder(experiment: Path, seed: int, config: Mapping[str, Any]) -> RunFolder:
    """The folder of a run that has been begun, or the one where it is to begin.

    Args:
        experiment: folder with the versions.
        seed: of the run.
        config: whole config of its command, see `studies.process.resolve`.

    Raises:
        Busy: if another process trains there.
    """
    for number in count(seed, STEP):
        path = experiment / f"version_{number}"
        if not os.path.isdir(path):
            return RunFolder(path)
        own = read_config(path, [])
        if own and comparable(own) != comparable(config):
            continue
        if is_locked(path):
            raise Busy
        facts = read_run_facts(path)
        outcome: Outcome = facts.sessions[-1].outcome if facts and facts.sessions else "running"
        if own and (outcome in ("finished", "diverged") or has_checkpoint(path)):
            return RunFolder(path, outcome)
        if own or is_empty(path):
            return RunFolder(path)
    raise AssertionError("there is no last number")


def is_empty(path: Path) -> bool:
    """Whether a run directory holds nothing but its lock and files that were not finished."""
    return all(each.name == LOCK or each.suffix == PART for each in path.iterdir())


def clear_folder(folder: RunFolder) -> None:
    """Remove what a process has left that was killed before the first checkpoint of its run."""
    if folder.outcome is None and os.path.isdir(folder.path):
        release_version(folder.path)


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config by which a run is known: without the places of files."""
    if not isinstance(config.get("trainer"), dict):
        return {}
    trainer = {key: value for key, value in config["trainer"].items() if key not in PLACES}
    trainer["precision"] = resolve_precision(trainer.get("precision"))
    parts = {key: config.get(key) for key in ("seed_everything", "model", "on_nonfinite")}
    return parts | {"trainer": trainer, "data": drop_places(config.get("data"))}


def drop_places(value: Any) -> Any:
    """A section of a config without the folder of the data, and without the number of processes that load them."""
    if isinstance(value, dict):
        return {key: drop_places(each) for key, each in value.items() if key not in ("root", "num_workers")}
    return value


class LocateTest(pl.Callback):
    """Finds the files of a test when it begins, and ends it if they are there: raises AlreadyTested.

    Args:
        checkpoint: file that is tested.

    Attributes:
        result, predictions: the files.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.result = self.predictions = checkpoint

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = image_data(trainer)
        if data is None:
            raise UserError("a study tests on a data module of this project (datamodules.ImageData): give one.")
        tag, name = identify_evaluated(data, "test").tag, evaluation_name(trainer, data)
        self.result = result_path(self.checkpoint, name, tag)
        self.predictions = predictions_path(self.checkpoint, name, "test", tag)
        if self.are_current():
            raise AlreadyTested

    def are_current(self) -> bool:
        """Whether the files are there, and of this very checkpoint."""
        try:
            tested = Predictions.read(self.predictions).checkpoint_hash
            return os.path.isfile(self.result) and tested == file_hash(self.checkpoint)
        except (UserError, OSError):
            return False
