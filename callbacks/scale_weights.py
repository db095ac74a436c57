"""Weights multiplied by a number before the training: BatchNorm makes it of no consequence."""

import lightning.pytorch as pl
import torch
from torch import nn

from errors import UserError
from lit_models.classifier import LitClassifier


class ScaleWeights(pl.Callback):
    """Multiplies the weights of all convolutions by a number before the first step of a training.

    A BatchNorm behind a convolution gives the same output, and the gradient is divided by the number (arXiv 1502.03167,
    section 3.3). Linear layers, which no BatchNorm follows here, keep their weights. A resumed run goes on with those
    of its checkpoint. It must stand before callbacks that average the weights.

    Args:
        factor: the number, above 0.
    """

    def __init__(self, factor: float) -> None:
        if not 0 < factor < float("inf"):
            raise UserError(f"factor is {factor}: give a number above 0.")
        self.factor = factor

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Before the weights of a checkpoint are loaded
        if stage == "fit" and isinstance(pl_module, LitClassifier):
            scale_convolutions(pl_module.net, self.factor)


def scale_convolutions(net: nn.Module, factor: float) -> None:
    """Multiply the weights of all convolutions of a net, not their biases."""
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(factor)
