"""Writes the chunks of a packed data set, in several processes.

A chunk is written aside, flushed and renamed, after the list of its images (chunk-0-0.json) was: a packing that is
killed at any moment leaves whole chunks, and goes on behind them.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from checkpointing.atomic import PART, atomic_write
from datamodules.decode import EncodedImage, open_image
from datamodules.image_files import ImageFiles, content_id_of
from datamodules.packed.chunks import Format, encode_pixels, make_chunk
from datamodules.resize import make_folder, shrink_image, shrink_pixels
from datamodules.skipped_files import FILES_NAMED, Policy
from errors import UserError, pluralize, printable

IMAGES_PER_CHUNK: dict[Format, int] = {"jpeg": 1024, "uint8": 256}  # 30 to 70 MB
CHUNK_LISTS = "chunk-0-*.json"  # those beside the chunks, while they are written
ORDER_SEED = 0  # of the order in which training images are packed


@dataclass(frozen=True)
class Encoding:
    """How images are packed.

    Args:
        format: jpeg, or uint8 for pixels.
        shorter_side: most pixels of an image's shorter side.
        quality: of the JPEGs.
    """

    format: Format
    shorter_side: int
    quality: int

    def encode(self, image: EncodedImage) -> bytes:
        """The bytes of an image in a chunk."""
        if self.format == "jpeg":
            return shrink_image(image, self.shorter_side, self.quality)
        return encode_pixels(shrink_pixels(image, self.shorter_side).permute(1, 2, 0).contiguous().numpy())


@dataclass(frozen=True)
class ChunkPlan:
    """A chunk to be written.

    Args:
        path: of the chunk.
        files: paths of its images.
        labels: of its images.
        indices: of its images in the split.
    """

    path: Path
    files: list[bytes]
    labels: list[int]
    indices: list[int]

    @property
    def list_path(self) -> Path:
        """The list of the images that the chunk holds, which is written before it."""
        return self.path.with_suffix(".json")


@dataclass(frozen=True)
class WrittenChunk:
    """The content of the list beside a chunk.

    Args:
        bytes: size of the chunk; 0 if none of its images could be read, and there is no chunk.
        images: indices of its images in the split.
        contents: `content_id_of` each of them.
    """

    bytes: int
    images: list[int]
    contents: list[str]


def plan_chunks(images: ImageFiles, folder: Path, encoding: Encoding) -> list[ChunkPlan]:
    """Divide a split into chunks: training images in random order, for many classes in a chunk; others as listed."""
    order = np.arange(len(images))
    if folder.name == "train":
        order = np.random.default_rng(ORDER_SEED).permutation(order)
    size = IMAGES_PER_CHUNK[encoding.format]
    return [
        ChunkPlan(
            folder / f"chunk-0-{number}.bin",
            [images.path(index) for index in indices],
            images.labels[indices].tolist(),
            indices.tolist(),
        )
        for number, indices in enumerate(np.split(order, range(size, len(order), size)))
    ]


def pack_chunks(chunks: Sequence[ChunkPlan], encoding: Encoding, on_bad_image: Policy, workers: int) -> None:
    """Write the chunks that are not there yet.

    Raises:
        UserError: with the images that cannot be read, unless they are to be left out.
    """
    for folder in {chunk.path.parent for chunk in chunks}:
        make_folder(folder)
        for part in folder.glob(f"*{PART}"):
            part.unlink()
    left = [chunk for chunk in chunks if read_written(chunk) is None]
    pack = partial(pack_chunk, encoding=encoding, on_bad_image=on_bad_image)
    total, failed = sum(len(chunk.indices) for chunk in chunks), list[str]()
    progress = tqdm(total=total, unit="image", mininterval=1)
    progress.update(total - sum(len(chunk.indices) for chunk in left))
    pool = ProcessPoolExecutor(
        max(1, min(workers, len(left))),  # all are started at once
        multiprocessing.get_context(),
        initializer=prepare_worker,
        initargs=(os.getpid(),),
    )
    try:
        waiting = {pool.submit(pack, chunk): chunk for chunk in left}
        for done in as_completed(waiting):
            failed += done.result()
            progress.update(len(waiting[done].indices))
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()
    if failed:
        report_unreadable(failed, on_bad_image)


def prepare_worker(parent: int) -> None:
    """Let the main process decide about Ctrl-C, and each process take one core, and end when the main one is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()


def end_with_parent(parent: int) -> None:
    """End this process once its parent is gone: it would wait for work for ever, and hold the lock of the folder."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def report_unreadable(failed: Sequence[str], on_bad_image: Policy) -> None:
    """Name images that could not be read; refuse them unless they are to be left out."""
    count = pluralize(len(failed), "image")
    named = [*map(printable, sorted(failed)[:FILES_NAMED]), *["..."] * (len(failed) > FILES_NAMED)]
    if on_bad_image == "skip":
        print("\n".join([f"{count} could not be read and are left out:", *named]))
        return
    raise UserError(
        "\n".join([f"{count} could not be read:", *named])
        + "\nRepair them and type the command again, or leave them out with --on_bad_image skip."
    )


def pack_chunk(chunk: ChunkPlan, encoding: Encoding, on_bad_image: Policy) -> list[str]:
    """Write a chunk, unless images of it cannot be read and should be. Returns path and reason of those."""
    failed, images, kept = [], list[bytes](), list[int]()
    for position, path in enumerate(chunk.files):
        try:
            images.append(encoding.encode(open_image(path)))
            kept.append(position)
        except UserError as error:
            failed.append(f"{os.fsdecode(path)}: {error}")
    if failed and on_bad_image == "stop":
        return failed
    data = make_chunk(images, [chunk.labels[position] for position in kept]) if kept else b""
    written = WrittenChunk(len(data), [chunk.indices[position] for position in kept], [*map(content_id_of, images)])
    with atomic_write(chunk.list_path) as file:
        json.dump(asdict(written), file)
    if data:
        with atomic_write(chunk.path, "wb") as file:
            file.write(data)
    return failed


def read_written(chunk: ChunkPlan) -> WrittenChunk | None:
    """The list beside a chunk that was written whole; None if it was not."""
    try:
        written = WrittenChunk(**json.loads(chunk.list_path.read_text()))
        size = chunk.path.stat().st_size if written.bytes else 0
    except (OSError, ValueError, TypeError):
        return None
    return written if size == written.bytes else None
