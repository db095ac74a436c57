"""Packed data sets in an object store: litdata fetches their chunks, one by one, into a cache on the disk.

LITDATA_CACHE_DIR names the folder of the cache (unset, ~/.cache/lit-classics/chunks), MAX_CACHE_SIZE its size (20GB):
the chunks that were not read for longest make room for others. A chunk is kept under the hash of its split's list, so
that one data set is never taken for another.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path

from filelock import FileLock

from datamodules.packed.chunks import ChunkReader, check_chunk, read_offsets
from errors import UserError, printable

DEFAULT_CACHE, DEFAULT_SIZE = "~/.cache/lit-classics/chunks", "20GB"
SIZE = re.compile(r"(\d{1,15}(?:\.\d+)?) ?([KMGT]?)B?", re.IGNORECASE)
POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
MIN_CHUNKS = 48  # in the cache: three times those that an epoch reads at a time, see `samplers.CHUNK_WINDOW`
TRIES = 3


class Store:
    """Files below an address of an object store.

    Args:
        address: such as s3://bucket/folder.

    Raises:
        UserError: if litdata is not installed, or the cache cannot be used.
    """

    def __init__(self, address: str) -> None:
        try:
            import litdata.streaming.downloader  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"{address} is read by litdata, which is not installed: `pip install 'litdata>=0.2.76'`, or copy the "
                "data set to a disk."
            ) from error
        self.address = address
        self.cache = Path(os.path.expanduser(os.environ.get("LITDATA_CACHE_DIR") or DEFAULT_CACHE))
        self.cache_size = parse_size(os.environ.get("MAX_CACHE_SIZE") or DEFAULT_SIZE)
        with name_cache(self.cache):
            self.cache.mkdir(parents=True, exist_ok=True)

    def fetch(self, name: str | Path, target: Path) -> None:
        """Fetch a file.

        Raises:
            UserError: with the reason, if it cannot be had.
        """
        from litdata.streaming.downloader import get_downloader

        remote = f"{self.address}/{Path(name).as_posix()}"
        try:
            get_downloader(self.address, str(target.parent), []).download_file(remote, str(target))
        except Exception as error:  # each kind of store has errors of its own
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(printable(f"{remote} cannot be fetched ({reason})")) from error
        if not os.path.isfile(target):
            raise UserError(f"{remote} cannot be fetched (nothing came)")

    def read(self, name: str | Path) -> bytes:
        """The content of a small file, which is fetched anew.

        Raises:
            UserError: with the reason and the fix.
        """
        with name_cache(self.cache), tempfile.TemporaryDirectory(dir=self.cache) as folder:
            target = Path(folder, Path(name).name)
            try:
                self.fetch(name, target)
            except UserError as error:
                raise UserError(
                    f"{error}: check the address, your access to it, and that it is the copy of a folder that "
                    "`python -m datamodules.imagenet pack` has written."
                ) from error
            return target.read_bytes()


class StoredChunks(ChunkReader):
    """Reads images out of the chunks of an object store, by way of the cache.

    Args:
        store: of the data set.
        split: name of the split.
        digest: SHA-256 of the split's list.
        names, sizes: of the chunks, see `ChunkReader`.
    """

    def __init__(self, store: Store, split: str, digest: str, names: Sequence[str], sizes: Sequence[int]) -> None:
        super().__init__(store.cache / digest[:32], names, sizes)
        self.store, self.split = store, split
        if max(sizes) * MIN_CHUNKS > store.cache_size:
            raise UserError(
                f"A cache of {store.cache_size:,} bytes is too small for chunks of {max(sizes):,}: let the "
                f"environment variable MAX_CACHE_SIZE be at least {max(sizes) * MIN_CHUNKS // 10**9 + 1}GB."
            )

    def check(self) -> None:
        """Chunks are looked at when they are fetched."""

    def open(self, chunk: int) -> FileIO:
        for _ in range(TRIES):  # another process may make room between the two
            self._provide(chunk)
            with contextlib.suppress(FileNotFoundError):
                return super().open(chunk)
        raise UserError(f"{self.locate(chunk)} was removed while it was read: leave the cache alone")

    def _provide(self, chunk: int) -> None:
        """Fetch a chunk that the cache lacks; mark one that it has as read now."""
        path, size = self.locate(chunk), self.sizes[chunk]
        if self._is_chunk(chunk, path):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)
                return
        with name_cache(path):
            path.parent.mkdir(exist_ok=True)
            with FileLock(f"{path}.lock"):
                if self._is_chunk(chunk, path):
                    return
                with tempfile.TemporaryDirectory(dir=self.store.cache) as folder:
                    part = Path(folder, path.name)
                    with FileLock(self.store.cache / "room.lock"):
                        make_room(self.store.cache, size, self.store.cache_size)
                    self.store.fetch(Path(self.split, path.name), part)
                    if not self._is_chunk(chunk, part):
                        raise UserError(
                            f"{self.store.address}/{self.split}/{path.name} has {part.stat().st_size:,} bytes and was "
                            f"written with {size:,}, or has another content: copy the data set to the store again"
                        )
                    part.replace(path)

    def _is_chunk(self, chunk: int, path: Path) -> bool:
        """Whether a file has the size and the beginning of a chunk; a damaged one in the cache is fetched anew."""
        try:
            check_chunk(path, self.sizes[chunk])
            if chunk not in self._offsets:
                with open(path, "rb") as file:
                    self._offsets[chunk] = read_offsets(file, self.sizes[chunk], path)
        except (UserError, OSError):
            return False
        return True


def make_room(cache: Path, size: int, limit: int) -> None:
    """Remove the chunks that were not read for longest, until there is room for another one of `size` bytes."""
    found = []
    for path in cache.glob("*/chunk-*.bin"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    total = sum(each for _, each, _ in found) + size
    for _, each, path in sorted(found):
        if total <= limit and shutil.disk_usage(cache).free > 2 * size:
            return
        path.unlink(missing_ok=True)
        total -= each


def parse_size(text: str) -> int:
    """Bytes of a size such as 100GB."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise UserError(f"MAX_CACHE_SIZE is {printable(text)[:80]!r}: it should be a size such as {DEFAULT_SIZE}.")
    return int(float(match[1]) * 1000 ** POWERS[match[2].upper()])


@contextlib.contextmanager
def name_cache(path: Path) -> Iterator[None]:
    """Raise UserError where the cache cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): make room, or name another folder for the cache with the "
            "environment variable LITDATA_CACHE_DIR."
        ) from error
