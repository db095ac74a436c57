"""The mean of a run's checkpoints, compared with what it is made of."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from callbacks.evaluation_loop import Evaluator, Result
from callbacks.precise_bn import recompute_bn_stats, restored
from callbacks.run_logger import run_dir
from checkpointing.record import RECORD_KEY, read_checkpoint, resumable_step
from checkpointing.resume import drop_training_state
from checkpointing.run_dir import results_folder, unused_name
from datamodules.base import ImageData, image_data
from errors import UserError, check_at_least, pluralize
from lit_models.classifier import LitClassifier
from lit_models.nets.layers import find_batch_norms

FILE = "averaged.ckpt"


class CheckpointAveraging(pl.Callback):
    """Averages the weights of several checkpoints of a run into checkpoints/averaged.ckpt.

    At the end of `fit`, or over an existing run with `validate`. Means are taken in float64; whole numbers are those of
    the newest checkpoint. The BatchNorm statistics of the mean are recomputed from training images, because averaged
    ones belong to none of the nets (arXiv 1803.05407, section 3.2). A table compares last, best and averaged weights
    with the ensemble of the same checkpoints, which costs as many forward passes; it is written to averaging.json.
    Without validation images there is no table.

    Args:
        count: how many checkpoints, k.
        choice: the last k, or of those that the run has kept the k with the lowest validation error.
        batches: training batches for the BatchNorm statistics, augmented as in training.

    Raises:
        UserError: for a count below 2, fewer checkpoints than that, or a choice that needs validation images.
    """

    def __init__(self, count: int = 5, choice: Literal["last", "best"] = "last", batches: int = 200) -> None:
        check_at_least(2, count=count)
        check_at_least(1, batches=batches)
        self.count, self.choice, self.batches = count, choice, batches

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        savers = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
        kept = [saver.save_top_k for saver in savers]
        if kept and not any(top_k == -1 or top_k >= self.count for top_k in kept):
            raise UserError(
                f"CheckpointAveraging would have fewer than {self.count} checkpoints to average: add a ModelCheckpoint "
                f"with save_top_k {self.count}, as configs/overlays/average_last.yaml does."
            )
        self._check_data(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if folder := run_dir(trainer):
            self._average(trainer, pl_module, folder / "checkpoints")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate" and trainer.ckpt_path:
            data = self._check_data(trainer)
            if data.views.dense:
                raise UserError(
                    "CheckpointAveraging cannot load checkpoints into a net that has been made dense: leave out the "
                    f"protocol {data.protocol}, and test the average with it later."
                )
            folder = Path(trainer.ckpt_path).parent
            if len(kept := distinct_checkpoints(folder)) < self.count:
                raise UserError(self._too_few(kept, folder))
            data.setup("fit")  # the training images, for the BatchNorm statistics

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate" and trainer.ckpt_path:
            self._average(trainer, pl_module, Path(trainer.ckpt_path).parent)

    def _too_few(self, kept: list[Path], folder: Path) -> str:
        return (
            f"{folder} has {pluralize(len(kept), 'checkpoint')} of different steps and CheckpointAveraging needs "
            f"{self.count}: train for more epochs, with configs/overlays/average_last.yaml to keep their checkpoints, "
            "or give it a smaller count (--trainer.callbacks.count behind the overlay)."
        )

    def _check_data(self, trainer: pl.Trainer) -> ImageData:
        """The data module, if it can be used."""
        data = image_data(trainer)
        if data is None:
            raise UserError("CheckpointAveraging needs a data module of this project (datamodules.ImageData).")
        if self.choice == "best" and data.val_set is None:
            raise UserError(
                "CheckpointAveraging cannot tell which checkpoints are best without validation images: take the last "
                "ones (configs/overlays/average_last.yaml), or hold some back with --data.val_size."
            )
        return data

    def _average(self, trainer: pl.Trainer, module: pl.LightningModule, folder: Path) -> None:
        kept = distinct_checkpoints(folder)
        if len(kept) < self.count:
            if trainer.is_global_zero:  # a run that was stopped early: it has trained all the same
                print(f"Not averaged: {self._too_few(kept, folder)}", flush=True)
            return
        data = self._check_data(trainer)
        assert isinstance(module, LitClassifier)
        evaluator = Evaluator(trainer, module, data) if data.val_set else None
        with torch.inference_mode(False), torch.no_grad(), restored(module):
            members = kept[-self.count :]
            if self.choice == "best":
                assert evaluator is not None
                members = lowest_errors(kept, evaluator, self.count)
            averaged = self._write_average(members, trainer, module, data, evaluator)
            results = compare(averaged, members, evaluator) if evaluator else []
        trainer.strategy.barrier("averaged")
        if trainer.is_global_zero:
            print(f"Wrote {folder / FILE}: the mean of {', '.join(path.stem for path in members)}", flush=True)
            report(results, self.choice, members)

    def _write_average(
        self,
        members: list[Path],
        trainer: pl.Trainer,
        module: LitClassifier,
        data: ImageData,
        evaluator: Evaluator | None,
    ) -> list[Result]:
        """Write averaged.ckpt; the results of the mean before and after its BatchNorm statistics are recomputed."""
        module.load_state_dict(mean_state_dict(members))
        results = [evaluator.evaluate("averaged")] if evaluator else []
        if find_batch_norms(module):
            recompute_bn_stats(trainer, module, data, read_checkpoint(members[-1]).epoch, self.batches)
            results += [evaluator.evaluate("averaged, BatchNorm recomputed")] if evaluator else []
        if trainer.is_global_zero:
            save_averaged_checkpoint(module.state_dict(), members)
        return results


def distinct_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder in the order of their steps, one of each step, without averaged ones."""
    paths = sorted(folder.glob("*.ckpt"), key=lambda path: path.stem not in ("last", "best"))
    by_step = {resumable_step(path): path for path in paths}  # of equal ones rather epoch_3.ckpt than last.ckpt
    return [path for step, path in sorted(by_step.items()) if step >= 0]


def lowest_errors(paths: list[Path], evaluator: Evaluator, count: int) -> list[Path]:
    """The checkpoints with the lowest top-1 error, or loss among equal errors, in the order of their steps."""
    results = {path: evaluator.evaluate_checkpoint(path) for path in paths}
    order = sorted(paths, key=lambda path: (results[path].top1_error, results[path].loss))
    return sorted(order[:count], key=resumable_step)


def compare(averaged: list[Result], members: list[Path], evaluator: Evaluator) -> list[Result]:
    """The rows of the table: last and best weights, the averaged ones, and the ensemble of the members."""
    ensemble = evaluator.evaluate_ensemble(members)
    single = [members[0].with_name(f"{name}.ckpt") for name in ("last", "best")]
    return [*(evaluator.evaluate_checkpoint(path) for path in single if path.is_file()), *averaged, ensemble]


def mean_state_dict(paths: list[Path]) -> dict[str, Tensor]:
    """The mean of the state dicts of checkpoints, taken in float64; of whole numbers those of the last one."""
    total: dict[str, Tensor] = {}
    for path in paths:
        state = read_checkpoint(path).state_dict
        for name, value in state.items():
            total[name] = total.get(name, 0) + value.double() if value.is_floating_point() else value
    return {
        name: (value / len(paths)).to(state[name].dtype) if state[name].is_floating_point() else value
        for name, value in total.items()
    }


def save_averaged_checkpoint(state: dict[str, Tensor], members: list[Path]) -> None:
    """Write averaged.ckpt beside its members; an older one is kept as averaged-1.ckpt, averaged-2.ckpt and so on."""
    newest = read_checkpoint(members[-1])
    record = replace(newest.record, averaged_from=[path.name for path in members])
    content = drop_training_state(newest.content) | {RECORD_KEY: record.to_plain()}
    content["state_dict"] = {name: value.cpu() for name, value in state.items()}
    path = members[0].with_name(FILE)
    part = path.with_suffix(".part")
    torch.save(content, part)
    if path.exists():
        path.rename(unused_name(path))
    part.replace(path)


def report(results: list[Result], choice: str, members: list[Path]) -> None:
    """Print the results as a table with a verdict, and write them to averaging.json of the run."""
    if not results:
        print("There are no validation images to compare it on.", flush=True)
        return
    print("On the validation images:                 top-1 error  top-5 error    loss")
    for row in results:
        top5 = "" if row.top5_error is None else f"{row.top5_error:.2%}"
        print(f"{row.label:40}  {row.top1_error:11.2%}  {top5:>11}  {row.loss:6.4f}")
    by_label = {result.label: result for result in results}
    single, mean = by_label.get("last", results[0]), results[-2]
    change = mean.top1_error - single.top1_error
    verdict = "made no difference" if change == 0 else "helped" if change < 0 else "did not help"
    print(f"Averaging {verdict}: {mean.top1_error:.2%} top-1 error, {single.label} has {single.top1_error:.2%}.")
    path = results_folder(members[0]) / "averaging.json"
    content = {"choice": choice, "members": [path.name for path in members], "results": list(map(asdict, results))}
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(f"Wrote {path}", flush=True)
