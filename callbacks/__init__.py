"""Callbacks: one duty each."""

from callbacks.checkpoint_averaging import CheckpointAveraging
from callbacks.input_checks import InputChecks
from callbacks.lr_decay import StepLRDecay
from callbacks.precise_bn import PreciseBN
from callbacks.prediction_table import PredictionTable
from callbacks.prediction_writer import PredictionWriter
from callbacks.progress import Progress
from callbacks.result_writer import ResultWriter
from callbacks.resume_run import ResumeRun
from callbacks.run_logger import RunLogger
from callbacks.run_messages import RunMessages
from callbacks.save_config import SaveConfig
from callbacks.throughput import Throughput

__all__ = [
    "CheckpointAveraging",
    "InputChecks",
    "PreciseBN",
    "PredictionTable",
    "PredictionWriter",
    "Progress",
    "ResultWriter",
    "ResumeRun",
    "RunLogger",
    "RunMessages",
    "SaveConfig",
    "StepLRDecay",
    "Throughput",
]
