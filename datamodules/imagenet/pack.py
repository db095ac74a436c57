"""Packs a folder of images: many images in each file, which copy and load faster than millions of files.

packed.json, without which the folder is no data set, is written last, when all chunks have been counted.
"""

import contextlib
import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from checkpointing.atomic import atomic_write
from datamodules.folder_walk import announce, list_folder
from datamodules.image_files import ImageFiles
from datamodules.imagenet import ImageNet
from datamodules.packed.chunks import ChunkFile, Format, check_chunk, make_litdata_index
from datamodules.packed.images import PackedFolder
from datamodules.packed.index import IMAGES, INDEX, LITDATA_INDEX, PLAN, PackedIndex, SplitIndex
from datamodules.packed.writer import CHUNK_LISTS, ChunkPlan, Encoding, pack_chunks, plan_chunks, read_written
from datamodules.resize import check_copy, make_folder
from datamodules.skipped_files import Policy
from errors import UserError, printable


def pack_tree(
    source: Path,
    target: Path,
    format: Format = "jpeg",
    shorter_side: int = 256,
    quality: int = 90,
    on_bad_image: Policy = "stop",
    workers: int = os.cpu_count() or 1,
) -> None:
    """Pack the images that ImageNet finds in a folder, with the shorter side of each resized to `shorter_side` pixels.

    The copy is a data set for --data.root, and each of its train/, val/ and test/ is a data set of litdata. An
    interrupted packing goes on where it stopped when the same command is typed again.

    Args:
        source: folder with train/<class>/ and perhaps val/ and test/, or with class folders; see `ImageNet`.
        target: folder of the packed copy.
        format: jpeg, or uint8 for pixels, which take nine times the room and need no decoding.
        shorter_side: of a packed image, in pixels; smaller images keep their size, and JPEGs among them their bytes.
        quality: of the JPEGs, 1 to 100.
        on_bad_image: at images that cannot be read, stop once all others are packed, or skip them: leave them out.
        workers: number of processes; unset, one for each core.

    Raises:
        UserError: if the source is no data set, the target lies inside it, holds something else or cannot be written,
            a number is out of range, or images could not be read.
    """
    check_copy(source, target, shorter_side, quality, workers)
    data, encoding = ImageNet(source), Encoding(format, shorter_side, quality)
    if data.packed:
        raise UserError(f"{source} is packed already: name the folder that it was packed from.")
    splits = list_splits(data)
    make_folder(target)
    with lock_folder(target), name_unwritable(target):
        plan = hash_plan(splits, encoding)
        if not is_packed(target, plan, source):
            mark_unfinished(target, plan, source)
            chunks = {name: plan_chunks(images, target / name, encoding) for name, images in splits.items()}
            pack_chunks([chunk for split in chunks.values() for chunk in split], encoding, on_bad_image, workers)
            digests = {name: write_split(chunks[name], images, encoding) for name, images in splits.items()}
            with atomic_write(target / INDEX) as file:
                file.write(PackedIndex(**asdict(encoding), classes=data.classes, splits=digests, plan=plan).text)
        for path in [target / PLAN, *target.glob(f"*/{CHUNK_LISTS}")]:  # also of a packing that was killed here
            path.unlink(missing_ok=True)
    counts = [f"{len(images):,} in {name}/" for name, images in read_packed(target).items()]
    print(
        f"{target} is complete: images {', '.join(counts)}, every chunk of its size. Train on it with --data.root "
        f"{shlex.quote(str(target))}."
    )


def list_splits(data: ImageNet) -> dict[str, ImageFiles]:
    """The images of each split of a folder; test/ without class folders is left out."""
    folders = {"train": data.splits.train, "val": data.splits.val, "test": data.splits.test}
    if folders["test"] and not data.packed and not list_folder(folders["test"])[0]:
        announce(f"{folders['test']} is not packed: it holds no class folders")
        folders["test"] = None
    return {name: data.list_images(folder) for name, folder in folders.items() if folder}


def hash_plan(splits: dict[str, ImageFiles], encoding: Encoding) -> str:
    """SHA-256 of what is to be packed: names, labels and sizes of the files, and how they are encoded."""
    parts = [f"{name} {images.older_fingerprint()}" for name, images in splits.items()]
    return hashlib.sha256("\n".join([repr(encoding), *parts]).encode()).hexdigest()


@contextlib.contextmanager
def lock_folder(target: Path) -> Iterator[None]:
    """Keep a second packing out of a folder."""
    path = target / ".lock"
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout as error:
        raise UserError(f"Another process packs into {target}: wait for it, or end it.") from error
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def name_unwritable(target: Path) -> Iterator[None]:
    """Raise UserError where the packed copy cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or target} cannot be written ({error.strerror}): make room, and type the command again; "
            "it goes on where it stopped."
        ) from error
    except BrokenProcessPool as error:
        raise UserError(
            "A process of the packing was ended, perhaps for want of memory: type the command again, with fewer "
            "--workers; it goes on where it stopped."
        ) from error


def is_packed(target: Path, plan: str, source: Path) -> bool:
    """Whether a folder holds the packed copy already.

    Args:
        target: the folder.
        plan: of the copy, see `hash_plan`.
        source: what is packed.

    Raises:
        UserError: if it holds another one.
    """
    if not os.path.lexists(target / INDEX):
        return False
    if PackedFolder(target).index.plan != plan:
        raise UserError(
            f"{target} is the packed copy of other images than {source} has now, or with other settings: choose "
            "another folder, or remove it."
        )
    return True


def mark_unfinished(target: Path, plan: str, source: Path) -> None:
    """Mark a folder as one into which a copy is being packed, with the arguments of `is_packed`.

    Raises:
        UserError: if it holds something else.
    """
    if not os.path.lexists(target / PLAN):
        if strange := sorted(set(os.listdir(target)) - {".lock"}):
            raise UserError(f"{target} holds {printable(strange[0])} and no packed images: choose a new folder.")
        with atomic_write(target / PLAN) as file:
            json.dump({"plan": plan, "source": str(source)}, file)
    elif plan not in (target / PLAN).read_text(errors="replace"):
        raise UserError(
            f"{target} holds half a packed copy of other images than {source} has now, or with other settings: "
            "choose another folder, or remove it."
        )


def write_split(chunks: Sequence[ChunkPlan], images: ImageFiles, encoding: Encoding) -> str:
    """Write the lists of a split whose chunks are all there. Returns the SHA-256 of images.json.

    Raises:
        UserError: if a chunk is gone, or none of the images could be read.
    """
    files, contents = list[ChunkFile](), dict[int, str]()
    for chunk in chunks:
        written = read_written(chunk)
        if written is None:
            check_chunk(chunk.path, -1)
        elif written.images:
            files.append(ChunkFile(chunk.path.name, written.bytes, written.images))
            contents |= zip(written.images, written.contents, strict=True)
    folder = chunks[0].path.parent
    if not contents:
        raise UserError(f"No image of {os.fsdecode(images.folder)} could be read: there is nothing to pack.")
    kept, names = sorted(contents), images.file_names
    position = {index: number for number, index in enumerate(kept)}
    index = SplitIndex(
        [names[k] for k in kept],
        images.labels[kept].tolist(),
        [contents[k] for k in kept],
        [file._replace(images=[position[k] for k in file.images]) for file in files],
    )
    with atomic_write(folder / IMAGES) as output:
        output.write(index.text)
    with atomic_write(folder / LITDATA_INDEX) as output:
        output.write(make_litdata_index(index.chunks, encoding.format))
    return hashlib.sha256(index.text.encode()).hexdigest()


def read_packed(target: Path) -> dict[str, ImageFiles]:
    """The images of each split of a packed copy, read as a training reads them.

    Raises:
        UserError: if a chunk is missing or of another size.
    """
    return list_splits(ImageNet(target))
