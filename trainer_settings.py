"""Attributes that Lightning's connectors give a Trainer without declaring them, with their types."""

from typing import Protocol, cast

import lightning.pytorch as pl


class TrainerSettings(Protocol):
    """Arguments of a Trainer, and what was given to it for this run."""

    callbacks: list[pl.Callback]
    datamodule: pl.LightningDataModule | None
    fast_dev_run: bool | int
    log_every_n_steps: int
    overfit_batches: int | float


def settings(trainer: pl.Trainer) -> TrainerSettings:
    """The trainer itself, with these attributes."""
    return cast(TrainerSettings, trainer)


def epochs_done(trainer: pl.Trainer, batches: int) -> float:
    """The epochs of a training so far, of which the batches of the one that runs are a fraction."""
    # `processed`, not `current_epoch`, which lags behind in a run of max_steps that is resumed
    processed: int = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
    return processed + batches / trainer.num_training_batches
