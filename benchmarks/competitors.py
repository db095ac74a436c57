"""What a `fit` is compared with: the loop of a PyTorch tutorial, its loader alone, and the bare training step."""

import copy
import statistics
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import datasets, transforms

from cli.memory import keep_freed_memory, return_freed_memory
from datamodules import ImageNet
from datamodules.augment import normalise, random_flip
from datamodules.base import ImageData
from datamodules.loading import choose_num_workers
from datamodules.samplers import SampleSpec
from datamodules.tensor_images import TensorImages
from errors import UserError
from lit_models import LitClassifier

LOADER_TURNS, LOADER_BATCHES, LOADER_BATCH = 5, 4, 64


class PlainImages(Dataset):
    """Images as torchvision's CIFAR10 hands them out: one by one, as PIL images through a transform."""

    def __init__(self, images: TensorImages, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images, self.labels = images.images.permute(0, 2, 3, 1).contiguous().numpy(), images.labels.numpy()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def plain_images(data: ImageData, as_bytes: bool = False) -> PlainImages | datasets.ImageFolder:
    """The training images of `data` with the usual transforms: those of every CIFAR-10 tutorial, or of torchvision's
    ImageNet example.

    Args:
        data: CIFAR10 or ImageNet, set up for `fit`.
        as_bytes: leave out the conversion to float and the normalisation.
    """
    normalize = transforms.Normalize(data.preprocessing["mean"], data.preprocessing["std"])
    end = [transforms.PILToTensor()] if as_bytes else [transforms.ToTensor(), normalize]
    end = [transforms.RandomHorizontalFlip(), *end]
    if isinstance(data.train_set, TensorImages):
        crop = transforms.RandomCrop(data.train_size, padding=4)
        return PlainImages(data.train_set, transforms.Compose([crop, *end]))
    assert isinstance(data, ImageNet)
    resized_crop = transforms.RandomResizedCrop(data.train_size)
    return datasets.ImageFolder(data.train_folder, transforms.Compose([resized_crop, *end]))


def copy_net(net: nn.Module, memory_format: torch.memory_format) -> nn.Module:
    """A network with the same weights, not compiled, to be trained by itself."""
    return copy.deepcopy(net).to(memory_format=memory_format).train()


def plain_loop(model: LitClassifier, data: ImageData) -> Generator[int]:
    """The loop in float32 and torch's default memory layout, with malloc's defaults and the batch size of the fit.

    Yields:
        the number of images after each step.
    """
    on_gpu = model.device.type == "cuda"
    loader = DataLoader(
        plain_images(data),
        data.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=choose_num_workers(model.trainer, data.train_set) if on_gpu else 2,
        pin_memory=on_gpu,
        persistent_workers=True,
    )
    if not len(loader):
        raise UserError(
            f"The plain loop has fewer images than a batch of {data.batch_size}, and drops a last batch that is not "
            "full: give more with --cifar or --images."
        )
    net = copy_net(model.net, torch.contiguous_format)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    while True:
        for batch in loader:
            with default_malloc(model.device):
                images, labels = (part.to(model.device, non_blocking=True) for part in batch)
                optimizer.zero_grad()
                model.loss(net(images), labels).backward()
                optimizer.step()
            yield len(labels)


@contextmanager
def default_malloc(device: torch.device) -> Iterator[None]:
    """Within it malloc has glibc's defaults, which only a `fit` on a CPU changes."""
    if device.type == "cpu":
        return_freed_memory()
    yield
    if device.type == "cpu":
        keep_freed_memory()


def bare_step(model: LitClassifier, data: ImageData) -> Generator[int]:
    """The limit: the training step of the fit on one batch on the device, without Trainer, loader and metrics.

    Yields:
        the number of images after each step.
    """
    net = copy_net(model.net, torch.channels_last)
    if model.compile_net:
        net.compile()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
    images = torch.randn(data.batch_size, 3, data.train_size, data.train_size, device=model.device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(data.num_classes, (data.batch_size,), device=model.device)
    while True:
        optimizer.zero_grad()
        with model.trainer.precision_plugin.forward_context():
            loss = model.loss(net(images), labels)
        loss.backward()
        optimizer.step()
        yield len(labels)


def measure_loaders(data: ImageData, with_plain: bool) -> dict[str, float]:
    """Images per second of one core that does nothing but load: medians of ours and of the plain loop's, by turns.

    Args:
        data: CIFAR10 or ImageNet, set up for `fit`.
        with_plain: whether the plain loop's is measured too.
    """
    indices = torch.arange(LOADER_BATCHES * LOADER_BATCH) % len(data.train_set)
    batches = [batch.tolist() for batch in indices.split(LOADER_BATCH)]
    loaders: dict[str, Callable[[list[int]], Any]] = {"loader": lambda batch: load_batch(data, batch)}
    if with_plain:
        plain = plain_images(data, as_bytes=not isinstance(data.train_set, TensorImages))
        loaders["plain_loader"] = lambda batch: default_collate([plain[index] for index in batch])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    turns = [{name: cpu_seconds(load, batches) for name, load in loaders.items()} for _ in range(LOADER_TURNS)]
    torch.set_num_threads(threads)
    medians = {name: statistics.median(turn[name] for turn in turns) for name in loaders}
    return {f"{name}_images_per_s_per_core": len(indices) / seconds for name, seconds in medians.items()}


def loading_bound(step: float, loader: float, cores: int, shared: bool) -> float:
    """Images per second that a training cannot exceed because its images have to be loaded.

    Args:
        step: images per second of the bare step.
        loader: images per second that one core loads.
        cores: that load.
        shared: whether the step runs on the same cores; else loading and training overlap.
    """
    return 1 / (1 / step + 1 / (cores * loader)) if shared else min(step, cores * loader)


def cpu_seconds(load: Callable[[list[int]], Any], batches: list[list[int]]) -> float:
    """Processor time that it takes to load batches, each given as the indices of its images."""
    start = time.process_time()
    for batch in batches:
        load(batch)
    return time.process_time() - start


def load_batch(data: ImageData, indices: list[int]) -> None:
    """What the CPU does for a batch: CIFAR-10 is augmented and normalised, files are decoded, cropped and mirrored."""
    resident = isinstance(data.train_set, TensorImages)
    specs = [SampleSpec(index, seed=index, size=data.train_size) for index in indices]
    images = data.train_set.__getitems__(indices if resident else specs).images
    assert isinstance(images, Tensor)
    if resident:
        normalise(data.augment(images), data.preprocessing["mean"], data.preprocessing["std"])
    else:
        random_flip(images)
