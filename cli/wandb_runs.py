"""The W&B runs that results are logged to: the one that a checkpoint belongs to, or a new one."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpointing.record import Checkpoint, CheckpointRecord
from checkpointing.run_dir import version_folder
from cli.failures import first_line
from cli.loggers import (
    SECONDS_FOR_LOGIN,
    check_names,
    choose_wandb_mode,
    in_repository,
    refuse_workspace_settings,
    set_up_wandb,
    stage_inside,
)
from errors import UserError

if TYPE_CHECKING:
    from wandb import Run


def continue_run(checkpoint: Checkpoint) -> "Run | None":
    """Open the W&B run that a checkpoint belongs to; None, with the reason where it is news, if that cannot be done.

    Offline it is one more part of the run, in a folder of its own inside the run directory's wandb/. As for `fit`, a
    checkpoint names the project and the ID inside the user's own account, and nothing else of where results are sent.
    """
    path, record = checkpoint.path, checkpoint.record
    folder, arguments = version_folder(path), logged_with(record)
    if folder is None or not is_logged(folder, record.wandb_run_id):
        return None
    if (entity := arguments.get("entity")) is not None and entity != os.environ.get("WANDB_ENTITY"):
        print(
            f"Not logged to W&B: the run belongs to {str(entity)[:80]} there. If that is your own account or team, set "
            "WANDB_ENTITY to its name.",
            flush=True,
        )
        return None
    return open_run(folder, id=record.wandb_run_id, project=arguments.get("project"), resume="allow")


def logged_with(record: CheckpointRecord) -> dict[str, Any]:
    """The arguments of W&B's logger in the config of a checkpoint, which may be malformed; empty without one."""
    trainer = record.config.get("trainer")
    loggers = trainer.get("logger") if isinstance(trainer, dict) else None
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, dict) and str(logger.get("class_path")).endswith("WandbLogger"):
            parts = [logger.get(part) for part in ("init_args", "dict_kwargs")]
            return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
    return {}


def is_logged(folder: Path | None, run_id: str | None) -> bool:
    """Whether W&B has logged a run with this ID into a run directory; None is a file outside of any run."""
    if folder is None or not isinstance(run_id, str) or not re.fullmatch(r"[\w-]{1,64}", run_id):
        return False
    return any(folder.glob(f"wandb/*run-*-{run_id}/run-{run_id}.wandb"))


def open_run(folder: Path, **arguments: Any) -> "Run | None":
    """Open a W&B run that logs results, not a training: without console, system metrics and environment.

    Args:
        folder: run directory, in whose wandb/ everything that is to be uploaded lies.
        **arguments: of `wandb.init`.

    Returns:
        None, and a sentence where there is a problem, if W&B is disabled or cannot be used.
    """
    if os.environ.get("WANDB_MODE") == "disabled":
        return None
    import wandb

    try:
        refuse_workspace_settings()
        check_names(project=arguments.get("project"))
        mode = choose_wandb_mode()
        if not os.access(folder / "wandb" if os.path.isdir(folder / "wandb") else folder, os.W_OK):
            raise UserError(f"{folder} cannot be written to.")
        set_up_wandb(mode)
        settings = wandb.Settings(
            console="off",
            x_disable_stats=True,
            x_disable_meta=True,
            x_save_requirements=False,
            disable_git=not in_repository(),
            init_timeout=2 * SECONDS_FOR_LOGIN,
        )
        stage_inside(folder)
        return wandb.init(dir=str(folder.absolute()), mode=mode, settings=settings, **arguments)
    except (UserError, wandb.Error, OSError) as error:
        print(f"Not logged to W&B: {first_line(error)}", flush=True)
        return None
