"""What is measured: experiments, and the images that they train on: the user's, or noise in their layout."""

import math
import pickle
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from datamodules.cifar10 import FOLDER, TEST_FILE, TRAIN_FILES
from datamodules.class_folders import find_classes
from datamodules.folder_walk import FolderWalk
from datamodules.imagenet.pack import pack_tree

# Images in an epoch, at least: 50 of the largest batches. In short epochs their ends would be what is measured. On the
# device they take 1.9 GB.
EPOCH_IMAGES = 50 * 256


Data = Literal["cifar", "images", "packed"]
Kind = Literal["training", "timm", "evaluation", "predict", "callbacks"]


@dataclass(frozen=True)
class Case:
    """What is measured, and with what it takes turns.

    Args:
        experiment: its YAML file below configs/, without the suffix.
        data: cifar, images (files in class folders), packed (a packed copy of them), or None for data without files,
            which have no plain loop to be compared with.
        steps: steps of a turn; of predict, its images.
        flags: further flags of main.py.
        kind: training: a `fit` beside a plain loop and the bare step; timm: beside timm's train script; evaluation: a
            `test` beside plain forward passes; predict: a `predict` beside them; callbacks: a `fit` with the default
            callbacks and without.
        cuda: whether it needs a GPU.
    """

    experiment: str
    data: Data | None
    steps: int
    flags: list[str] = field(default_factory=list)
    kind: Kind = "training"
    cuda: bool = False


ONE_BATCH = "--trainer.callbacks.batches=1"  # of PreciseBN's 200, after the last turn
COMPILED = ["--model.compile=true", "--data.drop_last=true"]  # a ragged last batch would be compiled for itself
ON_DEVICE = [  # noise that lies on the device, without a loader
    "--data=datamodules.Synthetic", "--data.size=224", "--data.classes=1000", f"--data.train_size={EPOCH_IMAGES}",
    "--data.batch_size=256", "--model.stride_in_1x1=false",
]  # fmt: skip
RESNET18 = ["--data.batch_size=32", ONE_BATCH]
# The net, the augmentation and the size of timm's script: see timm_script.py
AS_TIMM = [*RESNET18, "--model.shortcut=B", "--data.augmentation.shorter_side=[]", "--data.augmentation.lighting=0",
           "--data.size=128"]  # fmt: skip
TINY = [  # epochs of 200 steps of a few milliseconds
    "--data=datamodules.Synthetic", "--data.size=8", "--data.classes=10", "--data.train_size=6400",
    "--data.batch_size=32",
]  # fmt: skip
CASES = {
    "cifar_resnet20": Case("cifar10/resnet20", "cifar", 20),
    "cifar_resnet18": Case("cifar10/resnet18_fast", "cifar", 6, ["--data.batch_size=64"]),
    "cifar_densenet_bc_100_12": Case("cifar10/densenet_bc_100_12", "cifar", 6),
    "imagenet_resnet18": Case("imagenet/resnet18", "images", 4, RESNET18),
    "imagenet_resnet18_packed": Case("imagenet/resnet18", "packed", 4, RESNET18),
    "imagenet_resnet50": Case("imagenet/resnet50", "images", 40, [*COMPILED, ONE_BATCH], cuda=True),
    "resident_resnet50": Case("imagenet/resnet50", None, 40, [*ON_DEVICE, *COMPILED, ONE_BATCH], cuda=True),
    "timm": Case("imagenet/resnet18", "images", 8, AS_TIMM, "timm"),
    "timm_packed": Case("imagenet/resnet18", "packed", 8, AS_TIMM, "timm"),
    "crops_144": Case("imagenet/resnet18", "images", 2, ["--data.batch_size=8", ONE_BATCH], "evaluation"),
    "predict_resnet18": Case("imagenet/resnet18", "images", 1000, ["--data.batch_size=8", ONE_BATCH], "predict"),
    "predict_resnet50": Case("imagenet/resnet50", "images", 1000, ["--data.batch_size=8", ONE_BATCH], "predict"),
    "default_callbacks": Case("digits/resnet20", None, 200, TINY, "callbacks"),
}


def find_or_make_images(data: Data | None, cifar: Path | None, images: Path | None, folder: Path) -> Path | None:
    """The root folder of images; None for data without files.

    Args:
        data: which images.
        cifar: the user's folder of CIFAR-10; None for noise.
        images: the user's folder with train/<class>/; None for noise.
        folder: where noise is written.
    """
    if data is None:
        return None
    if data == "cifar":
        return cifar or write_synthetic_cifar(folder / "cifar")
    root = repeat_images(images or write_synthetic_images(folder / "images"), folder / "repeated")
    return pack_images(root, folder / "packed") if data == "packed" else root


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
def pack_images(root: Path, target: Path) -> Path:
    """Make a packed copy of `root`, as `python -m datamodules.imagenet pack` does; returns `target`."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        pack_tree(root, target)
    return target


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
