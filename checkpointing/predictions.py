"""The prediction file that `test` and `validate` leave in a run directory."""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from checkpointing.atomic import atomic_write
from checkpointing.run_dir import results_folder
from errors import UserError

LARGEST = 2**30  # bytes of a file's arrays: those of ImageNet's 50,000 validation images take a fifth


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
        data_hash: SHA-256 of the set: classes, labels, and pixels or names and contents of files.
        complete: whether every image of the set is here.
        selected_on_test: whether the checkpoint was chosen by its error on these images.
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
    selected_on_test: bool = False

    def write(self, path: Path) -> None:
        """Write an .npz file that numpy reads without pickle; an existing file is replaced by a complete one."""
        with atomic_write(path, "wb") as file:
            np.savez_compressed(file, **asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Read a prediction file.

        Raises:
            UserError: if the file is truncated, corrupt, from an older version or of another kind.
        """
        try:
            if os.path.exists(path) and not os.path.isfile(path):
                raise UserError("it is no file")
            arrays = read_arrays(path, list(cls.__dataclass_fields__))
            content: dict[str, Any] = {name: each.item() if each.ndim == 0 else each for name, each in arrays.items()}
            predictions = cls(**content)
            predictions.check()
            return predictions
        except Exception as error:  # numpy and zipfile raise a different exception for each way of being corrupt
            raise UserError(
                f"{path} cannot be read as a file of predictions ({error}): remove it and rerun `main.py test`."
            ) from error

    def check(self) -> None:
        """Raise UserError for a field of another type, and for arrays that do not fit together."""
        for name, kind in get_type_hints(type(self)).items():
            if not isinstance(value := getattr(self, name), kind):
                raise UserError(f"{name} is {value!r}")
        images, classes = len(self.indices), len(self.class_names)
        for name, kind, shape in (
            ("indices", "i", (images,)),
            ("files", "U", (images if self.files.size else 0,)),
            ("labels", "i", (images,)),
            ("log_probabilities", "f", (images, classes)),
            ("class_names", "U", (classes,)),
        ):
            array = getattr(self, name)
            is_empty = array.size > 0 and array.itemsize == 0  # any number of empty texts, in no bytes of the file
            if array.dtype.kind != kind or array.shape != shape or is_empty:
                raise UserError(f"{name} is an array {list(array.shape)} of {array.dtype}")
        if self.views < 1 or (images and not 0 <= self.labels.min() <= self.labels.max() < classes):
            raise UserError(f"{self.views} views, labels {self.labels.min()} to {self.labels.max()}")


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name, of those that it has.

    Raises:
        UserError: in a few words, if it cannot be read, or if what it holds unpacked is larger than any predictions: a
            few bytes can stand for more than the memory.
    """
    try:
        with np.load(path) as file:
            size = sum(each.file_size for each in file.zip.infolist())
            if size > LARGEST:
                raise UserError(f"it holds {size / 2**30:.1f} GiB")
            return {name: file[name] for name in names if name in file}
    except UserError:
        raise
    except Exception as error:  # numpy and zipfile raise a different exception for each way of being corrupt
        raise UserError(f"it is truncated or corrupt: {error}") from error


def predictions_path(checkpoint: Path, protocol: str, verb: str = "test", tag: str = "") -> Path:
    """The prediction file of a checkpoint, in its run directory.

    Args:
        checkpoint: file.
        protocol: see `Predictions`.
        verb: for validation images the name has a prefix.
        tag: of other data than the run's, see `data_tag`.
    """
    prefix = {"test": "", "validate": "val_"}[verb]
    return results_folder(checkpoint) / f"{prefix}predictions-{checkpoint.stem}-{protocol}{tag}.npz"


def result_path(checkpoint: Path, protocol: str, tag: str = "") -> Path:
    """The result of a test, beside its predictions."""
    return results_folder(checkpoint) / f"test-{checkpoint.stem}-{protocol}{tag}.json"


def read_tested_hashes(checkpoint: Path) -> set[str]:
    """`data_hash` of each result on the run's own images, of any protocol, that lies beside a checkpoint."""
    found = set()
    for path in filter(os.path.isfile, results_folder(checkpoint).glob("test-*.json")):
        # A damaged file says nothing
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            result = json.loads(path.read_bytes())
            if result["is_run_data"] and Path(result["checkpoint"]).name == checkpoint.name:
                found.add(str(result["data_hash"]))
    return found


def data_tag(data_hash: str) -> str:
    """The end of the names of results on other data than the run's, such as "-3fa9c1"."""
    return f"-{data_hash[:6]}"


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
