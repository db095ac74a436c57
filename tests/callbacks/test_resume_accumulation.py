"""Runs that go on between two optimizer steps."""

import shutil
from pathlib import Path

import pytest
import torch

from callbacks.resume_accumulation import GRADIENTS_KEY, check_gradients
from errors import UserError
from tests.checkpointing.test_resume import EXPERIMENT, same

SCHEDULER = """
    - class_path: lightning.pytorch.callbacks.GradientAccumulationScheduler
      init_args: {scheduling: {1: 2}}
"""
VALIDATED = """
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {filename: "val-{step}", monitor: val/loss, save_top_k: -1, auto_insert_metric_name: false}
"""
ACCUMULATE = "--trainer.accumulate_grad_batches"


@pytest.mark.parametrize(
    ("added", "flags", "name", "inside"),
    [
        # 4 batches an epoch; resumed twice, because a resumed ModelCheckpoint saves the step again one batch later
        (SCHEDULER, [], "step-5", True),
        pytest.param("", [ACCUMULATE, 2], "step-1", True, marks=pytest.mark.slow),
        pytest.param(
            VALIDATED, [ACCUMULATE, 2, "--trainer.val_check_interval", 3], "val-3", True, marks=pytest.mark.slow
        ),
        pytest.param("", [ACCUMULATE, 2, "--trainer.limit_train_batches", 3], "step-3", False, marks=pytest.mark.slow),
        pytest.param(SCHEDULER, [], "step-6", False, marks=pytest.mark.slow),
    ],
)
def test_resumed_between_two_steps_the_weights_are_those_of_the_whole_run(run, here, added, flags, name, inside):
    (here / "net.yaml").write_text(EXPERIMENT + added)
    run("fit", "--config", "net.yaml", "--run_name", "noise/net", "--trainer.max_epochs", 2, *flags)
    folder = Path("runs/noise/net/version_0/checkpoints")
    start = folder / f"{name}.ckpt"
    shutil.copy(folder / "last.ckpt", "whole.ckpt")
    for _ in range(2):
        run("fit", "--ckpt_path", start, "--allow", "tests")
        assert same(folder / "last.ckpt", Path("whole.ckpt"))
    assert (GRADIENTS_KEY in torch.load(start)) == inside


def test_gradients_of_another_net_are_refused():
    net = torch.nn.Linear(3, 2)
    check_gradients({"weight": torch.zeros(2, 2, 3)}, net, "x.ckpt")
    for wrong in ([1], {"weight": 1}, {"weight": torch.zeros(2, 3)}, {"other": torch.zeros(1, 3)}, {1: torch.zeros(1)}):
        with pytest.raises(UserError, match=r"x\.ckpt"):
            check_gradients(wrong, net, "x.ckpt")
