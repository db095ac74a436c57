"""Training on several devices: shares of the batch, BatchNorm, learning rate, equal weights."""

from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, Strategy
from torch import nn

from callbacks.equal_ranks import check_equal_ranks
from callbacks.global_draws import draw_as_one_process
from callbacks.lr_scaling import LearningRateScaling, has_warmup
from callbacks.scaling import measure_scaling_efficiency
from callbacks.sync_batch_norm import check_sync_batch_norm
from datamodules.base import image_data
from errors import UserError, check_at_least, pluralize
from lit_models.classifier import LitClassifier
from lit_models.nets.layers import find_batch_norms
from lit_models.nets.sync_batch_norm import is_frozen, is_synchronised, sync_batch_norms
from trainer_settings import epochs_done

SMALL_BATCH = 16  # images on a device; the statistics of fewer are noisy (arXiv 1803.08494, Figure 1)


class DDP(pl.Callback):
    """Adapts a recipe for one device to several, and prints how.

    The learning rate is multiplied by batch / reference, and rises to that linearly from the recipe's own rate over the
    first epochs: see `LearningRateScaling`. A recipe that warms up by itself is not warmed up twice. Where the batch is
    the reference, nothing is changed. From Python, put this callback before LearningRateMonitor; the command line does.

    Parameters and buffers must be equal on all ranks, see `check_equal_ranks`.

    Args:
        sync_batchnorm: take BatchNorm's statistics over all devices; auto where a device's share of the batch is under
            16 images or `equal_to_one_process` is true, and the net has BatchNorms to train.
        scale_lr: multiply the learning rate by batch / reference.
        reference_batch_size: images in the batch, over all devices, that the recipe's learning rate is for; unset, the
            command line takes it from the experiment's own YAML file.
        warmup_epochs: epochs over which a learning rate that is scaled up rises linearly.
        check_every_n_epochs: epochs from one comparison of the ranks to the next, after that at the start; 0: no other.
        equal_to_one_process: crops, dropouts and every other draw are those of one process, and so are losses and
            weights, up to rounding. This costs time, for each device draws for all; otherwise each draws for itself.

    Raises:
        UserError: for lengths below 0, a reference below 1, another strategy than ddp, BatchNorms that cannot be
            synchronised, ranks that differ, a training that several devices cannot do as one process would
            (`check_equality`).
    """

    def __init__(
        self,
        sync_batchnorm: bool | Literal["auto"] = "auto",
        scale_lr: bool = True,
        reference_batch_size: int | None = None,
        warmup_epochs: float = 5,
        check_every_n_epochs: int = 1,
        equal_to_one_process: bool = False,
    ) -> None:
        check_at_least(1, reference_batch_size=reference_batch_size)
        check_at_least(0, warmup_epochs=warmup_epochs, check_every_n_epochs=check_every_n_epochs)
        self.sync_batchnorm, self.scale_lr = sync_batchnorm, scale_lr
        self.reference_batch_size, self.warmup_epochs = reference_batch_size, warmup_epochs
        self.check_every_n_epochs = check_every_n_epochs
        self.equal_to_one_process = equal_to_one_process
        self.lr_scaling = LearningRateScaling([])
        self.efficiency: float | None = None
        self.notes: list[str] = []  # what the log says before the first batch

    def synchronises(self, model: nn.Module, images: int, devices: int) -> bool:
        """Whether BatchNorms take their statistics over all devices.

        Args:
            model: holds them.
            images: a device's share of a batch.
            devices: all of them.

        Raises:
            UserError: where they are to, and the model has none to train.
        """
        if self.sync_batchnorm is True:
            check_sync_batch_norm(model)
        norms = [norm for norm in find_batch_norms(model) if not is_frozen(norm)]
        if devices > 1 and any(map(is_synchronised, norms)):  # by --trainer.sync_batchnorm
            return True
        if devices == 1 or not norms:
            return False
        if self.sync_batchnorm == "auto":
            return images < SMALL_BATCH or self.equal_to_one_process
        return self.sync_batchnorm

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        data, devices = image_data(trainer), trainer.world_size
        if stage != "fit":
            return
        if data is None:
            raise UserError("callbacks.DDP needs a data module of this project (datamodules.ImageData): leave it out.")
        if devices > 1 and not holds_all_weights(trainer.strategy):
            raise UserError(
                f"callbacks.DDP is for the strategy ddp, by which each device holds all weights, and this run has "
                f"{type(trainer.strategy).__name__}: give --trainer.strategy ddp, or leave the callback out."
            )
        images = data.images_per_batch(training=True)
        notes = [f"{pluralize(devices, 'device')}: {pluralize(images, 'image')} each of a batch of {data.batch_size}"]
        if self.synchronises(pl_module, images, devices):
            norms = sync_batch_norms(pl_module, trainer.strategy.root_device)
            notes.append(f"SyncBatchNorm ({pluralize(norms, 'layer')})")
        elif devices > 1 and find_batch_norms(pl_module):
            notes.append("BatchNorm per device")
        if self.equal_to_one_process and devices > 1:
            draw_as_one_process(data, pl_module, trainer.global_rank, devices)
            notes.append("draws of one process")
        self.notes = notes

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = image_data(trainer)
        assert data is not None  # see `setup`
        if self.scale_lr and self.reference_batch_size:
            warmup_epochs = 0 if has_warmup(trainer) else self.warmup_epochs
            scale = data.batch_size / self.reference_batch_size
            self.lr_scaling = LearningRateScaling(trainer.optimizers, scale, warmup_epochs)
        if trainer.world_size > 1:
            check_equal_ranks(pl_module)
            if isinstance(pl_module, LitClassifier):
                self.efficiency = measure_scaling_efficiency(trainer, pl_module, data)
        if trainer.is_global_zero:
            print(f"{'; '.join([*self.notes, *self._describe_start(trainer.max_epochs)])}.", flush=True)

    def _describe_start(self, max_epochs: int | None) -> list[str]:
        notes, scale, warmup_epochs = [], self.lr_scaling.scale, self.lr_scaling.warmup_epochs
        if scale != 1:
            epochs = f"{warmup_epochs:g} epoch{'' if warmup_epochs == 1 else 's'}"
            rise = f", reached after {epochs}" if warmup_epochs else ""
            if max_epochs is not None and 0 <= max_epochs < warmup_epochs:
                rise += f" (this run ends after {max_epochs})"
            notes.append(f"learning rate x {scale:g} (the recipe's batch is {self.reference_batch_size}){rise}")
        if self.efficiency is not None:
            notes.append(f"scaling efficiency {self.efficiency:.2f}")
        return notes

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.lr_scaling.scale_rates(epochs_done(trainer, batches=0))  # LearningRateMonitor reads them now

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.lr_scaling.scale_rates(epochs_done(trainer, batches=batch_idx))

    def on_train_batch_end(self, *_: Any) -> None:
        self.lr_scaling.restore_rates()

    def on_exception(self, *_: Any) -> None:
        self.lr_scaling.restore_rates()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.efficiency is not None:
            pl_module.log("train/scaling_efficiency", self.efficiency, sync_dist=True)
            self.efficiency = None  # it was measured once
        every = self.check_every_n_epochs
        if every and trainer.world_size > 1 and (trainer.current_epoch + 1) % every == 0:
            check_equal_ranks(pl_module)


def holds_all_weights(strategy: Strategy) -> bool:
    """Whether every process holds all parameters and optimizer states, of which others keep a shard on each."""
    return isinstance(strategy, DDPStrategy) and not isinstance(strategy, DeepSpeedStrategy)
