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
