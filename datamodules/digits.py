"""The default data set: 1,797 real handwritten digits that come with scikit-learn, no download."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.augment import random_crop
from datamodules.base import ImageData
from datamodules.splits import stratified_split
from datamodules.tensor_images import TensorImages

TEST_SIZE, VAL_SIZE = 360, 180


class Digits(ImageData):
    """scikit-learn's digits (UCI optical recognition), 8x8 grey, as 32x32 RGB: 1,257 train, 180 validation, 360 test.

    The split is stratified and fixed. Training shifts each image by up to `shift` pixels.

    Args:
        shift: largest shift of a training image in each direction, in pixels of 32.
        **kwargs: see `ImageData`.
    """

    hflip_preserves_label = False

    def __init__(self, shift: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = 10
        self.class_names = [str(digit) for digit in range(10)]
        # mean and standard deviation of the training pixels
        self.preprocessing = {"resize": 32, "crop": 32, "mean": [0.305] * 3, "std": [0.324] * 3}
        self.shift = shift

    def load(self, stage: str) -> None:
        from sklearn.datasets import load_digits  # half a second, so only where it is needed

        digits = load_digits()
        grey = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)  # [N, 1, 8, 8] in 0..255
        images = F.interpolate(grey, size=32, mode="bilinear").round().to(torch.uint8).expand(-1, 3, -1, -1)
        everything = TensorImages(images.contiguous(), torch.from_numpy(digits.target).long())
        rest, test = stratified_split(digits.target, TEST_SIZE, seed=0)
        train, val = stratified_split(digits.target[rest], VAL_SIZE, seed=0)
        self.train_set = everything.subset(rest[train])
        self.val_set = everything.subset(rest[val])
        self.test_set = everything.subset(test)

    def augment(self, images: Tensor) -> Tensor:
        return random_crop(images, self.shift)
