"""Callbacks: one duty each. Those that a YAML file or a user of Lightning's Trainer names are exported."""

from callbacks.checkpoint_averaging import CheckpointAveraging
from callbacks.ddp import DDP
from callbacks.gradient_norms import GradientNorms
from callbacks.input_checks import InputChecks
from callbacks.lr_decay import StepLRDecay
from callbacks.precise_bn import PreciseBN
from callbacks.progress import Progress
from callbacks.run_logger import RunLogger
from callbacks.throughput import Throughput
from callbacks.wandb_logger import WandbLogger

__all__ = [
    "DDP",
    "CheckpointAveraging",
    "GradientNorms",
    "InputChecks",
    "PreciseBN",
    "Progress",
    "RunLogger",
    "StepLRDecay",
    "Throughput",
    "WandbLogger",
]
