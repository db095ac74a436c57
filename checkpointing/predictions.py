"""The file of predictions that a test leaves beside its run."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from checkpointing.run_dir import beside
from errors import UserError

LEAST = -6e4  # logarithms below have no finite float16


@dataclass
class Predictions:
    """What one checkpoint says of the images of one set, in the order of the set.

    Args:
        places: [N] int64, of the images in the set.
        files: [N] their names from the folder of the set on; empty where the images are no files.
        labels: [N] int64.
        log_probabilities: [N, K] float16; float32 rows sum to 1 only after `normalised`.
        class_names: [K].
        protocol: how an image was looked at, see `datamodules.views`.
        views: how often that is: forward passes for each image.
        checkpoint: its file.
        checkpoint_hash: SHA-256 of that.
        data_hash: SHA-256 of what the set holds: classes, labels, and images or names of files.
        complete: whether every image of the set is here.
    """

    places: np.ndarray
    files: np.ndarray
    labels: np.ndarray
    log_probabilities: np.ndarray
    class_names: np.ndarray
    protocol: str
    views: int
    checkpoint: str
    checkpoint_hash: str
    data_hash: str
    complete: bool

    def normalised(self) -> np.ndarray:
        """Log-probabilities [N, K] float32 whose exponentials sum to 1, which rounding to float16 has spoilt."""
        scores = torch.from_numpy(self.log_probabilities.astype(np.float32))
        return scores.log_softmax(1).numpy()

    def write(self, path: Path) -> None:
        """Write an .npz file that numpy reads without pickle; a file that is there is replaced only by a whole one."""
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.savez_compressed(file, **asdict(self))
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Read such a file.

        Raises:
            ValueError: if it is cut off or holds something else.
        """
        try:
            with np.load(path) as file:
                content = {name: file[name] for name in cls.__dataclass_fields__}
        except Exception as error:  # numpy and zipfile have an error each for every way to be broken
            raise UserError(
                f"{path} is no whole file of predictions ({error}): remove it and test once more."
            ) from error
        return cls(**{name: value.item() if value.ndim == 0 else value for name, value in content.items()})


def predictions_path(checkpoint: Path, protocol: str, verb: str = "test") -> Path:
    """Where the predictions of a checkpoint lie: beside its run; those on the validation images have a prefix."""
    prefix = {"test": "", "validate": "val_"}[verb]
    return beside(checkpoint) / f"{prefix}predictions-{checkpoint.stem}-{protocol}.npz"


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
