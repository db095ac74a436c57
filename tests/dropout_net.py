"""A net and data that draw random numbers wherever one can: dropout, crops, flips, shuffling."""

from typing import Any

from torch import Tensor, nn

from datamodules import Synthetic
from datamodules.augment import Augmentation, random_crop, random_flip
from lit_models import LitClassifier


class LitDropoutNet(LitClassifier):
    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, num_classes),
        )  # fmt: skip
        super().__init__(net, num_classes, **kwargs)


class JitteredNoise(Synthetic):
    def __init__(self, batch_size: int = 4, num_workers: int = 0, bootstrap: bool = False) -> None:
        super().__init__(6, 8, 15, 5, 5, batch_size=batch_size, num_workers=num_workers, bootstrap=bootstrap)

    def augment(self, images: Tensor) -> Tensor:
        return random_flip(random_crop(images, 2))


class AugmentedNoise(Synthetic):
    """Noise with all augmentations that draw for the batch of a device."""

    def augment(self, images: Tensor) -> Tensor:
        return Augmentation(colour=0.3, lighting=0.1, erasing=0.5).apply(random_crop(images, 2), fill=[127.0] * 3)
