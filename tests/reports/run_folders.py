"""Run directories written by hand, as `fit` writes them, in milliseconds."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from checkpointing.metrics_file import append_metrics
from checkpointing.run_facts import DataFacts, ModelFacts, RunFacts, Session

STEPS = 10  # optimizer steps of an epoch
CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {
        "precision": "32-true",
        "max_epochs": 20,
        "max_steps": -1,
        "max_time": None,
        "accumulate_grad_batches": 1,
        "limit_train_batches": None,
        "logger": [
            {"class_path": "callbacks.RunLogger", "init_args": {"save_dir": "runs/digits", "version": "version_0"}}
        ],
        "callbacks": [
            {"class_path": "callbacks.Throughput"},
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"filename": "best", "monitor": "val/top1_error"},
            },
            {"class_path": "callbacks.StepLRDecay", "init_args": {"milestones": [12.0, 17.0], "gamma": 0.1}},
        ],
    },
    "model": {
        "class_path": "lit_models.LitResNet",
        "init_args": {
            "depth": 20,
            "norm": None,
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}},
        },
    },
    "data": {
        "class_path": "datamodules.Digits",
        "init_args": {"batch_size": 64, "num_workers": 0, "protocol": "center"},
    },
    "run_name": "digits/resnet20",
}
SESSION = Session("python main.py fit", "0" * 40, "2026-01-01T00:00:00+00:00", {"precision": "32-true"}, "", "finished")
FACTS = RunFacts(
    0,
    ModelFacts("LitResNet", 269_722, 40_000_000, 32),
    DataFacts("Digits", 10, STEPS * 64, 180, "1" * 64, "2" * 64, "3" * 64),
    [SESSION],
)


def make_config(**changes: Any) -> dict[str, Any]:
    """`CONFIG` with other values at dotted keys, whose dots are written as __."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        part: Any = config
        *parents, last = key.split("__")
        for name in parents:
            part = part.setdefault(name, {})
        part[last] = value
    return config


def make_rows(epochs: float, loss: Sequence[float] = ()) -> list[dict[str, Any]]:
    """Rows of metrics.csv of so many epochs of `STEPS` steps; the losses are those of the last epochs."""
    rows: list[dict[str, Any]] = []
    whole = int(epochs)
    for epoch in range(math.ceil(epochs)):
        rate = 0.1 if epoch < 12 else 0.01
        rows.append({"step": epoch * STEPS, "lr-SGD": rate})
        for step in range(epoch * STEPS, min((epoch + 1) * STEPS, round(epochs * STEPS))):
            if step % 5 == 4:
                rows.append({"step": step, "lr-SGD": rate})
                rows.append({"step": step, "epoch": epoch, "train/batch_loss": 1.0, "train/images_per_s": 900.0})
        if epoch < whole:
            last = {"step": (epoch + 1) * STEPS - 1, "epoch": epoch}
            number = epoch - whole + len(loss)
            value = loss[number] if number >= 0 else 1 / (epoch + 1)
            rows.append({**last, "val/loss": value, "val/top1_error": 0.5 / (epoch + 1)})
            rows.append(
                {**last, "train/loss": value, "train/top1_error": 0.4 / (epoch + 1), "train/images_per_s": 1000.0}
            )
    return rows


def write_run(
    folder: Path,
    epochs: float = 20,
    config: dict[str, Any] | None = None,
    outcome: str | None = "finished",
    reason: str = "",
    loss: Sequence[float] = (),
) -> Path:
    """A run directory after so many epochs; without an outcome it has no run.json."""
    folder.mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    config = make_config() if config is None else config
    (folder / "config.yaml").write_text("# python main.py fit\n" + yaml.safe_dump(config))
    if rows := make_rows(epochs, loss):
        append_metrics(folder / "metrics.csv", [], rows)
    if outcome:
        session = replace(SESSION, outcome=outcome, reason=reason)
        replace(FACTS, seed=config["seed_everything"], sessions=[session]).write(folder)
    return folder
