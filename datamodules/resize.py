"""A copy of an image tree with smaller images."""

import multiprocessing
import os
import shutil
from functools import partial
from pathlib import Path

import simplejpeg
from tqdm import tqdm

from datamodules.decode import open_picture
from datamodules.image_files import is_image, refuse
from errors import UserError


def resize_tree(source: Path, target: Path, shorter_side: int, quality: int, workers: int) -> list[str]:
    """Copy a tree with every image's shorter side brought to `shorter_side` pixels, as JPEG; smaller ones as they are.

    What is in the target already is left alone, so a copy that was interrupted goes on. Files that are no images are
    copied too.

    Returns:
        A line for each image that could not be read.

    Raises:
        FileNotFoundError, ValueError: if there is no source, the target lies inside it, or a number is out of range.
    """
    if not source.is_dir():
        raise UserError(f"There is no folder {source} to copy from.")
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{target} lies in {source}: choose a folder outside it for the copy.")
    if shorter_side < 1:
        raise UserError(f"shorter_side is {shorter_side}: it must be at least 1.")
    if not 1 <= quality <= 100:
        raise UserError(f"quality is {quality}: it must be between 1 and 100.")
    if workers < 1:
        raise UserError(f"workers is {workers}: it must be at least 1.")
    walk = os.walk(source, onerror=refuse, followlinks=True)  # as ImageNet does
    files = sorted(Path(path, name) for path, _, names in walk for name in names)
    shrink = partial(shrink_file, source=source, target=target, shorter_side=shorter_side, quality=quality)
    with multiprocessing.Pool(workers) as pool:
        done = tqdm(pool.imap_unordered(shrink, files, chunksize=16), total=len(files), unit="file", mininterval=1)
        return [line for line in done if line]


def shrink_file(path: Path, source: Path, target: Path, shorter_side: int, quality: int) -> str | None:
    """Copy one file of a tree. Returns why that was not possible, if it was not."""
    to = target / path.relative_to(source)
    image = is_image(path.name)
    if image and path.suffix.lower() not in (".jpg", ".jpeg"):
        to = to.with_name(to.name + ".jpg")
    if to.exists():
        return None
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f"{to.name}.part")  # no half a file has a whole one's name
    try:
        if not image:
            shutil.copyfile(path, part)
        else:
            picture = open_picture(path)
            height, width = picture.height, picture.width
            ratio = min(1.0, shorter_side / min(height, width))
            size = (max(1, round(height * ratio)), max(1, round(width * ratio)))
            pixels = picture.crop((0, 0, height, width), size)  # also of what is copied as it is: it may be broken
            if size == (height, width) and picture.is_jpeg:
                part.write_bytes(picture.data)
            else:
                rows = pixels.permute(1, 2, 0).contiguous().numpy()
                part.write_bytes(simplejpeg.encode_jpeg(rows, quality, colorsubsampling="420"))
        part.replace(to)
    except ValueError as error:
        return f"{path}: {error}"
    return None
