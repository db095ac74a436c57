"""Callbacks: one duty each. Those that a YAML file or a user of Lightning's Trainer names are exported."""

from callbacks.batch_norm_in_training import BatchNormInTrainingMode
from callbacks.checkpoint_averaging import CheckpointAveraging
from callbacks.ddp import DDP
from callbacks.gradient_flow import GradientFlow
from callbacks.input_checks import InputChecks
from callbacks.lr_decay import StepLRDecay
from callbacks.monte_carlo_dropout import MonteCarloDropout
from callbacks.precise_bn import PreciseBN
from callbacks.progress import Progress
from callbacks.remove_layers import RemoveLayers
from callbacks.run_logger import RunLogger
from callbacks.scale_weights import ScaleWeights
from callbacks.throughput import Throughput
from callbacks.wandb_logger import WandbLogger

__all__ = [
    "DDP",
    "BatchNormInTrainingMode",
    "CheckpointAveraging",
    "GradientFlow",
    "InputChecks",
    "MonteCarloDropout",
    "PreciseBN",
    "Progress",
    "RemoveLayers",
    "RunLogger",
    "ScaleWeights",
    "StepLRDecay",
    "Throughput",
    "WandbLogger",
]
