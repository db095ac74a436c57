"""The lists of a packed data set: packed.json of the whole, images.json of each split. Plain JSON, in ASCII."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args

import numpy as np

from checkpointing.content import find_mismatch
from checkpointing.split import may_name_file
from datamodules.packed.chunks import MAX_ITEMS, ChunkFile, Format
from errors import UserError, printable

INDEX, PLAN, IMAGES, LITDATA_INDEX = "packed.json", "packing.json", "images.json", "index.json"
VERSION = 1
LONGEST_NAME = 255  # characters of a file's name, on any usual file system
CHUNK_NAME = re.compile(r"chunk-0-[0-9]{1,9}\.bin")
CONTENT = re.compile(r"[0-9]{1,18}-[0-9a-f]{64}")  # see `datamodules.image_files.content_id_of`
SPLIT_NAMES = ("train", "val", "test")
EXAMPLE: dict[str, Any] = {
    "version": 0,
    "format": "",
    "classes": [""],
    "splits": {},
    "shorter_side": 0,
    "quality": 0,
    "plan": "",
}


@dataclass(frozen=True)
class PackedIndex:
    """The content of packed.json.

    Args:
        format: of the images: jpeg, or uint8 for pixels.
        shorter_side: most pixels of an image's shorter side.
        quality: of the JPEGs that are not unchanged.
        classes: names of the class folders, in the order of the labels.
        splits: SHA-256 of the images.json of each split.
        plan: SHA-256 of what was to be packed, by which a second packing knows the folder again.
    """

    format: Format
    shorter_side: int
    quality: int
    classes: list[str]
    splits: dict[str, str]
    plan: str

    @property
    def text(self) -> str:
        """The content of the file."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n"


@dataclass(frozen=True)
class SplitIndex:
    """The content of images.json: the N images of a split, in the order in which their folder was listed.

    Args:
        names: [N] paths relative to the folder that they were packed from; bytes that are no UTF-8 are surrogate
            escapes (`os.fsdecode`).
        labels: [N].
        contents: [N] `datamodules.image_files.content_id_of` each image as it is packed.
        chunks: the files.
    """

    names: list[str]
    labels: list[int]
    contents: list[str]
    chunks: list[ChunkFile]

    @property
    def text(self) -> str:
        """The content of the file."""
        return json.dumps(asdict(self), indent=0, separators=(",", ":")) + "\n"


def parse_index(text: bytes, path: Path) -> PackedIndex:
    """Read packed.json.

    Raises:
        UserError: if it has another form, or is of another version.
    """
    fields = parse_json(text, path)
    problem = find_mismatch(fields, EXAMPLE)
    if problem is None and fields["version"] != VERSION:
        problem = f"its version is {fields['version']} and should be {VERSION}"
    if problem is None and fields["format"] not in get_args(Format):
        problem = f"its format is {fields['format'][:40]!r} and should be {' or '.join(get_args(Format))}"
    if problem is None:
        problem = find_unusual_class(fields["classes"])
    splits = fields["splits"] if problem is None else {}
    if problem is None and ("train" not in splits or not splits.keys() <= set(SPLIT_NAMES)):
        problem = f"its splits are {', '.join(map(str, splits))[:80]} and should be train and perhaps val and test"
    if problem:
        refuse(path, problem)
    return PackedIndex(**{name: fields[name] for name in PackedIndex.__dataclass_fields__})


def find_unusual_class(classes: list[str]) -> str | None:
    """What is wrong with the names of class folders, in words; None for those that a folder can have."""
    if len(classes) < 2:
        return "it has fewer than two classes"
    if len(set(classes)) < len(classes):
        return "it names a class twice"
    unusual = [name for name in classes if "/" in name or not is_relative(name)]
    return f"it lists the class {unusual[0][:80]!r}, which no folder can be called" if unusual else None


def is_relative(name: str) -> bool:
    """Whether a file or folder below another one can be called so."""
    parts = name.split("/")
    return may_name_file(name) and not {"", ".", ".."} & set(parts) and max(map(len, parts)) <= LONGEST_NAME


def parse_split(text: bytes, path: Path, digest: str, classes: int) -> SplitIndex:
    """Read images.json.

    Args:
        text: its content.
        path: where it lies.
        digest: SHA-256 that packed.json has of it.
        classes: number of classes.

    Raises:
        UserError: if it was changed, or has another form.
    """
    if hashlib.sha256(text).hexdigest() != digest:
        refuse(path, f"its content is not the one that {INDEX} was written with")
    fields = parse_json(text, path)
    lists: list[Any] = [fields.get(name) for name in SplitIndex.__dataclass_fields__]
    names, labels, contents, chunks = lists
    lists_of = ((names, str), (labels, int), (contents, str), (chunks, list))
    if not all(isinstance(values, list) and set(map(type, values)) == {kind} for values, kind in lists_of):
        refuse(path, "it lacks a list, or has one of another kind")
    if not len(names) == len(labels) == len(contents) or not 0 <= min(labels) <= max(labels) < classes:
        refuse(path, "its lists have different lengths, or labels without a class")
    if unusual := [name for name in names if not is_relative(name)]:
        refuse(path, f"it lists {unusual[0][:80]!r}, which no file can be called")
    if unusual := [content for content in contents if not CONTENT.fullmatch(content)]:
        refuse(path, f"it lists the content {unusual[0][:80]!r}, which is no size and SHA-256")
    files = [parse_chunk(chunk, path) for chunk in chunks]
    if any(len(set(each)) < len(each) for each in (names, [file.name for file in files])):
        refuse(path, "it lists an image or a chunk twice")
    if sorted(index for file in files for index in file.images) != list(range(len(names))):
        refuse(path, "its chunks do not hold each image once")
    return SplitIndex(names, labels, contents, files)


def parse_chunk(values: list[Any], path: Path) -> ChunkFile:
    """Read the line of a chunk in images.json."""
    problem = find_mismatch(dict(enumerate(values)), {0: CHUNK_NAME, 1: 0, 2: [0]}, "a chunk")
    if problem or not 0 < len(values[2]) <= MAX_ITEMS:
        refuse(path, problem or "a chunk has no image or too many")
    return ChunkFile(*values[:3])


def parse_json(text: bytes, path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        refuse(path, "it is no JSON object")
    return fields


def refuse(path: Path, problem: str) -> NoReturn:
    """Raise UserError for an index that no packing has written."""
    raise UserError(
        printable(f"{path} is not as `python -m datamodules.imagenet pack` writes it: {problem}. ")
        + "Copy the data set again, or pack it anew."
    )


def locate_images(chunks: Sequence[ChunkFile], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The chunk of each image and its position in the chunk: two arrays [count]."""
    chunk_of, item_of = np.empty(count, np.int32), np.empty(count, np.int32)
    for number, chunk in enumerate(chunks):
        chunk_of[chunk.images], item_of[chunk.images] = number, np.arange(len(chunk.images))
    return chunk_of, item_of


def encode_names(names: Sequence[str]) -> np.ndarray:
    """[N] names as bytes, in one array."""
    return np.array([os.fsencode(name) for name in names])
