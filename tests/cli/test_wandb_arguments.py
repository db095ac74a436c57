"""Where the arguments of W&B's logger come from, and that no two runs share an ID."""

from pathlib import Path

import pytest
from jsonargparse import Namespace

from checkpointing.record import CheckpointRecord
from cli.loggers import choose_wandb_mode
from cli.wandb_arguments import choose_id, fill_in
from errors import UserError
from tests.conftest import DIGITS, TINY

FOLDER = Path("runs/digits/resnet20/version_3")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("PROJECT", "RUN_GROUP", "JOB_TYPE", "TAGS", "NOTES", "NAME", "RUN_ID", "SWEEP_ID"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)


def filled_in(**arguments):
    arguments = Namespace(**arguments)
    fill_in(arguments, "digits/resnet20", FOLDER)
    return arguments.as_dict()


def test_the_experiment_names_what_nobody_else_does():
    assert filled_in(project=None) == {
        "project": "lit-classics",
        "group": "digits/resnet20",
        "job_type": "fit",
        "tags": None,
        "notes": None,
        "name": "digits/resnet20/version_3",
    }


def test_the_environment_beats_the_experiment_and_a_flag_beats_the_environment(monkeypatch):
    for name in ("PROJECT", "RUN_GROUP", "JOB_TYPE", "NOTES", "NAME"):
        monkeypatch.setenv(f"WANDB_{name}", f"my {name}")
    monkeypatch.setenv("WANDB_TAGS", "a, b,,c ")
    named = filled_in(group="by flag")
    assert named["tags"] == ["a", "b", "c"] and named["group"] == "by flag"
    assert (named["project"], named["job_type"], named["name"]) == ("my PROJECT", "my JOB_TYPE", "my NAME")
    assert filled_in(tags="one")["tags"] == ["one"] and filled_in(tags=["x, y"])["tags"] == ["x, y"]


@pytest.fixture
def earlier(here):
    """A run directory that has logged to W&B as abc."""
    Path("runs/digits/resnet20/version_0/wandb/offline-run-20260101_000000-abc").mkdir(parents=True)
    return Path("runs/digits/resnet20/version_0")


def chosen_id(resumed=None, **arguments):
    arguments = Namespace(id=None, **arguments) if "id" not in arguments else Namespace(**arguments)
    choose_id(arguments, resumed, Path("runs"))
    return arguments.id


def test_a_variable_names_one_run_and_no_second_one(earlier, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "new")
    assert chosen_id() is None  # W&B takes it from the variable
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    with pytest.warns(UserWarning, match=f"WANDB_RUN_ID is abc, the W&B run of {earlier}, and two runs would mix"):
        assert chosen_id() not in (None, "abc")


def test_a_flag_with_the_id_of_another_run_is_refused(earlier):
    with pytest.raises(UserError, match=f"abc is the W&B run of {earlier} already"):
        chosen_id(id="abc")
    assert chosen_id(id="bc") == "bc"


def test_a_resumed_run_keeps_its_id(earlier, monkeypatch, recwarn):
    record = CheckpointRecord({}, [], {}, wandb_run_id="abc")
    assert chosen_id(record) == "abc" and not recwarn
    monkeypatch.setenv("WANDB_RUN_ID", "new")
    with pytest.warns(UserWarning, match="WANDB_RUN_ID is new, but a resumed run keeps its own, abc"):
        assert chosen_id(record) == "abc"


def test_a_run_of_an_agent_asks_for_the_server(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setattr("wandb.api", type("Api", (), {"api_key": None}))
    with pytest.warns(UserWarning, match="W&B stays offline: nobody is logged in"):
        assert choose_wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_wandb_mode() == "disabled"


def test_names_that_wandb_refuses_are_one_sentence_each(fails):
    for flag, said in {"tags": "Tags must be between 1 and 64", "id": "Run ID cannot contain"}.items():
        sentence = fails("fit", "--config", DIGITS, *TINY, f"--trainer.logger.{flag}", "?" * 65)
        assert f"W&B takes no such {flag}" in sentence and said in sentence
    assert not list(Path("runs").rglob("*"))
