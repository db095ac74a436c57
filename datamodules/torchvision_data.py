"""Data sets of torchvision, and any others that give (PIL image, label)."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from datamodules.augment import random_crop, random_flip
from datamodules.base import ImageData
from datamodules.splits import split_validation
from datamodules.tensor_images import TensorImages
from errors import UserError, check_at_least


class TorchvisionData(ImageData):
    """A data set that gives (PIL image, label), such as those of torchvision. Its images are read into memory once.

    The shorter side of each image is resized to `size` pixels and the centre square cut out. Validation images are a
    stratified part of the training set; `test` alone reads the test set. From Python, a data set is three lines:

        class Flowers(TorchvisionData):
            def __init__(self, root: Path = Path("data"), **kwargs: Any) -> None:
                super().__init__(Flowers102(root, "train"), Flowers102(root, "test"), num_classes=102, **kwargs)

    Every process builds the data sets when it starts, since the classes must be known before the model is built.
    Processes that Lightning starts find what the first one has downloaded. torchrun and SLURM start all processes at
    once: download the data set beforehand.

    Args:
        train: data set to train on, without a transform.
        test: data set to test on, without a transform.
        size: pixels per side of the images.
        num_classes: of a data set that does not name them in an attribute `classes`; their names are "0", "1", ...
        mean: of the pixels per channel, in units of [0, 1].
        std: standard deviation of the pixels per channel, in units of [0, 1].
        val_size: training images to hold back: their number, or below 1 their share; 0 for no validation.
        split_seed: which images are held back.
        padding: pixels of black around a training image before a random crop of the original size; 0 for no crop.
        flip: flip half of the training images horizontally.
        hflip_preserves_label: whether a flipped image shows the same class; if not, as for digits, none is flipped.
        **kwargs: see `ImageData`.

    Raises:
        UserError: if the classes are not known, or an argument is out of its range.
    """

    def __init__(
        self,
        train: Dataset,
        test: Dataset,
        size: int = 32,
        num_classes: int | None = None,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.25, 0.25, 0.25),
        val_size: int | float = 0.1,
        split_seed: int = 0,
        padding: int = 0,
        flip: bool = True,
        hflip_preserves_label: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_at_least(1, size=size)
        check_at_least(0, padding=padding)
        self.train_data, self.test_data = train, test
        self.class_names = [str(name) for name in getattr(train, "classes", None) or range(num_classes or 0)]
        self.num_classes = len(self.class_names)
        if self.num_classes < 2:
            raise UserError(f"{type(train).__name__} has no list of classes: give --data.num_classes, two or more.")
        self.preprocessing = {"resize": size, "crop": size, "mean": list(mean), "std": list(std)}
        self.val_size, self.split_seed, self.padding = val_size, split_seed, padding
        self.flip, self.hflip_preserves_label = flip and hflip_preserves_label, hflip_preserves_label

    def load(self, stage: str) -> None:
        if stage == "test":
            self.test_set = self._read(self.test_data)
            return
        self.train_set, self.val_set = split_validation(self._read(self.train_data), self.val_size, self.split_seed)

    def augment(self, images: Tensor) -> Tensor:
        images = random_crop(images, self.padding) if self.padding else images
        return random_flip(images) if self.flip else images

    def _read(self, data: Any) -> TensorImages:
        """Read a data set: images of one size and their labels."""
        size, name = self.preprocessing["crop"], type(data).__name__
        transform = v2.Compose([v2.PILToTensor(), v2.Resize(size, antialias=True), v2.CenterCrop(size)])
        images, labels = [], []
        for index in range(len(data)):
            image, label = data[index]
            if not isinstance(image, Image.Image):
                raise UserError(f"{name} gives a {type(image).__name__}, not a PIL image: leave out its transform.")
            if not 0 <= (label := int(label)) < self.num_classes:
                raise UserError(
                    f"{name} gives the label {label}, and the data have {self.num_classes:,} classes"
                    ", from 0 on: give another --data.num_classes."
                )
            images.append(transform(image.convert("RGB")))
            labels.append(label)
        return TensorImages(torch.stack(images), torch.tensor(labels))
