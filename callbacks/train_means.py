"""The means over an epoch's training images, of a run that is resumed inside the epoch."""

from typing import Any

import lightning.pytorch as pl

from callbacks.result_writer import gather
from checkpointing.content import check_content
from checkpointing.progress import ended_on_epoch_boundary
from lit_models.classifier import LitClassifier

KEY = "train_means"  # in a checkpoint: for each process the sum and the number of images of each mean, by name


class TrainMeans(pl.Callback):
    """Keeps the sums behind `train/loss`, `train/top1_error` and so on in checkpoints from inside an epoch.

    So they are means over the whole epoch also where a run was resumed inside it, and what monitors them decides as in
    a run that was never stopped. The command line adds this callback to `fit`.
    """

    def __init__(self) -> None:
        self.saved: list[dict[str, dict[str, float]]] = []  # of each process

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if isinstance(pl_module, LitClassifier) and not ended_on_epoch_boundary(checkpoint["loops"]["fit_loop"]):
            means = pl_module.train_means.items()
            mine = {name: {"sum": float(mean.sum), "images": int(mean.images)} for name, mean in means}
            checkpoint[KEY] = gather(trainer, [mine])

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if isinstance(pl_module, LitClassifier):
            self.saved = checkpoint.get(KEY, [])
            example = {name: {"sum": 0.0, "images": 0} for name in pl_module.train_means}
            check_content({KEY: self.saved}, {KEY: [example]}, str(trainer.ckpt_path))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if len(self.saved) == trainer.world_size:
            parts = [self.saved[trainer.global_rank]]
        else:  # of another number of processes: the first one takes over everything
            parts = self.saved if trainer.is_global_zero else []
        for part in parts:
            assert isinstance(pl_module, LitClassifier)
            for name, mean in pl_module.train_means.items():
                total, images = part[name]["sum"], part[name]["images"]
                mean.merge_state({"sum": mean.sum.new_tensor(total), "images": mean.images.new_tensor(images)})
        self.saved = []
