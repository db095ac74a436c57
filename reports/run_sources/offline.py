"""Runs from the files that W&B writes offline, for run directories whose metrics.csv or config.yaml is missing."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from checkpointing.run_facts import RunFacts
from errors import UserError
from reports.run_sources.curves import Row
from reports.run_sources.run_files import LARGEST, find_file, list_files
from reports.run_sources.wandb_rows import append_session, make_rows, split_config

SECONDS = 120  # to read a file, which takes one second
SEGMENT = re.compile(r"(offline-)?run-(?P<time>\d{8}_\d{6})-(?P<id>[\w-]+)")  # a folder below wandb/
KINDS = ("run", "config", "history", "summary", "exit")  # of records that are read
Record = tuple[str, Mapping[str, Any]]  # kind and content


class Offline(NamedTuple):
    """What the offline files of a run hold.

    Args:
        config: of the run.
        facts: as in run.json; None if they were not logged.
        rows: for `make_curves`.
        summary: of the run.
        exit_code: of the last training; None where it was killed, or still logs.
    """

    config: dict[str, Any]
    facts: RunFacts | None
    rows: list[Row]
    summary: dict[str, Any]
    exit_code: int | None


def read_offline(run_dir: Path, problems: list[str]) -> Offline | None:
    """What the files wandb/*run-*/run-*.wandb of a run directory hold; None without any that can be read.

    Args:
        run_dir: of the run; of several W&B runs in it the first is read, in all its segments.
        problems: to which those with the files are added.
    """
    read = None
    for path in find_segments(run_dir):
        try:
            records = read_records(run_dir, path, problems)
        except UserError as error:
            problems.append(str(error))
            continue
        read = add_segment(read, records)
    if read is None:
        return None
    config, facts = split_config(read.config)
    return read._replace(config=config, facts=facts)


def add_segment(before: Offline | None, records: list[Record]) -> Offline:
    """What the files of a run hold with the records of one more; None where it is the first."""
    config, summary = (dict(before.config), dict(before.summary)) if before else ({}, {})
    history: list[Mapping[str, Any]] = []
    exit_code = None
    for kind, content in records:
        if kind == "history":
            history.append(as_dict(content.get("item")))
        elif kind == "exit":
            exit_code = read_exit_code(content)
        elif kind == "summary":
            summary |= as_dict(content.get("update"))
        else:
            update = content.get("config") if kind == "run" else content
            config |= as_dict(as_dict(update).get("update"))
    rows = make_rows(history)
    if before is None:
        return Offline(config, None, rows, summary, exit_code)
    exit_code = exit_code if rows else before.exit_code  # and not of a test
    return Offline(config, None, append_session(before.rows, rows), summary, exit_code)


def find_segments(run_dir: Path) -> list[Path]:
    """The files of a run's first W&B run, in the order in which they were written."""
    found = []
    for path in list_files(run_dir, run_dir / "wandb", "*run-*/run-*.wandb"):
        match = SEGMENT.fullmatch(path.parent.name)
        if match and path.name == f"run-{match['id']}.wandb":
            found.append((match["time"], match["id"], path))
    found.sort()
    return [path for _, run_id, path in found if run_id == found[0][1]]


def read_records(run_dir: Path, path: Path, problems: list[str]) -> list[Record]:
    """The records of a file, as far as it can be read; that it is truncated is added to the problems.

    Raises:
        UserError: in a few words, if nothing can be read.
    """
    name = f"{path.parent.name}/{path.name}"
    if not find_file(run_dir, path):
        return []
    if os.stat(path).st_size > LARGEST:
        raise UserError(f"{name} is too large to be read")
    done = inspect_file(path)
    records = [parse_record(line) for line in done.stdout.splitlines()]
    said = done.stderr.decode(errors="replace").strip()
    if not any(kind for kind, _ in records):
        reason = said.splitlines()[-1].removeprefix("wandb leet inspect: ") if said else "it holds no records"
        raise UserError(f"{name} cannot be read ({reason[:100]})")
    if done.returncode or "incomplete" in said:
        problems.append(f"{name} is truncated")
    return [record for record in records if record[0] in KINDS]


def inspect_file(path: Path) -> "subprocess.CompletedProcess[bytes]":
    """Run `wandb leet inspect --json`.

    Raises:
        UserError: in a few words, if it cannot be run, or does not end.
    """
    # -P: no module of the working directory is imported, where W&B makes a folder of its own name
    command = [sys.executable, "-P", "-m", "wandb", "leet", "inspect", "--json", os.path.abspath(path)]
    environment = os.environ | {"WANDB_ERROR_REPORTING": "false", "WANDB_MODE": "offline"}
    environment.pop("WANDB_SERVICE", None)  # of this process's own runs: reading a file needs none
    try:
        return subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=SECONDS, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f"{path.parent.name}/{path.name} cannot be read by `wandb leet inspect` ({type(error).__name__})"
        ) from error


def parse_record(line: bytes) -> Record:
    """Kind and content of a line of `wandb leet inspect --json`; no kind for any other line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return "", {}
    kind = as_dict(record).get("type")
    return (kind, as_dict(record.get(kind))) if isinstance(kind, str) else ("", {})


def read_exit_code(content: Mapping[str, Any]) -> int | None:
    """The exit code of a record; None if it is no number."""
    code = content.get("exit_code", 0)
    return code if isinstance(code, int) else None


def as_dict(value: object) -> dict[str, Any]:
    """A dict, or an empty one in the place of anything else."""
    return value if isinstance(value, dict) else {}
