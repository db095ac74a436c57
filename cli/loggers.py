"""Where the loggers of a run write: its run directory, which the first process claims."""

import io
import os
import sys
import threading
import time
from collections import deque
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_warn

from checkpointing.atomic import remove_leftovers
from checkpointing.confinement import find_entities
from checkpointing.record import Checkpoint
from checkpointing.run_dir import CLAIMED, claim_version, lock_run, release_version, version_folder
from checkpointing.transaction_log import parse_record, read_records
from cli.failures import first_line
from cli.file_loggers import place_file_loggers, refuse_missing_packages
from cli.messages import HOME
from cli.rank_variables import is_first_process
from cli.wandb_arguments import choose_id, fill_in, leave_out_nulls
from errors import UserError

held_locks: list[FileLock] = []  # on the run directory, for as long as the run goes on
SECONDS_FOR_LOGIN = 8
SECONDS_FOR_END = 10  # of W&B's service, which may have been killed


def open_run(config: Namespace, checkpoint: Checkpoint | None) -> Path | None:
    """Tell the loggers where the run lies, and return its folder.

    Args:
        config: of fit; its loggers are given their folders.
        checkpoint: from which a run is resumed, whose version folder and W&B run are continued.
    """
    refuse_missing_packages(config.trainer.logger)
    folder = find_or_claim_run_folder(config, checkpoint.path if checkpoint else None)
    config.run_version = None  # of this run alone: its config.yaml and its checkpoint begin others
    if folder and is_first_process():
        held_locks.append(lock_run(folder))
        remove_leftovers(folder)
    if folder:
        place_file_loggers(config.trainer.logger, folder, checkpoint)
    for logger in config.trainer.logger:
        if logger.class_path.endswith("RunLogger") and folder:
            logger.init_args.save_dir = str(folder.parent.parent)
            logger.init_args.name, logger.init_args.version = folder.parent.name, folder.name
        if logger.class_path.endswith("WandbLogger"):
            logger.init_args.save_dir = str(folder or ".")
            fill_in(logger.init_args, config.run_name, folder)
            choose_id(logger.init_args, checkpoint.record if checkpoint else None, config.runs)
            complete_wandb(logger.init_args, checkpoint)
            leave_out_nulls(logger.init_args)
            if folder:
                stage_inside(folder)
    return folder


def stage_inside(folder: Path) -> None:
    """Let W&B keep the files of artifacts and tables inside a run directory, where they wait for their upload.

    By itself it keeps them below ~/.local/share/wandb, and a run that is moved to another machine would lose them.
    """
    os.environ["WANDB_DATA_DIR"] = str((folder / "wandb").absolute())


def complete_wandb(arguments: Namespace, checkpoint: Checkpoint | None) -> None:
    """Tell W&B's logger whether it is online, and set W&B up.

    Args:
        arguments: of the logger, completed in place.
        checkpoint: from which a run is resumed.
    """
    refuse_workspace_settings()
    mode = choose_wandb_mode()
    if checkpoint and mode != "disabled":
        refuse_entity_of_record(arguments.get("entity"), checkpoint)
    arguments.offline = mode == "offline"
    check_names(**{name: arguments.get(name) for name in ("project", "group", "tags", "id")})
    if is_first_process():
        set_up_wandb(mode)


def check_names(**names: Any) -> None:
    """Refuse names that W&B does not take, before its run is begun.

    Args:
        **names: project, group, tags and id, as far as they are given.
    """
    import wandb

    for argument, value in names.items():
        try:
            wandb.Settings(**{argument if argument == "project" else f"run_{argument}": value})
        except (wandb.Error, ValueError) as error:
            reason = str(error).partition("Value error, ")[2].partition(" [type=")[0]  # of pydantic
            raise UserError(
                f"W&B takes no such {argument}: {reason or first_line(error)}. Give --trainer.logger.{argument} NAME."
            ) from error


def refuse_workspace_settings() -> None:
    """Refuse W&B's settings in the working directory, unless that is the repository's.

    W&B takes the server that gets the user's key from them, and the folders that it writes to. Run directories have a
    folder of that name and are passed around, as are the folders in which they lie. The repository's folder is trusted:
    Python imports its modules.
    """
    for file in (Path("wandb", "settings"), Path(".wandb", "settings")):
        if os.path.lexists(file) and not in_repository():
            raise UserError(
                f"W&B would take its server and folders from {file.absolute()}, which may have come with a run: remove "
                "it if it is not yours, or move it to ~/.config/wandb/settings."
            )


def in_repository() -> bool:
    """Whether the working directory is the one in which main.py lies."""
    return Path.cwd().resolve() == HOME


def refuse_entity_of_record(entity: str | None, checkpoint: Checkpoint) -> None:
    """Refuse to resume a run of another W&B account than the user's: its owner would get what is logged.

    `checkpointing.confinement` has taken the entity out of the checkpoint's config.

    Args:
        entity: that the user's own configs and flags name; None if they name none.
        checkpoint: of the run.
    """
    for recorded in find_entities(checkpoint.record.config["trainer"]):
        if entity is None and recorded != os.environ.get("WANDB_ENTITY"):
            raise UserError(
                f"This run was logged to {recorded[:80]} on W&B, and a checkpoint may not decide who gets what is "
                "logged: give --trainer.logger.entity NAME, its name or your own, or set WANDB_ENTITY to its name."
            )


def find_or_claim_run_folder(config: Namespace, checkpoint: Path | None) -> Path | None:
    """The version folder of the run; None in a later process that no first one has told of it."""
    if checkpoint and (folder := version_folder(checkpoint)):
        if not os.access(folder, os.W_OK):
            raise UserError(f"The run directory {folder} cannot be written to: copy the run to where you may write.")
        refuse_folders_in_the_way(folder)
        return folder
    if CLAIMED in os.environ:
        return Path(os.environ[CLAIMED])
    if not is_first_process():
        return None
    folder = claim_version(config.runs / config.run_name, config.run_version)
    os.environ[CLAIMED] = str(folder)
    return folder


def refuse_folders_in_the_way(run_dir: Path) -> None:
    """Refuse folders that have the name of a file which a resumed run writes."""
    for path in (run_dir / "metrics.csv", *run_dir.glob("checkpoints/*.ckpt")):
        if os.path.isdir(path):
            raise UserError(f"{path} is a folder, and a resumed run writes a file of that name: move it away.")


def close_run(failed: bool) -> None:
    """Finish the W&B run, and remove a claimed folder in which no training has begun: a refused run leaves nothing.

    Args:
        failed: whether the command ends with another exit status than 0.
    """
    if "wandb" in sys.modules and (wandb_run := sys.modules["wandb"].run):
        wandb_run.finish(exit_code=int(failed))
        if not wandb_run.disabled:
            wait_for_end(Path(wandb_run.settings.sync_file))
    if is_first_process() and CLAIMED in os.environ:
        release_version(Path(os.environ.pop(CLAIMED)))
    while held_locks:
        held_locks.pop().release()


def wait_for_end(log: Path) -> None:
    """Wait until W&B's service has written the end of a run, for it does so after `finish` has returned.

    Whoever reads the run in this process, such as a report or the next command, would find a part of it.
    """
    deadline = time.monotonic() + SECONDS_FOR_END
    with suppress(UserError):  # the file is gone
        while time.monotonic() < deadline:
            last = deque(read_records(log), maxlen=1)
            if last and parse_record(last[0], log).HasField("exit"):
                return
            time.sleep(0.01)


def choose_wandb_mode() -> Literal["offline", "online", "disabled"]:
    """offline, unless WANDB_MODE asks for disabled, or for online and the server knows the user.

    A run of `wandb agent` asks for online: a sweep chooses the next run by what the server knows of this one.
    """
    requested = os.environ.get("WANDB_MODE") or ("online" if "WANDB_SWEEP_ID" in os.environ else None)
    if requested == "disabled":
        return "disabled"
    if requested != "online":
        return "offline"
    if not has_login():
        problem = "nobody is logged in on this machine (wandb login)"
    elif is_first_process():
        problem = login_problem()
    else:
        return "online"
    if problem:
        rank_zero_warn(f"W&B stays offline: {problem}. Upload the run later with wandb sync.", stacklevel=2)
    return "offline" if problem else "online"


def has_login() -> bool:
    """Whether somebody has logged in to W&B on this machine; its server is not asked."""
    import wandb

    with redirect_stderr(io.StringIO()):  # `wandb.api` is deprecated, but `wandb.login` asks the server
        return bool(wandb.api.api_key)


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
            problems[:] = [first_line(error)]

    thread = threading.Thread(target=log_in, daemon=True)
    thread.start()
    thread.join(SECONDS_FOR_LOGIN)
    return problems[0]


def set_up_wandb(mode: Literal["offline", "online", "disabled"]) -> None:
    """Let W&B read its settings before its logger is made.

    Only so does it obey WANDB_SILENT when Lightning's logger hands over a deprecated argument, which it does always.
    """
    import wandb

    # Elsewhere than in the repository, git says nothing of the code, and it obeys a .git folder that came with a run
    wandb.setup(wandb.Settings(mode=mode, disable_git=not in_repository()))
