"""Images in memory."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules.loading import ImageSet, RawBatch


class TensorImages(ImageSet):
    """Images and labels in memory, handed out a whole batch at a time.

    Args:
        images: [N, 3, H, W] uint8.
        labels: [N] int64.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __getitems__(self, items: Sequence[int]) -> RawBatch:
        indices = torch.tensor(items)
        if self.images.is_cuda:
            # Non-blocking copy of the indices; a list would synchronise twice
            indices = indices.pin_memory().to(self.images.device, non_blocking=True)
        return RawBatch(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> "TensorImages":
        """The same images in the memory of a device, where batches are cut without a transfer."""
        return TensorImages(self.images.to(device), self.labels.to(device))

    def fingerprint(self) -> str:
        """SHA-256 of labels and pixels."""
        content = hashlib.sha256(self.labels.cpu().numpy().tobytes())
        content.update(self.images.cpu().numpy().tobytes())
        return content.hexdigest()

    def subset(self, indices: np.ndarray) -> "TensorImages":
        """The images with these indices, in this order."""
        return TensorImages(self.images[indices], self.labels[indices])


def stratified_split(labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the indices 0..N-1 in two, each class in proportion to its share.

    Args:
        labels: [N] class of each image.
        size: how many images the second part gets. Shares that are no whole numbers are rounded so that the sizes
            are exact (largest remainders first), and so that the first part keeps an image of each class as long as
            other classes have more than one left there.
        seed: the same seed gives the same split on every machine.

    Returns:
        The indices of the first part (N - size) and of the second (size), both ascending.
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * size / len(labels)
    quota = np.floor(shares).astype(int)
    quota[np.argsort(quota - shares, kind="stable")[: size - quota.sum()]] += 1
    for emptied in np.flatnonzero(quota == counts):
        rich = np.flatnonzero(counts - quota > 1)
        if len(rich):
            quota[emptied] -= 1
            quota[rich[np.argmax((shares - quota)[rich])]] += 1
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, quota, strict=True)]
    second = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), second), second
