"""What W&B has logged offline, read back as its own command prints it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def parts(run_dir: Path) -> list[Path]:
    """The folders of a run's parts, oldest first."""
    return sorted((run_dir / "wandb").glob("offline-run-*"))


def read_part(folder: Path) -> list[dict[str, Any]]:
    """The records of a part."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder.absolute())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_type(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The contents of the records of one kind."""
    return [record[kind] for record in records if record["type"] == kind]


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary at the end of a part; nested values are joined with full stops."""
    values: dict[str, Any] = {}
    for each in of_type(records, "summary"):
        values |= each.get("update", {})
    return values


def local_paths(records: list[dict[str, Any]]) -> dict[str, str]:
    """The files that `wandb sync` uploads as parts of artifacts, by their names in these."""
    manifests = [artifact["manifest"] for artifact in of_type(records, "artifact")]
    return {entry["path"]: entry["local_path"] for manifest in manifests for entry in manifest["contents"]}
