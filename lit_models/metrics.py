"""Metrics that stay on the device and are exact over all processes and ragged batches."""

import torch
from torch import Tensor
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
