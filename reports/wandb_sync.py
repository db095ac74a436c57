"""Upload runs that were logged to W&B offline, with `wandb sync`, wherever their directories are now.

python -m reports.wandb_sync runs/digits/resnet20/version_0
python -m reports.wandb_sync runs

Takes run directories, or folders of them. W&B notes files of tables, images and checkpoints by the absolute path that
they had when they were logged: where the run was moved since, the paths in its .wandb files are brought up to date
first, after which plain `wandb sync` finds the files too. All parts of a run (resumed trainings, tests) go in one
command, in their order. Log in once (`wandb login`).
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from checkpointing.confinement import lies_in
from checkpointing.transaction_log import parse_record, read_records, write_records
from cli.loggers import has_login, refuse_workspace_settings
from errors import UserError, check_reachable, expand_home, pluralize, printable
from reports.command import Parser


def find_logs(path: Path) -> list[Path]:
    """The .wandb files of offline parts of runs in a run directory or a folder of runs, oldest part first.

    Raises:
        UserError: if there are none.
    """
    check_reachable(path)
    logs = [log for log in path.rglob("offline-run-*/run-*.wandb") if log.parent.parent.name == "wandb"]
    if not logs:
        raise UserError(f"{path} holds no run that W&B has logged offline: name a run directory, or a folder of them.")
    return sorted(logs)


def prepare(log: Path) -> int:
    """Bring the paths in a .wandb file up to date; returns the number of files that are missing from the run.

    Raises:
        UserError: if the run belongs to another account than the user's, or would upload files outside of it.
    """
    run_dir = log.parent.parent.parent
    refuse_outside(log, run_dir)
    before, missing = list(read_records(log)), 0
    after = []
    for content in before:
        record, changed = parse_record(content, log), False
        if record.run.entity:
            refuse_other_account(record.run.entity, log)
        for file in record.files.files:
            refuse_outside(log.parent / "files" / file.path, run_dir)
        if record.artifact.manifest.manifest_file_path:  # of more files than a run here logs
            raise UserError(f"{log} lists files of an artifact elsewhere: type `wandb sync {log.parent}` yourself.")
        for entry in record.artifact.manifest.contents:
            found = find_in_run(entry, run_dir) if entry.local_path else ""
            missing += found is None
            if found and found != entry.local_path:
                entry.local_path, changed = found, True
        after.append(record.SerializeToString() if changed else content)
    if after != before:
        write_records(log, after)
    return missing


def refuse_other_account(entity: str, log: Path) -> None:
    """Refuse to upload a run to an account that the user has not named."""
    if entity != os.environ.get("WANDB_ENTITY"):
        raise UserError(
            f"{log} belongs to {printable(entity)[:80]} on W&B, and a run may not decide who gets it: if that is your "
            "own account or team, set WANDB_ENTITY to its name."
        )


def find_in_run(entry: Any, run_dir: Path) -> str | None:
    """The path, inside a run directory, of a file that W&B has noted; None if the run does not have it.

    In a run that was moved it is the file at the longest end of the noted path, of the same size.

    Args:
        entry: of an artifact's manifest, with `local_path` and `size`.
        run_dir: where the run is now.

    Raises:
        UserError: if the file lies outside of the run.
    """
    noted, folder = Path(entry.local_path), run_dir.resolve()
    for number in range(len(noted.parts)):
        path = folder.joinpath(*noted.parts[number:])
        if lies_in(str(path), folder) and os.path.isfile(path) and os.path.getsize(path) == entry.size:
            return str(path)
    refuse_outside(noted, run_dir)
    return None


def refuse_outside(path: Path, run_dir: Path) -> None:
    """Refuse to upload a file that lies outside of its run, by its path or by a link."""
    if os.path.lexists(path) and not lies_in(str(path), run_dir):
        raise UserError(
            f"{run_dir} would upload {printable(os.path.realpath(path))}, which lies outside of it: if that is meant, "
            f"type `wandb sync {run_dir}/wandb/offline-run-*` yourself."
        )


def report(given: argparse.Namespace) -> None:
    """Prepare the runs and hand them to `wandb sync`."""
    if not given.runs:
        raise UserError("No runs are given: name run directories, or a folder of them, such as runs.")
    logs = list(dict.fromkeys(log for path in given.runs for log in find_logs(expand_home(path))))
    refuse_workspace_settings()
    for log in logs:
        if missing := prepare(log):
            print(f"{log.parent}: {pluralize(missing, 'file')} of its artifacts cannot be found: W&B will lack them.")
    if not has_login():
        raise UserError("Nobody is logged in to W&B on this machine: type `wandb login` once, then this command again.")
    sys.exit(sync([log.parent for log in logs]))


def sync(folders: list[Path]) -> int:
    """Call W&B's own command with parts of runs; returns its exit status."""
    command = [sys.executable, "-m", "wandb", "sync", *map(str, folders)]
    return subprocess.run(command, check=False).returncode


def main(args: list[str] | None = None) -> None:
    """The command line of this report; `args` are by default those of the process."""
    parser = Parser("reports.wandb_sync", __doc__)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run directories, or folders of them")
    parser.run(report, args)


if __name__ == "__main__":
    main()
