"""Image files to pixels, beside what Pillow and torchvision make of them."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from datamodules.crops import CenterCrop
from datamodules.decode import EncodedImage, open_image

MODES = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """Waves of half an image's length and more, with the noise of a camera."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [
        127 + 80 * np.sin(rng.uniform(0, 6) + rng.uniform(-12, 12) * x / width + rng.uniform(-12, 12) * y / height)
        for _ in range(3)
    ]
    noise = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray((np.stack(waves, 2) + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(image: Image.Image, orientation: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif)


def upright(data: bytes) -> Image.Image:
    """The reference: Pillow's pixels."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def reference(image: Image.Image, resize: int, crop: int, mode: str = "bilinear") -> Tensor:
    """The reference of CenterCrop: torchvision's transforms of a Pillow image."""
    resized = v2.functional.resize(image, [resize], MODES[mode], antialias=True)
    return v2.functional.pil_to_tensor(v2.functional.center_crop(resized, [crop, crop]))


def gap(ours: Tensor, theirs: Tensor) -> Tensor:
    """How far two images are apart in each pixel, in 0..255."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == torch.uint8
    return (ours.float() - theirs.float()).abs()


IMAGE = photo(333, 500)
KINDS = {
    "jpeg": encoded(IMAGE, quality=90),
    "progressive jpeg without subsampling": encoded(IMAGE, progressive=True, subsampling=0),
    "grey jpeg": encoded(IMAGE.convert("L")),
    "cmyk jpeg": encoded(IMAGE.convert("CMYK")),
    "png": encoded(IMAGE, "PNG"),
    "transparent png": encoded(Image.merge("RGBA", (*IMAGE.split(), IMAGE.getchannel(0))), "PNG"),
    "grey png": encoded(IMAGE.convert("L"), "PNG"),
    "grey png with transparency": encoded(IMAGE.convert("LA"), "PNG"),
    "black and white png": encoded(IMAGE.convert("1"), "PNG"),
    "palette png": encoded(IMAGE.quantize(64), "PNG"),
    "palette png with a transparent colour": encoded(IMAGE.quantize(64), "PNG", transparency=3),
    "webp": encoded(IMAGE, "WEBP", quality=90),
    "transparent webp": encoded(IMAGE.convert("RGBA"), "WEBP", lossless=True),
    "gif": encoded(IMAGE, "GIF"),
    "tiff": encoded(IMAGE, "TIFF"),
    "bmp": encoded(IMAGE, "BMP"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_file_has_pillows_pixels(kind, mode):
    ours = CenterCrop(256, 224, mode)(EncodedImage(KINDS[kind]))
    assert gap(ours, reference(upright(KINDS[kind]), 256, 224, mode)).max() <= 2


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1), (37, 41), (41, 37), (64, 64), (500, 333), (255, 256)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("resize", "crop"), [(64, 56), (96, 96), (48, 64)])
def test_odd_sizes_have_pillows_pixels_also_where_the_crop_is_larger_than_the_image(size, kind, resize, crop):
    data = encoded(photo(*size), kind)
    picture = EncodedImage(data)
    assert (picture.height, picture.width) == size
    most = 2 if min(size) < 4 * resize else 6  # beyond, JPEGs are decoded at a fraction of their size
    assert gap(CenterCrop(resize, crop)(picture), reference(upright(data), resize, crop)).max() <= most


def test_sixteen_bits_of_grey_keep_their_upper_eight():
    """Pillow would clip them: all of what is brighter than 1/256 would be white."""
    grey = np.asarray(photo(60, 80).convert("L"))
    deep = (grey.astype(np.uint16) << 8) + 77
    data = encoded(Image.fromarray(deep), "PNG")
    assert Image.open(io.BytesIO(data)).mode == "I;16"
    pixels = EncodedImage(data).crop((0, 0, 60, 80), (60, 80))
    assert torch.equal(pixels, torch.tensor(grey).expand(3, -1, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images_that_exif_turns_stand_upright(orientation, kind):
    data = turned(photo(60, 92), orientation, kind)
    image, picture = upright(data), EncodedImage(data)
    assert (picture.width, picture.height) == image.size == ((60, 92) if orientation > 4 else (92, 60))
    assert gap(CenterCrop(48, 40)(picture), reference(image, 48, 40)).max() <= 2
    box = (7, 11, 40, 33)  # top, left, height, width
    theirs = v2.functional.pil_to_tensor(v2.functional.resized_crop(image, *box, [24, 20], antialias=True))
    assert gap(picture.crop(box, (24, 20)), theirs).max() <= 2
    assert gap(picture.crop(box, (40, 33)), v2.functional.pil_to_tensor(image)[:, 7:47, 11:44]).max() <= 2


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_exif_orientation_that_does_not_exist_is_no_turn(orientation):
    picture = EncodedImage(turned(photo(20, 30), orientation))
    assert (picture.height, picture.width) == (20, 30)


def test_broken_exif_does_not_make_an_image_unreadable():
    data = turned(photo(20, 30), 6)
    place = data.index(b"Exif\0\0") + 6
    assert EncodedImage(data[:place] + b"\xff" * 12 + data[place + 12 :]).crop((0, 0, 20, 30), (20, 30)).shape[0] == 3


def test_images_that_xmp_turns_stand_upright():
    """Some editors write the orientation there alone, and Pillow heeds it."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(photo(60, 92), xmp=xmp)
    assert upright(data).size == (60, 92)
    assert gap(CenterCrop(48, 40)(EncodedImage(data)), reference(upright(data), 48, 40)).max() <= 2


@pytest.mark.parametrize("size", [(1600, 2400), (1501, 1999), (2003, 1337)])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", MODES)
def test_large_jpegs_decoded_at_a_fraction_of_their_size_are_close(size, orientation, mode):
    """Measured: 0.2 of 255 in the mean where the sides are multiples of 8, else 0.5; at most 3."""
    data = turned(photo(*size), orientation)
    picture, image = EncodedImage(data), upright(data)
    assert min(picture._decode(min(size) / 128).shape[:2]) < min(size) / 2
    distance = gap(CenterCrop(128, 112, mode)(picture), reference(image, 128, 112, mode))
    assert distance.mean() < 1 and distance.max() <= 4


@pytest.mark.parametrize("orientation", [1, 3, 5, 8])
def test_crops_of_large_jpegs_come_from_the_right_place(orientation):
    """To a quarter of a pixel: their edges are brought to whole pixels of the smaller image that is decoded."""
    data = turned(photo(1203, 1602), orientation)
    picture, image = EncodedImage(data), upright(data)
    rng = np.random.default_rng(0)
    for _ in range(6):
        height, width = (int(rng.integers(300, side)) for side in (picture.height, picture.width))
        top, left = int(rng.integers(picture.height - height + 1)), int(rng.integers(picture.width - width + 1))
        resized = v2.functional.resized_crop(image, top, left, height, width, [56, 56], antialias=True)
        theirs = v2.functional.pil_to_tensor(resized)
        one_pixel = gap(theirs[:, 1:], theirs[:, :-1]).mean() + gap(theirs[..., 1:], theirs[..., :-1]).mean()
        assert gap(picture.crop((top, left, height, width), (56, 56)), theirs).mean() < 0.3 * one_pixel


def test_a_jpeg_is_known_by_its_content_and_its_size_without_decoding():
    whole = encoded(photo(40, 60))
    picture = EncodedImage(whole[: whole.index(b"\xff\xda") + 20])  # all of the header and nothing of the image
    assert (picture.height, picture.width) == (40, 60)
    with pytest.raises(ValueError, match="cannot be read as an image: .*truncated"):
        picture.crop((0, 0, 40, 60), (20, 20))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"This is no image.\n", "no format that is known"),
        (bytes(5000), "no format that is known"),
        (KINDS["jpeg"][:3000], "truncated"),
        (KINDS["jpeg"][:-2], "truncated"),
        (KINDS["jpeg"][:20], "read as an image"),
        (KINDS["cmyk jpeg"][:3000], "truncated"),
        (KINDS["png"][:3000], "truncated"),
        (KINDS["png"][:20], "Truncated"),
        (KINDS["webp"][:300], "read as an image"),
        (KINDS["gif"][:2000], "truncated"),
    ],
)
def test_what_is_no_whole_image_is_refused_with_the_reason(content, why, tmp_path):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=why) as error:
        CenterCrop(32, 32)(open_image(path))
    assert "bad.jpg" not in str(error.value) and "BytesIO" not in str(error.value)


def test_a_file_that_is_not_there_and_a_folder_are_refused_with_the_reason(tmp_path):
    with pytest.raises(ValueError, match="cannot be opened: No such file"):
        open_image(tmp_path / "gone.jpg")
    with pytest.raises(ValueError, match="cannot be opened: Is a directory"):
        open_image(tmp_path)
    with pytest.raises(ValueError, match="cannot be opened"):
        open_image(os.fsencode(tmp_path / "gone.jpg"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused_with_the_reason(tmp_path: Path):
    path = tmp_path / "locked.jpg"
    path.write_bytes(KINDS["jpeg"])
    path.chmod(0)
    with pytest.raises(ValueError, match="cannot be opened: Permission denied"):
        open_image(path)
