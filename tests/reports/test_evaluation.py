"""Predictions that reports read or run tests for."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from checkpointing.predictions import Predictions, file_hash, predictions_path
from errors import UserError
from reports import evaluation
from reports.evaluation import check_same_images, load_predictions
from tests.handmade import predictions


@pytest.fixture
def members():
    rng = np.random.default_rng(11)
    return [predictions(rng.normal(size=(20, 6)), rng.integers(6, size=20) * 0) for _ in range(3)]


NAMES = np.array(["ant", "bee", "cow", "dog", "eel", "fox"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"class_names": np.array([*NAMES[:2], "dog", "cow", *NAMES[4:]])},
         "number 2 is dog and cow, the same ones in another order"),
        ({"class_names": np.array([*NAMES[:5], "gnu"])}, r"number 5 is gnu and fox\)"),
        ({"class_names": NAMES[:5]}, "5 and 6 of them"),
        ({"labels": np.ones(20, int)}, "are of different images .20 and 20, with different indices"),
        ({"data_hash": "other data"}, "are of different images .20 and 20, of the data other  and the da"),
        ({"data_hash": "other data", "indices": np.arange(19)}, "of the data other  and the da"),
        ({"indices": np.arange(1, 21)}, "are of different images .20 and 20, with different indices"),
        ({"indices": np.arange(19)}, "are of different images .19 and 20"),
    ],
)  # fmt: skip
def test_members_of_another_set_are_refused(members, changes, sentence):
    first = dataclasses.replace(members[0], class_names=NAMES)
    other = dataclasses.replace(first, checkpoint="b.ckpt", **changes)
    check_same_images([first, dataclasses.replace(first, protocol="ten_crop", views=10)])
    with pytest.raises(UserError, match=sentence) as raised:
        check_same_images([first, first, other])
    assert str(raised.value).startswith("b.ckpt (center) and a.ckpt (center) ")


@pytest.fixture
def tested(tmp_path, monkeypatch):
    """A checkpoint of four bytes, and a command line that leaves predictions and keeps what was typed."""
    folder = tmp_path / "runs" / "digits" / "net" / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "best.ckpt").write_bytes(b"best")
    typed = []

    def main(command, callbacks=()):
        typed.append(command)
        verb, _, path = command[:3]
        protocol = command[command.index("--data.protocol") + 1]
        digest = file_hash(folder / "best.ckpt")
        fresh = predictions(np.eye(7), np.arange(7), protocol=protocol, checkpoint=path, checkpoint_hash=digest)
        fresh.write(predictions_path(folder / "best.ckpt", protocol, verb))

    monkeypatch.setattr(evaluation.command_line, "run_cli", main)
    return folder / "best.ckpt", typed


def load(checkpoint, protocol, **kwargs):
    return load_predictions([(checkpoint, protocol)], **kwargs)[0]


def test_a_missing_test_is_run_once_and_then_read(tested, capsys):
    checkpoint, typed = tested
    experiment = checkpoint.parents[2]
    first = load(experiment, "ten_crop", flags=["--data.root", "here"])
    assert typed == [
        ["test", "--ckpt_path", str(checkpoint), "--data.root", "here", "--data.protocol", "ten_crop",
         "--trainer.devices", "1"]
    ]  # fmt: skip
    assert capsys.readouterr().out == f"Test 1 of 1: {checkpoint}, ten_crop\n"
    again = load(checkpoint, "ten_crop")
    assert len(typed) == 1 and capsys.readouterr().out == ""
    assert (again.log_probabilities == first.log_probabilities).all() and again.protocol == "ten_crop"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--data.root", "here"], True),
        (["--data.size=64"], True),
        (["--data.mean", "[0, 0, 0]"], True),
        (["--data.hflip_preserves_label", "false"], True),
        (["--config", "own.yaml"], True),
        (["--data.flip=false", "--data.padding", "1"], False),
        (["--data.batch_size", "1", "--trainer.precision", "32-true"], False),
    ],
)
def test_flags_that_change_no_prediction_need_no_test(flags, named):
    assert evaluation.names_data(flags) == named


def test_only_what_is_missing_is_run_and_counted(tested, capsys):
    checkpoint, typed = tested
    load(checkpoint, "center")
    capsys.readouterr()
    wanted = [(checkpoint, name) for name in ("center", "ten_crop", "dense", "ten_crop")]
    found = load_predictions(wanted)
    assert [each.protocol for each in found] == ["center", "ten_crop", "dense", "ten_crop"]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"Test 1 of 2: {checkpoint}, ten_crop", f"Test 2 of 2: {checkpoint}, dense"]
    assert len(typed) == 3


def test_a_checkpoint_that_changed_is_tested_anew(tested):
    checkpoint, typed = tested
    load(checkpoint, "center")
    checkpoint.write_bytes(b"other")
    assert load(checkpoint, "center").checkpoint_hash == file_hash(checkpoint)
    assert len(typed) == 2


def test_a_broken_file_of_predictions_is_made_anew(tested):
    checkpoint, typed = tested
    load(checkpoint, "center")
    path = predictions_path(checkpoint, "center")
    path.write_bytes(path.read_bytes()[:100])
    load(checkpoint, "center")
    assert len(typed) == 2 and Predictions.read(path).views == 1


def test_validation_is_another_test(tested, capsys):
    checkpoint, typed = tested
    load(checkpoint, "center")
    load(checkpoint, "center", verb="validate")
    assert [command[0] for command in typed] == ["test", "validate"]
    assert f"Validation 1 of 1: {checkpoint}, center" in capsys.readouterr().out


def test_a_run_that_was_moved_is_read_where_it_lies(tested):
    checkpoint, typed = tested
    load(checkpoint, "center")
    version = checkpoint.parents[1]
    version.rename(version.with_name("version_7"))
    moved = load(version.with_name("version_7"), "center")
    assert moved.checkpoint == str(version.with_name("version_7") / "checkpoints" / "best.ckpt") and len(typed) == 1


@pytest.mark.parametrize(
    ("wanted", "flags", "sentence"),
    [
        ([], [], "No checkpoints are given: name runs or files"),
        ([("nowhere", "center")], [], "There is no checkpoint nowhere"),
        ([("best.ckpt", "center"), ("best.ckpt", "tencrop")], [], "There is no protocol tencrop: choose one of center"),
        ([("best.ckpt", "center")], ["--trainer.devices=2"], "one device and takes no --trainer.devices=2: type"),
        ([("best.ckpt", "center")], ["--trainer.strategy", "ddp"], "one device and takes no --trainer.strategy: type"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_anything_is(tested, monkeypatch, wanted, flags, sentence):
    checkpoint, typed = tested
    monkeypatch.chdir(checkpoint.parent)
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_predictions([(Path(name), protocol) for name, protocol in wanted], flags=flags)
    assert not typed


def test_a_test_that_leaves_nothing_behind(tested, monkeypatch):
    checkpoint, _ = tested
    monkeypatch.setattr(evaluation.command_line, "run_cli", lambda command, callbacks: None)
    with pytest.raises(ValueError, match=r"left no predictions in .*predictions-best-center\.npz: test whole sets"):
        load(checkpoint, "center")


@pytest.mark.parametrize(("code", "becomes"), [("error: no data.", "error: no data."), (2, 1)])
def test_a_test_that_fails_ends_with_its_own_sentence_and_status_1(tested, monkeypatch, code, becomes):
    def main(command, callbacks=()):
        raise SystemExit(code)

    monkeypatch.setattr(evaluation.command_line, "run_cli", main)
    with pytest.raises(SystemExit) as stop:
        load(tested[0], "center")
    assert stop.value.code == becomes
