"""Progress in a terminal and without one."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from callbacks.image_bar import ImageBar, follow_images

SECONDS_BETWEEN_LINES = 30
SHOWN = ("train/loss", "train/top1_error", "val/loss", "val/top1_error")


class Progress(TQDMProgressBar):
    """A progress bar in a terminal; in a file, a pipe or a batch job a line per epoch, or every 30 s.

    The bar counts the batches of a training and the images of an evaluation.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)
        self.lines = sys.stdout is None or not sys.stdout.isatty()  # None where it is closed
        self.epoch_start = self.last_line = time.monotonic()
        self.validated = False  # in this epoch
        self.images: ImageBar | None = None  # of the evaluation that runs
        if self.lines:
            self.disable()

    def get_metrics(self, trainer: pl.Trainer, model: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, model)
        metrics.pop("v_num", None)  # the version: the run directory is said once, at the start
        # Not logged for the bar: Lightning would read them from the device in every step, not when the bar is drawn
        seen = trainer.callback_metrics
        names = ("train/batch_loss", "train/images_per_s")
        return metrics | {name: float(seen[name]) for name in names if name in seen}

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.epoch_start = self.last_line = time.monotonic()
        self.validated = False

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *args)
        self._line_if_due(trainer, "train batch", args[-1] + 1, int(trainer.num_training_batches))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        metrics = trainer.callback_metrics  # which keeps those of the last validation, however long ago
        shown = [name for name in SHOWN if name in metrics and (self.validated or not name.startswith("val/"))]
        parts = [f"{name} {float(metrics[name]):.4f}" for name in shown]
        if "train/images_per_s" in metrics:
            parts.append(f"{float(metrics['train/images_per_s']):,.0f} images/s")
        seconds = time.monotonic() - self.epoch_start
        self._line(trainer, f"{describe_progress(trainer)}  {'  '.join(parts)}  {seconds:.1f} s")

    def on_validation_batch_start(self, trainer: pl.Trainer, model: pl.LightningModule, batch: Any, *at: int) -> None:
        super().on_validation_batch_start(trainer, model, batch, *at)
        total = self.total_val_batches_current_dataloader
        self._start_batch(self.val_progress_bar, trainer.val_dataloaders, total, model, batch, at[0])

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if not self._end_batch(args[3]):
            super().on_validation_batch_end(trainer, *args)
        if not trainer.sanity_checking:
            self._line_if_due(trainer, "validation batch", args[3] + 1, self.total_val_batches_current_dataloader)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_images()
        super().on_validation_end(trainer, pl_module)
        self.validated = not trainer.sanity_checking

    def on_test_batch_start(self, trainer: pl.Trainer, model: pl.LightningModule, batch: Any, *at: int) -> None:
        super().on_test_batch_start(trainer, model, batch, *at)
        total = self.total_test_batches_current_dataloader
        self._start_batch(self.test_progress_bar, trainer.test_dataloaders, total, model, batch, at[0])

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if not self._end_batch(args[3]):
            super().on_test_batch_end(trainer, *args)
        self._line_if_due(trainer, "test batch", args[3] + 1, self.total_test_batches_current_dataloader)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_images()
        super().on_test_end(trainer, pl_module)

    def on_predict_batch_start(self, trainer: pl.Trainer, model: pl.LightningModule, batch: Any, *at: int) -> None:
        super().on_predict_batch_start(trainer, model, batch, *at)
        total = self.total_predict_batches_current_dataloader
        self._start_batch(self.predict_progress_bar, trainer.predict_dataloaders, total, model, batch, at[0])

    def on_predict_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if not self._end_batch(args[3]):
            super().on_predict_batch_end(trainer, *args)
        self._line_if_due(trainer, "predict batch", args[3] + 1, self.total_predict_batches_current_dataloader)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_images()
        super().on_predict_end(trainer, pl_module)

    def _start_batch(
        self, bar: Tqdm, loaders: Any, total: int | float, model: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let the bar of an evaluation count images, where they can be counted; without a terminal, do nothing."""
        if batch_idx == 0 and self.images is None and self.is_enabled:
            self.images = follow_images(bar, loaders, total, model)
        if self.images:
            self.images.start_batch(batch[0], batch_idx)

    def _end_batch(self, batch_idx: int) -> bool:
        """Move the bar to the end of a batch; False where it counts batches, as Lightning does."""
        if self.images:
            self.images.end_batch(batch_idx)
        return self.images is not None

    def _end_images(self) -> None:
        if self.images:
            self.images.close()
        self.images = None

    def _line_if_due(self, trainer: pl.Trainer, what: str, done: int, total: int | float) -> None:
        if time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            loss = trainer.callback_metrics.get("train/batch_loss")
            loss_part = f"  loss {float(loss):.4f}" if loss is not None and what == "train batch" else ""
            epoch = f"{describe_progress(trainer)}  " if trainer.training or trainer.validating else ""
            self._line(trainer, f"{epoch}{what} {done}/{total}{loss_part}")

    def _line(self, trainer: pl.Trainer, text: str) -> None:
        self.last_line = time.monotonic()
        if self.lines and trainer.is_global_zero:
            print(text, flush=True)


def describe_progress(trainer: pl.Trainer) -> str:
    """Epoch or step, and how many there will be."""
    if trainer.max_steps != -1:
        return f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}/{trainer.max_steps}"
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
