"""Where the loggers of a run write: its run directory, which the first process claims."""

import os
import sys
import warnings
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from checkpointing.record import Checkpoint
from checkpointing.run_dir import claim_version, release_version, version_folder
from errors import UserError

CLAIMED = "LIT_CLASSICS_RUN"  # tells the processes that Lightning launches which folder the first one claimed


def open_run(config: Namespace, checkpoint: Checkpoint | None) -> None:
    """Tell the loggers where the run lies.

    Args:
        config: of fit; its loggers are given their folders.
        checkpoint: from which a run is resumed, whose version folder and W&B run are continued.
    """
    folder = find_or_claim_run_folder(config, checkpoint.path if checkpoint else None)
    for logger in config.trainer.logger:
        if logger.class_path.endswith("RunLogger") and folder:
            logger.init_args.save_dir = str(folder.parent.parent)
            logger.init_args.name, logger.init_args.version = folder.parent.name, folder.name
        if logger.class_path.endswith("WandbLogger"):
            logger.init_args.save_dir = str(folder or ".")
            logger.init_args.name = f"{config.run_name}/{folder.name}" if folder else None
            logger.init_args.id = (checkpoint and checkpoint.record.wandb_run_id) or logger.init_args.id
            mode = choose_wandb_mode()
            logger.init_args.offline = mode == "offline"
            if is_first_process():
                set_up_wandb(mode)


def find_or_claim_run_folder(config: Namespace, checkpoint: Path | None) -> Path | None:
    """The version folder of the run; None in a later process that no first one has told of it."""
    if checkpoint and (folder := version_folder(checkpoint)):
        if not os.access(folder, os.W_OK):
            raise UserError(f"The run directory {folder} cannot be written to: copy the run to where you may write.")
        return folder
    if CLAIMED in os.environ:
        return Path(os.environ[CLAIMED])
    if not is_first_process():
        return None
    folder = claim_version(config.runs / config.run_name)
    os.environ[CLAIMED] = str(folder)
    return folder


def close_run() -> None:
    """Finish the W&B run, and remove a claimed folder in which nothing was written."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()
    if is_first_process() and CLAIMED in os.environ:
        release_version(Path(os.environ.pop(CLAIMED)))


def is_first_process() -> bool:
    """Whether this process is the one that makes run directories, before Lightning has said so."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"))


def choose_wandb_mode() -> Literal["offline", "online", "disabled"]:
    """offline, unless WANDB_MODE asks for disabled, or for online and the user is logged in."""
    requested = os.environ.get("WANDB_MODE")
    if requested == "disabled":
        return "disabled"
    if requested != "online":
        return "offline"
    import wandb

    if wandb.api.api_key:
        return "online"
    warnings.warn("W&B stays offline: nobody is logged in on this machine (wandb login).", stacklevel=2)
    return "offline"


def set_up_wandb(mode: Literal["offline", "online", "disabled"]) -> None:
    """Let W&B read its settings before its logger is made.

    Only so does it obey WANDB_SILENT when Lightning's logger hands over a deprecated argument, which it does always.
    """
    import wandb

    wandb.setup(wandb.Settings(mode=mode))
