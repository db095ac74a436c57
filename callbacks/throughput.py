"""Images per second of the training loop."""

import time
from typing import Any

import lightning.pytorch as pl
import torch

from trainer_settings import settings


class Throughput(pl.Callback):
    """Log `train/images_per_s` over all devices: every `log_every_n_steps`, and of each whole epoch at its end.

    With several devices, the rate of each rank too, once an epoch: `train/images_per_s_rank_0` and so on.

    Time runs from the end of one training batch to the end of the next: loading and callbacks count, validation does
    not, nor does the first batch of an epoch, which waits for loader processes and, once, for compilation.
    """

    def __init__(self) -> None:
        self.images, self.seconds = 0, 0.0
        self.mark: float | None = None  # when the last batch ended

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.images, self.seconds, self.mark = 0, 0.0, None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        interval = settings(trainer).log_every_n_steps  # 0: never within an epoch
        due = interval > 0 and trainer.global_step % interval == 0
        last = batch_idx + 1 == trainer.num_training_batches
        if (due or last) and torch.cuda.is_available():
            torch.cuda.synchronize()  # without it the clock would see how fast work is queued
        now = time.perf_counter()
        if self.mark is not None:
            self.seconds += now - self.mark
            self.images += len(batch[1]) * trainer.world_size
        self.mark = now
        if due and self.images:
            pl_module.log("train/images_per_s", self.images / self.seconds)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.mark = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.seconds:  # an epoch of one batch, on every rank
            return
        own = self.images / self.seconds / trainer.world_size
        pl_module.log("train/images_per_s", own, sync_dist=True, reduce_fx="sum")
        for rank in range(trainer.world_size) if trainer.world_size > 1 else ():
            rate = own if rank == trainer.global_rank else 0.0
            pl_module.log(f"train/images_per_s_rank_{rank}", rate, sync_dist=True, reduce_fx="sum")
