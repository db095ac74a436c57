"""Runs from run directories."""

import os
from pathlib import Path
from typing import Any

from checkpointing.metrics_file import read_metrics
from checkpointing.run_dir import version_number
from checkpointing.run_facts import FILE, RunFacts, parse_run_facts
from cli.yaml_files import parse_yaml
from errors import UserError
from reports.run import Run
from reports.run_sources.curves import Row, make_curves
from reports.run_sources.gradients import collect_norms, read_norms
from reports.run_sources.offline import read_offline
from reports.run_sources.results import read_results
from reports.run_sources.run_files import LARGEST, find_file, is_locked, read_bytes, read_json
from reports.run_sources.saved import expected_epoch_steps, read_saved
from reports.run_sources.search import CONFIG, METRICS, find_runs
from reports.run_sources.states import Traces, find_state
from reports.run_sources.wandb_rows import read_summary

__all__ = ["find_runs", "read_run"]

MOST_VALUES = 2**24  # of metrics.csv, empty ones too: a million rows of 16


def read_run(path: Path) -> Run:
    """A run from its directory, whatever is left of it. Nothing in the directory is changed, and no code in it run.

    Where config.yaml is missing or damaged, the config comes from a checkpoint; where metrics.csv is, the curves come
    from the offline files of W&B.
    """
    problems: list[str] = []
    config = read_config(path, problems)
    facts = read_facts(path, problems)
    rows: list[Row] = [*read_rows(path, problems)]
    outcome = facts.sessions[-1].outcome if facts and facts.sessions else "running"
    saved = read_saved(path, problems) if not config or outcome == "running" else None
    config = config or (saved.config if saved else {})
    offline = None if config and rows else read_offline(path, problems)
    if offline:
        config, facts, rows = config or offline.config, facts or offline.facts, rows or offline.rows
    measured = make_curves(rows, expected_epoch_steps(config, facts, saved))
    facts = facts or (saved.facts if saved else None)
    norms = read_norms(path, problems) or (collect_norms(offline.rows, problems) if offline else None)
    results, damaged = read_results(path, facts)
    if offline and not results:
        results = read_summary(offline.summary)
    traces = Traces(
        config=config,
        facts=facts,
        measured=measured,
        saved=(saved.epochs, saved.steps) if saved else None,
        is_locked=is_locked(path),
        problems=[*problems, *damaged],
        exit_code=offline.exit_code if offline else None,
    )
    state, reason = find_state(traces)
    experiment, version = name_run(path, config)
    return Run(os.fspath(path), experiment, version, state, reason, config, facts, measured.curves, results, norms)


def read_config(path: Path, problems: list[str]) -> dict[str, Any]:
    """The config of a run; empty if it cannot be read."""
    try:
        content = read_bytes(path, path / CONFIG)
        if content is None:
            problems.append(f"{CONFIG} is missing")
            return {}
        config = parse_yaml(content.decode(), CONFIG)
    except UnicodeDecodeError:
        problems.append(f"{CONFIG} is no UTF-8")
    except UserError as error:
        problems.append(str(error).removesuffix("."))
    else:
        if isinstance(config, dict):
            return config
        problems.append(f"{CONFIG} holds no config")
    return {}


def read_facts(path: Path, problems: list[str]) -> RunFacts | None:
    """What run.json says; None without it."""
    try:
        content = read_json(path, path / FILE)
    except UserError as error:
        problems.append(str(error))
        return None
    facts = parse_run_facts(content)
    if content is not None and facts is None:
        problems.append(f"{FILE} is not as this project writes it")
    return facts


def read_rows(path: Path, problems: list[str]) -> list[dict[str, str]]:
    """The rows of metrics.csv; none if it cannot be read."""
    try:
        if not find_file(path, path / METRICS):
            problems.append(f"{METRICS} is missing")
            return []
        content = read_bytes(path, path / METRICS, LARGEST) or b""
        if content.count(b",") > MOST_VALUES:
            raise UserError(f"{METRICS} has more values than can be read")
        rows = read_metrics(path / METRICS)[1]
    except UserError as error:
        problems.append(str(error))
        return []
    except OSError as error:
        problems.append(f"{METRICS} cannot be read ({error.strerror})")
        return []
    if not rows:
        problems.append(f"{METRICS} {'holds no rows' if content.strip() else 'is empty'}")
    return rows


def name_run(path: Path, config: dict[str, Any]) -> tuple[str, str]:
    """Experiment and version of a run: by its folder, or by its config where the run was moved."""
    folder = Path(os.path.abspath(path))
    by_folder = "/".join(folder.parts[-3:-1])
    named = config.get("run_name")
    if not isinstance(named, str) or not named:
        return by_folder, folder.name
    was_moved = version_number(folder) < 0 or folder.parent.parent.name != named.split("/")[0]
    return named if was_moved or by_folder.endswith(named) else by_folder, folder.name
