"""Run directories in which pipes, folders or a full disk stand in the way of the files of a run."""

import errno
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch

from checkpointing.atomic import remove_leftovers
from checkpointing.checkpoint_io import AtomicCheckpointIO
from checkpointing.integrity import find_damage
from checkpointing.metrics_file import read_metrics, truncate_metrics, write_metrics
from checkpointing.predictions import Predictions
from checkpointing.record import newest_whole, read_checkpoint
from checkpointing.requeue import FILE, read_job
from checkpointing.run_dir import find_checkpoint, rank_checkpoints
from errors import UserError

LONGER = ["--trainer.max_epochs", 4]


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


@pytest.mark.parametrize("make", [os.mkfifo, make_socket, lambda path: path.symlink_to("/dev/tty"), os.mkdir])
def test_what_is_no_file_is_not_opened(here, make):
    for name in ("last.ckpt", "predictions.npz", FILE):
        make(here / name)
    assert find_damage(here / "last.ckpt")
    assert rank_checkpoints(here, "fit") == [here / "last.ckpt"]
    assert newest_whole([here / "last.ckpt"]) is None
    assert read_job(here) is None
    for read in (read_checkpoint, lambda path: read_checkpoint(path, verify=False)):
        with pytest.raises(UserError):
            read(here / "last.ckpt")
    with pytest.raises(UserError):
        Predictions.read(here / "predictions.npz")


def test_a_pipe_in_a_run_is_refused_and_waited_for_by_no_verb(fails, tiny_run):
    for name in ("checkpoints/zz.ckpt", "predictions-best-center.npz"):
        os.mkfifo(tiny_run / name)
        assert find_checkpoint(tiny_run, "fit") == tiny_run / "checkpoints/last.ckpt"
        for verb, flags in (("fit", LONGER), ("test", [])):
            assert f"{name} is a pipe, socket or device" in fails(verb, "--ckpt_path", tiny_run, *flags)
        (tiny_run / name).unlink()


def test_a_folder_in_the_way_is_refused_before_a_run_is_resumed(fails, tiny_run):
    (tiny_run / "x.part").mkdir()
    remove_leftovers(tiny_run)
    assert (tiny_run / "x.part").is_dir()
    checkpoint = tiny_run / "checkpoints/best.ckpt"
    for name in ("metrics.csv", "checkpoints/last.ckpt"):
        (tiny_run / name).rename(tiny_run / "aside")
        (tiny_run / name).mkdir()
        assert f"{name} is a folder" in fails("fit", "--ckpt_path", checkpoint, *LONGER)
        (tiny_run / name).rmdir()
        (tiny_run / "aside").rename(tiny_run / name)


def test_rows_without_a_step_are_kept_in_a_copy(tmp_path):
    path = tmp_path / "metrics.csv"
    write_metrics(path, ["note", "step"], [{"note": "a", "step": 1}, {"note": "mine", "step": ""}])
    before = path.read_bytes()
    truncate_metrics(path, step=2)
    assert [row["note"] for row in read_metrics(path)[1]] == ["a"]
    assert (tmp_path / "metrics-until_step_1.csv").read_bytes() == before


def test_a_full_disk_while_resuming_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    write_metrics(path, ["step"], [{"step": 1}, {"step": 9}])
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="metrics.csv cannot be written .No space left"):
        truncate_metrics(path, step=5)
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.csv"]
    assert path.read_bytes() == before


def test_checkpoints_that_are_deleted_while_training_end_the_run(tmp_path):
    writer, folder = AtomicCheckpointIO(), tmp_path / "version_0" / "checkpoints"
    folder.parent.mkdir()
    writer.save_checkpoint({"a": torch.ones(1)}, folder / "best.ckpt")
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="checkpoints was deleted or moved while the run was going on"):
        writer.save_checkpoint({"a": torch.ones(1)}, folder / "last.ckpt")
    assert not folder.exists()
