"""Precise BatchNorm statistics: over many training images, for the weights as they are."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from batch import Images
from datamodules.base import ImageData, image_data
from errors import UserError, check_at_least
from lit_models.nets.layers import BatchNorm, find_batch_norms
from lit_models.nets.sync_batch_norm import is_synchronised
from trainer_settings import settings


class PreciseBN(pl.Callback):
    """Replaces the running statistics by those of a large sample of training images.

    Running statistics average over weights that have changed since. The authors of the ResNets recompute them in their
    published code (arXiv 1512.03385). It happens before every validation, so that the validated statistics are the
    saved ones, and in runs without validation at the end of the last epoch. Weights that EMAWeightAveraging averages
    get statistics of their own; it must stand before this callback.

    Args:
        batches: training batches to average over, augmented as in training.
    """

    def __init__(self, batches: int = 200) -> None:
        check_at_least(1, batches=batches)
        self.batches = batches
        self.updated_at: int | None = None  # the last step at which the statistics were recomputed

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and image_data(trainer) is None:
            raise UserError("PreciseBN needs a data module of this project (datamodules.ImageData): leave it out.")
        callbacks = settings(trainer).callbacks
        if any(isinstance(callback, WeightAveraging) for callback in callbacks[callbacks.index(self) :]):
            raise UserError(
                "PreciseBN stands before the averaging of weights and would not see the average: put it after "
                "EMAWeightAveraging in the list of callbacks."
            )

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._update(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_last_epoch(trainer) and self.updated_at != trainer.global_step:
            self._update(trainer, pl_module)

    def _update(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = image_data(trainer)
        assert data is not None
        batches = min(self.batches, int(trainer.num_training_batches))
        recompute_bn_stats(trainer, pl_module, data, trainer.current_epoch, batches)
        self.updated_at = trainer.global_step


def recompute_bn_stats(
    trainer: pl.Trainer, module: pl.LightningModule, data: ImageData, epoch: int, batches: int
) -> None:
    """Set the BatchNorm statistics to those of training batches, in the trainer's precision.

    Args:
        trainer: of the module.
        module: whose statistics are set.
        data: of the training images.
        epoch: whose augmentation is drawn.
        batches: how many there are at most.
    """

    def forward(images: Images) -> Any:
        with trainer.precision_plugin.forward_context():
            return module(images)

    train_batches = islice(data.batches(training=True, device=module.device, epoch=epoch), batches)
    update_bn_stats(module, forward, (batch.images for batch in train_batches))


def update_bn_stats(module: nn.Module, forward: Callable[[Any], Any], batches: Iterable[Images]) -> None:
    """Set the running mean and variance of every BatchNorm to those over all given images together.

    While they are computed the BatchNorms alone are in training mode: each normalises by its batch, dropout is off.

    Args:
        module: holds the BatchNorms; frozen ones and those without running statistics are left alone.
        forward: called with the images of each batch.
        batches: images [B, 3, H, W], this process's share; the sums are taken over all processes.
    """
    norms = [layer for layer in find_batch_norms(module) if layer.track_running_stats and layer.weight.requires_grad]
    sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64, device=norm.weight.device) for norm in norms}

    def add_batch(norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        count = inputs[0].numel() // norm.num_features
        of_all = count_values(norm, count)
        # With momentum 1 these are the batch's own; BatchNorm stores the unbiased variance
        mean, variance = norm.running_mean.double(), norm.running_var.double() * (of_all - 1) / of_all
        sums[norm] += count * torch.stack([torch.ones_like(mean), mean, variance + mean.square()])
        norm.reset_running_stats()  # 0 * inf would stay NaN

    with torch.no_grad(), ExitStack() as hooks, statistics_of_each_batch(module, norms):
        for norm in norms:
            hooks.enter_context(norm.register_forward_hook(add_batch))
        for images in batches if norms else ():
            forward(images)
    for norm in norms:
        set_statistics(norm, sums[norm])


def count_values(norm: BatchNorm, mine: int) -> int:
    """Over how many values of a channel a norm has taken its statistics, given how many are this process's."""
    if not is_synchronised(norm) or not torch.distributed.is_initialized():
        return mine
    count = torch.tensor(mine, device=norm.weight.device)
    torch.distributed.all_reduce(count)
    return int(count)


@contextmanager
def statistics_of_each_batch(module: nn.Module, norms: Sequence[BatchNorm]) -> Iterator[None]:
    """Let each BatchNorm hold the statistics of the last batch, all else in evaluation mode; restore all at the end."""
    modes = {layer: layer.training for layer in module.modules()}
    states = {norm: (norm.momentum, copy.deepcopy(norm.state_dict())) for norm in norms}
    module.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
        norm.reset_running_stats()
    try:
        yield
    finally:
        for norm, (momentum, state) in states.items():
            norm.momentum = momentum
            norm.load_state_dict(state)
        for layer, mode in modes.items():
            layer.training = mode


def set_statistics(norm: Any, sums: Tensor) -> None:
    """Set the running statistics of a BatchNorm from sums over this process's values, [3, C]: count, sum, squares."""
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    count, total, squares = sums
    if count[0] >= 2:
        mean = total / count
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((squares / count - mean.square()) * count / (count - 1))


def is_last_epoch(trainer: pl.Trainer) -> bool:
    """Whether training ends with this epoch."""
    last = trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1
    return trainer.should_stop or last or 0 <= trainer.max_steps <= trainer.global_step
