"""Crops of image files: a random one in training, the centre in evaluation."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import center_crop

from datamodules.augment import Augmentation
from datamodules.decode import AnyImage, Box, Interpolation

GENERATOR = threading.Lock()  # torchvision's transforms draw from torch's global generator, which all threads share
MAX_ASPECT_RATIO = 64  # of what is resized as a whole


class TrainCrop:
    """Cuts a training image out of a file's; every choice is drawn from a seed.

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

    def __call__(self, image: AnyImage, size: int, seed: int) -> Tensor:
        """A crop of `size` pixels, uint8 [3, size, size]. Threads may call it at the same time."""
        with seeded(seed):
            box = self._draw_box(image.height, image.width, size)
        crop = image.crop(box, (size, size), self.interpolation)
        if self.operation is None:
            return crop
        with seeded(seed):
            self._draw_box(image.height, image.width, size)  # the operation's draws follow it
            return self.operation(crop)

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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's global generator, seeded, while no other thread does."""
    with GENERATOR:
        torch.default_generator.manual_seed(seed)
        yield


def center_stretch(height: int, width: int) -> Box:
    """The whole image; of a strip that is longer than `MAX_ASPECT_RATIO` times its width, the stretch in its centre.

    Resized to a shorter side of 256 pixels, a strip of 2 x 20,000 would take 2 GB.
    """
    longest = MAX_ASPECT_RATIO * min(height, width)
    top, left = (max(0, side - longest) // 2 for side in (height, width))
    return top, left, height - 2 * top, width - 2 * left
