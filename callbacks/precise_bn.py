"""BatchNorm statistics computed anew once training is over."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from batch import Images
from datamodules.base import image_data
from errors import UserError
from lit_models.nets.layers import find_batch_norms


class BatchNormReestimation(pl.Callback):
    """Replace the running statistics by those of a large sample, for the weights as they are now.

    The running ones are an average over weights that have moved on. The authors of the ResNets do so in their
    published code (arXiv 1512.03385). It happens before every validation, so that what is validated is what is saved,
    and in runs without validation at the end of the last epoch. Weights that EMAWeightAveraging averages get
    statistics of their own; it must stand before this callback.

    Args:
        batches: training batches to look at, augmented as in training.
    """

    def __init__(self, batches: int = 200) -> None:
        if batches < 1:
            raise UserError(f"BatchNormReestimation's batches is {batches}: it must be at least 1.")
        self.batches = batches
        self.done_at: int | None = None  # the last step at which it was done

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        places = {type(callback): place for place, callback in enumerate(trainer.callbacks)}  # type: ignore[attr-defined]
        if any(issubclass(kind, WeightAveraging) and place > places[type(self)] for kind, place in places.items()):
            raise UserError(
                "BatchNormReestimation stands before the averaging of weights and would not see the average: put it "
                "after EMAWeightAveraging in the list of callbacks."
            )

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._reestimate(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_last_epoch(trainer) and self.done_at != trainer.global_step:
            self._reestimate(trainer, pl_module)

    def _reestimate(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def forward(images: Images) -> Any:
            with trainer.precision_plugin.forward_context():
                return pl_module(images)

        count = min(self.batches, int(trainer.num_training_batches))
        data = image_data(trainer)
        assert data is not None
        batches = data.train_batches(trainer.current_epoch, pl_module.device)
        reestimate(pl_module, forward, (batch.images for batch in islice(batches, count)))
        self.done_at = trainer.global_step


def reestimate(module: nn.Module, forward: Callable[[Any], Any], batches: Iterable[Images]) -> None:
    """Set the running mean and variance of every BatchNorm to those over all given images together.

    While they are computed the BatchNorms alone are in training mode: each normalises by its batch, dropout is off.

    Args:
        module: holds the BatchNorms; frozen ones and those without running statistics are left alone.
        forward: what an image batch is given to.
        batches: of images, this process's share; the sums are taken over all processes.
    """
    norms = [layer for layer in find_batch_norms(module) if layer.track_running_stats and layer.weight.requires_grad]
    if not norms:
        return
    sums = {
        layer: torch.zeros(3, layer.num_features, dtype=torch.float64, device=layer.weight.device) for layer in norms
    }
    before = {layer: (layer.momentum, deepcopy(layer.num_batches_tracked)) for layer in norms}

    def count(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].detach().double().transpose(0, 1).flatten(1)  # [C, B * H * W]
        own = torch.stack([torch.full_like(values[:, 0], values.shape[1]), values.sum(1), values.square().sum(1)])
        sums[layer] += own

    modes = {each: each.training for each in module.modules()}
    handles = [layer.register_forward_pre_hook(count) for layer in norms]
    try:
        module.eval()
        for layer in norms:
            layer.train()
            layer.momentum = 0.0  # its own running average stands still
        with torch.no_grad():
            for images in batches:
                forward(images)
    finally:
        for handle in handles:
            handle.remove()
        for each, mode in modes.items():
            each.training = mode
        for layer, (momentum, tracked) in before.items():
            layer.momentum, layer.num_batches_tracked = momentum, tracked
    for layer, total in sums.items():
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        n, first, second = total
        if n[0] < 2:
            continue
        mean = first / n
        assert layer.running_mean is not None and layer.running_var is not None
        layer.running_mean.copy_(mean)
        layer.running_var.copy_((second / n - mean.square()) * n / (n - 1))


def is_last_epoch(trainer: pl.Trainer) -> bool:
    """Whether training ends with this epoch."""
    last = trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1
    return trainer.should_stop or last or 0 <= trainer.max_steps <= trainer.global_step
