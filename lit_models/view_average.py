"""Mean of the softmax probabilities over the views of each image, and over masks of dropout."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from batch import Images
from lit_models.nets.dropout_masks import DropoutMasks


class ViewAverage:
    """Averages a net's probabilities over views, a bounded number of views at a time.

    Args:
        images_per_forward: the most views in one forward pass, which bounds its memory.
        keep_batch_size: whether smaller batches are filled up to the largest so far, so that a compiled net is compiled
            once for each size of view.

    Attributes:
        masks: of the net's dropouts, over which the probabilities are averaged too; None without.
    """

    def __init__(self, images_per_forward: int, keep_batch_size: bool) -> None:
        self.images_per_forward, self.keep_batch_size = images_per_forward, keep_batch_size
        self.masks: DropoutMasks | None = None
        self.largest_batch: dict[torch.Size, int] = {}  # by the size of the views

    def log_probabilities(
        self, net: Callable[[Tensor], Tensor], images: Images, view_weights: Sequence[float] | None
    ) -> Tensor:
        """Logarithm, [B, K] float32, of the softmax probabilities averaged over all views of each image.

        Args:
            net: [B, 3, H, W] to [B, K] logits.
            images: [B, 3, H, W], [B, V, 3, H, W], or a list of the latter, one tensor for each size of view.
            view_weights: weight of each tensor of a list in the mean, in sum 1; None weighs all views alike.
        """
        if self.masks is None:
            return self._average_views(net, images, view_weights)
        scores = []
        for _ in self.masks.take_turns():
            scores.append(self._average_views(net, images, view_weights))
        return torch.stack(scores).logsumexp(0) - math.log(len(scores))

    @property
    def passes(self) -> int:
        """Forward passes for each view."""
        return self.masks.count if self.masks else 1

    def _average_views(
        self, net: Callable[[Tensor], Tensor], images: Images, view_weights: Sequence[float] | None
    ) -> Tensor:
        sizes = images if isinstance(images, list) else [images if images.ndim == 5 else images[:, None]]
        counts = [views.shape[1] for views in sizes]
        view_weights = view_weights or [count / sum(counts) for count in counts]
        shares = [math.log(weight / count) for weight, count in zip(view_weights, counts, strict=True)]
        scores = [self._log_softmax(net, views) + share for views, share in zip(sizes, shares, strict=True)]
        return torch.cat(scores, dim=1).logsumexp(1)  # of [B, V, K]

    def _log_softmax(self, net: Callable[[Tensor], Tensor], views: Tensor) -> Tensor:
        """[B, V, 3, H, W] to [B, V, K]."""
        chunks = views.flatten(0, 1).split(self.images_per_forward)
        scores = torch.cat([self._forward(net, chunk).float().log_softmax(1) for chunk in chunks])
        return scores.unflatten(0, views.shape[:2])

    def _forward(self, net: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        size = len(images)
        if self.keep_batch_size:
            full = self.largest_batch[images.shape[1:]] = max(self.largest_batch.get(images.shape[1:], 0), size)
            images = torch.cat([images, images[-1:].expand(full - size, -1, -1, -1)])
        return net(images)[:size]
