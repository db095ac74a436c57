"""Metrics that stay on the device and are exact over all processes and ragged batches."""

import torch
from torch import Tensor, nn
from torchmetrics import Metric


class TopKError(Metric):
    """Share of the images, in [0, 1], whose class is not among the k highest scores.

    Args:
        k: how many guesses there are.
    """

    wrong: Tensor
    total: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.add_state("wrong", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Count a batch: scores [B, K], target [B]."""
        hits = scores.topk(self.k, dim=1).indices == target[:, None]
        self.wrong += len(target) - hits.sum()
        self.total += len(target)

    def compute(self) -> Tensor:
        return self.wrong / self.total


class MeanLoss(Metric):
    """Mean loss over all images.

    torchmetrics' MeanMetric either looks for NaN, which waits for the device in every step, or, told not to
    (`nan_strategy="disable"`, torchmetrics 1.9), takes every weight for 1 and so gives a ragged batch too much.
    """

    loss: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, images: int) -> None:
        """Count a batch: its mean loss, and how many images it has."""
        self.loss += loss * images
        self.images += images

    def compute(self) -> Tensor:
        return self.loss / self.images


def make_metrics(num_classes: int) -> nn.ModuleDict:
    """Mean loss and errors of one stage; the top-5 error only where there are more than five classes."""
    errors = {f"top{k}_error": TopKError(k) for k in (1, 5) if k < num_classes}
    return nn.ModuleDict({"loss": MeanLoss(), **errors})
