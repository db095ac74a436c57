"""The logger of a run: its metrics.csv, and its folder."""

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment

from checkpointing.atomic import end_run_if_unwritable
from checkpointing.metrics_file import append_metrics


class RunLogger(CSVLogger):
    """Writes metrics.csv into <save_dir>/<name>/version_<version>, and appends to that of a resumed run.

    The command line fills in the arguments for each run, in processes that it has not launched those of the first one
    only: `share_run_dir` tells the others.
    """

    shared: str | None = None  # the folder, from the first process

    @property
    def log_dir(self) -> str:
        return self.shared or super().log_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:  # the logger's own cache, which its `save` reads too
            self._experiment = AppendingWriter(self.log_dir)
        return self._experiment  # type: ignore[return-value]


class AppendingWriter(ExperimentWriter):
    """Lightning's writer of metrics.csv, which otherwise deletes the file of a run that is resumed.

    Raises:
        UserError: if the file cannot be written.
    """

    def save(self) -> None:
        if not self.metrics:
            return
        path = Path(self.metrics_file_path)
        with end_run_if_unwritable(path):
            self.metrics_keys = append_metrics(path, self.metrics_keys, self.metrics)
        self.metrics = []

    def _check_log_dir_exists(self) -> None:
        """Lightning deletes metrics.csv here."""


def run_dir(trainer: pl.Trainer) -> Path | None:
    """The folder that this training writes to; None if it writes nothing."""
    logger = find_run_logger(trainer)
    return Path(logger.log_dir) if logger else None


def share_run_dir(trainer: pl.Trainer) -> None:
    """Let all processes have the first one's `run_dir`; each of them must call this."""
    if logger := find_run_logger(trainer):
        logger.shared = trainer.strategy.broadcast(logger.log_dir)


def find_run_logger(trainer: pl.Trainer) -> RunLogger | None:
    """The logger of the run; None if the training writes nothing."""
    return next((logger for logger in trainer.loggers if isinstance(logger, RunLogger)), None)
