"""Metrics that stay on the device and are exact over all processes and ragged batches."""

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection


class ImageMean(Metric):
    """Mean of a quantity over all images.

    Args:
        zero: where the sum begins, of the type in which it is exact: an int for counts, a float for losses.
    """

    full_state_update = False  # states of several passes can be added up
    sum: Tensor
    images: Tensor

    def __init__(self, zero: float) -> None:
        super().__init__()
        self.add_state("sum", torch.tensor(zero), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        return self.sum / self.images


class TopKError(ImageMean):
    """Share of the images, in [0, 1], whose class is not among the k highest scores.

    Args:
        k: how many guesses there are.
    """

    def __init__(self, k: int) -> None:
        super().__init__(0)
        self.k = k

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Count a batch: scores [B, K], target [B]. An image with a score of NaN is an error."""
        top = scores.topk(self.k, dim=1)  # NaN stands before all numbers
        hits = (top.indices == target[:, None]) & ~top.values[:, :1].isnan()
        self.sum += len(target) - hits.sum()
        self.images += len(target)


class MeanLoss(ImageMean):
    """Mean loss over all images.

    torchmetrics' MeanMetric either looks for NaN, which waits for the device in every step, or, told not to
    (`nan_strategy="disable"`, torchmetrics 1.9), takes every weight for 1 and so gives a ragged batch too much.
    """

    def __init__(self) -> None:
        super().__init__(0.0)

    def update(self, loss: Tensor, images: int) -> None:
        """Count a batch: its mean loss, and how many images it has."""
        self.sum += loss * images
        self.images += images


def make_metrics(num_classes: int) -> MetricCollection:
    """Mean loss and errors of one stage; the top-5 error only where there are more than five classes.

    To be updated with `loss` and `images`, and `scores` and `target`, by name.
    """
    errors = {f"top{k}_error": TopKError(k) for k in (1, 5) if k < num_classes}
    # No compute groups: they would merge two metrics whose first batch gave equal sums
    return MetricCollection({"loss": MeanLoss(), **errors}, compute_groups=False)
