"""Predictions and checkpoints made by hand, for tests of the reports."""

import lightning.pytorch as pl
import numpy as np

from checkpointing.predictions import Predictions
from checkpointing.record import RECORD_KEY, CheckpointRecord


def predictions(scores, labels, **changes):
    """Predictions by hand; `scores` [N, K] are any numbers, brought to log-probabilities."""
    scores = np.asarray(scores, np.float64)
    scores = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    content = {
        "indices": np.arange(len(labels)),
        "files": np.array([], dtype=str),
        "labels": np.asarray(labels),
        "log_probabilities": scores.astype(np.float32),
        "class_names": np.array([f"class {k}" for k in range(scores.shape[1])]),
        "protocol": "center",
        "views": 1,
        "checkpoint": "a.ckpt",
        "checkpoint_hash": "",
        "data_hash": "the data",
        "complete": True,
    }
    return Predictions(**content | changes)


def checkpoint(record: CheckpointRecord):
    """The content of a checkpoint of a run that took no step, with no weights."""
    content = {RECORD_KEY: record.to_plain(), "epoch": 0, "global_step": 0, "state_dict": {}}
    return content | {"pytorch-lightning_version": pl.__version__}
