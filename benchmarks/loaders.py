"""Speed of the loaders alone, on one core."""

import statistics
import time

import torch
from torch import Tensor
from torch.utils.data import default_collate

from benchmarks.plain_loop import plain_images
from datamodules.augment import normalise, random_flip
from datamodules.base import ImageData
from datamodules.samplers import SampleSpec
from datamodules.tensor_images import TensorImages

TURNS, BATCHES, BATCH = 5, 4, 64


def measure_loaders(data: ImageData) -> dict[str, float]:
    """Images per second of one core that does nothing but load: medians of ours and of the plain loop's, by turns.

    Args:
        data: CIFAR10 or ImageNet, set up for `fit`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain = plain_images(data, as_bytes=not isinstance(data.train_set, TensorImages))
    batches = [[k % len(plain) for k in range(first, first + BATCH)] for first in range(0, BATCHES * BATCH, BATCH)]
    seconds: dict[str, list[float]] = {"loader": [], "plain_loader": []}
    for turn in range(TURNS):
        start = time.process_time()
        for indices in batches:
            load_batch(data, indices, turn)
        middle = time.process_time()
        for indices in batches:
            default_collate([plain[index] for index in indices])
        seconds["loader"].append(middle - start)
        seconds["plain_loader"].append(time.process_time() - middle)
    torch.set_num_threads(threads)
    images = BATCHES * BATCH
    return {f"{name}_images_per_s_per_core": images / statistics.median(times) for name, times in seconds.items()}


def load_batch(data: ImageData, indices: list[int], turn: int) -> None:
    """What the CPU does for a batch: CIFAR-10 is augmented and normalised, files are decoded, cropped and mirrored."""
    if isinstance(data.train_set, TensorImages):
        images = data.train_set.__getitems__(indices).images
        assert isinstance(images, Tensor)
        normalise(data.augment(images), data.preprocessing["mean"], data.preprocessing["std"])
    else:
        specs = [SampleSpec(index, seed=turn * BATCHES * BATCH + index, size=data.train_size) for index in indices]
        images = data.train_set.__getitems__(specs).images
        assert isinstance(images, Tensor)
        random_flip(images)
