"""How much gradient reaches each layer."""

import lightning.pytorch as pl
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_models.classifier import LitClassifier


class GradientNorms(pl.Callback):
    """Log `grad_norm/<layer>` of each convolution and linear layer: the L2 norm of its weight's gradient.

    The value of an epoch is the mean over its optimizer steps, before gradients are clipped; in a run that was resumed
    inside the epoch, over the steps since then. The norms stay on the device until the end of the epoch.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.sums, self.steps = {}, 0

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        for name, gradient in weight_gradients(pl_module).items():
            norm = gradient.norm()
            self.sums[name] = self.sums[name] + norm if name in self.sums else norm
        self.steps += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, total in self.sums.items():
            pl_module.log(f"grad_norm/{name}", total / self.steps, sync_dist=True)  # equal in all processes


def weight_gradients(model: pl.LightningModule) -> dict[str, Tensor]:
    """The gradient of the weight of each convolution and linear layer, by the layer's name in the net."""
    assert isinstance(model, LitClassifier)
    layers = {name: layer for name, layer in model.net.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    return {name: layer.weight.grad for name, layer in layers.items() if layer.weight.grad is not None}
