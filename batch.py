"""The batch that a data module hands to a model: images, labels and the weights of views."""

from typing import NamedTuple

from torch import Tensor

Images = Tensor | list[Tensor]


class Batch(NamedTuple):
    """A batch. `Batch(*pair)` makes one of a pair (images, labels), as other data modules give it.

    Args:
        images: [B, 3, H, W] float32; in evaluation also [B, V, 3, H, W], V views of each image, or a list of such
            tensors where views differ in size.
        labels: [B] int64 class indices, or [B, K] float32 shares of the classes where images are mixed; in `predict`
            the indices of the images in their set.
        view_weights: weight of each tensor of a list in the mean over all views, summing to 1; None for equal weights
            of all views.
        dense_size: where the net is to be applied densely to whole images, the side of its usual square input, in
            pixels; else None.
    """

    images: Images
    labels: Tensor
    view_weights: tuple[float, ...] | None = None
    dense_size: int | None = None
