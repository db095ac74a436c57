"""A run that is resumed and has nothing left to do."""

import os
import shlex
import shutil
import sys

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_only

from checkpointing.atomic import atomic_write, end_run_if_unwritable
from checkpointing.content import check_content
from checkpointing.metrics_file import add_missing_rows
from checkpointing.progress import ends_epoch, epochs_done
from checkpointing.record import Checkpoint, read_checkpoint, resumable_step
from errors import pluralize

RESUME_KEY = "resume"  # in a checkpoint: what `callbacks.resume_run.ResumeRun` remembers


def exit_if_finished(trainer: Namespace, checkpoint: Checkpoint) -> None:
    """Exit with status 0, and say so, if a resumed run has nothing left to do."""
    fit_loop = checkpoint.content["loops"]["fit_loop"]
    units = (("epoch", epochs_done(fit_loop), trainer.max_epochs), ("step", checkpoint.step, trainer.max_steps))
    for unit, done, limit in units:
        if limit is None or not 0 <= limit <= done or (unit == "step" and ends_epoch(fit_loop, done, limit)):
            continue
        steps_done, total_steps = schedule_progress(checkpoint)
        advice = f"give a larger --trainer.max_{unit}s."
        if total_steps is not None and total_steps <= steps_done:
            advice = (
                f"start a new run from its weights, with --model.weights {shlex.quote(str(checkpoint.path))}: its "
                "learning-rate schedule has ended and cannot be made longer."
            )
        catch_up(checkpoint)
        rank_zero_only(print)(
            f"Nothing to do: the run of {checkpoint.path} has finished {done:,} of {pluralize(limit, unit)}. "
            f"To train further, {advice}"
        )
        sys.exit(0)


@rank_zero_only
def catch_up(checkpoint: Checkpoint) -> None:
    """Write what a run that was killed in its last moment has not: last.ckpt after best.ckpt, rows of metrics.csv."""
    last, metrics = checkpoint.path.with_name("last.ckpt"), checkpoint.path.parent.parent / "metrics.csv"
    is_behind = checkpoint.path.name == "best.ckpt" and 0 <= resumable_step(last) < checkpoint.step
    if is_behind and read_checkpoint(last, verify=False).record == checkpoint.record:  # of the same run
        with end_run_if_unwritable(last), atomic_write(last, "wb") as copy, checkpoint.path.open("rb") as file:
            shutil.copyfileobj(file, copy)
    if RESUME_KEY in checkpoint.content and checkpoint.path.parent.name == "checkpoints" and os.path.isfile(metrics):
        check_content(checkpoint.content[RESUME_KEY], {"unlogged": [{"step": 0}]}, checkpoint.path)
        with end_run_if_unwritable(metrics):
            add_missing_rows(metrics, checkpoint.content[RESUME_KEY]["unlogged"])


def schedule_progress(checkpoint: Checkpoint) -> tuple[int, int | None]:
    """Steps that the learning-rate schedule has taken, and its length in steps: None for one without an end."""
    states = checkpoint.content["lr_schedulers"] or [{}]
    return states[0].get("last_epoch", 0), states[0].get("total_steps")
