"""What a checkpoint carries besides weights."""

import copy
import pickle
import re
import subprocess
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from errors import UserError

RECORD = "lit_classics"  # the checkpoint's key for what it carries besides weights
AVERAGED_FROM = "averaged_from"  # in the record of a checkpoint whose weights are the mean of others: their names


def resolved(config: dict[str, Any], trainer: pl.Trainer) -> dict[str, Any]:
    """A copy of the config with what the link filled in."""
    config = copy.deepcopy(config)
    config["model"]["init_args"]["num_classes"] = trainer.datamodule.num_classes  # type: ignore[attr-defined]
    return config


def code_version() -> str:
    """What git calls the checkout, with -dirty where it has changes; "unknown" outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def saved_step(path: Path) -> tuple[int, bool]:
    """The optimizer steps of a checkpoint; of equal ones last.ckpt counts as the later.

    -1 where it cannot be read, or holds a mean of weights that no step has made.
    """
    try:
        checkpoint = read_checkpoint(path)
        averaged = AVERAGED_FROM in checkpoint[RECORD]
        return -1 if averaged else checkpoint["global_step"], path.stem == "last"
    except ValueError:
        return -1, path.stem == "last"


def read_plain_file(path: Path) -> dict[str, Any]:
    """Load a checkpoint: plain types and tensors only, no code in it is run.

    Raises:
        UserError: if the file is truncated, no checkpoint, or asks to run code.
    """
    try:
        # mapped, not read: the weights stay on the disk until someone looks at them
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        raise UserError(
            f"{path} is not loaded: it asks for {asked[1] if asked else 'more than tensors and plain values'}, and a "
            "checkpoint that runs code is not to be trusted."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is no whole checkpoint: it is cut off, or another kind of file. Give a .ckpt file that "
            "`main.py fit` wrote, such as best.ckpt beside last.ckpt."
        ) from error
    return checkpoint


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint that `main.py fit` wrote.

    Raises:
        UserError: as `read_plain_file`, and if the file has no record of its run.
    """
    checkpoint = read_plain_file(path)
    if not isinstance(checkpoint, dict) or not checkpoint.get(RECORD):
        raise UserError(
            f"{path} holds no record of its run (bare weights?): only checkpoints that `main.py fit` wrote say which "
            "model and data they belong to."
        )
    return checkpoint
