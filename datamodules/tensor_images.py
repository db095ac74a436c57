"""Images in memory."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batch import Batch


class TensorImages(Dataset):
    """Images and labels in memory, handed out a whole batch at a time.

    Args:
        images: [N, 3, H, W] uint8.
        labels: [N] int64.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        places = torch.tensor(indices)
        if self.images.is_cuda:
            # Out of pinned memory they come when they come; lists would be waited for, one for images, one for labels
            places = places.pin_memory().to(self.images.device, non_blocking=True)
        return self.images[places], self.labels[places]

    def to(self, device: torch.device) -> "TensorImages":
        """The same images in the memory of a device, where batches are cut without a transfer."""
        return TensorImages(self.images.to(device), self.labels.to(device))

    def fingerprint(self) -> str:
        """A hash of images and labels."""
        content = hashlib.sha256(self.labels.cpu().numpy().tobytes())
        content.update(self.images.cpu().numpy().tobytes())
        return content.hexdigest()

    def subset(self, indices: Sequence[int] | np.ndarray) -> "TensorImages":
        """The images at these places, in this order."""
        return TensorImages(self.images[indices], self.labels[indices])


def stratified_split(labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the places 0..N-1 in two, each class in proportion to its share.

    Args:
        labels: [N] class of each image.
        size: how many images the second part gets. Shares that are no whole numbers are rounded so that the sizes
            are exact (largest remainders first), and so that the first part keeps an image of each class as long as
            other classes have more than one left there.
        seed: the same seed gives the same split on every machine.

    Returns:
        The places of the first part (N - size) and of the second (size), both ascending.
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
