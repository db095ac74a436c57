"""Files that cannot be read: stop at them, or skip them, say so and count them."""

import logging
from collections.abc import Sequence

import torch

from datamodules.loading import UnreadableFile

log = logging.getLogger(__name__)


class SkippedFiles:
    """The files that this process has left out.

    Args:
        indices: of the images that the current evaluation lacks, in the evaluated set.
        paths: all files that were skipped since the run began.
    """

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.paths: set[str] = set()

    def begin_evaluation(self) -> None:
        """Forget the indices of the evaluation before."""
        self.indices = []

    def add(self, files: Sequence[UnreadableFile], evaluation: bool) -> None:
        """Count files, and name each of them once in the log."""
        for file in files:
            if file.path not in self.paths:
                log.warning("Skipped: %s: %s.", file.path, file.reason)
            self.paths.add(file.path)
        if evaluation:
            self.indices += [file.index for file in files]

    def count_over_processes(self) -> int:
        """How many files all processes together have skipped."""
        everyone = [self.paths]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everyone = [set()] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everyone, self.paths)
        return len(set().union(*everyone))
