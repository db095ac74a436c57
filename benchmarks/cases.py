"""What is measured: experiments, their images and the steps of a turn."""

from dataclasses import dataclass, field
from typing import Literal

# Images in an epoch, at least: 50 of the largest batches. In short epochs their ends would be what is measured. On the
# device they take 1.9 GB.
EPOCH_IMAGES = 50 * 256
OVERHEAD = "trainer_overhead"  # see benchmarks/trainer_overhead.py


@dataclass(frozen=True)
class Case:
    """A `fit` to measure.

    Args:
        experiment: its YAML file below configs/, without the suffix.
        data: cifar, images (files in class folders), or resident (noise that lies on the device: without a loader, and
            so without a plain loop).
        size: pixels per side of the images.
        steps: steps of a turn.
        flags: further flags of main.py.
        cuda: whether it needs a GPU.
    """

    experiment: str
    data: Literal["cifar", "images", "resident"]
    size: int
    steps: int
    flags: list[str] = field(default_factory=list)
    cuda: bool = False


COMPILED = ["--model.compile=true", "--data.drop_last=true"]  # a ragged last batch would be compiled for itself
CASES = {
    "cifar_resnet20": Case("cifar10/resnet20", "cifar", 32, 20),
    "cifar_resnet18": Case("cifar10/resnet18_fast", "cifar", 32, 6, ["--data.batch_size=64"]),
    "cifar_densenet_bc_100_12": Case("cifar10/densenet_bc_100_12", "cifar", 32, 6),
    "imagenet_resnet18": Case("imagenet/resnet18", "images", 224, 4, ["--data.batch_size=32"]),
    "imagenet_resnet50": Case("imagenet/resnet50", "images", 224, 40, COMPILED, cuda=True),
    "resident_resnet50": Case(
        "imagenet/resnet50", "resident", 224, 40, [*COMPILED, "--model.stride_in_1x1=false"], cuda=True
    ),
}
