"""The images of the cases: the user's, or noise in their layout; and small folders made long enough for an epoch."""

import math
import pickle
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.cases import EPOCH_IMAGES
from datamodules.cifar10 import FOLDER, TEST_FILE, TRAIN_FILES
from datamodules.image_files import find_classes, list_images


@cache  # several cases share the images
def write_synthetic_cifar(root: Path) -> Path:
    """Write 60,000 images of noise in the layout of CIFAR-10; returns `root`."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*TRAIN_FILES, TEST_FILE]:
        pixels = rng.integers(256, size=(10_000, 3072), dtype=np.uint8)
        content = {"data": pixels, "labels": rng.integers(10, size=10_000).tolist()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return root


@cache
def write_synthetic_images(root: Path) -> Path:
    """Write 256 JPEGs of 500 x 375 pixels in class folders; returns `root`. They take 110 KB, as photographs do."""
    rng = np.random.default_rng(0)
    for index in range(256):
        path = root / "train" / f"class_{index % 8}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.normal(128, 28, size=(375, 500, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
    return root


@cache
def repeat_images(root: Path, target: Path) -> Path:
    """Link the class folders of `root` so often that they fill an epoch.

    Returns:
        `target` with the links, or `root` if it has no images.
    """
    count = len(list_images(root / "train"))
    if not count:
        return root
    for folder in find_classes(root / "train"):
        (target / "train" / folder).mkdir(parents=True, exist_ok=True)
        for copy in range(math.ceil(EPOCH_IMAGES / count)):
            (target / "train" / folder / str(copy)).symlink_to(root / "train" / folder)
    return target
