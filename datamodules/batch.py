"""Batches on their way from the loader to the model."""

from typing import NamedTuple

from torch import Tensor

Images = Tensor | list[Tensor]
Batch = tuple[Images, Tensor]


class Loaded(NamedTuple):
    """A batch from files, as a loader process hands it over.

    Args:
        images: [B, 3, H, W] uint8 of those that could be read, or their views: [B, V, 3, H, W], a tensor for each
            size.
        labels: [B] int64.
        unreadable: files and the reasons why they could not be.
        left_out: the places of these in the set.
    """

    images: Images
    labels: Tensor
    unreadable: list[tuple[str, str]]
    left_out: list[int]
