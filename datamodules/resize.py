"""Copies a folder of images with smaller images."""

import contextlib
import hashlib
import multiprocessing
import os
import shlex
import shutil
from functools import partial
from pathlib import Path
from typing import NamedTuple

import simplejpeg
from torch import Tensor
from tqdm import tqdm

from datamodules.decode import EncodedImage, open_image
from datamodules.folder_walk import FolderWalk, is_image_file
from errors import UserError, address_of, check_at_least, check_reachable, pluralize, printable

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
MAX_JPEG_SIDE = 65_500  # pixels, of libjpeg
MAX_NAME_BYTES = 255  # of most file systems


def resize_tree(
    source: Path, target: Path, shorter_side: int = 256, quality: int = 90, workers: int = os.cpu_count() or 1
) -> None:
    """Copy a folder, with the shorter side of each image resized to `shorter_side` pixels, as JPEG.

    Smaller JPEGs are copied unchanged, files that are no images too. Files that the target has already are kept, so an
    interrupted copy can be continued. What training passes over (hidden files, pipes, links back) is not copied.

    Args:
        source: folder with images at any depth, also behind links.
        target: folder of the copy; files that it has already are kept.
        shorter_side: of a copied image, in pixels.
        quality: of the JPEGs, 1 to 100.
        workers: number of processes; unset, one for each core.

    Raises:
        UserError: if there is no source, the target lies inside it, a number is out of range, or images could not be
            read, after the copy of all others; or if the copy cannot be written.
    """
    check_copy(source, target, shorter_side, quality, workers)
    make_folder(target)
    walk = FolderWalk()
    copies = plan_copies([Path(file) for file in walk.list_files(str(source))], source, target)
    walk.announce(source)
    shrink = partial(shrink_file, shorter_side=shorter_side, quality=quality)
    with multiprocessing.Pool(min(workers, max(1, len(copies)))) as pool:
        done = tqdm(pool.imap_unordered(shrink, copies, chunksize=16), total=len(copies), unit="file", mininterval=1)
        failed = [printable(line) for line in done if line]
    if failed:
        count = pluralize(len(failed), "image")
        raise UserError("\n".join([f"{count} could not be read and are not in the copy:", *failed[:10]]))
    print(f"{target} is complete. Train on it with --data.root {shlex.quote(str(target))}.")


def check_copy(source: Path, target: Path, shorter_side: int, quality: int, workers: int) -> None:
    """Refuse a copy without a source, or inside of it, or with a number out of range."""
    for folder in (source, target):
        if address := address_of(folder):
            raise UserError(
                f"{address} is in an object store: name folders on a disk, and copy the packed one to the store when "
                "it is complete."
            )
        check_reachable(folder)
    if not os.path.isdir(source):
        raise UserError(f"There is no folder {source} to copy from.")
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{target} lies in {source}: choose a folder outside it for the copy.")
    check_at_least(1, shorter_side=shorter_side, workers=workers)
    if not 1 <= quality <= 100:
        raise UserError(f"quality is {quality}: it must be between 1 and 100.")


class Copy(NamedTuple):
    """A file to copy.

    Args:
        path: of the file.
        target: path of its copy.
        is_image: whether it is resized.
    """

    path: Path
    target: Path
    is_image: bool


def plan_copies(paths: list[Path], source: Path, target: Path) -> list[Copy]:
    """A copy for each file; copies of images that are no JPEGs have .jpg behind their names.

    Raises:
        UserError: if two files would have the same copy.
    """
    planned: dict[Path, Copy] = {}
    for path in paths:
        copy, is_image = target / path.relative_to(source), is_image_file(str(path))
        if is_image and path.suffix.lower() not in JPEG_SUFFIXES:
            copy = append_suffix(copy, ".jpg", otherwise=path.name)
        if copy in planned:
            raise UserError(f"{path} and {planned[copy].path} would both become {copy}: rename one of them.")
        planned[copy] = Copy(path, copy, is_image)
    return list(planned.values())


def append_suffix(path: Path, suffix: str, otherwise: str) -> Path:
    """The path with a suffix behind its name, or with another name where that is longer than file systems allow."""
    name = path.name + suffix
    return path.with_name(name if len(os.fsencode(name)) <= MAX_NAME_BYTES else otherwise)


def shrink_file(copy: Copy, shorter_side: int, quality: int) -> str | None:
    """Make one copy. Returns path and reason if the file cannot be read.

    Raises:
        UserError: if the copy cannot be written.
    """
    if os.path.exists(copy.target):
        return None
    make_folder(copy.target.parent)
    digest = hashlib.sha1(os.fsencode(copy.target.name)).hexdigest()
    part = append_suffix(copy.target, ".part", otherwise=f"{digest}.part")  # no partial file has the final name
    try:
        if copy.is_image:
            part.write_bytes(shrink_image(open_image(copy.path), shorter_side, quality))
        else:
            shutil.copyfile(copy.path, part)
        part.replace(copy.target)
    except UserError as error:
        return f"{copy.path}: {error}"
    except OSError as error:
        if error.filename == str(copy.path):
            return f"{copy.path}: it cannot be opened: {error.strerror}"
        with contextlib.suppress(OSError):
            part.unlink()
        raise UserError(
            f"{copy.target} cannot be written ({error.strerror}): make room, or choose another folder."
        ) from error
    return None


def shrink_image(image: EncodedImage, shorter_side: int, quality: int) -> bytes:
    """The JPEG of an image with a shorter side of at most `shorter_side` pixels; unchanged if it is one already."""
    pixels = shrink_pixels(image, shorter_side)  # decoded even if the file is copied unchanged: it may be broken
    size = tuple(pixels.shape[1:])
    if size == (image.height, image.width) and image.is_jpeg:
        return image.data
    if max(size) > MAX_JPEG_SIDE:
        raise UserError(
            f"its copy would have {size[0]:,} x {size[1]:,} pixels, and a JPEG at most {MAX_JPEG_SIDE:,} a side"
        )
    return simplejpeg.encode_jpeg(pixels.permute(1, 2, 0).contiguous().numpy(), quality, colorsubsampling="420")


def shrink_pixels(image: EncodedImage, shorter_side: int) -> Tensor:
    """The pixels of an image, uint8 [3, H, W], with a shorter side of at most `shorter_side`."""
    ratio = min(1.0, shorter_side / min(image.height, image.width))
    return image.resize((max(1, round(image.height * ratio)), max(1, round(image.width * ratio))))


def make_folder(folder: Path) -> None:
    """Make a folder of the copy, and those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be made ({error.strerror}): choose another one.") from error
