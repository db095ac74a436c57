"""Measures `test` with many views of each image, beside plain forward passes of as many."""

import copy
from collections.abc import Generator
from pathlib import Path

import torch

from benchmarks.timing import WARM_UP_STEPS, TakeTurns
from cli.command_line import run_cli
from datamodules.base import ImageData
from lit_models import LitClassifier

ONE_STEP = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]


def time_test(fit: list[str], run: Path, steps: int, turns: int) -> TakeTurns:
    """Train one step, and test the checkpoint with 144 crops of each image.

    Args:
        fit: the command that trains.
        run: folder of its run.
        steps: timed images of each turn.
        turns: of the test and of the plain passes.
    """
    timing = TakeTurns({"passes": plain_passes}, steps, turns)
    run_cli([*fit, *ONE_STEP])
    images = f"--trainer.limit_test_batches={turns * (WARM_UP_STEPS + steps)}"
    run_cli(["test", f"--ckpt_path={run}", "--data.protocol=crops_144", "--trainer.precision=auto", images], [timing])
    return timing


def plain_passes(model: LitClassifier, data: ImageData) -> Generator[int]:
    """Forward passes of the views of one image, without loading, cropping and softmax.

    Yields:
        1 after each image.
    """
    net = copy.deepcopy(model.net).to(memory_format=torch.channels_last).eval()
    views = torch.randn(data.views.count, 3, data.views.size, data.views.size, device=model.device)
    views = views.to(memory_format=torch.channels_last)
    while True:
        with torch.inference_mode(), model.trainer.precision_plugin.forward_context():
            net(views)
        yield 1
