"""Paths that cannot be looked up end in a sentence, wherever a user gives one."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpointing.confinement import refuse_roots
from checkpointing.metrics_file import truncate_metrics
from checkpointing.requeue import find_requeued_run
from checkpointing.run_dir import claim_version, find_checkpoint, unused_name
from checkpointing.split import read_split
from cli.config_files import read_config
from datamodules.cifar10 import CIFAR10
from datamodules.class_folders import find_splits
from datamodules.imagenet.labels import find_label_file
from datamodules.photos import Photos
from datamodules.resize import resize_tree
from errors import UserError, check_reachable
from lit_models.weights import read_weights
from tests.conftest import PREPROCESSING

TAKES_PATH: list[Callable[[str], Any]] = [
    check_reachable,
    read_config,
    read_weights,
    lambda path: find_checkpoint(Path(path), "fit"),
    lambda path: find_splits(Path(path)),
    lambda path: Photos([Path(path)], PREPROCESSING, []),
    lambda path: claim_version(Path(path)),
    lambda path: find_requeued_run(Path(path), []),
    lambda path: CIFAR10(Path(path)),
    lambda path: resize_tree(Path(path), Path("copy")),
    lambda path: resize_tree(Path(), Path(path)),
    lambda path: refuse_roots({"root": path}, {"root": path}, []),
]


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SLURM job that was started again."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")


@pytest.mark.parametrize("take", TAKES_PATH)
def test_a_path_that_cannot_be_looked_up_is_said(requeued, take, here, monkeypatch):
    with pytest.raises(UserError, match=r"\.\.\.x+/y cannot be looked up .File name too long.: make it readable"):
        take("x" * 3000 + "/y")
    Path("a").symlink_to("a")
    with pytest.raises(UserError, match=r"a/b cannot be looked up \(Too many levels"):
        take("a/b")
    stat = os.stat

    def refuse(path: Any, **kwargs: Any) -> os.stat_result:
        if "locked" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **kwargs)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(UserError, match=r"locked/b cannot be looked up \(Permission denied\)"):
        take("locked/b")


@pytest.mark.parametrize("path", ["a\0b/x", "\ud800/x", "~a\0b/x"])
@pytest.mark.parametrize("take", TAKES_PATH)
def test_a_path_that_no_file_can_have_is_said(requeued, take, path, here):
    with pytest.raises(UserError, match=r"cannot be looked up \(it holds a character that no file name can have\)"):
        take(path)


def test_what_is_derived_from_a_long_path_is_not_there(here):
    folder = Path("x" * 300)
    with pytest.raises(OSError, match="File name too long"):
        folder.exists()
    with pytest.raises(UserError, match="no file has their labels"):
        find_label_file(folder)
    assert read_split(folder, "a" * 64) is None
    assert unused_name(folder) == folder
    truncate_metrics(folder / "metrics.csv", step=1)


def test_a_missing_path_is_left_to_others(here):
    Path("file").touch()
    for path in ("nowhere", "file/in it", "file", "."):
        check_reachable(path)


def test_a_home_that_does_not_exist_is_a_missing_path(fails, here):
    said = fails("test", "--ckpt_path", "~nobody at all/x")
    assert "There is no checkpoint ~nobody at all/x" in said
    for take, reason in ((read_config, "~nobody_/x"), (read_weights, "There is no weights file ~nobody_/x")):
        with pytest.raises(UserError, match=reason):
            take("~nobody_/x")


def test_photos_of_no_path_say_what_is_missing():
    with pytest.raises(UserError, match="paths is empty: give --data.paths"):
        Photos([], PREPROCESSING, [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_output_that_finds_no_room_is_dropped():
    code = (
        "import errors, os, sys; errors.protect_output(); print('x', flush=True); print('y'); sys.stderr.write('end')"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent.parent,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 0 and done.stderr.count("warning: the output cannot be written (No space left") == 1
    assert done.stderr.endswith("end")
