"""Resuming runs whose weights a callback averages."""

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging

from callbacks.save_config import refuse_unwritable
from checkpointing.resume import refuse_inside_averaged_epoch, refuse_other_averaging
from cli.parser import make_device
from errors import UserError
from tests.conftest import DIGITS, TINY

EMA, SWA = EMAWeightAveraging(), StochasticWeightAveraging(0.1)
STATES = [{}, {EMA.state_key: EMA.state_dict()}, {SWA.state_key: SWA.state_dict()}]


@pytest.mark.parametrize("states", STATES)
def test_an_average_neither_begins_nor_ends_where_a_run_is_resumed(states):
    others = {"Throughput": {}, "ModelCheckpoint{}": {"monitor": None}}
    refuse_other_averaging(states | others, {*states}, "x.ckpt")
    for name in {EMA.state_key, SWA.state_key} - states.keys():
        with pytest.raises(UserError, match=f"{name} is given here"):
            refuse_other_averaging(states | others, {*states, name}, "x.ckpt")
    for name in states:
        with pytest.raises(UserError, match=f"This command has no {name}"):
            refuse_other_averaging(states | others, set(), "x.ckpt")


def test_an_epoch_that_swa_has_begun_is_not_entered_in_its_middle():
    inside, ended = ({"epoch_progress": {"current": {"started": 2, "processed": done}}} for done in (1, 2))
    averaging, waiting = (
        {SWA.state_key: SWA.state_dict() | {"scheduler_state": state}} for state in ({"last_epoch": 1}, None)
    )
    refuse_inside_averaged_epoch(averaging, ended, "x.ckpt")
    refuse_inside_averaged_epoch(waiting, inside, "x.ckpt")
    with pytest.raises(UserError, match="middle of an epoch"):
        refuse_inside_averaged_epoch(averaging, inside, "x.ckpt")


def test_what_no_config_can_hold_is_refused_with_its_name():
    refuse_unwritable({"trainer": {"callbacks": [{"init_args": {"device": "cpu"}}]}})
    with pytest.raises(UserError, match=r"trainer\.callbacks\.0\.init_args\.device is <object> by default"):
        refuse_unwritable(
            {"trainer": {"callbacks": [{"init_args": {"device": "Unable to serialize instance <object>"}}]}}
        )


def test_a_device_is_a_text_in_a_config():
    assert make_device("cpu") == torch.device("cpu")
    with pytest.raises(TypeError):
        make_device(0)
    with pytest.raises(RuntimeError):
        make_device("nonsense")


@pytest.mark.slow
def test_a_run_goes_on_with_the_device_of_swa_and_never_without_its_average(run, fails, here):
    saver = "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {filename: last}}"
    (here / "swa.yaml").write_text(
        "trainer:\n  callbacks:\n"
        "    - class_path: lightning.pytorch.callbacks.StochasticWeightAveraging\n"
        "      init_args: {swa_lrs: 0.01, swa_epoch_start: 1}\n"
        f"    - {saver}\n"
    )
    run("fit", "--config", DIGITS, *TINY, "--config", "swa.yaml", "--run_name", "x/swa", "--trainer.max_epochs", 1)
    run("fit", "--ckpt_path", "runs/x/swa", "--trainer.max_epochs", 3)
    said = fails("fit", "--ckpt_path", "runs/x/swa", "--trainer.max_epochs", 5, f"--trainer.callbacks=[{saver}]")
    assert "This command has no StochasticWeightAveraging" in said
