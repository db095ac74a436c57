"""Files of a run are whole: written beside their place, read only with right checksums, one process in a run."""

import errno
import multiprocessing
import os
import re
import shutil
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpointing.atomic import atomic_write, end_run_if_unwritable, remove_leftovers
from checkpointing.checkpoint_io import AtomicCheckpointIO
from checkpointing.integrity import find_damage
from checkpointing.metrics_file import append_metrics, read_metrics, truncate_metrics
from checkpointing.run_dir import find_checkpoint, lock_run, release_version
from checkpointing.split import Split, read_split
from errors import UserError
from tests.conftest import DIGITS, TINY, file_times


def no_space(*_args, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("fault", ["in writing", "in flushing", "in renaming"])
def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch, fault):
    path = tmp_path / "x.txt"
    path.write_text("old")
    if fault == "in flushing":
        monkeypatch.setattr("checkpointing.atomic.os.fsync", no_space)
    if fault == "in renaming":
        monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(OSError), atomic_write(path) as file:
        file.write("new")
        if fault == "in writing":
            no_space()
    assert path.read_text() == "old" and [each.name for each in tmp_path.iterdir()] == ["x.txt"]
    monkeypatch.undo()
    with atomic_write(path) as file:
        file.write("new")
    assert path.read_text() == "new"


def test_a_checkpoint_never_leaves_its_file_system(tmp_path, monkeypatch):
    """Until it is renamed it lies in the folder that it will lie in, and TMPDIR is not looked at."""
    seen = []
    monkeypatch.setenv("TMPDIR", str(tmp_path / "not there"))
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (seen.append(self), replace(self, to))[1])
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(3)}, tmp_path / "new" / "last.ckpt")
    assert [path.parent for path in seen] == [tmp_path / "new"] and torch.load(tmp_path / "new/last.ckpt")[
        "a"
    ].sum() == 3


def test_a_full_disk_and_a_deleted_folder_are_said_in_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / "version_0" / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="was deleted or moved while the run was going on"):
        AtomicCheckpointIO().save_checkpoint({}, path)
    assert not path.parent.exists()
    path.parent.mkdir(parents=True)
    AtomicCheckpointIO().save_checkpoint({"n": 1}, path)
    monkeypatch.setattr("checkpointing.atomic.os.fsync", no_space)
    with pytest.raises(UserError, match=r"last.ckpt cannot be written \(No space left on device\)"):
        AtomicCheckpointIO().save_checkpoint({"n": 2}, path)
    assert torch.load(path) == {"n": 1}
    with pytest.raises(UserError, match="cannot be written"), end_run_if_unwritable(tmp_path / "metrics.csv"):
        no_space()


def test_what_dead_processes_left_half_written_is_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("config.yaml.77.part", "checkpoints/last.ckpt.77.part", "checkpoints/last.ckpt", "metrics.csv"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"checkpoints/last.ckpt", "metrics.csv"}


def test_any_flipped_bit_is_found_or_changes_nothing(tmp_path):
    content = {"weights": torch.arange(300.0), "state": {"step": torch.tensor(3), "names": ["a", "b"]}}
    path = tmp_path / "x.ckpt"
    torch.save(content, path)
    good, rng, found = path.read_bytes(), np.random.default_rng(0), 0
    assert find_damage(path) is None
    for number, position in enumerate(rng.choice(len(good) * 8, 150, replace=False)):
        flipped = bytearray(good)
        flipped[position // 8] ^= 1 << (position % 8)
        other = tmp_path / f"{number}.ckpt"
        other.write_bytes(flipped)
        if find_damage(other):
            found += 1
            continue
        again = torch.load(other, weights_only=True)  # in padding, or in the date of an entry
        assert torch.equal(again["weights"], content["weights"]) and again["state"] == content["state"]
    assert found > 50


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "compressed"])
def test_other_damage_is_found(tmp_path, kind):
    path = tmp_path / "x.ckpt"
    torch.save({"weights": torch.arange(3000.0)}, path)
    if kind == "compressed":  # a bomb would be
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "y", "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
        path = tmp_path / "y"
    else:
        path.write_bytes({"cut": path.read_bytes()[:-9], "empty": b"", "text": b"hello"}[kind])
    assert find_damage(path)


def flip(path: Path) -> None:
    """Flip a bit of the weights."""
    with zipfile.ZipFile(path) as archive:
        biggest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[biggest.header_offset + 200 + biggest.file_size // 2] ^= 4
    path.write_bytes(content)


def test_the_newest_whole_checkpoint_of_a_folder_is_taken_and_a_broken_file_is_refused(run, fails, tiny_run, capsys):
    folder = tiny_run / "checkpoints"
    shutil.copy(folder / "last.ckpt", folder / "epoch_2.ckpt")
    flip(folder / "last.ckpt")
    for verb in ("fit", "test", "predict"):
        said = fails(verb, "--ckpt_path", folder / "last.ckpt")
        assert "last.ckpt is no checkpoint that can be read" in said and "epoch_2.ckpt beside it is whole" in said
    with pytest.warns(UserWarning, match=r"last.ckpt is truncated or corrupt.*epoch_2.ckpt is taken"):
        assert find_checkpoint(tiny_run.parent, "fit").name == "epoch_2.ckpt"
    assert find_checkpoint(tiny_run, "test").name == "best.ckpt"
    flip(folder / "best.ckpt")
    with pytest.warns(UserWarning, match=r"best.ckpt is truncated or corrupt"):
        run("test", "--ckpt_path", tiny_run)
    flip(folder / "epoch_2.ckpt")
    assert "no checkpoint that can be read" in fails("fit", "--ckpt_path", tiny_run)


def hold(folder, holds):
    _held = lock_run(folder)
    holds.set()
    signal.pause()


def test_a_run_is_held_by_one_process_and_freed_by_its_death(tmp_path):
    fork = multiprocessing.get_context("fork")
    holds = fork.Event()
    holder = fork.Process(target=hold, args=(tmp_path, holds))
    holder.start()
    assert holds.wait(60)
    with pytest.raises(UserError, match=r"Another process is training in .* holds its \.lock"):
        lock_run(tmp_path)
    holder.kill()
    holder.join()
    lock = lock_run(tmp_path)
    lock.release()
    release_version(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_where_files_cannot_be_locked_a_run_goes_on_with_a_warning(tmp_path, monkeypatch, code):
    fcntl = pytest.importorskip("fcntl")

    def flock(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):  # a process that has died leaves nothing that would hold the run
        with pytest.warns(UserWarning, match="has no locks") as warnings:
            lock_run(tmp_path)
        assert len(warnings) == 1 and os.strerror(code) in str(warnings[0].message)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_lock_file_that_cannot_be_opened_is_one_sentence(tmp_path, monkeypatch, code):
    def acquire(self, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("checkpointing.run_dir.FileLock.acquire", acquire)
    with pytest.raises(UserError, match=re.escape(f".lock cannot be opened ({os.strerror(code)})")):
        lock_run(tmp_path)


def test_a_folder_in_place_of_the_lock_file_is_one_sentence(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UserError, match=r"\.lock cannot be opened"):
        lock_run(tmp_path)


def test_a_running_run_cannot_be_resumed(fails, tiny_run):
    before = file_times(tiny_run)
    lock = lock_run(tiny_run)
    assert "Another process is training" in fails("fit", "--ckpt_path", tiny_run, "--trainer.max_epochs", 4)
    lock.release()
    assert before == file_times(tiny_run)


def test_a_refused_new_run_leaves_nothing(fails, here):
    fails("fit", "--config", DIGITS, *TINY, "--data.batch_size", 31)
    assert not list(here.rglob("version_*"))


@pytest.mark.parametrize("tail", ["0.25,1", "0.25,", "7", '"7', "0.25,1\n0.5"])
def test_a_row_of_metrics_that_was_cut_off_is_mended(tmp_path, tail):
    path = tmp_path / "metrics.csv"
    columns = append_metrics(path, [], [{"a": 0.5, "step": 0}])
    with path.open("a") as file:
        file.write(tail)
    rows = [("0.5", "0")] + ([("0.25", "1")] if "\n" in tail else [])
    assert [(row["a"], row["step"]) for row in read_metrics(path)[1]] == rows
    # By a run that is resumed, and by a logger of which no run knows
    other = tmp_path / "other.csv"
    shutil.copy(path, other)
    truncate_metrics(path, 2)
    append_metrics(path, columns, [{"a": 4, "step": 2}])
    append_metrics(other, [], [{"a": 4, "step": 2}])
    for each in (path, other):
        assert [(row["a"], row["step"]) for row in read_metrics(each)[1]] == [*rows, ("4", "2")]


@pytest.mark.parametrize(
    "zeros", ["\0" * 9, "\0" * 200_000, "\0" * 200_000 + "\n", "5.0,\0\n", "5.0,1\0\0\n", "5" * 200_000 + ",1\n"]
)
def test_zeros_in_metrics_after_a_power_failure_are_no_row(tmp_path, zeros):
    path = tmp_path / "metrics.csv"
    append_metrics(path, [], [{"a": 0.5, "step": 0}])
    with path.open("a", newline="") as file:
        file.write(zeros)
    assert [row["a"] for row in read_metrics(path)[1]] == ["0.5"]
    columns = append_metrics(path, [], [{"a": 0.25, "step": 1}])
    append_metrics(path, columns, [{"a": 0.125, "step": 2}])
    assert [row["a"] for row in read_metrics(path)[1]] == ["0.5", "0.25", "0.125"]
    assert path.read_text().splitlines() == ["a,step", "0.5,0", "0.25,1", "0.125,2"]


@pytest.mark.parametrize("step", ["9" * 300, "9" * 5000, "²", "-1", ""])
def test_a_step_that_no_run_takes_is_of_no_row(tmp_path, step):
    """A file is named after it."""
    path = tmp_path / "metrics.csv"
    path.write_text(f"a,step\n0.5,0\n0.25,{step}\n0.125,3\n")
    truncate_metrics(path, 2)
    assert [row["a"] for row in read_metrics(path)[1]] == ["0.5"]
    assert (tmp_path / "metrics-until_step_3.csv").exists()


@pytest.mark.parametrize("content", ["", "\0" * 40, "\0" * 200_000 + "\n0.5,0\n", '"a'])
def test_metrics_without_a_header_are_begun_anew(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    truncate_metrics(path, 5, [{"a": 0.5, "step": 4}])
    assert [row["a"] for row in read_metrics(path)[1]] == ["0.5"]


def test_text_has_the_same_bytes_on_every_system(tmp_path, monkeypatch):
    """Windows would end its lines in two characters, and the hash of a split's file would be another."""
    plain = Path.open

    def open_on_windows(self, mode="r", newline=None, **options):
        return plain(self, mode, newline="\r\n" if mode == "w" and newline is None else newline, **options)

    monkeypatch.setattr(Path, "open", open_on_windows)
    split = Split(["a.jpg"], {"b.jpg": "3-00"}, own_folder=False, sample={})
    split.write(tmp_path)
    assert read_split(tmp_path, split.hash) == split


def test_rows_that_were_still_to_be_logged_are_added_once(tmp_path):
    path = tmp_path / "metrics.csv"
    append_metrics(path, [], [{"train/loss": 1.0, "step": 0}, {"val/loss": 2.0, "step": 1}])
    for _ in range(2):
        truncate_metrics(path, 2, [{"train/loss": 0.5, "step": 1}])
    assert [row.get("train/loss") for row in read_metrics(path)[1]] == ["1.0", None, "0.5"]
    truncate_metrics(path, 2, [{"train/loss": 0.5, "step": 1}], validates=True)  # its row will come again
    assert [row["train/loss"] for row in read_metrics(path)[1]] == ["1.0", "0.5"]
