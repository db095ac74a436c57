"""A run that a SLURM job began goes on in the same job when the scheduler has requeued it.

SLURM starts a requeued job's script again, with the same job number and SLURM_RESTART_COUNT above 0. The run directory
holds the job's number and the arguments of its command: the same command in the same job, restarted, resumes that run
instead of beginning another one, from its checkpoint and as `fit --ckpt_path` does.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkpointing.atomic import atomic_write, end_run_if_unwritable
from checkpointing.run_dir import has_checkpoint, version_number
from errors import check_reachable

FILE = "job.json"


def job_number() -> str | None:
    """The number of the SLURM job that this process belongs to, with that of its task in an array; else None."""
    array = [os.environ.get(name) for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")]
    return "_".join(array) if all(array) else os.environ.get("SLURM_JOB_ID")  # type: ignore[arg-type]


def describe_job(arguments: Sequence[str]) -> dict[str, Any] | None:
    """What identifies a command within its job; None outside of any."""
    number = job_number()
    return None if number is None else {"slurm_job": number, "arguments": list(arguments)}


def note_job(run_dir: Path, arguments: Sequence[str]) -> None:
    """Write the job and the arguments of its command into a run directory; nothing outside of any job."""
    if job := describe_job(arguments):
        with end_run_if_unwritable(run_dir / FILE), atomic_write(run_dir / FILE) as file:
            file.write(json.dumps(job, indent=2) + "\n")


def find_requeued_run(experiment: Path, arguments: Sequence[str]) -> Path | None:
    """The version folder of an experiment that this command began before its job was requeued, if it has a checkpoint.

    Args:
        experiment: folder with the versions.
        arguments: of this command.
    """
    job = describe_job(arguments)
    if job is None or os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        return None
    check_reachable(experiment)
    for folder in sorted(experiment.glob("version_*"), key=version_number, reverse=True):
        if read_job(folder) == job and has_checkpoint(folder):
            return folder
    return None


def read_job(run_dir: Path) -> Any:
    """The job that a run directory names; None if it names none."""
    if not os.path.isfile(run_dir / FILE):
        return None
    try:
        return json.loads((run_dir / FILE).read_text())
    except (OSError, ValueError, RecursionError):
        return None
