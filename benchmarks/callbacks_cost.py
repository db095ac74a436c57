"""Measures what the default callbacks cost: a fit that trains every other epoch without them."""

import time
from typing import Any

import lightning.pytorch as pl

from trainer_settings import settings


class AlternateCallbacks(pl.Callback):
    """Leaves every other epoch of a fit without any callback but this one, and times them all, with their ends.

    Args:
        turns: pairs of epochs; then training stops. An epoch before them is not timed.

    Attributes:
        results: images per second of each turn: "fit" with all callbacks of the run, "without" without.
    """

    def __init__(self, turns: int) -> None:
        self.turns, self.images = turns, 0
        self.rates: list[float] = []
        self.all_callbacks: list[pl.Callback] = []
        self.started = 0.0

    @property
    def results(self) -> list[dict[str, float]]:
        return [
            {"without": without, "fit": fit} for without, fit in zip(self.rates[1::2], self.rates[2::2], strict=True)
        ]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.all_callbacks = settings(trainer).callbacks

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        if self.images:
            self.rates.append(self.images / (now - self.started))
        self.images, self.started = 0, now

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += len(batch[1])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning goes on with the list that it goes through; the next epoch has the other one
        alone = len(settings(trainer).callbacks) == 1
        settings(trainer).callbacks = self.all_callbacks if alone else [self]
        trainer.should_stop = len(self.rates) == 2 * self.turns + 1
