"""Where the loggers of a run write: its run directory, which the first process claims."""

import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Literal

from filelock import FileLock
from jsonargparse import Namespace

from checkpointing.atomic import remove_leftovers
from checkpointing.record import Checkpoint
from checkpointing.run_dir import CLAIMED, claim_version, lock_run, release_version, version_folder
from cli.processes import is_first_process
from errors import UserError

held_locks: list[FileLock] = []  # on the run directory, for as long as the run goes on
SECONDS_FOR_LOGIN = 8


def open_run(config: Namespace, checkpoint: Checkpoint | None) -> Path | None:
    """Tell the loggers where the run lies, and return its folder.

    Args:
        config: of fit; its loggers are given their folders.
        checkpoint: from which a run is resumed, whose version folder and W&B run are continued.
    """
    folder = find_or_claim_run_folder(config, checkpoint.path if checkpoint else None)
    if folder and is_first_process():
        held_locks.append(lock_run(folder))
        remove_leftovers(folder)
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
    return folder


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
    """Finish the W&B run, and remove a claimed folder in which no training has begun: a refused run leaves nothing."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()
    if is_first_process() and CLAIMED in os.environ:
        release_version(Path(os.environ.pop(CLAIMED)))
    while held_locks:
        held_locks.pop().release()


def choose_wandb_mode() -> Literal["offline", "online", "disabled"]:
    """offline, unless WANDB_MODE asks for disabled, or for online and the server knows the user."""
    requested = os.environ.get("WANDB_MODE")
    if requested == "disabled":
        return "disabled"
    if requested != "online":
        return "offline"
    import wandb

    if not wandb.api.api_key:
        problem = "nobody is logged in on this machine (wandb login)"
    elif is_first_process():
        problem = login_problem()
    else:
        return "online"
    if problem:
        warnings.warn(f"W&B stays offline: {problem}. Upload the run later with wandb sync.", stacklevel=2)
    return "offline" if problem else "online"


def login_problem() -> str:
    """Why W&B's server cannot be used, found within `SECONDS_FOR_LOGIN`; empty where it can.

    W&B itself waits a minute and a half for a server that does not answer, and then ends with an error.
    """
    import wandb

    problems = ["its server does not answer"]

    def log_in() -> None:
        try:
            wandb.login(verify=True)
            problems[:] = [""]
        except (wandb.Error, ValueError) as error:
            problems[:] = [str(error).partition("\n")[0].rstrip(".")]

    thread = threading.Thread(target=log_in, daemon=True)
    thread.start()
    thread.join(SECONDS_FOR_LOGIN)
    return problems[0]


def set_up_wandb(mode: Literal["offline", "online", "disabled"]) -> None:
    """Let W&B read its settings before its logger is made.

    Only so does it obey WANDB_SILENT when Lightning's logger hands over a deprecated argument, which it does always.
    """
    import wandb

    wandb.setup(wandb.Settings(mode=mode))
