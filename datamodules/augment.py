"""Augmentation of whole batches on their device: one operation per batch, a random choice per image.

Each function draws from torch's global generator, which the data module seeds anew for every training batch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def random_crop(images: Tensor, padding: int) -> Tensor:
    """Pad every side with zeros and cut a window of the old size, at its own place for each image.

    Args:
        images: [B, C, H, W], any dtype.
        padding: pixels on each side; the window takes each of the (2 * padding + 1)^2 places equally often.
    """
    b, _, height, width = images.shape
    # [B, C, places, places, H, W], a view: only the windows that are picked are copied
    windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(2 * padding + 1, (2, b), device=images.device)
    return windows[torch.arange(b, device=images.device), :, top, left]


def random_flip(images: Tensor) -> Tensor:
    """Mirror each image of [B, C, H, W] left to right with probability 1/2."""
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(-1), images)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Bring uint8 [..., C, H, W] to float32, (pixel / 255 - mean) / std per channel.

    Args:
        images: pixels in 0..255.
        mean, std: per channel, in units of [0, 1].
    """
    scale = torch.tensor([mean, std], device=images.device)[..., None, None] * 255
    # channels_last is what the nets compute in (it needs exactly four dimensions)
    layout = torch.channels_last if images.ndim == 4 else torch.contiguous_format
    return images.to(torch.float32, memory_format=layout).sub_(scale[0]).div_(scale[1])
