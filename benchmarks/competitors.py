"""What a `fit` is compared with: the loop of a PyTorch tutorial, its loader alone, and the bare training step."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import datasets, transforms

from benchmarks.timing import TakeTurns, Turn
from datamodules import ImageNet
from datamodules.augment import normalise, random_flip
from datamodules.base import ImageData
from datamodules.loading import choose_num_workers
from datamodules.samplers import SampleSpec
from datamodules.tensor_images import TensorImages
from errors import UserError

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


def plain_loop(fit: TakeTurns) -> Turn:
    """The loop in float32 and torch's default memory layout, with the batch size of the fit."""
    model, on_gpu = fit.model, fit.model.device.type == "cuda"
    workers = choose_num_workers(fit.trainer) if on_gpu else 2
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": on_gpu, "persistent_workers": True}
    loader = DataLoader(plain_images(fit.data), fit.data.batch_size, shuffle=True, drop_last=True, **options)
    if not len(loader):
        raise UserError(
            f"The plain loop has fewer images than a batch of {loader.batch_size}, and drops a last batch that is not "
            "full: give more with --cifar or --images."
        )
    net = fit.copy_net(torch.contiguous_format)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def step(batch: tuple[Tensor, Tensor]) -> int:
        images, labels = (part.to(model.device, non_blocking=True) for part in batch)
        optimizer.zero_grad()
        model.loss(net(images), labels).backward()
        optimizer.step()
        return len(labels)

    return fit.time_steps(step, loader)


def bare_step(fit: TakeTurns) -> Turn:
    """The limit: the training step of the fit on one batch on the device, without Trainer, loader and metrics."""
    model, data = fit.model, fit.data
    net = fit.copy_net(torch.channels_last)
    if model.compile_net:
        net.compile()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
    images = torch.randn(data.batch_size, 3, data.train_size, data.train_size, device=model.device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(data.num_classes, (data.batch_size,), device=model.device)

    def step(_: None) -> int:
        optimizer.zero_grad()
        with fit.trainer.precision_plugin.forward_context():
            loss = model.loss(net(images), labels)
        loss.backward()
        optimizer.step()
        return len(labels)

    return fit.time_steps(step, [None])


def measure_loaders(data: ImageData) -> dict[str, float]:
    """Images per second of one core that does nothing but load: medians of ours and of the plain loop's, by turns.

    Args:
        data: CIFAR10 or ImageNet, set up for `fit`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain = plain_images(data, as_bytes=not isinstance(data.train_set, TensorImages))
    loaders = {"loader": partial(load_batch, data), "plain_loader": partial(load_plain_batch, plain)}
    images = LOADER_BATCHES * LOADER_BATCH
    indices = torch.arange(images) % len(plain)
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(LOADER_TURNS):
        for name, load in loaders.items():
            start = time.process_time()
            for batch in indices.split(LOADER_BATCH):
                load(batch.tolist())
            seconds[name].append(time.process_time() - start)
    torch.set_num_threads(threads)
    return {f"{name}_images_per_s_per_core": images / statistics.median(times) for name, times in seconds.items()}


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


def load_plain_batch(images: Any, indices: list[int]) -> None:
    """The same by the plain loop's data set."""
    default_collate([images[index] for index in indices])
