"""What W&B holds of a run, offline and online, in the form in which run directories have it."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from checkpointing.run_facts import RunFacts, parse_run_facts
from reports.run import EvaluationResult
from reports.run_sources.curves import Row, to_number
from reports.run_sources.results import parse_metrics

STEP = "trainer/global_step"  # Lightning's name for the step; `_step` counts the rows
FACTS = "facts"  # key of a run's config under which run.json stands
TRAINED = re.compile(r"(train|val)/\w+|(lr-|gradient_norm/).+")  # the names of what a training logs
# What `callbacks.wandb_results` writes: the result of best.ckpt, or of last.ckpt where there is no other, or of another
RESULT = re.compile(r"(?P<prefix>test|val)/(?:(?P<checkpoint>[^/]+)/)?(?P<protocol>\w+)/(?P<name>\w+)")
NO_METRICS = {"data_hash", "selected_on_test", "partial", "images"}


def make_rows(items: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows for `make_curves` from rows of a W&B history; those of tests are left out."""
    rows: list[Row] = []
    for item in items:
        values = {
            name: value for name, value in item.items() if TRAINED.fullmatch(name) and to_number(value) is not None
        }
        if values and to_number(item.get(STEP)) is not None:
            rows.append({"step": item[STEP], "epoch": item.get("epoch"), **values})
    return rows


def append_session(rows: list[Row], later: list[Row]) -> list[Row]:
    """The rows of a run and those of the session that resumed it, without what the latter repeats."""
    if not rows or not later:
        return rows or later
    first = min(float(row["step"]) for row in later)
    return [*(row for row in rows if float(row["step"]) < first), *later]


def split_config(config: Mapping[str, Any]) -> tuple[dict[str, Any], RunFacts | None]:
    """A run's config without W&B's own keys, and the facts that are logged with it."""
    others = (FACTS, "_wandb", "wandb_version")  # and _wandb.visualize.<chart> of a test
    own = {str(name): value for name, value in config.items() if str(name).partition(".")[0] not in others}
    return own, parse_run_facts(config[FACTS]) if FACTS in config else None


def read_summary(summary: Mapping[str, Any]) -> list[EvaluationResult]:
    """The results of tests and validations that stand in a run's summary, which are of the run's own images."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for name, value in summary.items():
        if match := RESULT.fullmatch(str(name)):
            key = (match["prefix"], match["checkpoint"] or "best", match["protocol"])
            found.setdefault(key, {})[match["name"]] = value
    results = (make_result(*key, values) for key, values in sorted(found.items()))
    return [result for result in results if result is not None]


def make_result(prefix: str, checkpoint: str, protocol: str, values: Mapping[str, Any]) -> EvaluationResult | None:
    """A result from its values in a summary; None where they are none."""
    metrics = parse_metrics(values)
    if metrics is None or not 1 <= metrics.get("images", 0) < 2**53:
        return None
    data_hash = values.get("data_hash")
    return EvaluationResult(
        verb="test" if prefix == "test" else "validate",
        checkpoint=checkpoint,
        protocol=protocol,
        metrics={name: number for name, number in metrics.items() if name not in NO_METRICS},
        images=int(metrics["images"]),
        data_hash=data_hash if isinstance(data_hash, str) else None,
        selected_on_test=values.get("selected_on_test") is True,
        partial=values.get("partial") is True,
    )
