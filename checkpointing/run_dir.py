"""Where a run lives: runs/<dataset>/<experiment>/version_N/ with checkpoints/{best,last}.ckpt inside.

Torch and Lightning are imported where they are used: `cli.early_checks` looks for a checkpoint before they are.
"""

import os
import re
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from checkpointing.locks import acquire_lock
from errors import UserError, check_at_least, check_reachable

CLAIMED = "LIT_CLASSICS_RUN"  # names the claimed folder to the processes that Lightning launches, until training begins
LOCK = ".lock"  # in a run directory: the file that the process which trains there holds


def claim_version(experiment: Path, version: int | None = None) -> Path:
    """Make a version folder of an experiment; two runs that start at once get different ones.

    Args:
        experiment: folder of the versions.
        version: number of the folder; by default, the next one.

    Raises:
        UserError: if the folder cannot be written to, or if the version exists.
    """
    check_reachable(experiment)
    check_at_least(0, run_version=version)
    number = max((version_number(folder) for folder in experiment.glob("version_*")), default=-1) + 1
    number = number if version is None else version
    while True:
        folder = experiment / f"version_{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except OSError as error:
            if not os.path.exists(folder):
                raise UserError(
                    f"The run directory {folder} cannot be made ({error.strerror}: {error.filename}): choose another "
                    "place with --runs."
                ) from error
            if version is not None:
                raise UserError(
                    f"run_version is {version}, and there is {folder}: give another number, or go on with that run "
                    f"(--ckpt_path {folder})."
                ) from error
            number += 1  # another run has just made it


def keep_version() -> None:
    """Keep the claimed version folder: training has begun."""
    os.environ.pop(CLAIMED, None)


def release_version(folder: Path) -> None:
    """Remove a claimed version folder in which no training has begun, and then the folders above it that are empty."""
    shutil.rmtree(folder, ignore_errors=True)
    for empty in (folder.parent, folder.parent.parent):
        if os.path.isdir(empty) and not any(empty.iterdir()):
            empty.rmdir()


def lock_run(folder: Path) -> FileLock:
    """Hold a run directory against other processes until the lock is released, or this process has died.

    A file system that has no locks is said in a warning: the run goes on without one.

    Raises:
        UserError: if another process holds it, or its lock file cannot be opened.
    """
    try:
        return acquire_lock(folder / LOCK, blocking=False, advice="let no other process train there meanwhile.")
    except Timeout as error:
        raise UserError(
            f"Another process is training in {folder} and holds its {LOCK}: two would write over each other's "
            "checkpoints. Wait for it to end, or stop it; to train beside it, start a new run."
        ) from error
    except OSError as error:
        raise UserError(
            f"{folder / LOCK} cannot be opened ({error.strerror}): it keeps two processes out of one run. "
            "Remove it if no process of another user trains there, or copy the run to a folder of your own."
        ) from error


def unused_name(path: Path) -> Path:
    """The path itself, or the first of name-1, name-2, ... that does not exist."""
    unused, number = path, 0
    while os.path.exists(unused):
        number += 1
        unused = path.with_stem(f"{path.stem}-{number}")
    return unused


def version_number(folder: Path) -> int:
    """N of a folder version_N, -1 for anything else."""
    match = re.fullmatch(r"version_(\d+)", folder.name)
    return int(match[1]) if match else -1


def version_folder(checkpoint: Path) -> Path | None:
    """The version folder that a checkpoint file lies in; None for a file that lies elsewhere."""
    folder = checkpoint.absolute().parent
    return folder.parent if folder.name == "checkpoints" and version_number(folder.parent) >= 0 else None


def results_folder(checkpoint: Path) -> Path:
    """The folder for results of a checkpoint: its run directory, or else the folder that it lies in."""
    return version_folder(checkpoint) or checkpoint.parent


def refuse_missing_checkpoint(path: Path) -> None:
    """Refuse a --ckpt_path where there is neither a file nor a folder."""
    check_reachable(path)
    if not os.path.isfile(path) and not os.path.isdir(path):
        raise UserError(
            f"There is no checkpoint {path} (in {Path.cwd()}): --ckpt_path takes a .ckpt file, a version folder, such "
            "as runs/digits/resnet20/version_0, or an experiment folder."
        )


def find_checkpoint(path: Path, verb: str) -> Path:
    """The checkpoint file that a user means by a file, a version folder or an experiment folder.

    Args:
        path: an experiment folder stands for its newest version that has a checkpoint; a version folder for
            best.ckpt, or, where a run has none or `verb` is fit, for the checkpoint of the latest step, which is
            last.ckpt unless a run was stopped after others were written. Files that are not whole are passed over, in
            a warning.
        verb: fit, validate, test or predict.

    Raises:
        UserError: if there is no such path, or no checkpoint in it.
    """
    refuse_missing_checkpoint(path)
    if os.path.isfile(path):
        return path
    from lightning.pytorch.utilities.rank_zero import rank_zero_warn

    from checkpointing.integrity import find_damage

    versions = [path, *sorted(path.glob("version_*"), key=version_number, reverse=True)]
    damaged: dict[Path, str] = {}
    for candidate in (file for folder in versions for file in rank_checkpoints(folder / "checkpoints", verb)):
        if damage := find_damage(candidate):
            damaged[candidate] = damage
            continue
        for broken, reason in damaged.items():
            rank_zero_warn(f"{broken} is truncated or corrupt ({reason}): {candidate} is taken, the newest whole one.")
        taken = candidate.parent.parent
        if empty := [folder.name for folder in versions[1 : versions.index(taken)] if not has_checkpoint(folder)]:
            rank_zero_warn(f"{' and '.join(empty)} of {path} holds no checkpoint: {taken.name} is taken.")
        return candidate
    if damaged:
        return next(iter(damaged))  # whoever reads it says why it cannot be read
    if any(os.path.isfile(folder / "config.yaml") for folder in (path, *path.glob("version_*"))):
        raise UserError(
            f"The folder {path} holds no checkpoint: its run was stopped before the first one, so start a new one."
        )
    raise UserError(
        f"The folder {path} holds no checkpoint: it should be an experiment folder, or a version folder with "
        "checkpoints/last.ckpt in it."
    )


def rank_checkpoints(folder: Path, verb: str) -> list[Path]:
    """The checkpoints of a folder, the one that a verb means first: best.ckpt, or for fit that of the latest step.

    Of the same step last.ckpt comes before others, and best.ckpt after them: a run that was killed between the two is
    resumed before both.
    """
    from checkpointing.record import resumable_step

    rank = {path: (resumable_step(path), path.stem == "last", path.stem != "best") for path in folder.glob("*.ckpt")}
    return sorted(sorted(rank), key=lambda path: (verb != "fit" and path.stem == "best", rank[path]), reverse=True)


def has_checkpoint(run_dir: Path) -> bool:
    """Whether a run has saved anything to resume from or to test."""
    return any((run_dir / "checkpoints").glob("*.ckpt"))
