"""Continuing a run in its own folder."""

import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from callbacks.run_logger import run_dir, share_run_dir
from checkpointing.content import check_content, check_numbers, check_state_dict
from checkpointing.finished_run import RESUME_KEY
from checkpointing.optimizer_state import count_states, refuse_other_optimizer_state
from checkpointing.progress import (
    batch_was_cut_off,
    ended_on_epoch_boundary,
    ends_epoch,
    enter_epoch_end,
    enter_validation,
    inside_epoch,
    loader_batches,
)
from checkpointing.resume import (
    adapt_state,
    refuse_inside_averaged_epoch,
    refuse_other_averaging,
    set_aside_later_results,
)
from checkpointing.wandb_rows import find_missing, truncate_offline_rows
from datamodules.loading import ResumableLoader
from lit_models.classifier import LitClassifier
from trainer_settings import settings

COUNTS_KEY = "optimizer_state_counts"  # in a checkpoint: for each optimizer the number of parameters with state


class CheckLoops(pl.Callback):
    """Refuses malformed state of Lightning's fit loop; evaluation, which begins at its first batch, takes none.

    The command line adds this callback to every verb, before all others that read the state.
    """

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == "fit":
            example = trainer.fit_loop.state_dict() | {"state_dict": {}}
            check_content(checkpoint["loops"]["fit_loop"], example, str(trainer.ckpt_path))
        else:
            checkpoint.pop("loops", None)


class ResumeRun(pl.Callback):
    """Applies the rule of `checkpointing.resume` while a checkpoint is loaded and at the first batch after it.

    metrics.csv keeps its rows up to the resumed step, best.ckpt stays the best of the whole run, also after the folder
    was moved, and layers that a callback has frozen stay frozen. The command line adds this callback to every verb, as
    the first, because others log before a batch.
    """

    resumed_step: int | None = None
    remembered: dict[str, Any]  # of the checkpoint
    validates = False  # whether the run goes on with a validation
    ends_epoch = False  # whether it only has to end an epoch; until then, the loop's limit is a step larger

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        share_run_dir(trainer)  # before any callback asks for it
        if trainer.precision == "64-true":
            # Lightning does so after it has restored a checkpoint, whose weights would be rounded to float32; and
            # averages of weights, which other callbacks make in their setup, would be sums of float32
            trainer.precision_plugin.convert_module(pl_module)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        folder = run_dir(trainer)
        if trainer.state.fn != "fit" or not folder:
            return
        path = str(trainer.ckpt_path)
        fit_loop = checkpoint["loops"]["fit_loop"]
        refuse_other_averaging(checkpoint["callbacks"], averaging_callbacks(trainer), path)
        if ends_epoch(fit_loop, checkpoint["global_step"], trainer.max_steps):
            trainer.fit_loop.epoch_loop.max_steps += 1
            self.ends_epoch = True
        self.remembered = checkpoint.get(RESUME_KEY, {})
        if RESUME_KEY in checkpoint:
            check_content(self.remembered, {"frozen": [""], "unlogged": [{"step": 0}], "monitored": {}}, path)
            check_state_dict(self.remembered["monitored"], path)
            check_numbers(self.remembered["monitored"], path)
        adapt_state(checkpoint, folder)
        refuse_inside_averaged_epoch(checkpoint["callbacks"], fit_loop, path)
        cut_off = batch_was_cut_off(fit_loop)
        self.validates = cut_off and validation_is_due(trainer, fit_loop)
        if self.validates:
            enter_validation(fit_loop)
        elif cut_off and ended_on_epoch_boundary(fit_loop):
            enter_epoch_end(fit_loop)
        self.resumed_step = checkpoint["global_step"]

    def _stop_here(self, trainer: pl.Trainer) -> None:
        """Let the loop stop at the last step again."""
        trainer.fit_loop.epoch_loop.max_steps -= self.ends_epoch
        self.ends_epoch = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.ends_epoch and isinstance(loader := trainer.train_dataloader, ResumableLoader):
            loader.has_ended = True
        if trainer.fit_loop.restarted_on_epoch_end:
            begin_next_epoch(trainer)
        if self.resumed_step is not None and self.remembered:
            trainer.callback_metrics.update(self.remembered["monitored"])
            frozen = set(self.remembered["frozen"])
            for name, parameter in pl_module.named_parameters():
                parameter.requires_grad_(name not in frozen)

    def _set_aside(self, trainer: pl.Trainer) -> None:
        """Set aside what the run produces again: before anything is logged, once nothing can refuse any more."""
        if self.resumed_step is None:
            return
        folder = run_dir(trainer)
        if folder and trainer.is_global_zero:
            unlogged = self.remembered.get("unlogged", [])
            set_aside_later_results(folder, self.resumed_step, unlogged, self.validates)
            logged = truncate_offline_rows(folder, self.resumed_step, self.validates)
            log_to_wandb(trainer, find_missing(logged, folder / "metrics.csv"))
        self.resumed_step = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._set_aside(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._set_aside(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._stop_here(trainer)
        if self.resumed_step is not None:
            self._set_aside(trainer)
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset()  # see `enter_validation`

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Else Lightning steps no epoch's schedule in the epoch that it has restarted; it calls this itself just after
        trainer.fit_loop.on_iteration_done()
        self._stop_here(trainer)
        self._set_aside(trainer)  # where it was resumed after the last batch of an epoch without validation

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for logger in trainer.loggers:
            logger.save()  # rows that callbacks have logged wait in memory for those of the step
        metrics = {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()}
        fit_loop = checkpoint["loops"]["fit_loop"]
        means = whole_epoch_means(pl_module, fit_loop)
        checkpoint[RESUME_KEY] = {
            "frozen": [name for name, parameter in pl_module.named_parameters() if not parameter.requires_grad],
            "monitored": {name: value for name, value in metrics.items() if not name.startswith("train/")} | means,
            "unlogged": unlogged_rows(trainer, fit_loop, means),
        }


class CheckOptimizerState(pl.Callback):
    """Refuses state of optimizers and schedules in a checkpoint that does not belong to those of the resumed run.

    The command line adds this callback to `fit`, as the last, because others may add parameters to the optimizer.
    """

    loaded: dict[str, Any] | None = None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        names = ("global_step", "optimizer_states", "lr_schedulers", COUNTS_KEY)
        self.loaded = {name: checkpoint.get(name) for name in names}
        if self.loaded[COUNTS_KEY] is not None:
            check_content(self.loaded[COUNTS_KEY], [0], str(trainer.ckpt_path))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[COUNTS_KEY] = count_states(checkpoint["optimizer_states"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.loaded is None:
            return
        path = str(trainer.ckpt_path)
        step, states, schedules, counts = self.loaded.values()
        refuse_other_optimizer_state(trainer.optimizers, states, step, path, counts)
        own = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        check_content(dict(enumerate(schedules)), dict(enumerate(own)), path)
        self.loaded = None


def log_to_wandb(trainer: pl.Trainer, rows: list[dict[str, float | int]]) -> None:
    """Log rows of metrics.csv to W&B, if the run has its logger."""
    for logger in trainer.loggers:
        for row in rows if isinstance(logger, WandbLogger) else ():
            logger.log_metrics({name: value for name, value in row.items() if name != "step"}, int(row["step"]))


def averaging_callbacks(trainer: pl.Trainer) -> set[str]:
    """The names, in checkpoints, of the callbacks that average the weights while a net is trained."""
    classes = WeightAveraging, StochasticWeightAveraging
    return {callback.state_key for callback in settings(trainer).callbacks if isinstance(callback, classes)}


def begin_next_epoch(trainer: pl.Trainer) -> None:
    """Let a run of max_steps, resumed at an epoch's end, begin the next one; Lightning would end it once more."""
    trainer.fit_loop.epoch_progress.increment_completed()
    trainer.fit_loop.reset_restart_stage()
    trainer.fit_loop.epoch_loop.restarting = False


def validation_is_due(trainer: pl.Trainer, fit_loop: dict[str, Any]) -> bool:
    """Whether Lightning validates after the batch at whose end a checkpoint was written."""
    progress = fit_loop["epoch_loop.batch_progress"]
    every = trainer.check_val_every_n_epoch
    if not trainer.enable_validation or (every and (fit_loop["epoch_progress"]["current"]["processed"] + 1) % every):
        return False
    interval = trainer.val_check_interval
    if interval == math.inf:  # the clock tells
        return False
    if isinstance(interval, float):
        if (batches := count_batches(trainer, fit_loop)) is None:
            return False
        interval = max(1, int(batches * interval))
    done = progress["total" if every is None else "current"]["ready"]
    return isinstance(interval, int) and done % interval == 0


def count_batches(trainer: pl.Trainer, fit_loop: dict[str, Any]) -> int | None:
    """Training batches of the epoch in which a checkpoint was written; None where the file does not tell."""
    if ended_on_epoch_boundary(fit_loop):
        return fit_loop["epoch_loop.batch_progress"]["current"]["ready"]
    batches, limit = loader_batches(fit_loop), trainer.limit_train_batches
    if batches is None:
        return None
    return min(batches, limit) if isinstance(limit, int) else int(batches * (1.0 if limit is None else limit))


def whole_epoch_means(module: pl.LightningModule, fit_loop: dict[str, Any]) -> dict[str, Tensor]:
    """The means of an epoch's training images after its last batch; empty anywhere else.

    A run that is resumed there sees none of these batches. Every process must call this: the means are over all.
    """
    if not (inside_epoch(fit_loop) and ended_on_epoch_boundary(fit_loop) and isinstance(module, LitClassifier)):
        return {}
    return {name: mean.compute().detach().cpu() for name, mean in module.train_means.items()}


def unlogged_rows(
    trainer: pl.Trainer, fit_loop: dict[str, Any], means: dict[str, Tensor]
) -> list[dict[str, float | int]]:
    """The rows of metrics.csv that Lightning logs after the checkpoint that is being written.

    A kill between the two would lose them.
    """
    rows: list[dict[str, Any]] = [means]
    every = settings(trainer).log_every_n_steps
    if not inside_epoch(fit_loop) or (every and trainer.global_step % every == 0):
        rows.append(newly_logged(trainer))
    position = {"epoch": trainer.current_epoch, "step": trainer.global_step - 1}
    rows = [{name: float(value) for name, value in row.items() if name.startswith("train/")} for row in rows]
    return [row | position for row in rows if row]


def newly_logged(trainer: pl.Trainer) -> dict[str, Any]:
    """What is to be logged for this step or epoch, without what was logged before."""
    everything = trainer.logged_metrics
    before = dict(everything)
    everything.clear()
    new = dict(trainer.logged_metrics)
    everything.update(before)
    return new
