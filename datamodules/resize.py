"""Copies a folder of images with smaller images."""

import multiprocessing
import os
import shlex
import shutil
from functools import partial
from pathlib import Path

import simplejpeg
from tqdm import tqdm

from datamodules.decode import open_image
from datamodules.image_files import is_image_file, walk_files
from errors import UserError, check_at_least, pluralize


def resize_tree(
    source: Path, target: Path, shorter_side: int = 256, quality: int = 90, workers: int = os.cpu_count() or 1
) -> None:
    """Copy a folder, with the shorter side of each image resized to `shorter_side` pixels, as JPEG.

    Smaller JPEGs are copied unchanged, files that are no images too. Files that the target has already are kept, so an
    interrupted copy can be continued.

    Args:
        source: folder with images at any depth, also behind links.
        target: folder of the copy; files that it has already are kept.
        shorter_side: of a copied image, in pixels.
        quality: of the JPEGs, 1 to 100.
        workers: number of processes; unset, one for each core.

    Raises:
        UserError: if there is no source, the target lies inside it, a number is out of range, or images could not be
            read, after the copy of all others.
    """
    if not source.is_dir():
        raise UserError(f"There is no folder {source} to copy from.")
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{target} lies in {source}: choose a folder outside it for the copy.")
    check_at_least(1, shorter_side=shorter_side, workers=workers)
    if not 1 <= quality <= 100:
        raise UserError(f"quality is {quality}: it must be between 1 and 100.")
    files = sorted(Path(path, name) for path, name in walk_files(source))
    shrink = partial(shrink_file, source=source, target=target, shorter_side=shorter_side, quality=quality)
    with multiprocessing.Pool(workers) as pool:
        done = tqdm(pool.imap_unordered(shrink, files, chunksize=16), total=len(files), unit="file", mininterval=1)
        failed = [line for line in done if line]
    if failed:
        count = pluralize(len(failed), "image")
        raise UserError("\n".join([f"{count} could not be read and are not in the copy:", *failed[:10]]))
    print(f"{target} is complete. Train on it with --data.root {shlex.quote(str(target))}.")


def shrink_file(path: Path, source: Path, target: Path, shorter_side: int, quality: int) -> str | None:
    """Copy one file. Returns its path and the reason if it cannot be read."""
    to = target / path.relative_to(source)
    is_image = is_image_file(path.name)
    if is_image and path.suffix.lower() not in (".jpg", ".jpeg"):
        to = to.with_name(to.name + ".jpg")
    if to.exists():
        return None
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f"{to.name}.part")  # so that a partial file never has the final name
    try:
        if not is_image:
            shutil.copyfile(path, part)
        else:
            image = open_image(path)
            ratio = min(1.0, shorter_side / min(image.height, image.width))
            size = (max(1, round(image.height * ratio)), max(1, round(image.width * ratio)))
            pixels = image.resize(size)  # decoded even if the file is copied unchanged: it may be broken
            if size == (image.height, image.width) and image.is_jpeg:
                part.write_bytes(image.data)
            else:
                rows = pixels.permute(1, 2, 0).contiguous().numpy()
                part.write_bytes(simplejpeg.encode_jpeg(rows, quality, colorsubsampling="420"))
        part.replace(to)
    except UserError as error:
        return f"{path}: {error}"
    return None
