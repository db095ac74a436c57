"""Checks of model against data, for those who use Lightning's Trainer from Python."""

from contextlib import nullcontext
from functools import partial

import lightning.pytorch as pl
import pytest
import torch

from callbacks import InputChecks
from callbacks.input_checks import check_inputs
from datamodules import Synthetic
from errors import UserError
from lit_models import LitResNet, LitVGG
from tests.conftest import DIGITS, TINY
from tests.plain_data import PlainData

SGD = partial(torch.optim.SGD, lr=0.01)


def fit(model, **data):
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[InputChecks()],
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, datamodule=Synthetic(classes=6, size=16, train_size=12, **{"batch_size": 4} | data))
    return trainer


def test_what_fits_is_trained():
    assert fit(LitResNet(6, depth=20, optimizer=SGD)).global_step == 3


@pytest.mark.parametrize(
    ("model", "data", "sentence"),
    [
        (partial(LitResNet, 7, depth=20), {}, "num_classes is 7 and the data have 6 classes"),
        (
            partial(LitVGG, 6, head="cifar"),
            {},
            "LitVGG cannot take images of 16 px in evaluation: they must have at least 32",
        ),
        (partial(LitResNet, 6, depth=20), {"batch_size": 11}, "the last batch holds one image"),
        (partial(LitResNet, 6, depth=20), {"batch_size": 16, "drop_last": True}, "there is no full batch"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(model, data, sentence):
    with pytest.raises(UserError, match=sentence):
        fit(model(optimizer=SGD), **data)


def test_a_plain_data_module_does_not_share_its_images_out():
    trainer = pl.Trainer(accelerator="cpu", devices=2, logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match="PlainData does not share its images out among 2 devices"):
        check_inputs(trainer, LitResNet(3, depth=20, optimizer=SGD), PlainData(), "fit")


def test_each_pair_of_model_and_data_is_checked():
    checks, trainer = InputChecks(), pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    for classes, sentence in ((6, None), (7, "num_classes is 6 and the data have 7 classes")):
        trainer.datamodule = Synthetic(classes=classes, size=16, train_size=12)
        with pytest.raises(UserError, match=sentence) if sentence else nullcontext():
            checks.setup(trainer, LitResNet(6, depth=20, optimizer=SGD), "fit")


def test_frozen_batch_norms_need_weights_where_a_run_begins(fails):
    said = fails("fit", "--config", DIGITS, *TINY, "--model.freeze_batch_norm", "true")
    assert "freeze_batch_norm is true, and no weights are given" in said
