"""Checks of the Trainer's settings, which Lightning makes after an epoch, with a traceback, or not at all."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
)

from callbacks.ddp import DDP
from callbacks.sync_batch_norm import SyncBatchNorm, check_sync_batch_norm
from errors import UserError
from lit_models.classifier import LitClassifier
from trainer_settings import settings

KNOWN_PACKAGES = {"callbacks", "lightning", "lit_models"}  # whose classes log nothing but `metric_names`
COUNTERS = {"epoch", "step"}  # which Lightning counts itself
LIMITS = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}


def check_limit(trainer: pl.Trainer, verb: str) -> None:
    """Refuse a verb that is told to take no batch."""
    name = f"limit_{LIMITS[verb]}_batches"
    if getattr(trainer, name) == 0:
        raise UserError(
            f"{name} is {getattr(trainer, name)}, which leaves no batch: give a larger number, or leave it out."
        )


def check_callbacks(trainer: pl.Trainer, model: pl.LightningModule) -> None:
    """Refuse callbacks of Lightning that need attributes which the model or the data do not have, and DDP twice."""
    if sum(isinstance(callback, DDP) for callback in settings(trainer).callbacks) > 1:
        raise UserError("There are two DDP callbacks, and both would scale the learning rate: give one overlay alone.")
    for callback in settings(trainer).callbacks:
        name = type(callback).__name__
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            flag = "data.batch_size" if isinstance(callback, BatchSizeFinder) else "model.optimizer.lr"
            raise UserError(f"{name} would have to change --{flag} of a run that is laid out for it: leave it out.")
        if isinstance(callback, BackboneFinetuning) and not hasattr(model, "backbone"):
            raise UserError(f"{name} freezes a model's `backbone`, and {type(model).__name__} has none: leave it out.")
        if isinstance(callback, SyncBatchNorm):
            check_sync_batch_norm(model)


def check_validation_interval(trainer: pl.Trainer, batches: int) -> None:
    """Refuse to validate after more batches than an epoch has, which would be never.

    Args:
        trainer: whose setting is checked.
        batches: training batches in an epoch.
    """
    interval = trainer.val_check_interval
    if isinstance(interval, int) and interval > batches and trainer.check_val_every_n_epoch is not None:
        raise UserError(
            f"val_check_interval is {interval}, more than the batches of an epoch ({batches}): give fewer, or "
            "--trainer.check_val_every_n_epoch null to count batches over epochs."
        )


def check_monitors(trainer: pl.Trainer, model: pl.LightningModule) -> None:
    """Refuse callbacks and schedules that monitor a metric which nobody logs.

    ModelCheckpoints of validation metrics are allowed in runs without validation: base.yaml has one, which saves
    nothing there.
    """
    callbacks = settings(trainer).callbacks
    if not isinstance(model, LitClassifier) or any(is_foreign(each) for each in (model, *callbacks)):
        return  # they may log more
    names = metric_names(model)
    validates = bool(sum(trainer.num_val_batches))
    for user, monitor, optional in monitored_metrics(trainer):
        if monitor not in names and not monitor.startswith("lr-"):
            raise UserError(f"{user} monitors {monitor}, which nobody logs: choose one of {', '.join(names)}.")
        if monitor.startswith("val/") and not validates and not optional:
            raise UserError(
                f"{user} monitors {monitor}, and this run validates on no images: monitor train/loss, or hold images "
                "back with --data.val_size."
            )
    for config in trainer.lr_scheduler_configs:
        often = config.interval == "step" or trainer.check_val_every_n_epoch != 1
        if config.reduce_on_plateau and often and str(config.monitor).startswith("val/"):
            raise UserError(
                f"{type(config.scheduler).__name__} monitors {config.monitor} more often than the run validates: give "
                "--model.lr_interval epoch and --trainer.check_val_every_n_epoch 1, or monitor train/batch_loss."
            )


def monitored_metrics(trainer: pl.Trainer) -> list[tuple[str, str, bool]]:
    """Class that monitors a metric, the metric's name, and whether it may be missing in a run without validation."""
    callbacks = settings(trainer).callbacks
    monitors: list[tuple[Any, str | None, bool]] = [
        (each, each.monitor, isinstance(each, ModelCheckpoint) or not each.strict)
        for each in callbacks
        if isinstance(each, EarlyStopping | ModelCheckpoint) and each.monitor not in COUNTERS
    ]
    monitors += [
        (each.scheduler, each.monitor, False) for each in trainer.lr_scheduler_configs if each.reduce_on_plateau
    ]
    return [(type(user).__name__, monitor, optional) for user, monitor, optional in monitors if monitor]


def metric_names(model: LitClassifier) -> list[str]:
    """What a model and the callbacks of this project log in `fit`."""
    heads = [f"{name}_loss" for name in model.head_losses]
    train = [*model.train_metrics, *heads, "batch_loss", "images_per_s"]
    return [f"train/{name}" for name in train] + [f"val/{name}" for name in model.val_metrics]


def is_foreign(part: object) -> bool:
    """Whether a model or callback is of another package than Lightning and this project."""
    return type(part).__module__.partition(".")[0] not in KNOWN_PACKAGES
