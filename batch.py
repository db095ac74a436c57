"""What a data module hands to a model: images, labels, and how the views of an image are weighed."""

from typing import NamedTuple

from torch import Tensor

Images = Tensor | list[Tensor]


class Batch(NamedTuple):
    """One batch. A plain pair (images, labels) of another data module is one too: `Batch(*pair)`.

    Args:
        images: [B, 3, H, W] float32; in evaluation also [B, V, 3, H, W], V views of each image, or a list of such
            tensors where views differ in size.
        labels: [B] int64 class indices, or [B, K] float32 shares of the classes where images are mixed. In `predict`
            the indices of the images in their set.
        view_weights: weight of each tensor of a list in the mean over all views, in sum 1; None weighs all views alike.
        dense_size: for whole images, which the net evaluates densely: pixels per side of its usual square input.
    """

    images: Images
    labels: Tensor
    view_weights: tuple[float, ...] | None = None
    dense_size: int | None = None
