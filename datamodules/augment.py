"""Augmentation settings, and the augmentations that run on batches on the device, with a draw for each image.

Each function draws from torch's global generator, which the data module seeds for every training batch, and through
`random_draws`, which can make the draws of several processes those of one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from batch import Batch
from errors import UserError
from random_draws import draw_per_batch, draw_per_image

GROWING_STEP = 32  # pixels
LUMINANCE = (0.2989, 0.587, 0.114)  # weights of red, green and blue in grey, as torchvision's
# Of the covariance of ImageNet's RGB values in [0, 1], from fb.resnet.torch; rows are channels, columns components
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@dataclass(frozen=True)
class Augmentation:
    """Settings of the augmentation of training images. The default: area crops and horizontal flips.

    Args:
        area: share of an image's area that a crop covers, drawn between these two; the crop's aspect ratio is drawn
            between 3:4 and 4:3 (arXiv 1409.4842, section 6).
        shorter_side: in place of `area`: the shorter side is resized to a length drawn between these two, in pixels,
            and the crop is a square at a random position (arXiv 1409.1556, section 3.1); [] takes `area`.
        flip: flip half of the images horizontally.
        colour: brightness, contrast and saturation are each multiplied by a factor between 1 - colour and 1 + colour.
        lighting: standard deviation of the shift along the principal components of ImageNet's colours; 0.1 in AlexNet.
        trivial: TrivialAugment (arXiv 2103.10158): one operation of any strength on each image.
        rand: RandAugment (arXiv 1909.13719): two operations of this strength, 1 to 30, on each image; 0 for none.
        erasing: probability of erasing a rectangle of an image (arXiv 1708.04896).
        mixup: alpha of the Beta distribution by which pairs of images are mixed (arXiv 1710.09412); 0 for none. With
            `cutmix` too, each batch takes one of the two.
        cutmix: alpha of the Beta distribution of the pasted area (arXiv 1905.04899); 0 for none.
        repeats: repeated augmentation (arXiv 1901.09335): how often an image occurs in an epoch, cropped anew each
            time. The epoch keeps its length, so fewer different images take part.
        growing: a size in pixels, an epoch and a later epoch: crops have that size up to the first epoch and the full
            size from the later one on; between them they grow linearly, in steps of 32 pixels. [] for no growing.
    """

    area: tuple[float, float] = (0.08, 1.0)
    shorter_side: tuple[int, ...] = ()
    flip: bool = True
    colour: float = 0.0
    lighting: float = 0.0
    trivial: bool = False
    rand: int = 0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    repeats: int = 1
    growing: tuple[int, ...] = ()

    def check(self, size: int) -> None:
        """Raise UserError for a setting out of its range, with crops of `size` pixels."""
        for name, value, least, most in (
            ("area", self.area[0], 0, self.area[1]),
            ("area", self.area[1], self.area[0], 1),
            ("colour", self.colour, 0, 1),
            ("lighting", self.lighting, 0, math.inf),
            ("rand", self.rand, 0, 30),
            ("erasing", self.erasing, 0, 1),
            ("mixup", self.mixup, 0, math.inf),
            ("cutmix", self.cutmix, 0, math.inf),
            ("repeats", self.repeats, 1, math.inf),
        ):
            if not least <= value <= most:
                limits = f"at least {least}" if most == math.inf else f"between {least} and {most}"
                raise UserError(f"augmentation.{name} is {value}: it must be {limits}.")
        if self.shorter_side and (
            len(self.shorter_side) != 2 or not size <= self.shorter_side[0] <= self.shorter_side[1]
        ):
            raise UserError(
                f"augmentation.shorter_side is {list(self.shorter_side)}: give two lengths, the smaller one first, "
                f"from which squares of {size} px can be cut."
            )
        if self.growing and (
            len(self.growing) != 3 or not (0 < self.growing[0] <= size and 0 <= self.growing[1] < self.growing[2])
        ):
            raise UserError(
                f"augmentation.growing is {list(self.growing)}: give a size of at most {size} px, an epoch, and a "
                "later epoch."
            )
        if self.trivial and self.rand:
            raise UserError("augmentation.trivial and augmentation.rand exclude each other: give one of them.")

    def crop_size(self, epoch: int, size: int) -> int:
        """Pixels per side of the crops in an epoch; `size` is the full size."""
        if not self.growing or epoch >= self.growing[2]:
            return size
        smallest, first, last = self.growing
        grown = smallest + (size - smallest) * max(0, epoch - first) / (last - first)
        return min(size, max(smallest, GROWING_STEP * round(grown / GROWING_STEP)))

    def apply(self, images: Tensor, fill: Sequence[float]) -> Tensor:
        """Augment a batch on its device; crops and operations of single images are done by then.

        Args:
            images: [B, 3, H, W] uint8.
            fill: colour of erased rectangles, in 0..255.

        Returns:
            [B, 3, H, W], uint8 or float32 in 0..255.
        """
        if self.flip:
            images = random_flip(images)
        if self.colour:
            images = random_colour_jitter(images, self.colour)
        if self.lighting:
            images = random_lighting(images, self.lighting)
        if self.erasing:
            images = random_erasing(images, self.erasing, fill)
        return images


class Mixing:
    """MixUp and CutMix of normalised batches.

    Args:
        augmentation: `mixup`, `cutmix` and `repeats` of it.
        num_classes: K.
    """

    def __init__(self, augmentation: Augmentation, num_classes: int) -> None:
        alphas = ((v2.MixUp, augmentation.mixup), (v2.CutMix, augmentation.cutmix))
        self.transforms = [mix(alpha=alpha, num_classes=num_classes) for mix, alpha in alphas if alpha]
        self.repeats = augmentation.repeats

    def shuffle(self, batch: Batch) -> Batch:
        """Shuffle a batch of repeated images: neighbours are mixed, and would be crops of one file."""
        if not self.transforms or self.repeats == 1:
            return batch
        assert isinstance(batch.images, Tensor)
        order = torch.randperm(len(batch.labels), device=batch.labels.device)
        return Batch(batch.images[order], batch.labels[order])

    def mix(self, batch: Batch) -> Batch:
        """Mix each image with its neighbour; labels become shares of the classes, [B, K]."""
        if not self.transforms:
            return batch
        return Batch(*self.transforms[int(torch.randint(len(self.transforms), ()))](batch.images, batch.labels))


@lru_cache
def constant(values: tuple, device: torch.device) -> Tensor:
    """A float32 tensor on a device, cached: a copy to the device in every step would make the step wait.

    Do not write to it.
    """
    with torch.inference_mode(False):  # a tensor that validation makes first is used in training too
        return torch.tensor(values, dtype=torch.float32, device=device)


def random_crop(images: Tensor, padding: int, size: int | None = None) -> Tensor:
    """Pad every side with zeros and cut a window, at a random offset for each image.

    Args:
        images: [B, C, H, W], any dtype.
        padding: pixels on each side; each offset is equally likely.
        size: pixels per side of the window, for square images; unset, those of the images.
    """
    b, _, height, width = images.shape
    offsets, device = 2 * padding + 1 + (height - size if size else 0), images.device
    # [B, C, offsets, offsets, size, size], a view: only the chosen windows are copied
    windows = F.pad(images, (padding,) * 4).unfold(2, size or height, 1).unfold(3, size or width, 1)
    top, left = draw_per_image(lambda count: torch.randint(offsets, (2, count), device=device), b, dim=1)
    return windows[torch.arange(b, device=device), :, top, left]


def random_flip(images: Tensor) -> Tensor:
    """Flip each image of uint8 [B, C, H, W] horizontally with probability 1/2."""
    flipped = draw_per_image(lambda count: torch.rand(count, 1, 1, 1, device=images.device), len(images)) < 0.5
    # Exact, because uint8 wraps around; on a CPU four times as fast as `torch.where` with a mask that is broadcast
    return images + flipped.to(images.dtype) * (images.flip(-1) - images)


def random_colour_jitter(images: Tensor, strength: float) -> Tensor:
    """Change brightness, contrast and saturation of each image (colour jitter), in an order drawn for the batch.

    Args:
        images: [B, 3, H, W] in 0..255, any dtype.
        strength: each is multiplied by a factor drawn from 1 - strength to 1 + strength.

    Returns:
        float32, clamped to 0..255.
    """
    images = images.float()
    drawn = draw_per_image(lambda count: torch.rand(3, count, 1, 1, 1, device=images.device), len(images), dim=1)
    factors = 1 + strength * (2 * drawn - 1)
    for kind in draw_per_batch(lambda: torch.randperm(3)).tolist():
        if kind == 0:
            anchor: Tensor | float = 0.0
        else:
            grey = (images * constant(LUMINANCE, images.device)[:, None, None]).sum(1, keepdim=True)
            anchor = grey.mean((2, 3), keepdim=True) if kind == 1 else grey
        images = (anchor + factors[kind] * (images - anchor)).clamp_(0, 255)
    return images


def random_lighting(images: Tensor, std: float) -> Tensor:
    """Shift the colours of each image along the principal components of ImageNet's colours: AlexNet, section 4.1.

    Args:
        images: [B, 3, H, W] in 0..255, any dtype.
        std: standard deviation of the factor of each component.

    Returns:
        float32, not clamped.
    """
    factors = draw_per_image(lambda count: torch.randn(count, 3, device=images.device), len(images)) * std
    shifts = factors * constant(EIGENVALUES, images.device)
    shifts = 255 * shifts @ constant(EIGENVECTORS, images.device).T  # columns are components
    # On a CPU, adding float32 to uint8 takes four times as long as converting first
    images = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
    pixel_rows(images).add_(shifts.repeat(1, images.shape[-1])[:, None])
    return images


def random_erasing(images: Tensor, probability: float, fill: Sequence[float]) -> Tensor:
    """Erase a rectangle of 2 to 33 % of an image's area with an aspect ratio of 3:10 to 10:3, arXiv 1708.04896.

    Args:
        images: [B, 3, H, W] in 0..255, any dtype.
        probability: that an image loses a rectangle.
        fill: colour of the rectangle, in 0..255.
    """
    b, _, height, width = images.shape
    device = images.device
    # The first of ten rectangles that fits, as in torchvision's RandomErasing
    draws = draw_per_image(lambda count: torch.rand(4, count, 10, device=device), b, dim=1)
    areas = height * width * (0.02 + draws[0] * (0.33 - 0.02))
    ratios = torch.exp(math.log(0.3) + draws[1] * 2 * math.log(1 / 0.3))
    tall, wide = (areas * ratios).sqrt().round(), (areas / ratios).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.int().argmax(1, keepdim=True)
    tall, wide, down, right = (x.gather(1, first) for x in (tall, wide, draws[2], draws[3]))
    top = (down * (height - tall + 1)).floor()
    left = (right * (width - wide + 1)).floor()
    drawn = draw_per_image(lambda count: torch.rand(count, 1, device=device), b)
    chosen = fits.any(1, keepdim=True) & (drawn < probability)
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    rows, columns = (y >= top) & (y < top + tall) & chosen, (x >= left) & (x < left + wide)
    colour = constant(tuple(fill), device)[:, None, None].to(images.dtype)
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], colour, images)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalise to float32: (pixel / 255 - mean) / std per channel.

    Args:
        images: [B, C, H, W] in 0..255, any dtype; float32 in channels_last is overwritten.
        mean: per channel, in units of [0, 1].
        std: per channel, in units of [0, 1].

    Returns:
        The images in channels_last.
    """
    scale = (constant((tuple(mean), tuple(std)), images.device) * 255).repeat(1, images.shape[-1])
    images = images.to(torch.float32, memory_format=torch.channels_last)
    pixel_rows(images).sub_(scale[0]).div_(scale[1])
    return images


def pixel_rows(images: Tensor) -> Tensor:
    """View images [B, C, H, W] in channels_last as [B, H, W * C].

    On a CPU, values per channel are added to whole rows in half the time that three channels at a time take.
    """
    b, c, height, width = images.shape
    return images.permute(0, 2, 3, 1).view(b, height, width * c)
