"""Which files a run trained on and which it held back: the file split-<hash>.json of its run directory."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from checkpointing.atomic import atomic_write, end_run_if_unwritable
from checkpointing.content import check_content
from errors import UserError


@dataclass(frozen=True)
class Split:
    """The image files of a run.

    Paths are relative, with slashes on every system; bytes that are no UTF-8 are surrogate escapes (`os.fsdecode`).

    Args:
        trained_on: paths relative to the folder of the training images.
        held_back: size and hash of each file that was held back for validation, by its path: see
            `datamodules.image_files.content_id`.
        own_folder: whether the files that were held back lie in a folder of their own, val/, to which their paths are
            relative, and not among the training images.
        sample: size and hash of some of the files that were trained on, by which their folder is known again.
    """

    trained_on: list[str]
    held_back: dict[str, str]
    own_folder: bool
    sample: dict[str, str]

    @cached_property
    def text(self) -> str:
        """The content of the file: ASCII, a line for each path."""
        return json.dumps(asdict(self), indent=0) + "\n"

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def write(self, run_dir: Path) -> None:
        """Write the file; one of this name that is there already has the same content."""
        path = split_path(run_dir, self.hash)
        with end_run_if_unwritable(path), atomic_write(path) as file:
            file.write(self.text)


def split_path(run_dir: Path, split_hash: str) -> Path:
    """The file of a split in a run directory. A run that is resumed on more images has several."""
    return run_dir / f"split-{split_hash[:8]}.json"


def read_split(run_dir: Path, split_hash: str) -> Split | None:
    """The split of a run; None if its file is gone.

    Args:
        run_dir: of the run.
        split_hash: SHA-256 of the file, as the checkpoint says it.

    Raises:
        UserError: if the file has another content, or is malformed.
    """
    path = split_path(run_dir, split_hash)
    if not os.path.isfile(path):
        return None
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != split_hash:
        raise UserError(
            f"{path}, the list of what the run trained on and held back, is not as the run wrote it: restore it, or "
            "remove it, and the images that are held back follow from --data.split_seed."
        )
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        fields = None
    check_content(fields, {"trained_on": [""], "held_back": {}, "own_folder": False, "sample": {}}, path)
    for name in ("held_back", "sample"):
        check_content({name: list(fields[name].values())}, {name: [""]}, path)
    if unusual := [name for name in fields["held_back"] if not may_name_file(name)]:
        raise UserError(f"{path} lists {unusual[0][:80]!r}, which no file can be called: give another checkpoint.")
    return Split(**{name: fields[name] for name in Split.__dataclass_fields__})


def may_name_file(path: str) -> bool:
    """Whether a text can be a path at all: without a null character, and in the encoding of the file system."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False
