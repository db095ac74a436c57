"""Image files in folders: the one rule by which they are listed, and the data set that reads them."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from datamodules.decode import SUFFIXES, open_image
from datamodules.loading import ImageSet, RawBatch, UnreadableFile
from datamodules.samplers import SampleSpec
from errors import UserError

Transform = Callable[..., Tensor | list[Tensor]]


class ImageFiles(ImageSet):
    """Image files and their labels, read a batch at a time.

    Names are kept as one array of bytes: a list of a million strings would be copied, page by page, into every loader
    process, for reading a Python object writes its reference count.

    Args:
        folder: to which the names are relative.
        names: [N] file names as bytes.
        labels: [N] int64.
        transform: from an `EncodedImage` to uint8 [3, H, W], in training with the size of the crop as second argument;
            or to the views of the image, see `datamodules.views`.
    """

    def __init__(self, folder: Path | bytes, names: np.ndarray, labels: np.ndarray, transform: Transform) -> None:
        self.folder, self.names, self.labels, self.transform = os.fsencode(folder), names, labels, transform

    def __getitems__(self, items: Sequence[SampleSpec] | Sequence[int]) -> RawBatch:
        state = torch.get_rng_state()  # with no loader processes the generator is the training's
        images, labels, unreadable = [], [], []
        for item in items:
            index = item.index if isinstance(item, SampleSpec) else item
            try:
                image = open_image(self.path(index))
                if isinstance(item, SampleSpec):
                    torch.default_generator.manual_seed(item.seed)
                    images.append(self.transform(image, item.size))
                else:
                    images.append(self.transform(image))
                labels.append(self.labels[index])
            except UserError as error:
                unreadable.append(self._describe(index, error))
        torch.set_rng_state(state)
        return RawBatch(stack_images(images), torch.tensor(np.array(labels, dtype=np.int64)), unreadable)

    @property
    def file_names(self) -> list[str]:
        return [os.fsdecode(name) for name in self.names]

    def path(self, index: int) -> bytes:
        """Path of the file of an image."""
        return os.path.join(self.folder, self.names[index])

    def check_file(self, index: int) -> UnreadableFile | None:
        try:
            image = open_image(self.path(index))
            image.crop((0, 0, image.height, image.width), (1, 1))  # decodes all of it
        except UserError as error:
            return self._describe(index, error)
        return None

    def fingerprint(self) -> str:
        """SHA-256 of names and labels."""
        content = hashlib.sha256(b"\n".join(self.names.tolist()))
        content.update(self.labels.tobytes())
        return content.hexdigest()

    def subset(self, indices: np.ndarray) -> Self:
        """The images with these indices, in this order."""
        return type(self)(self.folder, self.names[indices], self.labels[indices], self.transform)

    def with_transform(self, transform: Transform) -> Self:
        """The same images with another transform."""
        return type(self)(self.folder, self.names, self.labels, transform)

    def _describe(self, index: int, error: UserError) -> UnreadableFile:
        return UnreadableFile(index, os.fsdecode(self.path(index)), str(error))


def stack_images(images: list[Any]) -> Tensor | list[Tensor]:
    """Stack images [3, H, W] to [B, 3, H, W]; lists of views to a list of [B, V, 3, H, W], a tensor for each size.

    No images give an empty tensor.
    """
    if images and isinstance(images[0], list):
        return [torch.stack(views) for views in zip(*images, strict=True)]
    # Channels last, as decoders write them and nets compute
    pixels = [image.permute(1, 2, 0) for image in images] or [torch.empty(1, 1, 3, dtype=torch.uint8)]
    return torch.stack(pixels)[: len(images)].permute(0, 3, 1, 2)


def is_image_file(name: str) -> bool:
    """Whether a file name is that of an image: by its suffix; hidden files are none."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and name[0] != "."


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the folders and of the images right in a folder, each sorted; hidden ones are left out."""
    _, folders, files = next(os.walk(folder, onerror=refuse_unlisted))
    return sorted(name for name in folders if name[0] != "."), sorted(name for name in files if is_image_file(name))


def walk_files(folder: Path | str) -> Iterator[tuple[str, str]]:
    """Folder and name of every file at any depth below a folder, also behind links."""
    for path, _, names in os.walk(folder, onerror=refuse_unlisted, followlinks=True):
        yield from ((path, name) for name in names)


def refuse_unlisted(error: OSError) -> None:
    """Raise the error that os.walk would pass over."""
    raise UserError(
        f"{error.filename} cannot be listed ({error.strerror}), so its images would be missing: make it readable, or "
        "name another folder."
    )


def list_images(folder: Path | str) -> list[str]:
    """Paths of the images at any depth below a folder, sorted."""
    return sorted(os.path.join(path, name) for path, name in walk_files(folder) if is_image_file(name))


def find_classes(folder: Path) -> list[str]:
    """The names of the class folders in a folder, sorted: their indices are the labels.

    Raises:
        UserError: if there are fewer than two.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: name one with class folders in it with --data.root.")
    classes, _ = list_folder(folder)
    if not classes:
        raise UserError(f"{folder} has no class folders: images belong in {folder / 'CLASS'}, a folder for each class.")
    if len(classes) == 1:
        where = "" if classes[0] not in ("val", "test") else f" (its training images belong in {folder / 'train'})"
        raise UserError(f"{folder} has a single class folder, {classes[0]}{where}: a classifier needs two or more.")
    return classes


def find_images(folder: Path, class_to_idx: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """List the images in class folders, at any depth.

    Returns:
        Their names relative to `folder`, [N] bytes, and their labels, [N] int64.

    Raises:
        UserError: for a class folder without images, or of a class that `class_to_idx` lacks.
    """
    names: list[bytes] = []
    labels: list[int] = []
    empty = []
    start = len(os.path.join(folder, ""))  # os.path.relpath would do, in 9 s for ImageNet
    for name in list_folder(folder)[0]:
        if name not in class_to_idx:
            raise UserError(
                f"{folder} has a class {name} and the training images do not: remove it, or add training images."
            )
        files = list_images(os.path.join(folder, name))
        empty += [] if files else [name]
        names += [os.fsencode(file[start:]) for file in files]
        labels += [class_to_idx[name]] * len(files)
    if empty:
        some = ", ".join(empty[:10]) + (", ..." if len(empty) > 10 else "")
        raise UserError(f"{folder} has class folders without an image in them: {some}. Fill or remove them.")
    return np.array(names), np.array(labels, dtype=np.int64)
