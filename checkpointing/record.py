"""The record of its run that a checkpoint carries, and the reading of checkpoint files."""

import inspect
import json
import os
import pickle
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpointing.content import (
    CONFIG,
    RECORD,
    WEIGHTS,
    check_averages,
    check_content,
    check_savers,
    check_state_dict,
    check_tensors,
)
from checkpointing.integrity import find_damage, find_other_kind
from errors import UserError

RECORD_KEY = "lit_classics"  # of the record in a checkpoint file
INITIAL_WEIGHTS = {"weights", "init_from"}  # arguments of models; a checkpoint has weights of its own in their place
DEEPEST = 60  # lists and dicts in each other in a record
# Class paths in the configs of older checkpoints, and the names that these classes have now
RENAMED_CLASSES = {
    "callbacks.BatchNormReestimation": "callbacks.PreciseBN",
    "lightning.pytorch.loggers.WandbLogger": "callbacks.WandbLogger",
}


@dataclass(frozen=True)
class CheckpointRecord:
    """What a checkpoint says of its run. All fields are plain types, so that files load with `weights_only=True`.

    Args:
        config: the config of the run as a YAML file would hold it: seed, model, data and trainer.
        class_names: [K], in the order of the labels.
        preprocessing: how an image becomes an input, see `datamodules.base.ImageData`.
        code_version: the git commit of the code.
        wandb_run_id: None for a run without W&B.
        averaged_from: file names of the checkpoints whose mean the weights are; empty for the weights of one step.
        selected_on_validation: whether the checkpoints of a mean were chosen by their errors on the validation images.
        data_hash: SHA-256 that identifies the training and validation images: see `datamodules.identity`.
        val_hash, test_hash: fingerprints of the images that `validate` and `test` evaluate; None if unknown.
        split_hash: of the lists of files trained on and held back: see `checkpointing.split`; None without files.
    """

    config: dict[str, Any]
    class_names: list[str]
    preprocessing: dict[str, Any]
    code_version: str = "unknown"
    wandb_run_id: str | None = None
    averaged_from: list[str] = field(default_factory=list)
    selected_on_validation: bool = False
    data_hash: str | None = None
    val_hash: str | None = None
    test_hash: str | None = None
    split_hash: str | None = None

    @property
    def model_args(self) -> dict[str, Any]:
        """The arguments of the model's class."""
        return self.config["model"]["init_args"]

    def to_plain(self) -> dict[str, Any]:
        """The record as it is stored in a checkpoint."""
        return asdict(self)

    @classmethod
    def from_plain(cls, content: dict[str, Any], path: Path) -> "CheckpointRecord":
        """The record of a checkpoint, with the class paths of today in its config.

        Args:
            content: as stored in the file.
            path: of the file, for the error.

        Raises:
            UserError: if fields are missing or malformed, or unknown because the file was written by newer code.
        """
        check_content(content, {}, path)
        required = {"config", "class_names", "preprocessing"}
        if missing := required - content.keys():
            raise UserError(
                f"The record of {path} lacks {', '.join(sorted(missing))}: the file is damaged, or was not written by "
                "`main.py fit`; give another checkpoint."
            )
        if unknown := content.keys() - cls.__dataclass_fields__.keys():
            version = content.get("code_version", "unknown")
            raise UserError(
                f"The record of {path} has unknown fields ({', '.join(sorted(unknown))}): it was written by newer code "
                f"(commit {version}); check that version out to use this checkpoint."
            )
        check_content(content, {name: RECORD[name] for name in RECORD.keys() & content.keys()}, path)
        try:
            config, preprocessing = (rename_classes(content[name], {}) for name in ("config", "preprocessing"))
            return cls(**content | {"config": config, "preprocessing": preprocessing})
        except RecursionError as error:
            raise UserError(f"The record of {path} is nested without an end: give another checkpoint.") from error


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file and its record.

    Args:
        path: of the file.
        content: as Lightning stores it; the tensors are mapped from the file, and read when they are used.
        record: of its run.
    """

    path: Path
    content: dict[str, Any]
    record: CheckpointRecord

    @property
    def state_dict(self) -> dict[str, Tensor]:
        """The weights."""
        return self.content["state_dict"]

    @property
    def epoch(self) -> int:
        """The epoch in which it was written, counted from 0."""
        return self.content["epoch"]

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self.content["global_step"]


def selected_on_validation(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint was chosen among others by a metric on the validation images, as best.ckpt is.

    ModelCheckpoints that monitor one name the files that they keep. A file of another name, a copy, was chosen if it
    holds the best step so far.
    """
    if checkpoint.record.selected_on_validation:
        return True
    states = checkpoint.content.get("callbacks", {}).items()
    savers = [state for name, state in states if name.startswith("ModelCheckpoint")]
    monitors = [state for state in savers if str(state["monitor"]).startswith("val/")]
    if any(checkpoint.path.name in saved_files(state) for state in monitors):
        return True
    if any(checkpoint.path.name in saved_files(state) for state in savers):
        return False
    return any(state["current_score"] == state["best_model_score"] is not None for state in monitors)


def saved_files(state: dict[str, Any]) -> set[str]:
    """The names of the files that a ModelCheckpoint keeps."""
    return {Path(path).name for path in (state["best_model_path"], state["last_model_path"], *state["best_k_models"])}


def rename_classes(config: Any, done: dict[int, Any], depth: int = 0) -> Any:
    """A copy of a config in which `RENAMED_CLASSES` have their names of today.

    Args:
        config: or a part of it.
        done: copies of the parts by their `id`: a few lists in each other can stand for billions.
        depth: of the part.

    Raises:
        RecursionError: if it is deeper than any that was written here.
    """
    if depth > DEEPEST:
        raise RecursionError
    if not isinstance(config, list | dict):
        return RENAMED_CLASSES.get(config, config) if isinstance(config, str) else config
    if id(config) not in done:
        if isinstance(config, list):
            done[id(config)] = [rename_classes(item, done, depth + 1) for item in config]
        else:
            done[id(config)] = {key: rename_classes(value, done, depth + 1) for key, value in config.items()}
    return done[id(config)]


def as_recorded(value: Any) -> Any:
    """A value of a config as a checkpoint holds it: tuples are lists, classes and functions their class paths."""

    def path(item: Any) -> str:
        is_named = inspect.isclass(item) or inspect.isroutine(item)  # jsonargparse's Path can be called too
        return f"{item.__module__}.{item.__qualname__}" if is_named else str(item)

    return json.loads(json.dumps(value, default=path))


def code_version() -> str:
    """The commit of the checkout, with -dirty where it has changes; "unknown" outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def read_plain_file(path: Path, verify: bool = True) -> Any:
    """Load a file of tensors and plain types; no code in it is run.

    Args:
        path: of the file.
        verify: whether all of it is read and compared with its checksums.

    Raises:
        UserError: if the file is truncated, corrupt, of another kind, asks to run code, or holds a tensor larger than
            itself.
    """
    if not os.path.exists(path):
        raise UserError(f"There is no file {path}: give a .ckpt file, such as checkpoints/best.ckpt of a run.")
    if damage := find_damage(path) if verify else find_other_kind(path):
        whole = newest_whole([other for other in path.parent.glob("*.ckpt") if other != path])
        other = f"{whole} beside it is whole" if whole else "give a .ckpt file that `main.py fit` wrote"
        raise UserError(
            f"{path} is no checkpoint that can be read: it is truncated or corrupt ({damage}), or another kind of "
            f"file; {other}."
        )
    try:
        # Mapped, not read: the weights stay on the disk until they are used
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        raise UserError(
            f"{path} is not loaded: it asks for {asked[1] if asked else 'more than tensors and plain values'}, and a "
            "checkpoint that runs code is not to be trusted."
        ) from error
    except Exception as error:  # torch and zipfile raise another one for each way of being corrupt
        raise UserError(
            f"{path} is no checkpoint that can be read: it is truncated or corrupt, or another kind of file. Give a "
            ".ckpt file that `main.py fit` wrote, such as best.ckpt beside last.ckpt."
        ) from error
    check_tensors(content, path)
    return content


def read_checkpoint(path: Path, verify: bool = True) -> Checkpoint:
    """Load a checkpoint that `main.py fit` wrote.

    Args:
        path: of the file.
        verify: whether all of it is read and compared with its checksums.

    Raises:
        UserError: as `read_plain_file` and `CheckpointRecord.from_plain`, and if the file has no record of its run, or
            values of another kind than it should.
    """
    content = read_plain_file(path, verify)
    if not isinstance(content, dict) or not content.get(RECORD_KEY):
        raise UserError(
            f"{path} holds no record of its run (bare weights?): only checkpoints that `main.py fit` wrote say which "
            "model and data they belong to."
        )
    record = CheckpointRecord.from_plain(content[RECORD_KEY], path)
    check_content(record.config, CONFIG, path)
    check_content(content, WEIGHTS, path)
    check_state_dict(content["state_dict"], path)
    check_savers(content.get("callbacks", {}), path)
    check_averages(content, path)
    return Checkpoint(path, content, record)


def resumable_step(path: Path) -> int:
    """The optimizer steps of a checkpoint; -1 for a file that cannot be read, and for averaged weights.

    Only the beginning of the file is read: whether all of it is whole, `find_damage` tells.
    """
    try:
        checkpoint = read_checkpoint(path, verify=False)
    except UserError:
        return -1
    return -1 if checkpoint.record.averaged_from else checkpoint.step


def newest_whole(paths: Iterable[Path]) -> Path | None:
    """The checkpoint of the latest step that is whole, last.ckpt before others of the same step."""
    steps = {path: resumable_step(path) for path in paths}
    newest_first = sorted(steps, key=lambda path: (steps[path], path.stem == "last"), reverse=True)
    return next((path for path in newest_first if steps[path] >= 0 and not find_damage(path)), None)
