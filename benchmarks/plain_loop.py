"""The training loop of a PyTorch tutorial, with torchvision's transforms and its ImageFolder."""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from benchmarks.timing import RunningFit, Turn
from datamodules import ImageNet
from datamodules.base import ImageData
from datamodules.loading import choose_num_workers
from datamodules.tensor_images import TensorImages
from errors import UserError


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
        return PlainImages(
            data.train_set, transforms.Compose([transforms.RandomCrop(data.train_size, padding=4), *end])
        )
    assert isinstance(data, ImageNet)
    return datasets.ImageFolder(
        data.train_folder, transforms.Compose([transforms.RandomResizedCrop(data.train_size), *end])
    )


def plain_loop(fit: RunningFit) -> Turn:
    """The loop in float32 and torch's default memory layout, with the batch size of the fit."""
    model, on_gpu = fit.model, fit.model.device.type == "cuda"
    loader = DataLoader(
        plain_images(fit.data),
        fit.data.batch_size,
        shuffle=True,
        num_workers=choose_num_workers(fit.trainer) if on_gpu else 2,
        drop_last=True,
        pin_memory=on_gpu,
        persistent_workers=True,
    )
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
