"""The prediction file that `test` and `validate` leave in a run directory."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from checkpointing.run_dir import results_folder
from errors import UserError


@dataclass
class Predictions:
    """The predictions of one checkpoint for the images of one set, in the order of the set.

    Args:
        indices: [N] int64, of the images in the set.
        files: [N] paths of the images, relative to the folder of the set; empty where images are not files.
        labels: [N] int64.
        log_probabilities: [N, K] float32; the exponentials of a row sum to 1.
        class_names: [K].
        protocol: the views of an image that were averaged, see `datamodules.views`.
        views: how many of them there are: forward passes for each image.
        checkpoint: path of the checkpoint file.
        checkpoint_hash: SHA-256 of the checkpoint file.
        data_hash: SHA-256 of the set: classes, labels, and pixels or file names.
        complete: whether every image of the set is here.
    """

    indices: np.ndarray
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

    def write(self, path: Path) -> None:
        """Write an .npz file that numpy reads without pickle; an existing file is replaced by a complete one."""
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.savez_compressed(file, **asdict(self))
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Read a prediction file.

        Raises:
            UserError: if the file is truncated, corrupt, from an older version or of another kind.
        """
        try:
            with np.load(path) as file:
                content = {name: file[name] for name in cls.__dataclass_fields__}
        except Exception as error:  # numpy and zipfile raise a different exception for each way of being corrupt
            raise UserError(
                f"{path} cannot be read as a file of predictions ({error}): remove it and rerun `main.py test`."
            ) from error
        return cls(**{name: value.item() if value.ndim == 0 else value for name, value in content.items()})


def predictions_path(checkpoint: Path, protocol: str, verb: str = "test") -> Path:
    """The prediction file of a checkpoint, in its run directory; for validation images its name has a prefix."""
    prefix = {"test": "", "validate": "val_"}[verb]
    return results_folder(checkpoint) / f"{prefix}predictions-{checkpoint.stem}-{protocol}.npz"


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
