"""The mean of a run's checkpoints, compared with what it is made of."""

import copy
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from callbacks.evaluation_loop import Evaluator, Result
from callbacks.precise_bn import recompute_bn_stats
from callbacks.run_logger import run_dir
from checkpointing.atomic import atomic_write, end_run_if_unwritable
from checkpointing.checkpoint_io import AtomicCheckpointIO
from checkpointing.content import VALIDATION, check_content
from checkpointing.integrity import find_damage
from checkpointing.progress import was_validated
from checkpointing.record import RECORD_KEY, read_checkpoint, resumable_step
from checkpointing.resume import drop_training_state, refuse_other_weights
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
        batches: training batches for the BatchNorm statistics, augmented as in training; with 0 the mean keeps the mean
            of the checkpoints' statistics, to see what that costs.

    Raises:
        UserError: for a count below 2, fewer checkpoints than that, or a choice that needs validation images.
    """

    def __init__(self, count: int = 5, choice: Literal["last", "best"] = "last", batches: int = 200) -> None:
        check_at_least(2, count=count)
        check_at_least(0, batches=batches)
        self.count, self.choice, self.batches = count, choice, batches
        self.results: list[Result] = []  # the rows of the table, once there is one

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        kept = [saver.save_top_k for saver in trainer.checkpoint_callbacks if isinstance(saver, ModelCheckpoint)]
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
            data.setup("fit")  # the training images, for the BatchNorm statistics
            self._average(trainer, pl_module, Path(trainer.ckpt_path).parent)

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
        kept = find_candidates(folder, module, validated=self.choice == "best")
        if len(kept) < self.count:
            too_few = (
                f"{folder} has {pluralize(len(kept), 'checkpoint')} of different "
                f"{'validated epochs' if self.choice == 'best' else 'steps'} and CheckpointAveraging needs "
                f"{self.count}: train for more epochs, with configs/overlays/average_last.yaml to keep their "
                "checkpoints, or give it a smaller count (--trainer.callbacks.count behind the overlay)."
            )
            if trainer.state.fn == "validate":
                raise UserError(too_few)
            if trainer.is_global_zero:  # a run that was stopped early: it has trained all the same
                print(f"Not averaged: {too_few}", flush=True)
            return
        data = self._check_data(trainer)
        if data.val_set and trainer.is_global_zero:
            print("On the validation images:                 top-1 error  top-5 error    loss", flush=True)
        with torch.inference_mode(False), torch.no_grad():
            net = copy.deepcopy(module)
            assert isinstance(net, LitClassifier)
            evaluator = Evaluator(trainer, net, data)
            members = kept[-self.count :] if self.choice == "last" else lowest_errors(kept, evaluator, self.count)
            candidates = {"averaged": mean_state_dict(members)}
            if self.batches and find_batch_norms(net):
                net.load_state_dict(candidates["averaged"])
                recompute_bn_stats(trainer, net, data, read_checkpoint(members[-1]).epoch, self.batches)
                candidates["averaged, BatchNorm recomputed"] = copy.deepcopy(net.state_dict())
            *_, averaged = candidates.values()
            self.results = compare(evaluator, candidates, members) if data.val_set else []
        if trainer.is_global_zero:
            save_averaged_checkpoint(averaged, members, self.choice == "best")
            print(f"Wrote {folder / FILE}: the mean of {', '.join(path.stem for path in members)}", flush=True)
            report(self.results, self.choice, members)
        trainer.strategy.barrier("averaged")


def find_candidates(folder: Path, module: pl.LightningModule, validated: bool) -> list[Path]:
    """The checkpoints of a run that can be averaged, in the order of their steps.

    Args:
        folder: of the checkpoints.
        module: that they must be weights of.
        validated: whether only those of epochs that were validated.
    """
    found = []
    for path in distinct_checkpoints(folder):
        checkpoint = read_checkpoint(path, verify=False)
        refuse_other_weights(module, checkpoint)
        check_content(checkpoint.content, VALIDATION if validated else {}, path)
        if not validated or was_validated(checkpoint.content):
            found.append(path)
    return found


def distinct_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a folder in the order of their steps, one of each step, without averaged ones."""
    whole = [path for path in folder.glob("*.ckpt") if not find_damage(path)]
    paths = sorted(whole, key=lambda path: path.stem not in ("last", "best"))
    by_step = {resumable_step(path): path for path in paths}  # of equal ones rather epoch_3.ckpt than last.ckpt
    return [path for step, path in sorted(by_step.items()) if step >= 0]


def lowest_errors(paths: list[Path], evaluator: Evaluator, count: int) -> list[Path]:
    """The checkpoints with the lowest top-1 error, or loss among equal errors, in the order of their steps."""
    results = {path: evaluator.evaluate(path.stem, read_checkpoint(path).state_dict) for path in paths}
    best = sorted(paths, key=lambda path: (results[path].top1_error, results[path].loss))[:count]
    return [path for path in paths if path in best]


def compare(evaluator: Evaluator, averaged: dict[str, dict[str, Tensor]], members: list[Path]) -> list[Result]:
    """The rows of the table: last and best weights, the averaged ones, and the ensemble of the members."""
    single = [path for name in ("last", "best") if os.path.isfile(path := members[0].with_name(f"{name}.ckpt"))]
    states = {path.stem: read_checkpoint(path).state_dict for path in single} | averaged
    results = [evaluator.evaluate(label, state) for label, state in states.items()]
    ensemble = [read_checkpoint(path).state_dict for path in members]
    return [*results, evaluator.evaluate(f"ensemble of the {len(members)}", *ensemble)]


def mean_state_dict(paths: list[Path]) -> dict[str, Tensor]:
    """The mean of the state dicts of checkpoints, taken in float64; of whole numbers those of the last one."""
    states = [read_checkpoint(path).state_dict for path in paths]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(newest.dtype)
        if newest.is_floating_point()
        else newest
        for name, newest in states[-1].items()
    }


def save_averaged_checkpoint(state: dict[str, Tensor], members: list[Path], selected: bool = False) -> None:
    """Write averaged.ckpt beside its members; an older one is kept as averaged-1.ckpt, averaged-2.ckpt and so on.

    Args:
        state: the averaged weights.
        members: files that they are the mean of.
        selected: whether these were chosen by their validation errors.
    """
    newest, names = read_checkpoint(members[-1]), [path.name for path in members]
    record = replace(newest.record, averaged_from=names, selected_on_validation=selected)
    content = drop_training_state(newest.content) | {RECORD_KEY: record.to_plain()}
    content["state_dict"] = {name: value.cpu() for name, value in state.items()}
    path = members[0].with_name(FILE)
    if os.path.exists(path):
        path.rename(unused_name(path))
    AtomicCheckpointIO().save_checkpoint(content, path)


def report(results: list[Result], choice: str, members: list[Path]) -> None:
    """Print the verdict of the results, and write them to averaging.json of the run."""
    if not results:
        print("There are no validation images to compare it on.", flush=True)
        return
    by_label = {result.label: result for result in results}
    single, mean = by_label.get("last", results[0]), results[-2]
    change = mean.top1_error - single.top1_error
    verdict = "made no difference" if change == 0 else "helped" if change < 0 else "did not help"
    print(f"Averaging {verdict}: {mean.top1_error:.2%} top-1 error, {single.label} has {single.top1_error:.2%}.")
    path = results_folder(members[0]) / "averaging.json"
    content = {"choice": choice, "members": [path.name for path in members], "results": list(map(asdict, results))}
    with end_run_if_unwritable(path), atomic_write(path) as file:
        file.write(json.dumps(content, indent=2) + "\n")
    print(f"Wrote {path}", flush=True)
