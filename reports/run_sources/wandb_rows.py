"""What W&B holds of a run, offline and online, in the form in which run directories have it."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from checkpointing.run_facts import RunFacts, parse_run_facts
from reports.run import TestResult
from reports.run_sources.curves import Row, to_number

STEP = "trainer/global_step"  # Lightning's name for the step; `_step` counts the rows
FACTS = "facts"  # key of a run's config under which run.json stands
TRAINED = ("train/", "val/", "lr-", "grad_norm/")  # beginnings of the names of what a training logs
# A metric of a test: test/top1_error of best.ckpt at one view, or test/<protocol>/top1_error
TEST_METRIC = re.compile(r"test/(?:(?P<protocol>\w+)/)?(?P<name>\w+)")


def make_rows(items: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows for `make_curves` from rows of a W&B history; those of tests are left out."""
    rows: list[Row] = []
    for item in items:
        values = {name: value for name, value in item.items() if name.startswith(TRAINED)}
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


def read_summary(summary: Mapping[str, Any], facts: RunFacts | None) -> list[TestResult]:
    """The results of tests that stand in a run's summary: `test` logs those on the run's own images alone."""
    found: dict[str, dict[str, float]] = {}
    for name, value in summary.items():
        match = TEST_METRIC.fullmatch(str(name))
        number = to_number(value["min"] if isinstance(value, Mapping) and "min" in value else value)
        if match and number is not None:
            found.setdefault(match["protocol"] or "center", {})[match["name"]] = number
    test_hash = facts.data.test_hash if facts else None
    return [
        TestResult(
            "test",
            "best",
            protocol,
            images=int(metrics.pop("images", 0)),
            data_hash=test_hash,
            selected_on_test=summary.get(f"test/{protocol}/selected_on_test") is True,
            partial=summary.get(f"test/{protocol}/partial") is True,
            metrics=metrics,
        )
        for protocol, metrics in sorted(found.items())
    ]
