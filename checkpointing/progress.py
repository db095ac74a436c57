"""Where in its run a checkpoint was written, and where Lightning has to go on; by the state of Lightning's fit loop."""

from typing import Any

FitLoop = dict[str, Any]  # as Lightning stores it in a checkpoint, checked by `checkpointing.content`


def epochs_done(fit_loop: FitLoop) -> int:
    """Epochs that have ended; one that max_steps or max_time cut short is none."""
    processed = fit_loop["epoch_progress"]["current"]["processed"]
    return processed if inside_epoch(fit_loop) else processed - (not ended_on_epoch_boundary(fit_loop))


def inside_epoch(fit_loop: FitLoop) -> bool:
    """Whether a checkpoint was written before its epoch's end was reached or declared."""
    epoch = fit_loop["epoch_progress"]["current"]
    return epoch["processed"] < epoch["started"]


def ends_epoch(fit_loop: FitLoop, steps: int, max_steps: int) -> bool:
    """Whether a run has taken its last step, and is still to validate after it, or to end its epoch.

    As one that is killed in its last validation. Lightning would take no step, and do nothing else either. On data that
    are not this project's, whose loaders cannot be told to give no more batches, it counts as ended.
    """
    return steps == max_steps and inside_epoch(fit_loop) and loader_batches(fit_loop) is not None


def loader_batches(fit_loop: FitLoop) -> int | None:
    """Batches of an epoch, which this project's loaders keep in checkpoints; None for other data."""
    match fit_loop:
        case {"state_dict": {"combined_loader": [{"number of batches": int(batches)}, *_]}}:
            return batches
    return None


def ended_on_epoch_boundary(fit_loop: FitLoop) -> bool:
    """Whether a checkpoint was written at or after an epoch's last batch."""
    return fit_loop["epoch_loop.batch_progress"]["is_last_batch"]


def inside_accumulation(fit_loop: FitLoop, batches: int) -> bool:
    """Whether a checkpoint was written between two optimizer steps, each of the gradients of several batches."""
    progress = fit_loop["epoch_loop.batch_progress"]
    return not progress["is_last_batch"] and progress["current"]["processed"] % batches != 0


def was_validated(content: dict[str, Any]) -> bool:
    """Whether validation images were evaluated in the epoch of a checkpoint, which Lightning counts by epoch.

    A monitored checkpoint of another epoch was chosen by the result of an earlier one.
    """
    return content["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"]["completed"] > 0


def enter_unfinished_epoch(fit_loop: FitLoop) -> None:
    """Let a run that max_steps or max_time ended inside an epoch continue inside that epoch.

    Lightning counts the epoch as processed when it stops, and would look for the remaining batches in the next one.
    """
    if not ended_on_epoch_boundary(fit_loop) and not inside_epoch(fit_loop):
        for count in ("current", "total"):
            fit_loop["epoch_progress"][count]["processed"] -= 1


def batch_was_cut_off(fit_loop: FitLoop) -> bool:
    """Whether a checkpoint was written between a batch and the end of what follows it: validation, or the epoch's end.

    As those of every N steps are, and those of a run that is stopped by a signal.
    """
    batches = fit_loop["epoch_loop.batch_progress"]["total"]
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]["total"]
    unfinished = batches["completed"] < batches["processed"] or validation["completed"] < validation["ready"]
    return inside_epoch(fit_loop) and (unfinished or ended_on_epoch_boundary(fit_loop))


def enter_validation(fit_loop: FitLoop) -> None:
    """Let a run continue with the validation that follows a batch, from its first image.

    Lightning takes a checkpoint of a batch's end for one of the validation's end, and would leave the validation out,
    after the last batch of an epoch the epoch's end too.
    """
    complete_batch(fit_loop)
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    # By these counts Lightning knows a validation that has begun; `current`, from which it goes on, is the first batch
    validation["total"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    validation["current"] = dict.fromkeys(validation["total"], 0)
    validation["is_last_batch"] = False


def enter_epoch_end(fit_loop: FitLoop) -> None:
    """Let a run continue with the end of the epoch whose last batch is done."""
    complete_batch(fit_loop)
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] += 1  # which Lightning counts after the validation


def complete_batch(fit_loop: FitLoop) -> None:
    """Count the batch at whose end a checkpoint was written as completed."""
    for count in ("current", "total"):
        batches = fit_loop["epoch_loop.batch_progress"][count]
        batches["completed"] = batches["processed"]
