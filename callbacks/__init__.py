"""Callbacks: one duty each."""

from callbacks.checkpoint_averaging import CheckpointAveraging
from callbacks.input_checks import InputChecks
from callbacks.lr_decay import StepLRDecay
from callbacks.precise_bn import BatchNormReestimation
from callbacks.prediction_table import PhotoTable
from callbacks.predictions import PredictionWriter
from callbacks.progress import Progress
from callbacks.run_logger import RunLogger
from callbacks.run_record import RunRecord
from callbacks.throughput import Throughput

__all__ = [
    "BatchNormReestimation",
    "CheckpointAveraging",
    "InputChecks",
    "PhotoTable",
    "PredictionWriter",
    "Progress",
    "RunLogger",
    "RunRecord",
    "StepLRDecay",
    "Throughput",
]
