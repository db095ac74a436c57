"""What is measured: experiments, and the images that they train on: the user's, or noise in their layout."""

import math
import pickle
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from datamodules.cifar10 import FOLDER, TEST_FILE, TRAIN_FILES
from datamodules.class_folders import find_classes
from datamodules.folder_walk import FolderWalk

# Images in an epoch, at least: 50 of the largest batches. In short epochs their ends would be what is measured. On the
# device they take 1.9 GB.
EPOCH_IMAGES = 50 * 256


@dataclass(frozen=True)
class Case:
    """A `fit` to measure.

    Args:
        experiment: its YAML file below configs/, without the suffix.
        data: cifar, images (files in class folders), or None for data without files, which have no plain loop to be
            compared with.
        steps: steps of a turn.
        flags: further flags of main.py.
        cuda: whether it needs a GPU.
    """

    experiment: str
    data: Literal["cifar", "images"] | None
    steps: int
    flags: list[str] = field(default_factory=list)
    cuda: bool = False


ONE_BATCH = "--trainer.callbacks.batches=1"  # of PreciseBN's 200, after the last turn
COMPILED = ["--model.compile=true", "--data.drop_last=true"]  # a ragged last batch would be compiled for itself
ON_DEVICE = [  # noise that lies on the device, without a loader
    "--data=datamodules.Synthetic", "--data.size=224", "--data.classes=1000", f"--data.train_size={EPOCH_IMAGES}",
    "--data.batch_size=256", "--model.stride_in_1x1=false",
]  # fmt: skip
CASES = {
    "cifar_resnet20": Case("cifar10/resnet20", "cifar", 20),
    "cifar_resnet18": Case("cifar10/resnet18_fast", "cifar", 6, ["--data.batch_size=64"]),
    "cifar_densenet_bc_100_12": Case("cifar10/densenet_bc_100_12", "cifar", 6),
    "imagenet_resnet18": Case("imagenet/resnet18", "images", 4, ["--data.batch_size=32", ONE_BATCH]),
    "imagenet_resnet50": Case("imagenet/resnet50", "images", 40, [*COMPILED, ONE_BATCH], cuda=True),
    "resident_resnet50": Case("imagenet/resnet50", None, 40, [*ON_DEVICE, *COMPILED, ONE_BATCH], cuda=True),
}


def find_or_make_images(case: Case, cifar: Path | None, images: Path | None, folder: Path) -> Path | None:
    """The root folder of a case's images; None for data without files.

    Args:
        case: to be measured.
        cifar: the user's folder of CIFAR-10; None for noise.
        images: the user's folder with train/<class>/; None for noise.
        folder: where noise is written.
    """
    if case.data is None:
        return None
    if case.data == "cifar":
        return cifar or write_synthetic_cifar(folder / "cifar")
    return repeat_images(images or write_synthetic_images(folder / "images"), folder / "repeated")


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
    """Link the images of `root` so often that they fill an epoch.

    Returns:
        `target` with the links, or `root` if it has enough images, or none.
    """
    classes = find_classes(root / "train")
    files = FolderWalk().list_images(*(str(root.absolute() / "train" / name) for name in classes))
    if not 0 < (count := sum(map(len, files))) < EPOCH_IMAGES:
        return root
    copies = math.ceil(EPOCH_IMAGES / count)
    for name, images in zip(classes, files, strict=True):
        (target / "train" / name).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images * copies):
            (target / "train" / name / f"{number}{Path(image).suffix}").symlink_to(image)
    return target
