"""The one rule by which files in folders are listed: for training, tests, predictions and copies."""

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from lightning.pytorch.utilities import rank_zero_only

from datamodules.decode import SUFFIXES
from errors import UserError, printable

# Folders that systems and network drives leave among a user's: the last two hold small copies of images
SYSTEM_FOLDERS = frozenset({"lost+found", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "@eaDir"})
# JPEG, PNG, GIF, TIFF, WebP, BMP, AVIF and HEIC
IMAGE_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|II\*\0|MM\0\*|RIFF.{4}WEBP|BM.{4}\0{4}|.{4}ftyp(avi|hei|mif)",
    re.DOTALL,
)
EXAMPLES = 3  # of what was passed over for one reason


class FolderWalk:
    """Walks through folders, lists their files and counts what it passes over.

    A folder is entered once, whatever links lead to it, and real folders are entered before links. Passed over and
    counted are hidden files and folders, what is neither file nor folder (pipes, sockets, devices), and files that are
    no images.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # of what was passed over, by reason
        self.examples: dict[str, list[str]] = {}
        self.entered: dict[tuple[int, int], str] = {}  # folders, by device and inode

    def list_images(self, *folders: str) -> list[list[str]]:
        """Paths of the images at any depth below each folder, sorted.

        Raises:
            UserError: if a folder cannot be listed, or two of those given are the same.
        """
        return self._list(folders, self._is_image)

    def list_files(self, folder: str) -> list[str]:
        """Paths of all files at any depth below a folder, sorted; errors as of `list_images`."""
        return self._list([folder], lambda path: True)[0]

    def pass_over(self, reason: str, path: str) -> None:
        """Count a path that is not listed."""
        self.counts[reason] += 1
        if self.counts[reason] <= EXAMPLES:
            self.examples.setdefault(reason, []).append(path)

    def announce(self, folder: Path | str) -> None:
        """Print what was passed over below a folder, if anything was."""
        parts = []
        for reason, count in self.counts.items():
            examples = [os.path.relpath(path, folder) for path in self.examples[reason]]
            parts.append(f"{reason}: {count:,} ({', '.join(examples)}{', ...' if count > EXAMPLES else ''})")
        if parts:
            announce(f"passed over in {folder}: {'; '.join(parts)}")

    def _list(self, folders: Sequence[str], is_wanted: Callable[[str], bool]) -> list[list[str]]:
        for folder in folders:
            if not self._enter(folder):
                raise UserError(printable(f"{folder} is, by a link, the same folder as another one: remove the link."))
        found: list[list[str]] = [[] for _ in folders]
        real, links = deque(enumerate(folders)), deque[tuple[int, str]]()
        while queue := real or links:
            number, folder = queue.popleft()
            if queue is links and (leads_back(folder) or not self._enter(folder)):
                self.pass_over("links to folders that are listed already", folder)
                continue
            for entry in scan_folder(folder):
                kind = classify(entry)
                if kind == "folder" and entry.is_symlink():
                    links.append((number, entry.path))
                elif kind == "folder" and self._enter(entry.path):
                    real.append((number, entry.path))
                elif kind != "file":
                    self.pass_over(kind, entry.path)
                elif is_wanted(entry.path):
                    found[number].append(entry.path)
        return [sorted(files) for files in found]

    def _enter(self, folder: str) -> bool:
        """Whether a folder is entered for the first time."""
        try:
            status = os.stat(folder)
        except OSError as error:
            refuse_unlisted(error)
        return self.entered.setdefault((status.st_dev, status.st_ino), folder) == folder

    def _is_image(self, path: str) -> bool:
        if is_image_file(path):
            return True
        self.pass_over("files that are no images", path)
        return False


def scan_folder(folder: Path | str) -> list[os.DirEntry[str]]:
    """The entries of a folder, in the order of their names."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        refuse_unlisted(error)


def refuse_unlisted(error: OSError) -> NoReturn:
    """Refuse a folder whose images would be missing."""
    raise UserError(
        printable(f"{error.filename} cannot be listed ({error.strerror}), so its images would be missing: ")
        + "make it readable, or name another folder."
    ) from error


def classify(entry: os.DirEntry[str]) -> str:
    """folder, file, or the reason why it is passed over. A broken link with an image's name is a file, unreadable."""
    if entry.name[0] == "." or entry.name in SYSTEM_FOLDERS:
        return "hidden"
    try:
        if entry.is_dir() or entry.is_file():
            return "folder" if entry.is_dir() else "file"
        if os.path.exists(entry.path):
            return "pipes, sockets or devices"
    except OSError:  # links in a circle, or to where one may not look
        pass
    return "file" if has_image_suffix(entry.name) else "broken links"


def leads_back(path: str) -> bool:
    """Whether a path is a link to a folder above it."""
    target, folder = os.path.realpath(path), os.path.realpath(os.path.dirname(path))
    return os.path.commonpath([target, folder]) == target


def is_image_file(path: str) -> bool:
    """Whether a file is an image: by its suffix, or, without one, by its first bytes."""
    if os.path.splitext(path)[1]:
        return has_image_suffix(path)
    try:
        with open(path, "rb") as file:
            return IMAGE_START.match(file.read(16)) is not None
    except OSError:
        return False


def has_image_suffix(path: str) -> bool:
    """Whether a name ends as that of an image."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the folders and of the images right in a folder, each sorted; hidden ones are left out."""
    entries = [(entry, classify(entry)) for entry in scan_folder(folder)]
    files = [entry for entry, kind in entries if kind == "file"]
    return [e.name for e, kind in entries if kind == "folder"], [e.name for e in files if is_image_file(e.path)]


@rank_zero_only
def announce(text: str) -> None:
    """Print a line about the data, in one process."""
    print(printable(f"Data: {text}"), flush=True)
