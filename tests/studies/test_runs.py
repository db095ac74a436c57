"""The folders of a study's runs: by seed, found again by their configs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from checkpointing.run_dir import lock_run
from checkpointing.run_facts import DataFacts, ModelFacts, RunFacts, Session
from studies.runs import Busy, RunFolder, clear_folder, comparable, find_run_folder

CONFIG = {
    "seed_everything": 3,
    "trainer": {"precision": "32-true", "logger": False, "max_epochs": 2},
    "model": {"class_path": "lit_models.LitResNet", "init_args": {"depth": 20}},
    "data": {"class_path": "datamodules.CIFAR10", "init_args": {"root": "data"}},
}


def make_run(path: Path, config: dict, outcome: Any = None, checkpoint: bool = False) -> Path:
    """A run directory with what a run leaves."""
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    if outcome:
        facts = RunFacts(3, ModelFacts("M", 1, None, 32), DataFacts("D", 2, 1, 1))
        sessions = [Session("", "", "", {}, outcome=outcome)]
        RunFacts(facts.seed, facts.model, facts.data, sessions).write(path)
    if checkpoint:
        (path / "checkpoints" / "last.ckpt").touch()
    return path


def test_a_run_lies_in_the_version_of_its_seed(tmp_path: Path) -> None:
    assert find_run_folder(tmp_path, 3, CONFIG) == RunFolder(tmp_path / "version_3")
    other = json.loads(json.dumps(CONFIG))
    other["model"]["init_args"]["depth"] = 56
    make_run(tmp_path / "version_3", other, "finished", checkpoint=True)
    assert find_run_folder(tmp_path, 3, CONFIG) == RunFolder(tmp_path / "version_1003")
    own = make_run(tmp_path / "version_1003", CONFIG, "finished", checkpoint=True)
    found = find_run_folder(tmp_path, 3, CONFIG)
    assert found == RunFolder(own, "finished") and found.has_ended and found.version == 1003


@pytest.mark.parametrize(
    ("outcome", "checkpoint", "found"),
    [
        ("diverged", False, "diverged"),
        ("running", True, "running"),
        ("stopped", True, "stopped"),
        ("failed", True, "failed"),
        (None, True, "running"),
        ("running", False, None),
        (None, False, None),
    ],
)
def test_what_a_run_has_left_says_what_is_to_do(tmp_path: Path, outcome: Any, checkpoint: bool, found: Any) -> None:
    path = make_run(tmp_path / "version_3", CONFIG, outcome, checkpoint)
    folder = find_run_folder(tmp_path, 3, CONFIG)
    assert folder == RunFolder(path, found)
    clear_folder(folder)
    assert path.exists() == (found is not None)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "version_3"
    path.mkdir()
    (path / ".lock").touch()
    assert find_run_folder(tmp_path, 3, CONFIG) == RunFolder(path)
    (path / "notes.txt").touch()
    assert find_run_folder(tmp_path, 3, CONFIG) == RunFolder(tmp_path / "version_1003")


def test_a_run_of_another_process_is_waited_for(tmp_path: Path) -> None:
    path = make_run(tmp_path / "version_3", CONFIG, "running", checkpoint=True)
    lock = lock_run(path)
    with pytest.raises(Busy):
        find_run_folder(tmp_path, 3, CONFIG)
    lock.release()
    assert find_run_folder(tmp_path, 3, CONFIG).outcome == "running"


def test_configs_are_compared_without_the_places_of_files() -> None:
    moved = json.loads(json.dumps(CONFIG))
    moved["data"]["init_args"] = {"root": "/elsewhere"}
    moved["trainer"] |= {"logger": [{"class_path": "callbacks.RunLogger"}], "default_root_dir": "x"}
    assert comparable(moved) == comparable(CONFIG) != comparable(CONFIG | {"seed_everything": 4})
    assert comparable({}) == {}
