"""Small pictures of the images of a set, for reports and loggers."""

from PIL import Image
from torch import Tensor

from datamodules.decode import Box, resize
from datamodules.image_files import ImageFiles
from datamodules.loading import ImageSet
from errors import UserError

SHORTEST = 32  # pixels of the shorter side of a picture
MAX_RATIO = 2  # of its sides; a longer image is cut off at both ends


def make_thumbnail(images: ImageSet, index: int, size: int) -> Image.Image | None:
    """A small picture of an image; None if the image cannot be read.

    One of fewer than `SHORTEST` pixels is enlarged by a whole factor: each pixel becomes a square.

    Args:
        images: the set.
        index: of the image in the set.
        size: pixels of the picture's shorter side at most.
    """
    try:
        pixels = read_pixels(images, index, size)
    except UserError:
        return None
    factor = -(-SHORTEST // min(pixels.shape[1:]))
    pixels = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def read_pixels(images: ImageSet, index: int, size: int) -> Tensor:
    """The middle of an image, reduced to a picture's size: uint8 [3, height, width].

    Raises:
        UserError: if it cannot be read.
    """
    if isinstance(images, ImageFiles):
        image = images.open(index)
        return image.crop(*choose_crop(image.height, image.width, size))
    pixels = images.__getitems__([index]).images[0].cpu()
    (top, left, height, width), shape = choose_crop(pixels.shape[1], pixels.shape[2], size)
    return resize(pixels[:, top : top + height, left : left + width], shape, "bilinear")


def choose_crop(height: int, width: int, size: int) -> tuple[Box, tuple[int, int]]:
    """What a picture shows of an image, and the picture's height and width in pixels."""
    longest = MAX_RATIO * min(height, width)
    shown = min(height, longest), min(width, longest)
    scale = min(1, size / min(height, width))
    box = (height - shown[0]) // 2, (width - shown[1]) // 2, *shown
    return box, (round(shown[0] * scale), round(shown[1] * scale))
