"""The record that a checkpoint carries, and checkpoints of older versions."""

from pathlib import Path

import pytest
import torch
from jsonargparse import Path as JsonargparsePath

from checkpointing.record import RECORD_KEY, CheckpointRecord, as_recorded, read_checkpoint, resumable_step
from errors import UserError
from tests.conftest import DIGITS, TINY

PLAIN = {
    "config": {
        "seed_everything": 0,
        "trainer": {
            "callbacks": [
                {"class_path": "callbacks.Throughput"},
                {"class_path": "callbacks.BatchNormReestimation", "init_args": {"batches": 4}},
            ]
        },
    },
    "class_names": ["cat", "dog"],
    "preprocessing": {"resize": 32, "crop": 32, "mean": [0.5] * 3, "std": [0.2] * 3},
    "code_version": "cda4164",
    "wandb_run_id": "75psmazz",
}


def test_a_record_survives_its_plain_form():
    record = CheckpointRecord.from_plain(PLAIN, Path("x.ckpt"))
    assert CheckpointRecord.from_plain(record.to_plain(), Path("x.ckpt")) == record
    assert record.class_names == ["cat", "dog"] and record.averaged_from == []


def test_classes_of_an_older_record_have_their_names_of_today():
    callbacks = CheckpointRecord.from_plain(PLAIN, Path("x.ckpt")).config["trainer"]["callbacks"]
    assert [callback["class_path"] for callback in callbacks] == ["callbacks.Throughput", "callbacks.PreciseBN"]
    assert callbacks[1]["init_args"] == {"batches": 4}
    assert PLAIN["config"]["trainer"]["callbacks"][1]["class_path"] == "callbacks.BatchNormReestimation"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"config": {}, "preprocessing": {}}, "The record of .*x.ckpt lacks class_names"),
        (PLAIN | {"mood": "good"}, r"unknown fields \(mood\): it was written by newer code \(commit cda4164\)"),
    ],
)
def test_missing_and_unknown_fields_are_refused(tmp_path, content, sentence):
    torch.save({RECORD_KEY: content}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=sentence):
        read_checkpoint(tmp_path / "x.ckpt")
    assert resumable_step(tmp_path / "x.ckpt") == -1


def test_a_run_with_renamed_classes_is_resumed_and_tested(run, here):
    """As an older version wrote it: the old class paths in the config, and no field for averaged weights."""
    precise = ["--trainer.callbacks+=callbacks.PreciseBN", "--trainer.callbacks.batches=4"]
    run("fit", "--config", DIGITS, *TINY, *precise, "--trainer.max_epochs", 1)
    folder = Path("runs/digits/resnet20/version_0")
    for path in folder.glob("checkpoints/*.ckpt"):
        content = torch.load(path, weights_only=True)
        record = content[RECORD_KEY]
        del record["averaged_from"]
        record["config"]["trainer"]["callbacks"][-1]["class_path"] = "callbacks.BatchNormReestimation"
        record["config"]["trainer"]["logger"][1] = {
            "class_path": "lightning.pytorch.loggers.WandbLogger",
            "init_args": {"project": "lit-classics", "anonymous": None, "log_model": False, "offline": True},
        }
        torch.save(content, path)
    run("fit", "--ckpt_path", folder, "--trainer.max_epochs", 2)
    run("test", "--ckpt_path", folder)
    record = read_checkpoint(folder / "checkpoints/last.ckpt").record
    assert record.config["trainer"]["callbacks"][-1]["class_path"] == "callbacks.PreciseBN"
    assert record.config["trainer"]["logger"][1]["class_path"] == "callbacks.WandbLogger"


def test_a_path_of_a_config_is_recorded_as_text():
    """jsonargparse's Path can be called, and has no name."""
    assert as_recorded([JsonargparsePath("x", mode="fc"), Path("y"), torch.relu]) == ["x", "y", as_recorded(torch.relu)]
