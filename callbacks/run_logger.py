"""The logger of a run: its metrics.csv, and its folder."""

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.strategies import Strategy

from checkpointing.atomic import end_run_if_unwritable
from checkpointing.metrics_file import append_metrics


class RunLogger(CSVLogger):
    """Writes metrics.csv into <save_dir>/<name>/version_<version>, and appends to that of a resumed run.

    The command line fills in the arguments for each run, in processes that it has not launched those of the first one
    only: `share` tells the others.
    """

    shared: str | None = None  # the folder, from the first process

    @property
    def log_dir(self) -> str:
        return self.shared or super().log_dir

    def share(self, strategy: Strategy) -> None:
        """Take over the folder of the first process; every process must call this."""
        self.shared = strategy.broadcast(self.log_dir)

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
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger):
            return Path(logger.log_dir)
    return None
