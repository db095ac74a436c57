"""Chunks: files of many images each, as litdata writes them.

A chunk is the number N of its items, N + 1 offsets, and the items, all numbers uint32 of the lesser byte first. An item
is the sizes of its two parts and the parts: the image (a JPEG file; or pixels [H, W, 3] with litdata's header for
tensors) and the label. What is read is never executed.
"""

import json
import stat
import struct
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np

from datamodules.decode import AnyImage, EncodedImage, RawImage, check_size
from errors import UserError

Format = Literal["jpeg", "uint8"]
LEAVES: dict[Format, str] = {"jpeg": "jpeg", "uint8": "tensor"}  # litdata's words
MAX_CHUNK_BYTES = 2**32 - 1  # of its offsets
MAX_ITEMS = 4096  # of a chunk
LABEL = struct.Struct("<q")
SIZES = struct.Struct("<II")  # of image and label
TENSOR = struct.Struct(">5I")  # litdata's number of the type, number of dimensions, height, width, channels
UINT8 = 11
LEAF: dict[str, object] = {"type": None, "context": None, "children_spec": []}
TREE = {"type": "builtins.dict", "context": '["image", "label"]', "children_spec": [LEAF, LEAF]}


class ChunkFile(NamedTuple):
    """A chunk as images.json lists it.

    Args:
        name: of the file.
        bytes: its size.
        images: indices of its images, in their order in the chunk.
    """

    name: str
    bytes: int
    images: list[int]


def make_chunk(images: Sequence[bytes], labels: Sequence[int]) -> bytes:
    """The content of a chunk.

    Args:
        images: each a JPEG file, or pixels as `encode_pixels` gives them.
        labels: of the images.

    Raises:
        UserError: if it would be larger than its offsets can say.
    """
    items = [
        SIZES.pack(len(image), LABEL.size) + image + LABEL.pack(label)
        for image, label in zip(images, labels, strict=True)
    ]
    ends = np.cumsum([4 * (len(items) + 2), *map(len, items)])
    if ends[-1] > MAX_CHUNK_BYTES:
        raise UserError(
            f"a chunk of {len(items)} images would have {ends[-1]:,} bytes, and {MAX_CHUNK_BYTES:,} is the most"
        )
    return b"".join([struct.pack("<I", len(items)), ends.astype("<u4").tobytes(), *items])


def encode_pixels(pixels: np.ndarray) -> bytes:
    """Pixels [H, W, 3] uint8 as litdata stores a tensor."""
    return TENSOR.pack(UINT8, 3, *pixels.shape) + pixels.tobytes()


def decode_image(data: memoryview, image_format: Format) -> AnyImage:
    """The image of an item.

    Raises:
        UserError: with the reason, if it is none.
    """
    if image_format == "jpeg":
        return EncodedImage(bytes(data))
    if len(data) < TENSOR.size:
        raise UserError("it is cut off")
    kind, dimensions, height, width, channels = TENSOR.unpack_from(data)
    if (kind, dimensions, channels) != (UINT8, 3, 3) or len(data) != TENSOR.size + 3 * height * width:
        raise UserError("its pixels are not uint8 [H, W, 3] of the size that is written beside them")
    check_size(height, width)
    return RawImage(np.frombuffer(data, np.uint8, offset=TENSOR.size).reshape(height, width, 3))


def make_litdata_index(files: Sequence[ChunkFile], image_format: Format) -> str:
    """The content of litdata's index.json."""
    leaves = [LEAVES[image_format], "int"]
    config = {
        "chunk_bytes": None,
        "chunk_size": max(len(file.images) for file in files),
        "compression": None,
        "data_format": leaves,
        "data_spec": json.dumps([1, TREE]),
        "encryption": None,
        "item_loader": "PyTreeLoader",
    }
    chunks = [
        {"chunk_bytes": file.bytes, "chunk_size": len(file.images), "dim": None, "filename": file.name}
        for file in files
    ]
    return json.dumps({"chunks": chunks, "config": config, "updated_at": "0"}, indent=0)


class ChunkReader:
    """Reads images out of the chunks of a folder, in any order.

    A file is opened for each image, as image files are: nothing is shared between processes.

    Args:
        folder: of the chunks.
        names: file name of each chunk.
        sizes: of the chunks in bytes.
    """

    def __init__(self, folder: Path, names: Sequence[str], sizes: Sequence[int]) -> None:
        self.folder, self.names, self.sizes = folder, names, sizes
        self._offsets: dict[int, np.ndarray] = {}

    def check(self) -> None:
        """Look at the sizes of all chunks.

        Raises:
            UserError: for the first that is missing or of another size.
        """
        for name, size in zip(self.names, self.sizes, strict=True):
            check_chunk(self.folder / name, size)

    def locate(self, chunk: int) -> Path:
        """The file of a chunk."""
        return self.folder / self.names[chunk]

    def open(self, chunk: int) -> FileIO:
        """Open the file of a chunk for unbuffered reading."""
        return open(self.locate(chunk), "rb", buffering=0)

    def read(self, chunk: int, item: int) -> memoryview:
        """The bytes of an image.

        Raises:
            UserError: with the reason, if they cannot be read.
        """
        path = self.locate(chunk)
        try:
            with self.open(chunk) as file:
                if chunk not in self._offsets:
                    self._offsets[chunk] = read_offsets(file, self.sizes[chunk], path)
                offsets = self._offsets[chunk]
                if item + 1 >= len(offsets):
                    raise UserError(f"{path} has no image number {item}")
                start, end = map(int, offsets[item : item + 2])
                file.seek(start)
                data = bytearray(end - start)
                if file.readinto(data) != len(data):
                    raise UserError(f"{path} is cut off")
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        return take_image(data, path)


def read_offsets(file: IO[bytes], size: int, path: Path) -> np.ndarray:
    """[N + 1] offsets from the beginning of a chunk of `size` bytes.

    Raises:
        UserError: if it begins otherwise.
    """
    data = file.read(4 * (2 + MAX_ITEMS))
    count = int.from_bytes(data[:4], "little")
    header = 4 * (count + 2)
    whole = count <= MAX_ITEMS and len(data) >= header
    offsets = np.frombuffer(data[4:header], "<u4").astype(np.int64) if whole else np.empty(0, np.int64)
    if not whole or offsets[0] != header or offsets[-1] != size or (np.diff(offsets) < 0).any():
        raise UserError(f"{path} does not begin as a chunk does: pack the images anew")
    return offsets


def take_image(item: bytearray, path: Path) -> memoryview:
    """The image of an item."""
    image, label = SIZES.unpack_from(item) if len(item) >= SIZES.size else (0, 0)
    if SIZES.size + image + label != len(item):
        raise UserError(f"{path} holds an item that is no image and label: pack the images anew")
    return memoryview(item)[SIZES.size : SIZES.size + image]


def check_chunk(path: Path, size: int) -> None:
    """Refuse a chunk that is missing or has another size than was written."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(
            f"{path} of a packed data set is missing ({error.strerror}): copy the folder again, or pack it anew."
        ) from error
    if not stat.S_ISREG(status.st_mode):  # a named pipe would be waited for
        raise UserError(f"{path} of a packed data set is no file: copy the folder again, or pack it anew.")
    if (found := status.st_size) != size:
        raise UserError(
            f"{path} has {found:,} bytes and was written with {size:,}: copy the file again, or pack the folder anew."
        )
