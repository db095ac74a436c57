"""Files that cannot be read: stop at them, or skip, name and count them."""

import logging
import time
from collections.abc import Sequence
from typing import Literal, NoReturn

from datamodules.loading import ImageSet, RawBatch, UnreadableFile
from errors import UserError, pluralize

log = logging.getLogger(__name__)

Policy = Literal["stop", "skip"]
FILES_NAMED = 10  # of those because of which a run stops
SECONDS_TO_SEARCH = 10  # for more unreadable files, once there is one


class SkippedFiles:
    """Decides about files that cannot be read, and keeps those that this process has skipped.

    Args:
        policy: stop raises a UserError that names the files; skip goes on without them and logs the name of each once.

    Attributes:
        indices: of the images that the current evaluation lacks, in the evaluated set.
        paths: all files that were skipped since the run began.
    """

    def __init__(self, policy: Policy = "stop") -> None:
        self.policy = policy
        self.indices: list[int] = []
        self.paths: set[str] = set()

    def handle(self, batch: RawBatch, sets: Sequence[ImageSet], training: bool, may_be_empty: bool) -> None:
        """Stop because of the unreadable files of a batch, or skip them.

        Args:
            batch: lacks the images of its unreadable files.
            sets: the sets that are searched for further unreadable files before stopping.
            training: whether the batch is trained on, and not evaluated.
            may_be_empty: whether to go on where no image of the batch could be read.

        Raises:
            UserError: with the files and the reasons.
        """
        if self.policy == "stop":
            stop_at(batch.unreadable, sets)
        for file in batch.unreadable:
            if file.path not in self.paths:
                log.warning("Skipped: %s: %s.", file.path, file.reason)
            self.paths.add(file.path)
        self.indices += [] if training else [file.index for file in batch.unreadable]
        if not len(batch.labels) and not may_be_empty:
            raise UserError(
                f"A batch of {pluralize(len(batch.unreadable), 'image')} has none that can be read, such as "
                f"{batch.unreadable[0].path}: remove such files."
            )


def stop_at(files: Sequence[UnreadableFile], sets: Sequence[ImageSet]) -> NoReturn:
    """Raise a UserError that names the given files and further unreadable files of the sets."""
    found, complete = find_unreadable(sets)
    named = list({file.path: f"{file.path} ({file.reason})" for file in [*files, *found]}.values())[:FILES_NAMED]
    count = pluralize(len(named), "file") if complete else f"{len(named)} or more files"
    raise UserError(
        f"{count} cannot be read: {', '.join(named)}. Repair or remove them, or go on without them: "
        "--data.on_bad_image skip."
    )


def find_unreadable(sets: Sequence[ImageSet]) -> tuple[list[UnreadableFile], bool]:
    """The first files of these sets that cannot be read, and whether the search has got to the end in time."""
    found: list[UnreadableFile] = []
    end = time.monotonic() + SECONDS_TO_SEARCH
    for images in sets:
        for index in range(len(images)):
            if file := images.check_file(index):
                found.append(file)
            if len(found) == FILES_NAMED or time.monotonic() > end:
                return found, False
    return found, True
