"""Where a run lives: runs/<dataset>/<experiment>/version_N/ with checkpoints/{best,last}.ckpt inside."""

import re
from pathlib import Path

from checkpointing.record import resumable_step
from errors import UserError


def claim_version(experiment: Path) -> Path:
    """Make the next version folder of an experiment; two runs that start at once get different ones.

    Raises:
        UserError: if the folder cannot be written to.
    """
    number = max((version_number(folder) for folder in experiment.glob("version_*")), default=-1) + 1
    while True:
        folder = experiment / f"version_{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except OSError as error:
            if not folder.exists():
                raise UserError(
                    f"The run directory {folder} cannot be made ({error.strerror}: {error.filename}): choose another "
                    "place with --runs."
                ) from error
            number += 1  # another run has just made it


def release_version(folder: Path) -> None:
    """Remove a claimed version folder if it is empty, and then the folders above it that are."""
    for empty in (folder, folder.parent, folder.parent.parent):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()


def unused_name(path: Path) -> Path:
    """The path itself, or the first of name-1, name-2, ... that does not exist."""
    unused, number = path, 0
    while unused.exists():
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


def find_checkpoint(path: Path, verb: str) -> Path:
    """The checkpoint file that a user means by a file, a version folder or an experiment folder.

    Args:
        path: an experiment folder stands for its newest version that has a checkpoint; a version folder for
            best.ckpt, or, where a run has none or `verb` is fit, for the checkpoint of the latest step, which is
            last.ckpt unless a run was stopped after others were written.
        verb: fit, validate, test or predict.

    Raises:
        UserError: if there is no such path, or no checkpoint in it.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(
            f"There is no checkpoint {path}: --ckpt_path takes a .ckpt file, a version folder or an experiment folder, "
            "such as runs/digits/resnet20."
        )
    for folder in [path, *sorted(path.glob("version_*"), key=version_number, reverse=True)]:
        best = folder / "checkpoints" / "best.ckpt"
        if verb != "fit" and best.is_file():
            return best
        if latest := latest_checkpoint(folder / "checkpoints"):
            return latest
    if any((folder / "config.yaml").is_file() for folder in (path, *path.glob("version_*"))):
        raise UserError(
            f"The folder {path} holds no checkpoint: its run was stopped before the first one, so start a new one."
        )
    raise UserError(
        f"The folder {path} holds no checkpoint: it should be an experiment folder, or a version folder with "
        "checkpoints/last.ckpt in it."
    )


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step, last.ckpt before others of the same step; None in a folder without any.

    A truncated file is returned only if there is no other, so that the user hears of it.
    """
    paths = sorted(folder.glob("*.ckpt"))
    return max(paths, key=lambda path: (resumable_step(path), path.stem == "last"), default=None)


def has_checkpoint(run_dir: Path) -> bool:
    """Whether a run has saved anything to resume from or to test."""
    return any((run_dir / "checkpoints").glob("*.ckpt"))
