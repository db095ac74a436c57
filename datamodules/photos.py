"""Image files and folders to predict on."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.augment import normalise
from datamodules.crops import CentreCrop
from datamodules.decode import SUFFIXES, open_picture
from datamodules.samplers import ExactSampler
from errors import UserError, pluralize


class Photos(pl.LightningDataModule):
    """Photos from files and folders, brought to the net as its validation images were.

    Args:
        paths: an image file, a folder that is searched for image files at any depth, or a list of such.
        preprocessing: resize, crop, mean and std (see `ImageData`); `predict` takes them from the checkpoint.
        class_names: name of each class, from the checkpoint too.
        batch_size: images at a time over all devices together.
        num_workers: loader processes per device.
    """

    def __init__(
        self,
        paths: Path | list[Path],
        preprocessing: dict[str, Any],
        class_names: list[str],
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        paths = paths if isinstance(paths, list) else [paths]
        self.files = [file for path in paths for file in image_files(path.expanduser())]
        self.preprocessing, self.class_names, self.num_classes = preprocessing, class_names, len(class_names)
        self.batch_size, self.num_workers = batch_size, num_workers

    def predict_dataloader(self) -> DataLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if len(self.files) < world_size:
            raise UserError(
                f"{pluralize(len(self.files), 'photo')} cannot be shared out among {world_size} devices: use fewer "
                "(--trainer.devices)."
            )
        return DataLoader(
            PhotoFiles(self.files, self.preprocessing),
            batch_size=max(1, self.batch_size // world_size),
            sampler=ExactSampler(len(self.files), shuffle=False, rank=rank, world_size=world_size),
            num_workers=self.num_workers,
            collate_fn=partial(stack, size=self.preprocessing["crop"]),
        )

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        images, places = batch
        return normalise(images, self.preprocessing["mean"], self.preprocessing["std"]), places


class PhotoFiles(Dataset):
    """Image files as uint8 squares, upright and RGB: see `CentreCrop`."""

    def __init__(self, files: list[Path], preprocessing: dict[str, Any]) -> None:
        self.files = files
        how = preprocessing.get("interpolation", "bilinear")
        self.look = CentreCrop(preprocessing["resize"], preprocessing["crop"], how)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Tensor, int] | None:
        try:
            return self.look(open_picture(self.files[place])), place
        except ValueError as error:
            warnings.warn(f"{self.files[place]} is left out: {error}.", stacklevel=2)
            return None


def stack(items: list[tuple[Tensor, int] | None], size: int) -> tuple[Tensor, Tensor]:
    """Batch the photos that could be read, [B, 3, H, W] uint8, with the places of their files, [B]."""
    readable = [item for item in items if item is not None]
    images = [image for image, _ in readable]
    places = torch.tensor([place for _, place in readable], dtype=torch.long)
    return torch.stack(images) if images else torch.empty(0, 3, size, size, dtype=torch.uint8), places


def image_files(path: Path) -> list[Path]:
    """The file itself, or all image files below a folder in the order of their names.

    Raises:
        FileNotFoundError: if there is no such path, or a folder has no image in it.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"There is no file or folder {path}: --data.paths takes image files and folders.")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"The folder {path} holds no image ({', '.join(sorted(SUFFIXES))}).")
    return files
