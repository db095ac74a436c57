"""Paths that cannot be looked up end in a sentence, wherever a user gives one."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpointing.requeue import find_requeued_run
from checkpointing.run_dir import claim_version, find_checkpoint
from cli.config_files import read_config
from datamodules.class_folders import find_splits
from datamodules.photos import Photos
from errors import UserError, check_reachable
from lit_models.weights import read_weights

TAKES_PATH: list[Callable[[str], Any]] = [
    check_reachable,
    read_config,
    read_weights,
    lambda path: find_checkpoint(Path(path), "fit"),
    lambda path: find_splits(Path(path)),
    lambda path: Photos([Path(path)], {}, []),
    lambda path: claim_version(Path(path)),
    lambda path: find_requeued_run(Path(path), []),
]


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SLURM job that was started again."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")


@pytest.mark.parametrize("take", TAKES_PATH)
def test_a_path_that_cannot_be_looked_up_is_said(requeued, take, here, monkeypatch):
    with pytest.raises(UserError, match="xxx... cannot be looked up .File name too long.: make it readable"):
        take("x" * 3000 + "/y")
    Path("a").symlink_to("a")
    with pytest.raises(UserError, match=r"a/b cannot be looked up \(Too many levels"):
        take("a/b")
    stat = os.stat

    def refuse(path: Any, **kwargs: Any) -> os.stat_result:
        if str(path).startswith("locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **kwargs)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(UserError, match=r"locked/b cannot be looked up \(Permission denied\)"):
        take("locked/b")


def test_a_missing_path_is_left_to_others(here):
    Path("file").touch()
    for path in ("nowhere", "file/in it", "a\0b", "file", "."):
        check_reachable(path)


def test_a_home_that_does_not_exist_is_a_missing_path(fails, here):
    said = fails("test", "--ckpt_path", "~nobody at all/x")
    assert "There is no checkpoint ~nobody at all/x" in said
    for take, reason in ((read_config, "~nobody_/x"), (read_weights, "There is no weights file ~nobody_/x")):
        with pytest.raises(UserError, match=reason):
            take("~nobody_/x")


def test_photos_of_no_path_say_what_is_missing():
    with pytest.raises(UserError, match="paths is empty: give --data.paths"):
        Photos([], {}, [])
