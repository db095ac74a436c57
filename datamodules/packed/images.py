"""Packed data sets as `ImageNet` reads them: the folder, and its images as an `ImageFiles`."""

import os
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from checkpointing.integrity import find_other_kind
from datamodules.class_folders import SplitFolders
from datamodules.decode import AnyImage
from datamodules.image_files import ImageFiles, Transform
from datamodules.packed.chunks import ChunkReader, Format, decode_image
from datamodules.packed.index import (
    IMAGES,
    INDEX,
    PLAN,
    SplitIndex,
    encode_names,
    locate_images,
    parse_index,
    parse_split,
)
from datamodules.packed.remote import Store, StoredChunks
from errors import UserError, address_of


class PackedImages(ImageFiles):
    """Images in chunks. Their names, labels and order are those of the folder that they were packed from.

    Args:
        folder: of the split.
        index: of the split.
        image_format: of the images.
        reader: of the chunks.
        transform: see `ImageFiles`.
    """

    def __init__(
        self, folder: Path, index: SplitIndex, image_format: Format, reader: ChunkReader, transform: Transform
    ) -> None:
        super().__init__(folder, encode_names(index.names), np.array(index.labels, np.int64), transform)
        self.image_format, self.reader = image_format, reader
        self.is_remote = isinstance(reader, StoredChunks)
        self.content_ids = np.array([content.encode() for content in index.contents])
        self.chunk_of, self.item_of = locate_images(index.chunks, len(index.names))

    def open(self, index: int) -> AnyImage:
        data = self.reader.read(int(self.chunk_of[index]), int(self.item_of[index]))
        return decode_image(data, self.image_format)

    def content(self, index: int) -> str:
        return self.content_ids[index].decode()

    def size(self, index: int) -> int:
        size = self.content(index).partition("-")[0]
        return int(size) if size.isdecimal() else -1

    def subset(self, indices: np.ndarray) -> Self:
        images = super().subset(indices)
        for name in ("content_ids", "chunk_of", "item_of"):
            setattr(images, name, getattr(self, name)[indices])
        return images


class PackedFolder:
    """A folder that `python -m datamodules.imagenet pack` has written.

    Args:
        root: the folder.
        store: of the object store that holds it; None on a disk.

    Raises:
        UserError: if its index is not as packing writes it.
    """

    def __init__(self, root: Path, store: Store | None = None) -> None:
        self.root, self.store = root, store
        self.index = parse_index(self._read(INDEX), root / INDEX)

    @cached_property
    def splits(self) -> SplitFolders:
        """The folders of the splits."""
        folders = {name: self.root / name for name in self.index.splits}
        return SplitFolders(folders["train"], folders.get("val"), folders.get("test"))

    def read_split(self, name: str) -> SplitIndex:
        """The list of a split.

        Raises:
            UserError: if it is not as packing writes it.
        """
        path = Path(name, IMAGES)
        return parse_split(self._read(path), self.root / path, self.index.splits[name], len(self.index.classes))

    def list_images(self, folder: Path, transform: Transform) -> PackedImages:
        """The images of a split, given by its folder.

        Raises:
            UserError: if its list is not as packing writes it, or a chunk is missing or of another size.
        """
        name = folder.name
        index, digest = self.read_split(name), self.index.splits[name]
        chunks = [chunk.name for chunk in index.chunks], [chunk.bytes for chunk in index.chunks]
        reader = StoredChunks(self.store, name, digest, *chunks) if self.store else ChunkReader(folder, *chunks)
        reader.check()
        return PackedImages(folder, index, self.index.format, reader, transform)

    def _read(self, name: str | Path) -> bytes:
        if self.store:
            return self.store.read(name)
        path = self.root / name
        reason = find_other_kind(path)
        try:
            if reason is None:
                return path.read_bytes()
        except OSError as error:
            reason = error.strerror
        raise UserError(
            f"{path} of a packed data set cannot be read ({reason}): copy the folder again, or pack it anew."
        )


def open_packed(root: Path) -> PackedFolder | None:
    """The packed data set in a folder or at an address; None if the folder holds none.

    Raises:
        UserError: if its packing was not completed, and as of `PackedFolder`.
    """
    if address := address_of(root):
        return PackedFolder(root, Store(address))
    if os.path.lexists(root / INDEX):
        return PackedFolder(root)
    if os.path.lexists(root / PLAN):
        raise UserError(
            f"{root} holds half a packed data set: type `python -m datamodules.imagenet pack SRC {root}` again, and it "
            "goes on where it stopped."
        )
    return None
