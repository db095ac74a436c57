"""Run directories that a user names."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from checkpointing.run_dir import version_number
from checkpointing.run_facts import FILE
from errors import UserError, check_reachable, expand_home, shorten

CONFIG, METRICS = "config.yaml", "metrics.csv"
ENSEMBLE = "ensemble.json"  # in a folder version_N of `reports.ensemble`, which is no run
PARTS = {CONFIG, METRICS, FILE, "checkpoints"}  # by one of which a run directory is known that was renamed


def find_runs(arguments: Sequence[str]) -> list[Path]:
    """The run directories that a user means, each once, in the order of the arguments.

    Args:
        arguments: each a run directory, a folder with runs in it or further below, a file of a run, or a pattern of
            any of these, such as "runs/digits/*/version_0". The runs of one are sorted, version_2 before version_10.

    Raises:
        UserError: if there is no such path, or no run in it.
    """
    if not arguments:
        raise UserError("No runs are given: name a run directory or a folder of runs, such as runs/digits.")
    found: dict[str, Path] = {}
    for argument in arguments:
        for path in sorted(expand_argument(argument), key=natural_key):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def expand_argument(argument: str) -> list[Path]:
    """The run directories that one argument stands for; see `find_runs`."""
    path = expand_home(argument)
    check_reachable(path)
    if os.path.lexists(path) and not os.path.exists(path):
        raise UserError(f"{shorten(path)} is a link that leads nowhere: give the folder of a run.")
    if not os.path.exists(path):
        if not glob.has_magic(os.fspath(path)):
            raise UserError(
                f"There is no {shorten(path)} (in {shorten(Path.cwd())}): give a run directory, such as "
                "runs/digits/resnet20/version_0, or a folder of runs."
            )
        matches = [Path(match) for match in glob.glob(os.fspath(path), recursive=True)]
        runs = [run for match in matches if os.path.exists(match) for run in search_runs(match)]
        if not runs:
            what = "No run is in what matches" if matches else "Nothing matches"
            raise UserError(
                f"{what} {shorten(path)} (in {shorten(Path.cwd())}): give a pattern of run directories in quotes, such "
                "as 'runs/digits/*/version_0'."
            )
        return runs
    runs = search_runs(path)
    if not runs:
        kind = "The folder" if os.path.isdir(path) else "The file"
        where = "holds no run" if os.path.isdir(path) else "lies in no run directory"
        raise UserError(
            f"{kind} {shorten(path)} {where}: a run directory is called version_N, or holds {CONFIG} or {METRICS}; "
            "`main.py fit` makes it below runs/."
        )
    return runs


def natural_key(path: Path) -> list[tuple[int, str]]:
    """For sorting: numbers in a path by their size."""
    parts = re.split(r"(\d+)", os.fspath(path))
    return [(int(part), "") if part.isdecimal() and len(part) < 1000 else (-1, part) for part in parts]


def search_runs(path: Path) -> list[Path]:
    """The run directory that a path is or lies in, or else those below it."""
    absolute = Path(os.path.abspath(path))
    folders = [absolute, *absolute.parents][:6]
    holder = next((folder for folder in folders if is_run(folder)), None)
    if holder == absolute:
        return [path]
    found = list(walk_runs(path, set())) if os.path.isdir(path) else []
    if found or holder is None:
        return found
    is_part = not os.path.isdir(path) or absolute.relative_to(holder).parts[0] in ("checkpoints", "wandb")
    return [holder] if is_part else []


def walk_runs(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The run directories below a folder, links followed; a folder that cannot be read has none.

    Args:
        folder: to look through.
        seen: device and inode of the folders that were looked through already, by another link.
    """
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            status = os.stat(current)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(current) as entries:
                folders = [Path(entry.path) for entry in entries if os.path.isdir(entry.path)]  # links to themselves
        except OSError:
            continue
        for each in folders:
            if is_run(each):
                yield each
            else:
                waiting.append(each)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory: by its name, or by what it holds, unless that is runs."""
    if not os.path.isdir(folder):
        return False
    if version_number(folder) >= 0:
        return not os.path.lexists(folder / ENSEMBLE) or has_parts(folder)
    return has_parts(folder) and not any(version_number(each) >= 0 for each in folder.glob("version_*"))


def has_parts(folder: Path) -> bool:
    """Whether a folder holds anything by which a run directory is known."""
    return any(os.path.lexists(folder / name) for name in PARTS)
