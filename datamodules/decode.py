"""Decodes image files to upright RGB pixels, at a fraction of their size where that is enough."""

import io
import math
import os
import re
import stat
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from errors import UserError, printable

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"}
Interpolation = Literal["bilinear", "bicubic"]
Box = tuple[int, int, int, int]  # top, left, height, width in pixels
UPRIGHT = 1  # EXIF's number for this orientation
START_OF_SCAN = b"\xda"  # JPEG's marker behind which the pixels begin
# libjpeg-turbo can decode straight to eighths of the size, as long as this many decoded pixels per side remain for each
# pixel of the result. At 64 px, photographs then differ from full decodings by 0.1 of 255; with 2.0, by 1.2
OVERSAMPLING = 3.0
MAX_PIXELS = 2**28  # 268 million, 0.8 GB when decoded; the largest cameras of telephones have 200 million
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow warns above it, and refuses twice as many; we refuse all above it
GREYS_OF_16_BITS = ("PNG", "PPM")  # formats whose integers (Pillow's mode I) have 16 bits
HEIC = re.compile(rb".{4}ftyp(hei|hev|mif|msf)", re.DOTALL)


class EncodedImage:
    """An image file in memory. Its size is known at once; its pixels are decoded when a crop is asked for.

    JPEGs are decoded by libjpeg-turbo; other formats, and unusual JPEGs, by Pillow.

    Args:
        data: content of the file.

    Attributes:
        height, width: of the upright image, in pixels.
        is_jpeg: whether libjpeg-turbo decodes it.

    Raises:
        UserError: if it cannot be read as an image, with the reason; `crop` raises it too.
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
        if self.is_jpeg:
            check_size(height, width)
        self.orientation = read_orientation(data) if self.is_jpeg else UPRIGHT
        if not self.is_jpeg:
            height, width = self._pillow_pixels.shape[:2]
        self.height, self.width = self._swap_if_transposed(height, width)

    def resize(self, size: tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
        """The whole image at another height and width, uint8 [3, height, width]; arguments as of `crop`."""
        return self.crop((0, 0, self.height, self.width), size, interpolation)

    def crop(self, box: Box, size: tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
        """A rectangle of the upright image at another size, uint8 [3, height, width].

        Args:
            box: top, left, height and width in pixels of the full image.
            size: height and width of the result.
            interpolation: antialiased, as Pillow's.
        """
        top, left, height, width = box
        pixels = self._decode(min(height / size[0], width / size[1]))
        # libjpeg-turbo rounds up the sides of its eighths to whole pixels
        scale = min(1.0, round(8 * pixels.shape[0] / self.height) / 8)
        if scale != 1.0:
            bottom, right = round((top + height) * scale), round((left + width) * scale)
            top, left = round(top * scale), round(left * scale)
            height, width = bottom - top, right - left
        region = torch.from_numpy(np.ascontiguousarray(pixels[top : top + height, left : left + width]))
        return resize(region.permute(2, 0, 1), size, interpolation)

    def _swap_if_transposed(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the upright image from those that the file has, and the other way round."""
        return (width, height) if self.orientation >= 5 else (height, width)

    def _decode(self, reduction: float) -> np.ndarray:
        """The upright image, [H, W, 3]; smaller where `reduction` of its pixels per side make one of the result."""
        if not self.is_jpeg:
            return self._pillow_pixels
        options = {}
        if reduction >= 2 * OVERSAMPLING:
            height, width = self._swap_if_transposed(self.height, self.width)
            enough = OVERSAMPLING / reduction
            options = {"min_height": math.ceil(height * enough), "min_width": math.ceil(width * enough)}
        try:
            pixels = simplejpeg.decode_jpeg(self.data, **options)
        except ValueError:  # also for images that Pillow can still read
            return self._pillow_pixels
        return pixels if self.orientation == UPRIGHT else turn_upright(pixels, self.orientation)

    @cached_property
    def _pillow_pixels(self) -> np.ndarray:
        """The upright image, [H, W, 3], at full size, decoded by Pillow; of several frames the first."""
        try:
            with Image.open(io.BytesIO(self.data)) as file:
                check_size(file.height, file.width)
                return np.array(convert_to_rgb(ImageOps.exif_transpose(file), str(file.format)))
        except UserError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever comes up in a broken file
            raise UserError(f"it cannot be read as an image: {describe_error(error, self.data)}") from error


class RawImage:
    """The pixels of an upright image in memory, with the methods of an `EncodedImage`.

    Args:
        pixels: [H, W, 3] uint8.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def resize(self, size: tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
        """See `EncodedImage`."""
        return self.crop((0, 0, self.height, self.width), size, interpolation)

    def crop(self, box: Box, size: tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
        """See `EncodedImage`."""
        top, left, height, width = box
        region = torch.from_numpy(self.pixels[top : top + height, left : left + width])
        return resize(region.permute(2, 0, 1), size, interpolation)


AnyImage = EncodedImage | RawImage


def check_size(height: int, width: int) -> None:
    """Raise UserError for an image without pixels, or with more than memory should be risked for."""
    if not 0 < height * width <= MAX_PIXELS:
        raise UserError(f"it has {height:,} x {width:,} pixels: at least 1 and at most {MAX_PIXELS:,} are read")


def convert_to_rgb(image: Image.Image, file_format: str) -> Image.Image:
    """An image of any of Pillow's modes in 8 bits per channel; of 16 bits of grey the upper 8 (Pillow would clip them).

    Raises:
        UserError: for 32-bit numbers, of which no format says what is black and what is white.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in GREYS_OF_16_BITS):
        image = Image.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UserError("its pixels are 32-bit numbers of a range that no format states: save it with 8 or 16 bits")
    return image.convert("RGB")


def resize(images: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Resize uint8 images [..., 3, H, W] to another height and width, antialiased."""
    return F.resize(images, list(size), InterpolationMode(interpolation))


def read_orientation(data: bytes) -> int:
    """The orientation of a JPEG, 1 to 8, from EXIF or, where EXIF has none, from XMP."""
    end = max(1 << 16, find_pixels(data))
    if all(data.find(mark, 0, end) < 0 for mark in (b"Exif\0\0", b"tiff:Orientation")):
        return UPRIGHT
    try:
        with Image.open(io.BytesIO(data)) as file:
            orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF; the pixels may be fine
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT


def find_pixels(data: bytes) -> int:
    """The position in a JPEG at which its metadata end: that of the first scan, or of what is no segment."""
    position = 2
    while data[position : position + 1] == b"\xff":
        while data[position + 1 : position + 2] == b"\xff":  # any number of fill bytes may stand before a marker
            position += 1
        if data[position + 1 : position + 2] == START_OF_SCAN:
            break
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return position


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels [H, W, 3] that are stored in an EXIF orientation."""
    image = Image.fromarray(pixels)
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return np.array(ImageOps.exif_transpose(image))


def describe_error(error: Exception, data: bytes) -> str:
    """Pillow's message, without the memory address that it gives where it finds no known format."""
    if "cannot identify" not in str(error):
        return printable(str(error))
    return "HEIC is not known to Pillow, convert it to JPEG" if HEIC.match(data) else "no format that is known"


def open_image(path: Path | str | bytes) -> EncodedImage:
    """Read an image file; its pixels are decoded later.

    Raises:
        UserError: with the reason alone (missing, not permitted, no image): the caller adds the path.
    """
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a named pipe would be waited for
            raise UserError("it is neither a file nor a folder")
        with open(path, "rb") as file:
            return EncodedImage(file.read())
    except OSError as error:
        raise UserError(f"it cannot be opened: {error.strerror}") from error
