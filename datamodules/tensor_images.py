"""Images in memory."""

import hashlib
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from datamodules.loading import ImageSet, RawBatch


class TensorImages(ImageSet):
    """Images and labels in memory, handed out a whole batch at a time.

    Args:
        images: [N, 3, H, W] uint8.
        labels: [N] int64.
        indices: [N] int64, of the images in the data set that they are a part of; unset, 0 to N - 1.
    """

    in_memory = True

    def __init__(self, images: Tensor, labels: Tensor, indices: np.ndarray | None = None) -> None:
        self.images, self.labels = images, labels
        self.indices = np.arange(len(labels)) if indices is None else indices

    def __getitems__(self, items: Sequence[int]) -> RawBatch:
        indices = torch.tensor(items)
        if self.images.is_cuda:
            # Non-blocking copy of the indices; a list would synchronise twice
            indices = indices.pin_memory().to(self.images.device, non_blocking=True)
        return RawBatch(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> "TensorImages":
        """The same images in the memory of a device, where batches are cut without a transfer."""
        return TensorImages(self.images.to(device), self.labels.to(device), self.indices)

    def fingerprint(self) -> str:
        """SHA-256 of labels and pixels."""
        content = hashlib.sha256(self.labels.cpu().numpy().tobytes())
        content.update(self.images.cpu().numpy().tobytes())
        return content.hexdigest()

    def identity(self) -> str:
        """SHA-256 of the labels and the indices: labels alone are the same in every split of images sorted by class."""
        content = hashlib.sha256(self.labels.cpu().numpy().tobytes())
        content.update(self.indices.astype("<i8").tobytes())
        return content.hexdigest()

    def subset(self, indices: np.ndarray) -> Self:
        """The images with these indices, in this order."""
        return type(self)(self.images[indices], self.labels[indices], self.indices[indices])
