"""How Lightning writes checkpoints here."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from checkpointing.atomic import atomic_write, end_run_if_unwritable
from checkpointing.run_dir import version_folder


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints in the file system of the run directory; the older file stays until the new one is whole.

    Lightning's own writes them in TMPDIR and moves them, which on another file system is a copy that a kill cuts off.

    Attributes:
        removes: whether older files are removed; not while the net has diverged, because no newer ones are written.
    """

    removes = True

    def __init__(self) -> None:
        super().__init__()
        self.folders: set[Path] = set()  # to which it has written

    def remove_checkpoint(self, path: Any) -> None:
        if self.removes:
            super().remove_checkpoint(path)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        if "://" in str(path):  # an object store, which replaces whole objects
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()  # torch's own writing to a file tells of a full disk in C++ terms
        torch.save(checkpoint, buffer)
        path = Path(path)
        with end_run_if_unwritable(path):
            # A folder that was deleted is not made again: the run would end well, and its best checkpoint be gone
            if path.parent not in self.folders:
                path.parent.mkdir(parents=version_folder(path) is None, exist_ok=True)
            self.folders.add(path.parent)
            with atomic_write(path, "wb") as file:
                file.write(buffer.getbuffer())
