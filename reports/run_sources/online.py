"""Runs from a project on W&B, by its public API."""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from errors import UserError, printable
from reports.run import Run, State
from reports.run_sources.curves import Row, make_curves
from reports.run_sources.gradients import collect_norms
from reports.run_sources.saved import expected_epoch_steps
from reports.run_sources.states import Traces, find_state
from reports.run_sources.wandb_rows import STEP, make_rows, read_summary, split_config

if TYPE_CHECKING:
    import wandb
    from wandb.apis.public import Api

SECONDS = 8  # to wait for W&B's first answer
SECONDS_OF_LATER = 60  # and for each later one, which may hold many runs
RUNS_AT_ONCE = 8  # whose histories are fetched
ROWS = 1_000_000  # more than any run has
EPOCH_METRICS = {"train/loss", "train/top1_error", "train/top5_error", "train/images_per_s"}  # logged together
PART = r"[\w.][\w.-]{0,127}"
PROJECT = re.compile(rf"(?:https?://[^/]+/)?(?:(?P<entity>{PART})/)?(?P<project>{PART})/?")
NOT_TRAININGS = {"ensemble", "test", "validate", "predict"}  # job types
# What W&B says of a process, where it is known how that ended
EXITS: dict[str, int | None] = {"finished": 0, "failed": 1, "killed": 143, "crashed": None}


def parse_filters(text: str) -> dict[str, Any]:
    """The filters of `load_wandb` from JSON.

    Raises:
        UserError: if the text is no JSON object.
    """
    example = """such as '{"config.seed_everything": 0}' or '{"tags": "paper"}'"""
    try:
        filters = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = (
            f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        )
        raise UserError(
            f"--filters is {printable(text[:200])}, which is no JSON ({reason}): write it {example}."
        ) from error
    if not isinstance(filters, dict):
        raise UserError(f"--filters is {printable(text[:200])}, which is no JSON object: write it {example}.")
    return filters


def load_wandb(project: str, filters: dict[str, Any] | None = None) -> list[Run]:
    """The trainings in a project on W&B, the oldest first; ensembles and tests that are runs of their own are left out.

    Args:
        project: ENTITY/PROJECT, or PROJECT of the user's own entity.
        filters: of the API, in MongoDB's language, such as {"state": "finished"}; see `wandb.Api.runs`.

    Raises:
        UserError: if there is no such project or no run in it, if nobody is logged in, or W&B is not reached.
    """
    match = PROJECT.fullmatch(project)
    if not match:
        raise UserError(f"--wandb is {printable(project[:200])}: give ENTITY/PROJECT, as in the address of its page.")
    path = "/".join(filter(None, [match["entity"], match["project"]]))
    with quiet():
        api = connect()
        found = [run for run in list_runs(api, path, filters or {}) if run.job_type not in NOT_TRAININGS]
        if not found:
            which = f"that match --filters {json.dumps(filters)[:200]}" if filters else "in it"
            raise UserError(f"The project {path} on W&B has no trainings {which}: log some, or name another project.")
        with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
            return list(pool.map(read_run, found))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep W&B from asking for a password, and from printing what is said in a sentence of ours."""
    asked = sys.stdin
    with open(os.devnull) as nothing, contextlib.redirect_stderr(io.StringIO()):
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = asked


def connect() -> "Api":
    """W&B's public API, logged in.

    Raises:
        UserError: if nobody is logged in, or W&B is not reached.
    """
    import wandb

    try:
        wandb.Api(timeout=SECONDS)
        return wandb.Api(timeout=SECONDS_OF_LATER)
    except (wandb.Error, ValueError, OSError) as error:
        raise UserError(explain(error)) from error


def explain(error: Exception) -> str:
    """The sentence for a connection that failed."""
    import wandb

    reason = printable(" ".join(str(error).split()))
    server = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    if isinstance(error, wandb.errors.UsageError) or re.search(r"API key|credentials: |\b401\b", reason):
        return (
            f"Nobody is logged in to W&B on {server} ({reason[:200]}): run `wandb login`, or set WANDB_API_KEY, or "
            "compare run directories, which needs no account."
        )
    return (
        f"W&B on {server} is not reached ({reason[-200:]}): check the network and WANDB_BASE_URL, or compare run "
        "directories, which needs none."
    )


def list_runs(api: "Api", path: str, filters: dict[str, Any]) -> "list[wandb.apis.public.Run]":
    """The runs of a project with their configs and summaries.

    Raises:
        UserError: if there is no such project, or the server refuses the filters.
    """
    import wandb

    try:
        return list(api.runs(path, filters, order="+created_at", lazy=False))
    except (wandb.Error, ValueError, TypeError, KeyError) as error:
        reason = printable(" ".join(str(error).split()))
        if "Could not find project" in reason or "not found" in reason.lower():
            raise UserError(
                f"There is no project {path} on W&B that this account may read: give ENTITY/PROJECT, as in the address "
                "of its page."
            ) from error
        with_filters = f" with --filters {json.dumps(filters)[:200]}" if filters else ""
        raise UserError(f"W&B does not list the runs of {path}{with_filters} ({reason[:200]}).") from error


def read_run(source: "wandb.apis.public.Run") -> Run:
    """A run of the API."""
    config, facts = split_config(source.config)
    problems: list[str] = []
    rows = read_history(source, problems)
    measured = make_curves(rows, expected_epoch_steps(config, facts, None))
    traces = Traces(config, facts, measured, None, source.state == "running", problems, EXITS.get(source.state))
    state, reason = find_wandb_state(source.state, traces)
    summary = source.summary_metrics if isinstance(source.summary_metrics, Mapping) else {}
    return Run(
        location="/".join([source.entity, source.project, source.id]),
        experiment=name_experiment(source, config),
        version=str(source.id),
        state=state,
        reason=reason,
        config=config,
        facts=facts,
        curves=measured.curves,
        results=read_summary(summary),
        gradient_flow=collect_norms(rows, problems),
    )


def find_wandb_state(wandb_state: str, traces: Traces) -> tuple[State, str]:
    """The state of a run, and why; `wandb_state` is that of W&B."""
    state, reason = find_state(traces)
    if wandb_state == "crashed" and state == "killed":
        return state, f"{reason}: W&B has lost contact"
    return state, reason


def read_history(source: "wandb.apis.public.Run", problems: list[str]) -> list[Row]:
    """All rows of a run's history, as far as they can be fetched.

    So many samples are asked for that they are all rows; where a server gives fewer, the metrics of epochs are asked
    for by name. `scan_history` would do, but waits for an answer without an end.
    """
    import wandb

    try:
        rows = source.history(samples=ROWS, pandas=False)
        logged = source.historyLineCount
        if isinstance(logged, int) and len(rows) < logged:
            names = {name for row in rows for name in row}
            for kept in (EPOCH_METRICS, {name for name in names if name.startswith("val/")}):
                keys = sorted(kept & names)
                rows += source.history(samples=ROWS, keys=[STEP, "epoch", *keys], pandas=False) if keys else []
        return sorted(make_rows(rows), key=lambda row: float(row["step"]))
    except (wandb.Error, ValueError, TypeError, KeyError, AttributeError) as error:
        problems.append(f"its history cannot be fetched ({printable(str(error))[:100]})")
        return []


def name_experiment(source: "wandb.apis.public.Run", config: dict[str, Any]) -> str:
    """<dataset>/<experiment> of a run: by its config, its display name, or its group."""
    named = config.get("run_name")
    if isinstance(named, str) and named:
        return named
    parts = str(source.name).split("/")
    if len(parts) == 3:
        return "/".join(parts[:2])
    return str(source.group or source.project)
