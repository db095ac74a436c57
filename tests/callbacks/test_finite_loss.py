"""A run whose loss is no number says so, and leaves no checkpoint of such a net."""

import csv
import math
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from callbacks.finite_loss import BatchLoss, first_not_finite
from datamodules import Synthetic
from lit_models import LitResNet
from lit_models.metrics import make_metrics
from tests.conftest import DIGITS, HOME, TINY

FIT = ["fit", "--config", DIGITS, *TINY]
RUN = Path("runs/digits/resnet20/version_0")


class Spoil(pl.Callback):
    """Makes one quantity NaN or infinite, once, after so many steps.

    Args:
        step: optimizer steps after which it happens.
        where: weights; buffers, which training does not read; or the loss of the following batch alone.
        value: in place of the finite one.
    """

    def __init__(self, step: int, where: str = "weights", value: float = math.nan) -> None:
        self.step, self.where, self.value = step, where, value

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.step and self.where == "image":
            batch.images[0, 0, 0, 0] = self.value

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                if self.where == "weights":
                    pl_module.net.conv1.weight[0] = self.value
                if self.where == "buffers":
                    pl_module.net.bn1.running_var[0] = self.value


class NameSavedFiles(pl.Callback):
    """Fails if a ModelCheckpoint names a file that does not exist."""

    def on_train_end(self, trainer, pl_module) -> None:
        for saver in trainer.checkpoint_callbacks:
            named = [saver.best_model_path, saver.kth_best_model_path, saver.last_model_path, *saver.best_k_models]
            assert all(Path(path).is_file() for path in named if path)


def spoil(step: int, **options: object) -> list[str]:
    flags = [f"--trainer.callbacks.{name}={value}" for name, value in {"step": step, **options}.items()]
    return ["--trainer.callbacks+=tests.callbacks.test_finite_loss.Spoil", *flags]


def checkpoints() -> dict[str, dict]:
    return {path.stem: torch.load(path, weights_only=True) for path in RUN.rglob("*.ckpt")}


def all_finite(checkpoint: dict) -> bool:
    return all(value.isfinite().all() for value in checkpoint["state_dict"].values())


@pytest.mark.parametrize("where", ["weights", "image"])
@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_a_loss_that_is_not_finite_stops_the_run_with_step_images_and_last_checkpoint(fails, where, value):
    said = fails(*FIT, *spoil(6, where=where, value=value))
    assert " at step 7 (batch 3 of epoch 2, with the images " in said and " and 4 more): this training has" in said
    assert "--on_nonfinite continue" in said and f"checkpoint is {RUN}/checkpoints/last.ckpt" in said
    saved = checkpoints()
    assert {name: content["global_step"] for name, content in saved.items()} == {"best": 4, "last": 4}
    assert all(map(all_finite, saved.values()))


def test_the_images_named_are_those_of_the_batch(fails, run, here, monkeypatch):
    seen = []
    hook = "lit_models.LitResNet.on_train_batch_start"
    monkeypatch.setattr(hook, lambda self, batch, number: seen.append(batch.labels), raising=False)
    named = fails(*FIT, *spoil(6, where="image")).split("images ")[1].split(" and")[0].split(", ")
    data = Synthetic(classes=6, size=16, train_size=32, val_size=8, test_size=11)
    data.setup("fit")
    assert [int(data.train_set.labels[int(index)]) for index in named] == seen[6][:4].tolist()


def test_a_loss_that_was_never_finite_has_no_checkpoint_to_name(fails):
    assert "it has no checkpoint yet" in fails(*FIT, "--model.optimizer.lr", "1e20")
    assert (RUN / "config.yaml").is_file() and not checkpoints()


@pytest.mark.parametrize("extra", [[], ["--config", HOME / "configs/overlays/ema.yaml"]])
@pytest.mark.parametrize("where", ["weights", "buffers"])
def test_weights_that_break_at_the_end_of_an_epoch_are_not_saved(fails, where, extra):
    """The loss of the epoch's last batch is finite; its weights are what the checkpoint would hold."""
    said = fails(*FIT, *extra, *spoil(8, where=where))
    assert "The weights are not finite after step 8" in said
    assert {content["global_step"] for content in checkpoints().values()} == {4}


def test_checkpoints_of_weights_alone_and_of_steps_are_guarded_too(fails):
    options = {"every_n_train_steps": 1, "save_top_k": -1, "filename": "{step}", "save_weights_only": "true"}
    saver = ["--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"]
    fails(*FIT, *spoil(6), *saver, *[f"--trainer.callbacks.{name}={value}" for name, value in options.items()])
    assert {content["global_step"] for content in checkpoints().values()} == {1, 2, 3, 4, 5}


def test_on_request_a_run_goes_on_says_so_once_and_keeps_its_good_checkpoints(run, here):
    with pytest.warns(UserWarning) as warnings:
        run(*FIT, "--on_nonfinite", "continue", *spoil(6))
    said = [str(warning.message) for warning in warnings]
    for once in ("training goes on", "no checkpoint is written, and none removed", "The validation loss is nan"):
        assert len([each for each in said if once in each]) == 1
    assert {name: content["global_step"] for name, content in checkpoints().items()} == {"best": 4, "last": 4}
    with (RUN / "metrics.csv").open() as file:
        assert len([row for row in csv.DictReader(file) if row["train/loss"]]) == 3


@pytest.mark.parametrize(("save_top_k", "save_last"), [(1, "false"), (2, "true"), (2, "link")])
def test_no_good_checkpoint_is_removed_where_no_newer_one_is_written(run, here, save_top_k, save_last):
    options = {"monitor": "step", "mode": "max", "every_n_train_steps": 1, "filename": "{step}"}
    options |= {"save_top_k": save_top_k, "save_last": save_last, "auto_insert_metric_name": "false"}
    saver = ["--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"]
    saver += [f"--trainer.callbacks.{name}={value}" for name, value in options.items()]
    states = ["--trainer.callbacks+=tests.callbacks.test_finite_loss.NameSavedFiles"]
    with pytest.warns(UserWarning, match="none removed"):
        run(*FIT, "--on_nonfinite", "continue", *spoil(5), *saver, *states)
    kept = {name: content["global_step"] for name, content in checkpoints().items() if name.isdigit()}
    assert kept == {str(step): step for step in (3, 4)[-save_top_k:]}
    assert checkpoints()["best"]["global_step"] == checkpoints()["last"]["global_step"] == 4
    assert all(map(all_finite, checkpoints().values()))


def test_once_the_weights_are_finite_again_checkpoints_are_written_again(run, here):
    """As where statistics of BatchNorm are recomputed."""
    with pytest.warns(UserWarning, match="none removed"):
        run(*FIT, "--on_nonfinite", "continue", *spoil(8, where="buffers"), *spoil(10, where="buffers", value=1.0))
    assert checkpoints()["last"]["global_step"] == 12


def test_a_single_bad_loss_that_leaves_the_weights_finite_does_not_end_saving(run, here, monkeypatch):
    """As where loss scaling leaves out the step."""
    plain = LitResNet.training_step

    def training_step(self, batch, batch_idx):
        return plain(self, batch, batch_idx) * (math.inf if self.trainer.global_step == 5 else 1)

    monkeypatch.setattr(LitResNet, "training_step", training_step)
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, closure=None: closure())
    with pytest.warns(UserWarning, match="training goes on"):
        run(*FIT, "--on_nonfinite", "continue")
    assert checkpoints()["last"]["global_step"] == 12


def test_a_validation_loss_that_is_not_finite_is_said(run, here, monkeypatch):
    plain = LitResNet.log_probabilities
    monkeypatch.setattr(LitResNet, "log_probabilities", lambda self, *args: plain(self, *args) * math.nan)
    with pytest.warns(UserWarning, match=r"The validation loss is nan after step 4: images whose scores are NaN count"):
        run(*FIT, "--trainer.max_epochs", 1)


def test_an_image_without_a_score_is_an_error():
    metrics = make_metrics(6)
    scores = torch.eye(6)[:3]
    scores[1] = math.nan
    metrics.update(loss=torch.tensor(0.0), images=3, scores=scores, target=torch.arange(3))
    values = metrics.compute()
    assert float(values["top1_error"]) == float(values["top5_error"]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("values", "found"), [([], None), ([1.0, 2.0], None), ([1.0, math.inf, math.nan], 1)])
def test_the_first_loss_that_is_not_finite(values, found):
    losses = [BatchLoss(torch.tensor(value), step, 0, step) for step, value in enumerate(values)]
    first = first_not_finite(losses)
    assert (first and first.step) == found
