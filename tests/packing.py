"""A packed copy of a few images, as tests read it."""

from pathlib import Path

import pytest

from datamodules.imagenet import pack
from datamodules.packed.writer import IMAGES_PER_CHUNK
from tests.datamodules.test_imagenet import write


def pack_noise(root: Path, images: int, images_per_chunk: int) -> Path:
    """Pack JPEGs of two classes, made in `root`/photos, and return the folder of the copy.

    Args:
        root: an empty folder.
        images: of each class in train/; val/ has two of each.
        images_per_chunk: most in a file of the copy.
    """
    for seed, name in enumerate(("ape", "bear")):
        write(root / "photos/train" / name, images, seed)
        write(root / "photos/val" / name, 2, seed + 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(IMAGES_PER_CHUNK, "jpeg", images_per_chunk)
        pack.pack_tree(root / "photos", root / "packed", shorter_side=32, workers=1)
    return root / "packed"
