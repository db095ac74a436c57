"""Training losses of one output of a net."""

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from errors import UserError

LossName = Literal["cross_entropy", "binary_cross_entropy"]


def main_logits(output: Any) -> Tensor:
    """The logits of a net's output: all of it, or the first field where there are auxiliary heads."""
    return output if isinstance(output, Tensor) else output.logits


def check_logits(logits: Tensor, num_images: int, num_classes: int, net: str) -> None:
    """Raise UserError unless logits are [num_images, num_classes].

    Args:
        net: its name, for the sentence.
    """
    if logits.shape != (num_images, num_classes):
        raise UserError(
            f"{net} returned logits of shape {list(logits.shape)} for {num_images} images of {num_classes} classes: it "
            f"must return [{num_images}, {num_classes}]."
        )


def classification_loss(name: LossName, logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Mean loss over a batch.

    Args:
        name: cross_entropy, or binary_cross_entropy: every class for itself, the mean over classes and images.
        logits: [B, K].
        labels: [B] int64 class indices, or [B, K] shares of the classes where images are mixed.
        label_smoothing: share of the target spread evenly over all K classes, in [0, 1).
    """
    if name == "cross_entropy":
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    classes = logits.shape[1]
    targets = F.one_hot(labels, classes) if labels.ndim == 1 else labels
    targets = targets * (1 - label_smoothing) + label_smoothing / classes
    return F.binary_cross_entropy_with_logits(logits, targets)
