"""Crops of image files: a random one in training, the centre in evaluation."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import center_crop

from datamodules.augment import Augmentation
from datamodules.decode import AnyImage, Box, Interpolation

MAX_ASPECT_RATIO = 64  # of what is resized as a whole


class TrainCrop:
    """Cuts a training image out of a file's; every choice is drawn from torch's global generator.

    Args:
        augmentation: which crops, and which operations on them.
        interpolation: how crops are resized, always antialiased.
    """

    def __init__(self, augmentation: Augmentation, interpolation: Interpolation) -> None:
        self.interpolation, self.shorter_side = interpolation, augmentation.shorter_side
        self.area_crop = v2.RandomResizedCrop(1, scale=augmentation.area)
        self.operation: Callable[[Tensor], Tensor] | None = None
        if augmentation.trivial:
            self.operation = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)
        if augmentation.rand:
            self.operation = v2.RandAugment(magnitude=augmentation.rand, interpolation=v2.InterpolationMode.BILINEAR)

    def __call__(self, image: AnyImage, size: int) -> Tensor:
        """A crop of `size` pixels, uint8 [3, size, size]."""
        crop = image.crop(self._draw_box(image.height, image.width, size), (size, size), self.interpolation)
        return crop if self.operation is None else self.operation(crop)

    def _draw_box(self, height: int, width: int, size: int) -> Box:
        if not self.shorter_side:
            box = self.area_crop.make_params([torch.empty(1).expand(3, height, width)])
            return box["top"], box["left"], box["height"], box["width"]
        shorter = int(torch.randint(self.shorter_side[0], self.shorter_side[1] + 1, ()))
        side = max(1, round(min(height, width) * size / shorter))  # of the square that will have `size` pixels
        top, left = (int(torch.randint(length - side + 1, ())) for length in (height, width))
        return top, left, side, side


class CenterCrop:
    """Resizes an image's shorter side to `resize` pixels and cuts out the centre square, as torchvision does.

    Args:
        resize: length of the shorter side in pixels.
        crop: pixels per side of the square; where it is larger than the resized image, what is missing is black.
        interpolation: how images are resized, always antialiased.
    """

    def __init__(self, resize: int, crop: int, interpolation: Interpolation = "bilinear") -> None:
        self.resize, self.crop, self.interpolation = resize, crop, interpolation

    def __call__(self, image: AnyImage) -> Tensor:
        """The square, uint8 [3, crop, crop]."""
        _, _, height, width = box = center_stretch(image.height, image.width)
        short = min(height, width)
        size = (self.resize * height // short, self.resize * width // short)
        return center_crop(image.crop(box, size, self.interpolation), [self.crop, self.crop])


def center_stretch(height: int, width: int) -> Box:
    """The whole image; of a strip that is longer than `MAX_ASPECT_RATIO` times its width, the stretch in its centre.

    Resized to a shorter side of 256 pixels, a strip of 2 x 20,000 would take 2 GB.
    """
    longest = MAX_ASPECT_RATIO * min(height, width)
    top, left = (max(0, side - longest) // 2 for side in (height, width))
    return top, left, height - 2 * top, width - 2 * left
