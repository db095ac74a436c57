"""Measures `predict` on image files, beside forward passes of images that are decoded already."""

import contextlib
import io
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import lightning.pytorch as pl
import torch

from benchmarks.evaluation import ONE_STEP
from benchmarks.timing import read_clock
from cli.command_line import run_cli
from datamodules.folder_walk import FolderWalk
from datamodules.photos import Photos
from lit_models import LitClassifier
from trainer_settings import settings


class TimePredict(pl.Callback):
    """Times a prediction, from before its loader is made until its table is written; then as many plain passes.

    It stands before the callback that writes the table in a Trainer's list, and times that one too.

    Attributes:
        result: images per second, of "predict" and of the "passes".
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.started = time.perf_counter()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        data = settings(trainer).datamodule
        assert isinstance(pl_module, LitClassifier) and isinstance(data, Photos)
        images = len(data.files)
        seconds = read_clock(pl_module.device) - self.started
        self.result = {"predict": images / seconds, "passes": images / time_passes(pl_module, data)}


def time_predictions(fit: list[str], run: Path, root: Path, images: int, turns: int) -> list[dict[str, float]]:
    """Train one step, and predict with the checkpoint.

    Args:
        fit: the command that trains.
        run: folder of its run.
        root: folder with train/<class>/; links to its images are made beside it.
        images: of each turn; those of `root` are repeated or cut.
        turns: of the prediction and of the plain passes.

    Returns:
        Images per second of each turn.
    """
    run_cli([*fit, *ONE_STEP])
    (files,) = FolderWalk().list_images(str((root / "train").absolute()))
    folder = root.parent / "to predict"
    folder.mkdir(exist_ok=True)
    for number, file in enumerate(islice(cycle(files), images)):
        link = folder / f"{number}{Path(file).suffix}"
        link.unlink(missing_ok=True)
        link.symlink_to(file)
    return [predict_once(["predict", f"--ckpt_path={run}", f"--data.paths={folder}"]) for _ in range(turns)]


def predict_once(command: Sequence[str]) -> dict[str, float]:
    """Images per second of a prediction, whose table goes into a folder that vanishes, and of the plain passes."""
    timing = TimePredict()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        run_cli([*command], [timing])
    return timing.result


def time_passes(model: LitClassifier, data: Photos) -> float:
    """Seconds of forward passes over a batch for each of the prediction's, in its precision."""
    net = model.net.to(memory_format=torch.channels_last).eval()
    sizes = [len(part) for part in torch.arange(len(data.files)).split(data.batch_size)]
    batch = torch.randn(sizes[0], 3, data.train_size, data.train_size, device=model.device)
    batch = batch.to(memory_format=torch.channels_last)
    start = read_clock(model.device)
    with torch.inference_mode(), model.trainer.precision_plugin.forward_context():
        for size in sizes:
            net(batch[:size])
    return read_clock(model.device) - start
