"""The runs of a study: each a version of its arm's experiment, found again by its config."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpointing.predictions import Predictions, file_hash, predictions_path, result_path
from checkpointing.run_dir import has_checkpoint, version_number
from checkpointing.run_facts import read_run_facts
from cli.trainer import resolve_precision
from errors import UserError
from reports.run_sources.local import read_config

# What differs between a config that is printed and the one that its run has written, and changes no number
PLACES = {"logger", "default_root_dir"}


@dataclass(frozen=True)
class FoundRun:
    """A run directory of an arm and seed.

    Args:
        folder: version_N.
        outcome: of its last command, see `checkpointing.run_facts`; empty if it has not begun.
        can_resume: whether it has a checkpoint.
    """

    folder: Path
    outcome: str
    can_resume: bool

    @property
    def has_ended(self) -> bool:
        return self.outcome in ("finished", "diverged")


def find_run(experiment: Path, config: Mapping[str, Any]) -> FoundRun | None:
    """The run of a config that came furthest; None if there is none to be used.

    Args:
        experiment: folder with the versions.
        config: whole config of the command, see `studies.process.resolve`.
    """
    found: list[FoundRun] = []
    for folder in sorted(experiment.glob("version_*"), key=version_number):
        if comparable(read_config(folder, [])) == comparable(config):
            facts = read_run_facts(folder)
            outcome = facts.sessions[-1].outcome if facts and facts.sessions else ""
            found.append(FoundRun(folder, outcome, has_checkpoint(folder)))
    return max((run for run in found if run.has_ended or run.can_resume), key=lambda run: run.has_ended, default=None)


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config by which a run is known: without the places of files."""
    if not isinstance(config.get("trainer"), dict):
        return {}
    trainer = {key: value for key, value in config["trainer"].items() if key not in PLACES}
    trainer["precision"] = resolve_precision(trainer.get("precision"))
    parts = {key: config.get(key) for key in ("seed_everything", "model", "on_nonfinite")}
    return parts | {"trainer": trainer, "data": drop_places(config.get("data"))}


def drop_places(value: Any) -> Any:
    """A section of a config without `root`, and without what is only of loading."""
    if isinstance(value, dict):
        return {key: drop_places(each) for key, each in value.items() if key not in ("root", "num_workers")}
    return value


@dataclass(frozen=True)
class TestFiles:
    """Where `test` leaves its result, and the predictions that it follows from."""

    __test__ = False  # pytest

    checkpoint: Path
    result: Path
    predictions: Path

    def are_current(self) -> bool:
        """Whether the files are there, and of this very checkpoint."""
        try:
            hash_ = Predictions.read(self.predictions).checkpoint_hash
            return os.path.isfile(self.result) and hash_ == file_hash(self.checkpoint)
        except (UserError, OSError):
            return False


def locate_test(checkpoint: Path, config: Mapping[str, Any]) -> TestFiles:
    """The files of a test.

    Args:
        checkpoint: file that is tested.
        config: whole config of the command, see `studies.process.resolve`.
    """
    protocol = config["data"]["init_args"].get("protocol", "center")
    return TestFiles(checkpoint, result_path(checkpoint, protocol), predictions_path(checkpoint, protocol))
