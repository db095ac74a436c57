"""The record of its run that a checkpoint carries, and the reading of checkpoint files."""

import pickle
import re
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from errors import UserError

RECORD_KEY = "lit_classics"  # of the record in a checkpoint file
INITIAL_WEIGHTS = {"weights", "init_from"}  # arguments of models; a checkpoint has weights of its own in their place
# Class paths in the configs of older checkpoints, and the names that these classes have now
RENAMED_CLASSES = {"callbacks.BatchNormReestimation": "callbacks.PreciseBN"}


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
    """

    config: dict[str, Any]
    class_names: list[str]
    preprocessing: dict[str, Any]
    code_version: str = "unknown"
    wandb_run_id: str | None = None
    averaged_from: list[str] = field(default_factory=list)

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
            UserError: if fields are missing, or unknown because the file was written by newer code.
        """
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
        return cls(**content | {"config": rename_classes(content["config"])})


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


def rename_classes(config: Any) -> Any:
    """A copy of a config in which `RENAMED_CLASSES` have their names of today."""
    if isinstance(config, list):
        return [rename_classes(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: rename_classes(value) for key, value in config.items()}
    if (class_path := config.get("class_path")) in RENAMED_CLASSES:
        config["class_path"] = RENAMED_CLASSES[class_path]
    return config


def code_version() -> str:
    """The commit of the checkout, with -dirty where it has changes; "unknown" outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def read_plain_file(path: Path) -> dict[str, Any]:
    """Load a file of tensors and plain types; no code in it is run.

    Raises:
        UserError: if the file is truncated, of another kind, or asks to run code.
    """
    try:
        # Mapped, not read: the weights stay on the disk until they are used
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        raise UserError(
            f"{path} is not loaded: it asks for {asked[1] if asked else 'more than tensors and plain values'}, and a "
            "checkpoint that runs code is not to be trusted."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is no checkpoint that can be read: it is truncated or corrupt, or another kind of file. Give a "
            ".ckpt file that `main.py fit` wrote, such as best.ckpt beside last.ckpt."
        ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint that `main.py fit` wrote.

    Raises:
        UserError: as `read_plain_file` and `CheckpointRecord.from_plain`, and if the file has no record of its run.
    """
    content = read_plain_file(path)
    if not isinstance(content, dict) or not content.get(RECORD_KEY):
        raise UserError(
            f"{path} holds no record of its run (bare weights?): only checkpoints that `main.py fit` wrote say which "
            "model and data they belong to."
        )
    return Checkpoint(path, content, CheckpointRecord.from_plain(content[RECORD_KEY], path))


def resumable_step(path: Path) -> int:
    """The optimizer steps of a checkpoint; -1 for a file that cannot be read, and for averaged weights."""
    try:
        checkpoint = read_checkpoint(path)
    except UserError:
        return -1
    return -1 if checkpoint.record.averaged_from else checkpoint.step
