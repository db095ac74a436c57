"""Image files to pixels: only as many of them as are wanted, upright and RGB."""

import io
import math
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from torch import Tensor

from errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
Interpolation = Literal["bilinear", "bicubic"]

# EXIF orientation: whether rows and columns change places, and which of the two are then reversed
TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
# libjpeg-turbo can decode straight to eighths of the size. That is done while this many pixels a side are left for each
# one of the result; photographs brought to 64 pixels then differ from full decodings by 0.1 of 255, with 2 by 1.2
SPARE = 3.0


class Picture:
    """An encoded image whose size is known at once and whose pixels are decoded when they are asked for.

    JPEG goes through libjpeg-turbo, anything else, or unusual, through Pillow.

    Args:
        data: the content of a file.

    Raises:
        ValueError: if it is no image that can be read, with the reason; `crop` raises it too.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        if not data:
            raise UserError("the file is empty")
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            self.is_jpeg = colours in ("RGB", "YCbCr", "Gray")  # CMYK is for Pillow
        except ValueError:
            self.is_jpeg = False
        self.turn = TURNS[orientation(data)] if self.is_jpeg else TURNS[1]
        if not self.is_jpeg:
            height, width = self._by_pillow.shape[:2]
        self.height, self.width = (width, height) if self.turn[0] else (height, width)

    def crop(
        self, box: tuple[int, int, int, int], size: tuple[int, int], interpolation: Interpolation = "bilinear"
    ) -> Tensor:
        """A rectangle of the upright image at another size, uint8 [3, height, width].

        Args:
            box: top, left, height and width in pixels of the full image.
            size: height and width of the result.
            interpolation: antialiased, as Pillow's.
        """
        top, left, height, width = box
        pixels = self._pixels(min(height / size[0], width / size[1]))
        # Sides are rounded up to whole pixels after they were brought to so many eighths
        scale = min(1.0, round(8 * pixels.shape[0] / self.height) / 8)
        if scale != 1.0:
            bottom, right = round((top + height) * scale), round((left + width) * scale)
            top, left = round(top * scale), round(left * scale)
            height, width = bottom - top, right - left
        region = torch.from_numpy(np.ascontiguousarray(pixels[top : top + height, left : left + width]))
        if (height, width) == size:
            return region.permute(2, 0, 1)
        images = region[None].permute(0, 3, 1, 2)  # channels_last, which is resized faster
        return F.interpolate(images, size=size, mode=interpolation, antialias=True, align_corners=False)[0]

    def _pixels(self, reduction: float) -> np.ndarray:
        """The upright image [H, W, 3], smaller than it is if `reduction` source pixels make one of the result."""
        if not self.is_jpeg:
            return self._by_pillow
        options = {}
        if reduction >= 2 * SPARE:
            height, width = (self.width, self.height) if self.turn[0] else (self.height, self.width)
            enough = SPARE / reduction
            options = {"min_height": math.ceil(height * enough), "min_width": math.ceil(width * enough)}
        try:
            pixels = simplejpeg.decode_jpeg(self.data, **options)
        except ValueError:  # it complains of more than what makes an image unreadable: let Pillow judge
            return self._by_pillow
        transposed, upside_down, mirrored = self.turn
        pixels = pixels.swapaxes(0, 1) if transposed else pixels
        return pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1]

    @cached_property
    def _by_pillow(self) -> np.ndarray:
        """The upright image [H, W, 3] at full size, through Pillow."""
        from PIL import Image, ImageOps

        try:
            with Image.open(io.BytesIO(self.data)) as file:
                image = ImageOps.exif_transpose(file)
                if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip to 8
                    image = Image.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8))
                return np.array(image.convert("RGB"))
        except Exception as error:  # Pillow's decoders raise whatever comes up in a broken file
            raise UserError(f"it cannot be read as an image: {reason(error)}") from error


def orientation(data: bytes) -> int:
    """The orientation of a JPEG, 1 to 8, from EXIF or, where that has none, from XMP."""
    if all(data.find(mark, 0, 1 << 16) < 0 for mark in (b"Exif\0\0", b"tiff:Orientation")):
        return 1
    from PIL import ExifTags, Image

    try:
        with Image.open(io.BytesIO(data)) as file:
            turn = file.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF: the pixels may be whole
        return 1
    return turn if turn in TURNS else 1


def reason(error: Exception) -> str:
    """Pillow's words without the address of the stream it read."""
    return "no format that is known" if "cannot identify" in str(error) else str(error)


def open_picture(path: Path | str | bytes) -> Picture:
    """Read a file.

    Raises:
        ValueError: naming no file, with the reason why it cannot be read: gone, not allowed, no image.
    """
    try:
        with open(path, "rb") as file:
            return Picture(file.read())
    except OSError as error:
        raise UserError(f"it cannot be opened: {error.strerror}") from error
