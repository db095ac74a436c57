"""Images that are no ordinary photographs: deep greys, odd modes, far-off EXIF, strips, animations, bombs."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.augment import Augmentation
from datamodules.crops import CenterCrop, TrainCrop, center_stretch
from datamodules.decode import EncodedImage, open_image
from datamodules.image_files import ImageFiles
from datamodules.views import PROTOCOLS, Views
from errors import UserError
from tests.datamodules.test_decode import encoded, gap, photo, reference, turned, upright

RAMP = np.tile(np.linspace(0, 1, 64), (64, 1))
GREY = (RAMP * 255).astype(np.uint8)


def pixels(data: bytes) -> torch.Tensor:
    """All pixels, [3, H, W]."""
    image = EncodedImage(data)
    return image.resize((image.height, image.width))


@pytest.mark.parametrize(
    "numbers",
    [GREY.astype(np.int32), GREY.astype(np.float32), RAMP.astype(np.float32), (RAMP * 65535).astype(np.float32),
     (RAMP * 65535).astype(np.int32), (RAMP * 2**31 - 1).astype(np.int32), -RAMP.astype(np.float32)],
)  # fmt: skip
def test_numbers_of_32_bits_are_refused_for_no_format_states_their_range(numbers):
    with pytest.raises(UserError, match="32-bit numbers of a range that no format states: save it with 8 or 16 bits"):
        EncodedImage(encoded(Image.fromarray(numbers), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_greys_of_16_bits_are_as_grey_as_those_of_8(kind):
    deep = Image.fromarray((GREY.astype(np.uint16) << 8) + 77)
    assert torch.equal(pixels(encoded(deep, kind)), torch.tensor(GREY).expand(3, -1, -1))


def test_big_endian_greys_and_colours_of_16_bits_too():
    deep = (GREY.astype(">u2") << 8) + 77
    data = struct.pack(">2sHI", b"MM", 42, 8 + deep.nbytes) + deep.astype(">u2").tobytes()
    tags = [(256, 64), (257, 64), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 64), (279, deep.nbytes)]
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    data += struct.pack(">H", len(tags)) + entries + bytes(4)
    assert torch.equal(pixels(data), torch.tensor(GREY).expand(3, -1, -1))
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, 1).astype(">u2").tobytes() for row in deep)
    png = write_png(64, 64, bit_depth=16, colour_type=2, rows=rows)
    assert torch.equal(pixels(png), torch.tensor(GREY).expand(3, -1, -1))


def write_png(width: int, height: int, bit_depth: int = 8, colour_type: int = 0, rows: bytes = b"") -> bytes:
    """A PNG file with any header."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "RGBX"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "GIF"])
def test_every_mode_that_a_format_can_hold_has_pillows_pixels(mode, kind):
    try:
        data = encoded(photo(24, 32).convert("RGBA").convert("LA").convert("PA") if mode == "PA" else
                       photo(24, 32).convert(mode), kind)  # fmt: skip
        theirs = torch.tensor(np.array(upright(data))).permute(2, 0, 1)  # Pillow 12 cannot read its YCbCr TIFFs
    except (OSError, ValueError):
        pytest.skip(f"{kind} has no {mode}")
    assert gap(pixels(data), theirs).max() <= (2 if kind == "JPEG" else 0)


def test_cmyk_jpegs_of_adobe_and_others_are_not_negatives():
    """Adobe stores them inverted, and says so by its marker."""
    colours = EncodedImage(encoded(photo(40, 40))).resize((8, 8)).float()
    for quality in (75, 95):
        data = encoded(photo(40, 40).convert("CMYK"), quality=quality)
        assert (EncodedImage(data).resize((8, 8)).float() - colours).abs().mean() < 4


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize(
    ("kilobytes", "fill"), [(1, 0), (70, 0), (300, 0), (2000, 0), (70, 1), (300, 2), (300, 70_000)]
)
def test_exif_behind_any_amount_of_other_metadata_turns_the_image(orientation, kilobytes, fill):
    data, block = turned(photo(20, 30), orientation), b"\xff\xe2" + struct.pack(">H", 62_002) + bytes(62_000)
    data = data[:2] + b"\xff" * fill + block * (kilobytes // 60 + 1) + b"\xff" * fill + data[2:]
    image = EncodedImage(data)
    assert (image.width, image.height) == upright(data).size and image.orientation == orientation


@pytest.mark.parametrize("tail", [b"\xff", b"\xff\xe1", b"\xff\xe1\0", b"\xff\xe1\xff\xff", b"\xff\xff\xff\xff", b"x"])
def test_metadata_that_are_cut_off_do_not_end_in_an_index(tail):
    with pytest.raises(UserError):
        EncodedImage(b"\xff\xd8" + tail)


@pytest.mark.parametrize("size", [(2, 20_000), (20_000, 2), (1, 60_000), (40_000, 3)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_strips_are_read_in_little_memory_and_their_centre_is_seen(size, kind):
    strip = np.zeros((*size, 3), np.uint8)
    middle = tuple(slice(side // 2 - min(size), side // 2 + min(size)) if side > 99 else slice(None) for side in size)
    strip[middle] = 255
    image = EncodedImage(encoded(Image.fromarray(strip), kind))
    seen = CenterCrop(256, 224)(image)
    assert seen.shape == (3, 224, 224) and seen[:, 60:-60, 60:-60].min() > 250
    for augmentation in (Augmentation(), Augmentation(shorter_side=(256, 320))):
        assert TrainCrop(augmentation, "bilinear")(image, 224, seed=0).shape == (3, 224, 224)
    for protocol in PROTOCOLS:
        with pytest.raises(UserError, match="too long a strip for the views of"):
            Views(protocol, 224, 256)(image)


@pytest.mark.parametrize("size", [(40, 2560), (41, 2600), (3, 192), (333, 500)])
def test_what_is_no_strip_is_resized_as_a_whole(size):
    assert center_stretch(*size) == (0, 0, *size)
    data = encoded(photo(*size), "PNG")
    assert gap(CenterCrop(64, 56)(EncodedImage(data)), reference(upright(data), 64, 56)).max() <= 2


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(kind):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert (pixels(data).float().mean((1, 2)) - torch.tensor([255.0, 0, 0])).abs().max() < 12


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (write_png(30_000, 30_000), "Image size .900000000 pixels. exceeds limit"),
        (write_png(10_000, 50_000), "it has 50,000 x 10,000 pixels: at least 1 and at most 268,435,456 are read"),
        (write_png(2**31 - 1, 2**31 - 1), "cannot be read as an image"),
        (write_png(0, 20), "pixels: at least 1|cannot be read as an image"),
        (write_png(20, 20), "cannot be read as an image"),
        (write_png(20, 20)[:30], "cannot be read as an image"),
        (b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(30), "read"),
        (b"BM" + bytes(60), "cannot be read as an image"),
        (b"P5\n99999 99999\n255\n", "exceeds limit"),
    ],
)
def test_bombs_and_images_without_pixels_are_refused_in_a_sentence(data, why, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(data)
    with pytest.raises(UserError, match=why) as error:
        open_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("side", [20_000, 65_500])
def test_a_jpeg_that_claims_to_be_huge_is_refused_before_it_is_decoded(side):
    data = bytearray(encoded(photo(16, 16)))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", side, side)
    with pytest.raises(UserError, match=f"it has {side:,} x {side:,} pixels"):
        EncodedImage(bytes(data))


def test_heic_is_refused_with_a_hint():
    with pytest.raises(UserError, match="HEIC is not known to Pillow, convert it to JPEG"):
        EncodedImage(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


def test_odd_images_are_skipped_or_named_as_any_unreadable_file(tmp_path):
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "deep.tiff")
    (tmp_path / "bomb.png").write_bytes(write_png(30_000, 30_000))
    photo(20, 20).save(tmp_path / "fine.jpg")
    names = np.array([b"deep.tiff", b"bomb.png", b"fine.jpg"])
    batch = ImageFiles(tmp_path, names, np.arange(3), CenterCrop(16, 16)).__getitems__([0, 1, 2])
    assert batch.labels.tolist() == [2] and [Path(file.path).name for file in batch.unreadable] == [
        "deep.tiff",
        "bomb.png",
    ]


def test_a_profile_of_colours_changes_no_pixel():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain, profiled = (encoded(photo(20, 30), "PNG", **options) for options in ({}, {"icc_profile": profile}))
    assert len(profiled) > len(plain) and torch.equal(pixels(plain), pixels(profiled))
