"""Resuming a run (`fit --ckpt_path`): the whole rule.

A resumed run continues in its own folder, with the weights, the optimizer, the schedule and the position in the epoch
of the checkpoint, and ends with the same bits as a run that was never stopped. Therefore

- before anything is built, `check_can_resume` refuses a file of weights alone, another model and another optimizer, and
  ends the command if the run is finished; `refuse_other_weights` follows when the model is built, and
  `refuse_longer_schedule` when the length of the run is known;
- `refuse_other_batches` is called by the loader, whose state is kept inside an epoch only;
- `adapt_state` is called while the checkpoint is loaded: the run may have been moved, or stopped inside an epoch
  (`checkpointing.progress`);
- `refuse_other_optimizer_state` is called when the optimizers are made, before they get their state;
- `set_aside_later_results` is called at the first batch, when nothing can refuse any more: rows of
  metrics.csv and gradient_flow.csv and checkpoints of later steps are set aside, because the run produces them again.
"""

import shlex
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from torch import nn

from checkpointing import gradient_flow
from checkpointing.atomic import end_run_if_unwritable
from checkpointing.confinement import rebase
from checkpointing.content import TRAINING, check_content
from checkpointing.finished_run import exit_if_finished
from checkpointing.metrics_file import truncate_metrics
from checkpointing.progress import enter_unfinished_epoch, inside_epoch
from checkpointing.record import INITIAL_WEIGHTS, Checkpoint, as_recorded, resumable_step
from checkpointing.run_dir import unused_name
from errors import UserError, pluralize

# Arguments of a model that change how it is computed, and not its function
COMPUTATION_ARGUMENTS = {"compile", "channels_last", "images_per_forward"}
# What Lightning's WeightAveraging and StochasticWeightAveraging remember in a checkpoint
AVERAGING_STATES = {"latest_update_step", "average_model_state"}
# Content of a checkpoint of weights alone, besides them and the record
KEPT_WITHOUT_TRAINING = ("epoch", "global_step", "pytorch-lightning_version", "hparams_name", "hyper_parameters")


def check_can_resume(config: Namespace, checkpoint: Checkpoint) -> None:
    """Refuse to resume with another model or optimizer; end the command if the run is finished.

    Args:
        config: of this command.
        checkpoint: to resume from.

    Raises:
        UserError: with the value, the reason and the fix.
        SystemExit: with status 0, if nothing is left to do.
    """
    refuse_bare_weights(checkpoint)
    check_content(checkpoint.content, TRAINING, checkpoint.path)
    refuse_other_model(config, checkpoint)
    refuse_other_optimizer(config, checkpoint)
    exit_if_finished(config.trainer, checkpoint)


def refuse_bare_weights(checkpoint: Checkpoint) -> None:
    """Averaged weights, and checkpoints of `save_weights_only`, have no optimizer to continue with."""
    if "optimizer_states" not in checkpoint.content:
        raise UserError(
            f"{checkpoint.path} holds weights alone and no state of a training to go on with: resume from last.ckpt, "
            f"or start a new run from these weights with --model.weights {checkpoint.path}."
        )


def drop_training_state(content: dict[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint's content that is left when its training cannot be continued."""
    return {name: content[name] for name in KEPT_WITHOUT_TRAINING if name in content}


def refuse_other_model(config: Namespace, checkpoint: Checkpoint) -> None:
    """Refuse other weights to begin with, which would not be used, and another activation, dropout and so on.

    The checkpoint's weights may fit such a model, and it would be another net.
    """
    before, now = checkpoint.record.model_args, config.model.init_args.as_dict()
    for name in INITIAL_WEIGHTS & now.keys():
        if now[name] is not None and as_recorded(now[name]) != as_recorded(before.get(name)):
            raise UserError(
                f"{name} is {now[name]} here, but {checkpoint.path} has weights of its own, and its run was begun with "
                f"{before.get(name) or 'random ones'}: leave it out, or start a new run from other weights without "
                "--ckpt_path."
            )
    compared_elsewhere = {"optimizer", "lr_scheduler"}
    for name in before.keys() & now.keys() - COMPUTATION_ARGUMENTS - INITIAL_WEIGHTS - compared_elsewhere:
        old, new = before[name], now[name]
        if as_recorded(old) != as_recorded(new):
            raise UserError(
                f"{name} is {new} here, but the model of this checkpoint was trained with {old}: leave it out, or "
                "start a new run from its weights with --model.weights."
            )


def refuse_other_optimizer(config: Namespace, checkpoint: Checkpoint) -> None:
    """Refuse another optimizer or schedule: the state of the checkpoint would silently replace it."""
    before, now = checkpoint.record.model_args, config.model.init_args.as_dict()
    for part in ("optimizer", "lr_scheduler"):
        old, new = (class_and_arguments(arguments.get(part)) for arguments in (before, now))
        for name in sorted(new.keys() | old.keys()):
            if old.get("class_path") != new.get("class_path"):
                raise UserError(
                    f"The {part} is {new.get('class_path', 'null')} here, but this run was begun with "
                    f"{old.get('class_path', 'none')}, and resuming continues with that of the checkpoint: leave it "
                    "out, or start a new run."
                )
            if old.get(name) != new.get(name):
                raise UserError(
                    f"The {part}'s {name} is {new.get(name)} here, but this run was begun with {old.get(name)}, and "
                    "resuming continues with the optimizer of the checkpoint: leave it out, or start a new run."
                )


def class_and_arguments(part: dict[str, Any] | None) -> dict[str, Any]:
    """Class path and arguments of a part of the config in one dict; empty for None."""
    return as_recorded({"class_path": part["class_path"], **part.get("init_args", {})} if part else {})


def refuse_longer_schedule(schedule_steps: int | None, interval: str, run_length: int | float | None) -> None:
    """Refuse a run longer than its learning-rate schedule, which cannot be extended once it has begun.

    Args:
        schedule_steps: length of the schedule; None for one without an end.
        interval: whether the schedule steps by epoch or by step.
        run_length: epochs or optimizer steps of the run; None if unknown.
    """
    if schedule_steps is not None and run_length is not None and schedule_steps < run_length:
        raise UserError(
            f"The learning-rate schedule was laid out for {schedule_steps:,} {interval}s and this run takes "
            f"{run_length:,}: it cannot be made longer once it has begun, so start a new run, from its weights with "
            "--model.weights FILE."
        )


def refuse_other_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Refuse weights that do not fit the model, in one sentence instead of torch's list."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in checkpoint.state_dict.items()}
    different = [name for name in {**own, **theirs} if own.get(name) != theirs.get(name)]
    if different:
        name = different[0]
        raise UserError(
            f"{checkpoint.path} does not fit this model: {name} is {theirs.get(name, 'missing')} in the checkpoint and "
            f"{own.get(name, 'missing')} in the model ({pluralize(len(different), 'tensor')} differ). Leave out the "
            "flags that change the model or its number of classes."
        )


def refuse_other_averaging(states: dict[str, Any], averaging: set[str], path: str) -> None:
    """Refuse to go on without the callback that averages the weights, or with one that the run did not have.

    The weights of such a checkpoint are the average, and its optimizer belongs to those that are averaged.

    Args:
        states: of the callbacks in the checkpoint.
        averaging: names of the callbacks of this command that average weights.
        path: of the checkpoint.
    """
    before = {name for name, state in states.items() if isinstance(state, dict) and AVERAGING_STATES & state.keys()}
    new_run = f"or start a new run from its weights with --model.weights {shlex.quote(path)}."
    for name in sorted(before - averaging):
        raise UserError(
            f"This command has no {name}, which averages the weights in {path}: the optimizer goes on with those that "
            f"are averaged, so keep the callback (callbacks+ in a file adds to the run's own), {new_run}"
        )
    for name in sorted(averaging - before):
        raise UserError(
            f"{name} is given here, and the run of {path} did not average its weights: an average that begins now is "
            f"not one of the run, so leave it out, {new_run}"
        )


def refuse_inside_averaged_epoch(states: dict[str, Any], fit_loop: dict[str, Any], path: str) -> None:
    """Refuse to enter an epoch in whose beginning StochasticWeightAveraging acted, which it would not do again."""
    averages = [state for state in states.values() if isinstance(state, dict) and state.get("scheduler_state")]
    if averages and inside_epoch(fit_loop):
        raise UserError(
            f"{path} is from the middle of an epoch in which StochasticWeightAveraging averages, and it cannot go on "
            "there: resume from a checkpoint of an epoch's end, or average with EMAWeightAveraging "
            "(configs/overlays/ema.yaml) in a new run."
        )


def refuse_other_batches(saved: dict[str, int], now: dict[str, int]) -> None:
    """Refuse to enter an epoch in its middle with other batches.

    Args:
        saved: batch size and number of batches when the epoch was begun.
        now: the same of the resumed run.
    """
    for name, value in now.items():
        if saved[name] != value:
            raise UserError(
                f"This epoch was begun with {name} {saved[name]}, and the resumed run has {value}: keep the data, "
                "--data.batch_size and the number of processes as they were, or resume from a checkpoint of an epoch's "
                "end."
            )


def adapt_state(content: dict[str, Any], run_dir: Path) -> None:
    """Adapt a loaded checkpoint in place: paths of ModelCheckpoints to where the run is now, and the unfinished epoch.

    Where validation follows the batch that the checkpoint was written after, `enter_validation` adds to that.

    Args:
        content: of the checkpoint, as Lightning loads it.
        run_dir: where the run is now.
    """
    content["callbacks"].pop("Timer", None)  # max_time counts anew, or a resumed run would end at once
    for state in content["callbacks"].values():
        if "best_k_models" in state:
            rebase_paths(state, Path(state["dirpath"] or "."), run_dir / "checkpoints")
    fit_loop = content["loops"]["fit_loop"]
    enter_unfinished_epoch(fit_loop)
    if not inside_epoch(fit_loop):
        fit_loop["state_dict"].pop("combined_loader", None)


def rebase_paths(state: dict[str, Any], old: Path, new: Path) -> None:
    """Move every path of a ModelCheckpoint's state from one folder to another; those outside of it are removed."""
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = rebase(state[name], old, new)
    kept = {rebase(path, old, new): score for path, score in state["best_k_models"].items()}
    state["best_k_models"] = {path: score for path, score in kept.items() if path}
    state["dirpath"] = str(new)


def set_aside_later_results(run_dir: Path, step: int, unlogged: list[dict[str, Any]], validates: bool) -> None:
    """Set aside what a run has logged and saved from a step on, because the resumed run will produce it again.

    Args:
        run_dir: of the run.
        step: the first one that is repeated.
        unlogged: rows of metrics.csv that were still to be logged when the checkpoint was written.
        validates: whether the run goes on with the validation that follows the step before.
    """
    truncate_metrics(run_dir / "metrics.csv", step, unlogged, validates)
    truncate_metrics(run_dir / gradient_flow.FILE, step)
    archive_later_checkpoints(run_dir / "checkpoints", step)


def archive_later_checkpoints(folder: Path, step: int) -> None:
    """Move checkpoints of later steps than the one resumed from into a subfolder."""
    later = [path for path in sorted(folder.glob("*.ckpt")) if resumable_step(path) > step]
    if not later:
        return
    archive = unused_name(folder / f"before_resuming_from_step_{step}")
    with end_run_if_unwritable(archive):
        archive.mkdir()
        for path in later:
            path.rename(archive / path.name)
    print(f"Checkpoints of later steps are kept in {archive}: {', '.join(path.name for path in later)}", flush=True)
