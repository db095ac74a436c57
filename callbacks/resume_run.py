"""Continuing a run in its own folder."""

from typing import Any

import lightning.pytorch as pl

from callbacks.run_logger import run_dir
from checkpointing.resume import adapt_state, set_aside_later_results


class ResumeRun(pl.Callback):
    """Applies the rule of `checkpointing.resume` while a checkpoint is loaded and at the first batch after it.

    metrics.csv keeps its rows up to the resumed step, and best.ckpt stays the best of the whole run, also after the
    folder was moved. The command line adds this callback to every verb.
    """

    resumed_step: int | None = None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        folder = run_dir(trainer)
        if trainer.state.fn == "fit" and folder:
            adapt_state(checkpoint, folder)
            self.resumed_step = checkpoint["global_step"]

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self.resumed_step is None:
            return
        folder = run_dir(trainer)
        if folder and trainer.is_global_zero:
            set_aside_later_results(folder, self.resumed_step)
        self.resumed_step = None
