"""The default data set: 1,797 real handwritten digits that come with scikit-learn, no download."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop

from batch import Batch
from datamodules.augment import random_crop
from datamodules.base import ImageData
from datamodules.splits import stratified_split
from datamodules.tensor_images import TensorImages
from errors import UserError, check_at_least

TEST_SIZE, VAL_SIZE = 360, 180


class Digits(ImageData):
    """scikit-learn's digits (UCI optical recognition), 8x8 grey, as 32x32 RGB: 1,257 train, 180 validation, 360 test.

    The split is stratified and fixed. Training shifts each image by up to `shift` pixels.

    Args:
        shift: largest shift of a training image in each direction, in pixels of `size`.
        size: pixels per side to which the images are enlarged. 16 lose nothing and take a quarter of the time of 32.
        crop: pixels per side of what the net sees of them: a random part in training, and in evaluation the centre or
            what the protocol takes, as of photographs (28 of 32 is ImageNet's 224 of 256). Unset, the whole image.
        **kwargs: see `ImageData`.
    """

    hflip_preserves_label = False

    def __init__(self, shift: int = 2, size: int = 32, crop: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_at_least(8, size=size, crop=crop)
        if crop is not None and crop > size:
            raise UserError(f"crop is {crop}, and the images have {size} px a side: give at most {size}.")
        self.num_classes = 10
        self.class_names = [str(digit) for digit in range(10)]
        # mean and standard deviation of the training pixels
        self.preprocessing = {"resize": size, "crop": crop or size, "mean": [0.305] * 3, "std": [0.324] * 3}
        self.shift, self.size, self.crop = shift, size, crop
        self.native_size = crop is None

    def load(self, stage: str) -> None:
        from sklearn.datasets import load_digits  # half a second, so only where it is needed

        digits = load_digits()
        grey = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)  # [N, 1, 8, 8] in 0..255
        images = F.interpolate(grey, size=self.size, mode="bilinear").round().to(torch.uint8).expand(-1, 3, -1, -1)
        everything = TensorImages(images.contiguous(), torch.from_numpy(digits.target).long())
        rest, test = stratified_split(digits.target, TEST_SIZE, seed=0)
        train, val = stratified_split(digits.target[rest], VAL_SIZE, seed=0)
        self.train_set = everything.subset(rest[train])
        self.val_set = everything.subset(rest[val])
        self.test_set = everything.subset(test)

    def augment(self, images: Tensor) -> Tensor:
        return random_crop(images, self.shift, self.crop)

    def to_inputs(self, batch: Batch, training: bool) -> Batch:
        if self.crop and not training and not self.uses_tta:
            assert isinstance(batch.images, Tensor)
            batch = batch._replace(images=center_crop(batch.images, [self.crop]))
        return super().to_inputs(batch, training)
