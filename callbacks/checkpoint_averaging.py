"""The mean of a run's checkpoints, and a verdict on it."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from callbacks.precise_bn import reestimate
from callbacks.run_record import run_folder
from checkpointing.record import AVERAGED_FROM, RECORD, read_checkpoint, saved_step
from checkpointing.run_dir import free_name, results_folder
from errors import UserError, pluralize
from lit_models.nets.layers import find_batch_norms

FILE = "averaged.ckpt"
# What of a checkpoint is more than the state of its training
KEPT = ("epoch", "global_step", "pytorch-lightning_version", "hparams_name", "hyper_parameters", RECORD)


@dataclass
class Result:
    """What weights do on the validation images.

    Args:
        weights: which ones.
        top1_error, top5_error: in [0, 1]; the second is None where there are at most five classes.
        loss: mean negative logarithm of the probability of the right class.
    """

    weights: str
    top1_error: float
    top5_error: float | None
    loss: float


class CheckpointAveraging(pl.Callback):
    """Averages the weights of several checkpoints of a run into checkpoints/averaged.ckpt.

    At the end of `fit`, or over an existing run with `validate`. Means are taken in float64; whole numbers are those of
    the newest checkpoint. The BatchNorm statistics of the mean are computed anew from training images, because averaged
    ones belong to none of the nets (arXiv 1803.05407, section 3.2). A table lays last, best and averaged weights beside
    the mean of the probabilities of the same checkpoints, which costs as many forward passes; it stays in
    averaging.json. Without validation images there is no table.

    Args:
        count: how many checkpoints, k.
        choice: the last k, or of those that the run has kept the k with the lowest validation error.
        batches: training batches for the BatchNorm statistics, augmented as in training.

    Raises:
        ValueError: for a count below 2, fewer checkpoints than that, or a choice that needs validation images.
    """

    def __init__(self, count: int = 5, choice: Literal["last", "best"] = "last", batches: int = 200) -> None:
        for name, value, least in (("count", count, 2), ("batches", batches, 1)):
            if value < least:
                raise UserError(f"CheckpointAveraging's {name} is {value}: it must be at least {least}.")
        self.count, self.choice, self.batches = count, choice, batches

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        savers = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
        kept = [saver.save_top_k for saver in savers]
        if kept and not any(top_k == -1 or top_k >= self.count for top_k in kept):
            raise UserError(
                f"CheckpointAveraging would have fewer than {self.count} checkpoints to average: add a ModelCheckpoint "
                f"with save_top_k {self.count}, as configs/overlays/average_last.yaml does."
            )
        self._check_choice(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if folder := run_folder(trainer):
            self._average(trainer, pl_module, folder / "checkpoints")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate" and trainer.ckpt_path:
            self._check_choice(trainer)
            folder = Path(trainer.ckpt_path).parent
            if len(kept := kept_checkpoints(folder)) < self.count:
                raise UserError(self._too_few(kept, folder))
            trainer.datamodule.setup("fit")  # type: ignore[attr-defined]  # training images are looked at too

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate" and trainer.ckpt_path:
            self._average(trainer, pl_module, Path(trainer.ckpt_path).parent)

    def _too_few(self, kept: list[Path], folder: Path) -> str:
        return (
            f"{folder} has {pluralize(len(kept), 'checkpoint')} of different steps and CheckpointAveraging wants "
            f"{self.count}: give it a smaller count, or train with configs/overlays/average_last.yaml, which keeps "
            "more."
        )

    def _check_choice(self, trainer: pl.Trainer) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.state.fn == "validate" and data.views.dense:
            raise UserError(
                "CheckpointAveraging cannot load checkpoints into a net that has been made dense: leave out the "
                f"protocol {data.protocol}, and test the average with it later."
            )
        if self.choice == "best" and data.val_set is None:
            raise UserError(
                "CheckpointAveraging cannot tell which checkpoints are best without validation images: take the last "
                "ones (configs/overlays/average_last.yaml), or hold some back with --data.val_size."
            )

    def _average(self, trainer: pl.Trainer, module: pl.LightningModule, folder: Path) -> None:
        kept = kept_checkpoints(folder)
        if len(kept) < self.count:
            if trainer.is_global_zero:  # a run that was stopped early: it has trained all the same
                print(f"Not averaged: {self._too_few(kept, folder)}", flush=True)
            return
        with torch.inference_mode(False), torch.no_grad(), as_it_was(module):
            jury = Jury(trainer, module)
            if self.choice == "best":
                kept = sorted(sorted(kept, key=jury.error)[: self.count], key=saved_step)
            members = kept[-self.count :]
            rows = average(members, jury, self.batches)
        trainer.strategy.barrier("averaged")
        if trainer.is_global_zero:
            print(f"Wrote {folder / FILE}: the mean of {', '.join(path.stem for path in members)}", flush=True)
            report(rows, self.choice, members)


class Jury:
    """Judges weights by the validation images, each process by its share of them; without any it has no opinion."""

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.trainer, self.module = trainer, module
        self.data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.seen: dict[int, Result | None] = {}  # results of checkpoints by their optimizer steps

    def forward(self, images: Tensor) -> Any:
        """The module in the trainer's precision."""
        with self.trainer.precision_plugin.forward_context():
            return self.module(images)

    def of_weights(self, name: str) -> Result | None:
        """The result of the weights that the module has now."""
        return self._result(name, *self._scores())

    def of_file(self, path: Path) -> Result | None:
        """The result of the weights in a checkpoint."""
        step = saved_step(path)[0]
        if step not in self.seen:
            self.module.load_state_dict(read_checkpoint(path)["state_dict"])
            self._keep(step, self.of_weights(path.stem))
        result = self.seen[step]
        return result and replace(result, weights=path.stem)

    def error(self, path: Path) -> tuple[float, float]:
        """Top-1 error of a checkpoint, and its loss to tell equal ones apart."""
        result = self.of_file(path)
        assert result is not None
        return result.top1_error, result.loss

    def of_all(self, paths: list[Path]) -> Result | None:
        """The result of the mean of the probabilities of several checkpoints."""
        total = labels = torch.empty(0)
        for count, path in enumerate(paths):
            self.module.load_state_dict(read_checkpoint(path)["state_dict"])
            scores, labels = self._scores()
            self._keep(saved_step(path)[0], self._result(path.stem, scores, labels))
            total = torch.logaddexp(total, scores) if count else scores
        return self._result(f"{len(paths)} probabilities", total - math.log(len(paths)), labels)

    def _keep(self, step: int, result: Result | None) -> None:
        self.seen[step] = result
        if result and self.trainer.is_global_zero:
            print(f"Validated {result.weights}: top-1 error {result.top1_error:.2%}", flush=True)

    def _scores(self) -> tuple[Tensor, Tensor]:
        """Log-probabilities [n, K] float32 of this process's validation images and their labels [n], on the CPU."""
        if self.data.val_set is None:
            return torch.empty(0, 0), torch.empty(0, dtype=torch.long)
        self.module.eval()
        parts = []
        for batch in self.data.val_batches(self.module.device):
            with self.trainer.precision_plugin.forward_context():
                scores = self.module.log_probabilities(batch.images, batch.view_weights)  # type: ignore[operator]
            parts.append((scores.cpu(), batch.labels.cpu()))
        return torch.cat([scores for scores, _ in parts]), torch.cat([labels for _, labels in parts])

    def _result(self, weights: str, scores: Tensor, labels: Tensor) -> Result | None:
        """The result of all processes together."""
        if self.data.val_set is None:
            return None
        classes = scores.shape[1]
        hits = scores.topk(min(5, classes), dim=1).indices == labels[:, None]
        wrong, loss_sum = (~hits[:, 0], ~hits.any(1)), F.nll_loss(scores, labels, reduction="sum")
        sums = torch.stack([torch.tensor(len(labels)), *(each.sum() for each in wrong), loss_sum]).double()
        total = self.trainer.strategy.reduce(sums.to(self.module.device), reduce_op="sum")
        images, top1, top5, loss = total.tolist()
        return Result(weights, top1 / images, top5 / images if classes > 5 else None, loss / images)


def kept_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder in the order of their steps, one of each step, without averaged ones."""
    paths = sorted(folder.glob("*.ckpt"), key=lambda path: path.stem not in ("last", "best"))
    by_step = {saved_step(path)[0]: path for path in paths}  # named by what they are rather than last or best
    return [path for step, path in sorted(by_step.items()) if step >= 0]


def average(members: list[Path], jury: Jury, batches: int) -> list[Result]:
    """Write the mean of checkpoints beside them, as averaged.ckpt, and judge it and what it could be compared with.

    Args:
        members: the checkpoints, the newest last.
        jury: whose module is changed.
        batches: of training images for the BatchNorm statistics.
    """
    trainer, module = jury.trainer, jury.module
    together = jury.of_all(members)
    known = [members[0].with_name(f"{name}.ckpt") for name in ("last", "best")]
    rows = [jury.of_file(path) for path in known if path.is_file()]
    module.load_state_dict(mean_of(members))
    rows.append(jury.of_weights("averaged"))
    if find_batch_norms(module):
        passes = jury.data.train_batches(read_checkpoint(members[-1])["epoch"], module.device)
        reestimate(module, jury.forward, (batch.images for batch in islice(passes, batches)))
        rows.append(jury.of_weights("averaged, BatchNorm anew"))
    if trainer.is_global_zero:
        save(module.state_dict(), members)
    return [row for row in [*rows, together] if row is not None]


def mean_of(paths: list[Path]) -> dict[str, Tensor]:
    """The mean of the state dicts of checkpoints, taken in float64; of whole numbers those of the last one."""
    total: dict[str, Tensor] = {}
    for path in paths:
        state = read_checkpoint(path)["state_dict"]
        for name, value in state.items():
            total[name] = total.get(name, 0) + value.double() if value.is_floating_point() else value
    return {
        name: (value / len(paths)).to(state[name].dtype) if state[name].is_floating_point() else value
        for name, value in total.items()
    }


def save(state: dict[str, Tensor], members: list[Path]) -> None:
    """Write averaged.ckpt, which carries all that a checkpoint carries but for the state of a training.

    An older one is kept as averaged-1.ckpt, averaged-2.ckpt and so on.
    """
    newest = read_checkpoint(members[-1])
    checkpoint = {name: newest[name] for name in KEPT if name in newest}
    checkpoint[RECORD] = {**newest[RECORD], AVERAGED_FROM: [path.name for path in members]}
    checkpoint["state_dict"] = {name: value.cpu() for name, value in state.items()}
    path = members[0].with_name(FILE)
    part = path.with_suffix(".part")
    torch.save(checkpoint, part)
    if path.exists():
        path.rename(free_name(path))
    part.replace(path)


@contextmanager
def as_it_was(module: pl.LightningModule) -> Iterator[None]:
    """Give the module its weights and its mode back."""
    modes = {each: each.training for each in module.modules()}
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    try:
        yield
    finally:
        module.load_state_dict(weights)
        for each, mode in modes.items():
            each.training = mode


def report(rows: list[Result], choice: str, members: list[Path]) -> None:
    """Print the results as a table with a verdict, and keep them in averaging.json of the run."""
    if not rows:
        print("There are no validation images to compare it on.", flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("weights", "top-1 error", "top-5 error", "loss", title="On the validation images")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        top5 = "" if row.top5_error is None else f"{row.top5_error:.2%}"
        table.add_row(row.weights, f"{row.top1_error:.2%}", top5, f"{row.loss:.4f}")
    Console().print(table)
    by_name = {row.weights: row for row in rows}
    single, mean = by_name.get("last", rows[0]), rows[-2]
    change = mean.top1_error - single.top1_error
    how = "made no difference" if change == 0 else "helped" if change < 0 else "did not help"
    print(f"Averaging {how}: {mean.top1_error:.2%} top-1 error, {single.weights} has {single.top1_error:.2%}.")
    path = results_folder(members[0]) / "averaging.json"
    content = {"choice": choice, "members": [path.name for path in members], "results": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(f"Wrote {path}", flush=True)
