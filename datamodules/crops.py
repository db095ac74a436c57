"""What of a picture a net is shown: a random crop in training, the centre in evaluation."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import center_crop

from datamodules.augment import Augmentation
from datamodules.decode import Interpolation, Picture


class TrainCrop:
    """Cuts a training image out of a picture; every choice is drawn from torch's global generator."""

    def __init__(self, augmentation: Augmentation, interpolation: Interpolation) -> None:
        self.interpolation, self.shorter_side = interpolation, augmentation.shorter_side
        self.area_crop = v2.RandomResizedCrop(1, scale=augmentation.area)
        self.operation: Callable[[Tensor], Tensor] | None = None
        if augmentation.trivial:
            self.operation = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)
        if augmentation.rand:
            self.operation = v2.RandAugment(magnitude=augmentation.rand, interpolation=v2.InterpolationMode.BILINEAR)

    def __call__(self, picture: Picture, size: int) -> Tensor:
        """A crop of `size` pixels, uint8 [3, size, size]."""
        image = picture.crop(self._box(picture.height, picture.width, size), (size, size), self.interpolation)
        return image if self.operation is None else self.operation(image)

    def _box(self, height: int, width: int, size: int) -> tuple[int, int, int, int]:
        if not self.shorter_side:
            box = self.area_crop.make_params([torch.empty(1).expand(3, height, width)])
            return box["top"], box["left"], box["height"], box["width"]
        shorter = int(torch.randint(self.shorter_side[0], self.shorter_side[1] + 1, ()))
        side = max(1, round(min(height, width) * size / shorter))  # of the square that will have `size` pixels
        top, left = (int(torch.randint(length - side + 1, ())) for length in (height, width))
        return top, left, side, side


class CentreCrop:
    """Brings the shorter side of a picture to `resize` pixels and cuts the centre square of `crop` pixels out.

    Where `crop` is larger than the resized picture, what is missing is black.
    """

    def __init__(self, resize: int, crop: int, interpolation: Interpolation = "bilinear") -> None:
        self.resize, self.crop, self.interpolation = resize, crop, interpolation

    def __call__(self, picture: Picture) -> Tensor:
        """The square, uint8 [3, crop, crop]."""
        height, width = picture.height, picture.width
        short = min(height, width)
        size = (self.resize * height // short, self.resize * width // short)
        return center_crop(picture.crop((0, 0, height, width), size, self.interpolation), [self.crop, self.crop])
