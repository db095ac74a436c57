"""A CSVLogger that goes on with the metrics of the run that it resumes."""

import csv
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment

from checkpointing.run_dir import free_name


class RunLogger(CSVLogger):
    """Writes metrics.csv into <save_dir>/<name>/version_<version>; `main.py` fills these in for each run."""

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = KeepingWriter(self.log_dir)
        return self._experiment  # type: ignore[return-value]

    def cut(self, step: int) -> None:
        """Take the rows from optimizer step `step` on out of metrics.csv, which a resumed run will write anew.

        If there are any, they stay in metrics-until_step_N.csv.
        """
        path = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
        if not path.is_file():
            return
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), reader.fieldnames or []
        kept = [row for row in rows if int(row["step"]) < step]
        if len(kept) == len(rows):
            return
        fresh = path.with_suffix(".new")
        with fresh.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(kept)
        last = max(int(row["step"]) for row in rows)
        path.rename(free_name(path.with_name(f"metrics-until_step_{last}.csv")))
        fresh.rename(path)


class KeepingWriter(ExperimentWriter):
    """Lightning's writer of metrics.csv, which otherwise deletes the file of a run that is resumed."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        if Path(self.metrics_file_path).is_file():
            with open(self.metrics_file_path, newline="") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or [])

    def _check_log_dir_exists(self) -> None:
        """Delete nothing."""
