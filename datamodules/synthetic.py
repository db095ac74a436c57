"""Random images of any size and number, for smoke runs and benchmarks."""

from typing import Any

import torch

from datamodules.base import ImageData
from datamodules.tensor_images import TensorImages
from errors import check_at_least


class Synthetic(ImageData):
    """Uniform noise with random labels: nothing to learn, nothing to load.

    Args:
        classes: number of classes.
        size: pixels per side.
        train_size: number of training images.
        val_size: number of validation images; 0 for no validation.
        test_size: number of test images.
        batch_size: images in a training or evaluation batch, over all devices together.
        **kwargs: see `ImageData`.
    """

    def __init__(
        self,
        classes: int = 1000,
        size: int = 224,
        train_size: int = 256,
        val_size: int = 64,
        test_size: int = 64,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size, **kwargs)
        check_at_least(1, classes=classes, size=size, train_size=train_size, test_size=test_size)
        check_at_least(0, val_size=val_size)
        self.num_classes = classes
        self.class_names = [f"class {k}" for k in range(classes)]
        self.preprocessing = {"resize": size, "crop": size, "mean": [0.5] * 3, "std": [0.289] * 3}
        self.size, self.sizes = size, (train_size, val_size, test_size)

    def load(self, stage: str) -> None:
        train, val, test = (self._images(count, seed) for seed, count in enumerate(self.sizes))
        self.train_set, self.val_set, self.test_set = train, val if len(val) else None, test

    def _images(self, count: int, seed: int) -> TensorImages:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(256, (count, 3, self.size, self.size), dtype=torch.uint8, generator=generator)
        return TensorImages(images, torch.randint(self.num_classes, (count,), generator=generator))
