"""Small pictures of images in memory and in files."""

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.crops import CenterCrop
from datamodules.image_files import ImageFiles
from datamodules.tensor_images import TensorImages
from datamodules.thumbnails import choose_crop, make_thumbnail


@pytest.mark.parametrize(("size", "expected"), [((400, 300), (149, 112)), ((20, 30), (40, 60)), ((900, 60), (120, 60))])
def test_images_are_reduced_enlarged_and_cut_off(tmp_path, size, expected):
    width, height = size
    images = TensorImages(torch.zeros(2, 3, height, width, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    assert make_thumbnail(images, 1, 112).size == expected
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    names = np.array([b"a.png", b"b.png"])
    files = ImageFiles(tmp_path, names, np.zeros(2, dtype=np.int64), CenterCrop(16, 16))
    shown = make_thumbnail(files, 0, 112)
    assert shown.size == expected and shown.getpixel((8, 8)) == (255, 0, 0)
    assert make_thumbnail(files, 1, 112) is None


def test_what_is_shown_of_long_images():
    assert choose_crop(32, 32, 64) == ((0, 0, 32, 32), (32, 32))
    assert choose_crop(128, 200, 64) == ((0, 0, 128, 200), (64, 100))
    assert choose_crop(1000, 10, 64) == ((490, 0, 20, 10), (20, 10))
    assert choose_crop(100, 1000, 64) == ((0, 400, 100, 200), (64, 128))
