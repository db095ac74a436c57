"""The data set that reads image files."""

import copy
import hashlib
import json
import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from datamodules.decode import AnyImage, open_image
from datamodules.loading import ImageSet, RawBatch, UnreadableFile, map_in_threads
from datamodules.samplers import SampleSpec, index_of
from errors import UserError, printable

Transform = Callable[..., Tensor | list[Tensor]]
CONTENT_ENDS = 2**16  # bytes at each end of a file by which its content is known


class ImageFiles(ImageSet):
    """Image files and their labels, read a batch at a time.

    Names are kept as one array of bytes: a list of a million strings would be copied, page by page, into every loader
    process, for reading a Python object writes its reference count.

    Args:
        folder: to which the names are relative.
        names: [N] file names as bytes.
        labels: [N] int64.
        transform: from an `EncodedImage` or a `RawImage` to uint8 [3, H, W], in training with the size of the crop
            and a seed as further arguments; or to the views of the image, see `datamodules.views`.
        contents: of the files that have been read for it; unset, of none.
    """

    def __init__(
        self,
        folder: Path | bytes,
        names: np.ndarray,
        labels: np.ndarray,
        transform: Transform,
        contents: "ContentIds | None" = None,
    ) -> None:
        self.folder, self.names, self.labels, self.transform = os.fsencode(folder), names, labels, transform
        self.contents = contents or ContentIds()  # shared by subsets

    def __getitems__(self, items: Sequence[SampleSpec | int]) -> RawBatch:
        state = torch.get_rng_state()  # with no loader processes the generator is the training's
        images: list[Any] = []
        labels, unreadable = [], []
        for item, image in zip(items, map_in_threads(self._load, items), strict=True):
            if isinstance(image, UnreadableFile):
                unreadable.append(image)
            else:
                images.append(image)
                labels.append(self.labels[index_of(item)])
        torch.set_rng_state(state)
        return RawBatch(stack_images(images), torch.tensor(np.array(labels, dtype=np.int64)), unreadable)

    def _load(self, item: SampleSpec | int) -> Any:
        """What `transform` makes of an image, or why its file cannot be read."""
        index = index_of(item)
        try:
            image = self.open(index)
            if isinstance(item, SampleSpec):
                return self.transform(image, item.size, item.seed)
            return self.transform(image)
        except UserError as error:
            return self._describe(index, error)

    @property
    def file_names(self) -> list[str]:
        return [os.fsdecode(name) for name in self.names]

    def path(self, index: int) -> bytes:
        """Path of the file of an image."""
        return os.path.join(self.folder, self.names[index])

    def open(self, index: int) -> AnyImage:
        """Read the file of an image.

        Raises:
            UserError: with the reason alone, if that fails.
        """
        return open_image(self.path(index))

    def check_file(self, index: int) -> UnreadableFile | None:
        try:
            image = self.open(index)
            image.crop((0, 0, image.height, image.width), (1, 1))  # decodes all of it
        except UserError as error:
            return self._describe(index, error)
        return None

    def content(self, index: int) -> str:
        """`content_id` of the file of an image."""
        return self.contents.read(self.path(index))

    def fingerprint(self) -> str:
        """SHA-256 of names, labels and contents of the files: another photo in the place of one is another one."""
        content = hashlib.sha256(self.identity().encode())
        content.update("\n".join(self.content(index) for index in range(len(self))).encode())
        return content.hexdigest()

    def older_fingerprint(self) -> str:
        """SHA-256 of names, labels and sizes of the files."""
        content = hashlib.sha256(self.identity().encode())
        content.update(np.array(self.sizes(), dtype="<i8").tobytes())
        return content.hexdigest()

    def identity(self) -> str:
        """SHA-256 of names and labels."""
        content = hashlib.sha256(json.dumps(self.portable_paths()).encode())
        content.update(self.labels.astype("<i8").tobytes())
        return content.hexdigest()

    def portable_paths(self) -> list[str]:
        """[N] names as every system writes them: see `portable_path`."""
        return [portable_path(name) for name in self.file_names]

    def size(self, index: int) -> int:
        """Size of the file of an image in bytes; -1 if it is gone."""
        return file_size(self.path(index))

    def sizes(self) -> list[int]:
        """[N] sizes of the files in bytes."""
        return [self.size(index) for index in range(len(self))]

    def subset(self, indices: np.ndarray) -> Self:
        """The images with these indices, in this order."""
        images = copy.copy(self)
        images.names, images.labels = self.names[indices], self.labels[indices]
        return images

    def with_transform(self, transform: Transform) -> Self:
        """The same images with another transform."""
        images = copy.copy(self)
        images.transform = transform
        return images

    def _describe(self, index: int, error: UserError) -> UnreadableFile:
        return UnreadableFile(index, printable(os.fsdecode(self.path(index))), str(error))


def stack_images(images: list[Any]) -> Tensor | list[Tensor]:
    """Stack images [3, H, W] to [B, 3, H, W]; lists of views to a list of [B, V, 3, H, W], a tensor for each size.

    No images give an empty tensor.
    """
    if images and isinstance(images[0], list):
        return [torch.stack(views) for views in zip(*images, strict=True)]
    # Channels last, as decoders write them and nets compute
    pixels = [image.permute(1, 2, 0) for image in images] or [torch.empty(1, 1, 3, dtype=torch.uint8)]
    return torch.stack(pixels)[: len(images)].permute(0, 3, 1, 2)


def file_size(path: bytes) -> int:
    """Size of a file in bytes; -1 if it is gone."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def content_id(path: bytes) -> str:
    """Size of a file, and SHA-256 of its size and its first and last 64 KB: "<bytes>-<hash>"; "" if it is unreadable.

    Two images with the same ends are the same image; reading more would take ImageNet's an hour.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(CONTENT_ENDS)
            file.seek(max(CONTENT_ENDS, size - CONTENT_ENDS))
            return describe_content(size, start, file.read(CONTENT_ENDS))
    except OSError:
        return ""


def content_id_of(data: bytes) -> str:
    """The `content_id` of a file with this content."""
    return describe_content(len(data), data[:CONTENT_ENDS], data[max(CONTENT_ENDS, len(data) - CONTENT_ENDS) :])


def describe_content(size: int, start: bytes, end: bytes) -> str:
    """The `content_id` of a file of `size` bytes."""
    return f"{size}-{hashlib.sha256(str(size).encode() + start + end).hexdigest()}"


class ContentIds:
    """The `content_id` of files, each of which is read once. Loader processes are sent none of them."""

    def __init__(self) -> None:
        self._known: dict[bytes, str] = {}

    def read(self, path: bytes) -> str:
        """`content_id` of a file, from memory if it was read before."""
        if path not in self._known:
            self._known[path] = content_id(path)
        return self._known[path]

    def __reduce__(self) -> tuple[type["ContentIds"], tuple[()]]:
        return ContentIds, ()


def portable_path(name: str) -> str:
    """A relative path as every system writes it: with slashes, and accented letters as one character (NFC).

    macOS stores é as two characters, e and an accent (NFD); a copy elsewhere is the same file.
    """
    return unicodedata.normalize("NFC", name.replace(os.sep, "/"))
