"""What Lightning, torch and W&B say in every run and the user cannot act on."""

import logging
import os
import re
import warnings

KNOWN_MESSAGES = (
    "litlogger|LitLogger|litmodels|TPU available|HPU available|Restoring states|Loaded model weights|to estimate number"
    "|`weights_only` was not set"  # said of writing; every file is read with it
)
KNOWN_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*does not have many workers which may be a bottleneck.*",
    r".*LearningRateMonitor.*no learning rate schedulers.*",
    r".*could not find the monitored key.*",
    r"Found \d+ module\(s\) in eval mode at the start of training.*",  # frozen BatchNorms are meant to be
    r".*callbacks used to create the checkpoint need to be provided.*",
    r"Checkpoint directory .* exists and is not empty.*",
    r"Precision .* is not supported by the model summary.*",
    r"Total length of `?list`? across ranks is zero.*",
    r"The number of training batches .* is smaller than the logging interval.*",
)


def silence_known_warnings() -> None:
    """Silence them, and print other warnings without the place in the code that they come from."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    os.environ.setdefault("WANDB_SILENT", "true")
    for pattern in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(is_news)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a log message is none of those that come in every run."""
    return not re.search(KNOWN_MESSAGES, record.getMessage())
