"""CIFAR-10: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009."""

import os
import pickle
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.augment import random_crop, random_flip
from datamodules.base import ImageData
from datamodules.splits import split_validation
from datamodules.tensor_images import TensorImages
from errors import UserError, check_at_least, check_reachable, expand_home

FOLDER = "cifar-10-batches-py"
TRAIN_FILES = [f"data_batch_{k}" for k in range(1, 6)]
TEST_FILE = "test_batch"
CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class CIFAR10(ImageData):
    """CIFAR-10 in its official python layout: 45,000 train, 5,000 validation, 10,000 test images of 32x32 pixels.

    Training images are padded, cropped at random and flipped half of the time (ResNet paper, section 4.2); with
    `padding` 0 and `flip` false they stay unchanged (the "C10" columns of papers, where "C10+" is augmented).
    Validation images are held back from the training batches; `test` alone reads the test batch.

    Args:
        root: the folder that holds `cifar-10-batches-py`, or that folder itself. If it holds none, torchvision
            downloads the data set (170 MB) into it.
        val_size: training images held back for validation, equally many of each class; 0 trains on all of them, as
            the final runs of most papers do.
        split_seed: which images are held back. It does not follow the run's seed, so that runs can be compared.
        padding: pixels of black around a training image before the random crop: 4 in the papers, less for short runs.
        flip: flip half of the training images horizontally.
        **kwargs: see `ImageData`.

    Attributes:
        may_download: whether files that are missing are downloaded; else they are refused.
    """

    may_download = True

    def __init__(
        self,
        root: Path = Path("data"),
        val_size: int = 5000,
        split_seed: int = 0,
        padding: int = 4,
        flip: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_reachable(expand_home(root))
        self.root, self.val_size, self.split_seed = expand_home(root), val_size, split_seed
        check_at_least(0, padding=padding)
        self.padding, self.flip = padding, flip
        self.num_classes = 10
        self.class_names = CLASS_NAMES
        # of the official training images
        mean, std = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
        self.preprocessing = {"resize": 32, "crop": 32, "mean": mean, "std": std}

    def load(self, stage: str) -> None:
        folder = self._find_or_download()
        if stage == "test":
            self.test_set = read_batch(folder / TEST_FILE)
            return
        parts = [read_batch(folder / name) for name in TRAIN_FILES]
        images = torch.cat([part.images for part in parts])
        official = TensorImages(images, torch.cat([part.labels for part in parts]))
        self.train_set, self.val_set = split_validation(official, self.val_size, self.split_seed)

    def test_fingerprint(self) -> str | None:
        try:
            return self.fingerprint(read_batch(self._find_or_download() / TEST_FILE))
        except UserError:  # a training does not need the file
            return None

    def augment(self, images: Tensor) -> Tensor:
        images = random_crop(images, self.padding) if self.padding else images
        return random_flip(images) if self.flip else images

    def _find_or_download(self) -> Path:
        """The folder of the batch files, which are downloaded if none of them is there."""
        folder = self.root if os.path.isfile(self.root / TEST_FILE) else self.root / FOLDER
        missing = [name for name in [*TRAIN_FILES, TEST_FILE] if not os.path.isfile(folder / name)]
        if not missing:
            return folder
        if len(missing) < len(TRAIN_FILES) + 1:
            raise UserError(
                f"CIFAR-10 in {folder} is incomplete, {', '.join(missing)} missing: unpack "
                "cifar-10-python.tar.gz there again, or remove the folder to have it downloaded again."
            )
        if not self.may_download:
            raise UserError(f"CIFAR-10 is not in {self.root}: name the folder that holds {FOLDER} with --data.root.")
        from torchvision import datasets

        is_new = not os.path.exists(self.root)
        try:
            datasets.CIFAR10(self.root, download=True)
        except (OSError, RuntimeError, HTTPException) as error:
            if is_new and os.path.isdir(self.root) and not any(self.root.iterdir()):
                self.root.rmdir()  # a mistyped path leaves nothing behind
            raise UserError(
                f"CIFAR-10 is not in {self.root} and could not be downloaded ({error}): unpack "
                f"cifar-10-python.tar.gz by hand and name the folder that holds {FOLDER} with --data.root."
            ) from error
        return folder


def read_batch(path: Path) -> TensorImages:
    """Read one batch file.

    Raises:
        UserError: if it is truncated or holds anything but images and their labels.
    """
    try:
        with open(path, "rb") as file:
            batch = ArrayUnpickler(file, encoding="latin1").load()
        images = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        if images.nbytes > os.path.getsize(path):
            raise UserError(f"{len(images):,} images, more than the file can hold")
        labels = np.asarray(batch["labels"], dtype=np.int64)
        if len(images) != len(labels) or labels.min() < 0 or labels.max() >= len(CLASS_NAMES):
            raise UserError(f"{len(images)} images and {len(labels)} labels")
    except Exception as error:  # pickle and numpy raise a different exception for each way of being corrupt
        raise UserError(
            f"{path} is truncated or no CIFAR-10 batch file ({error}): unpack cifar-10-python.tar.gz there again."
        ) from error
    return TensorImages(torch.from_numpy(images.copy()), torch.from_numpy(labels))


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles lists, dicts, strings and numpy arrays; anything else in a file is refused and runs no code."""

    ALLOWED: ClassVar = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.numeric", "_frombuffer"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")  # its name since numpy 2
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)
