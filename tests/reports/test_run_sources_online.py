"""Runs come from a project on W&B as they come from run directories; a server on the loopback stands for W&B."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import UserError
from reports.groups import group_runs
from reports.run_sources.local import read_run
from reports.run_sources.online import load_wandb, parse_filters
from tests.reports.run_folders import FACTS, make_config, make_rows, write_run
from tests.reports.wandb_stub import ENTITY, KEY, PROJECT, StubRun, StubServer, serve

PATH = f"{ENTITY}/{PROJECT}"
SUMMARY = {"test/top1_error": 0.1, "test/center/top1_error": 0.1, "test/center/images": 360}
SUMMARY |= {"test/center/data_hash": FACTS.data.test_hash, "val/loss": {"min": 0.5}}


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    with serve() as stub:
        yield stub


@pytest.fixture
def stub(server: StubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StubServer:
    """The server without runs, with somebody logged in."""
    for name, value in (("BASE_URL", server.address), ("API_KEY", KEY), ("CACHE_DIR", str(tmp_path / "cache"))):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    server.runs, server.most_rows = [], 10_000
    return server


def make_run(run_id: str, epochs: float = 20, loss: tuple[float, ...] = (), **fields: Any) -> StubRun:
    """A run of the server that logged what `write_run` writes."""
    rows = [{"trainer/global_step": row["step"], **row} for row in make_rows(epochs, loss)]
    rows = [{name: text(value) for name, value in row.items() if name != "step"} for row in rows]
    config = {**make_config(), "facts": asdict(FACTS) | {"sessions": []}}
    return StubRun(run_id, **{"config": config, "rows": rows, **fields})


def text(value: Any) -> Any:
    """A value as W&B writes it in JSON."""
    return value if math.isfinite(value) else {"nan": "NaN", "inf": "Infinity"}[str(value)]


def test_a_run_is_the_one_that_its_directory_holds(stub, tmp_path):
    stub.runs = [make_run("abc", summary=SUMMARY)]
    (run,) = load_wandb(PATH)
    local = read_run(write_run(tmp_path / "runs" / "digits" / "resnet20" / "version_0"))
    assert (run.location, run.name, run.seed) == (f"{PATH}/abc", "digits/resnet20/abc", 0)
    assert (run.state, run.reason, run.config) == ("finished", "", local.config)
    assert run.facts and local.facts and (run.facts.model, run.facts.data) == (local.facts.model, local.facts.data)
    assert run.curves.keys() == local.curves.keys()
    for name, curve in local.curves.items():
        assert np.array_equal(curve.epochs, run.curves[name].epochs)
        assert np.array_equal(curve.values, run.curves[name].values)
    (result,) = run.results
    assert (result.metrics, result.images, result.data_hash) == ({"top1_error": 0.1}, 360, FACTS.data.test_hash)
    assert len(group_runs([run, local])) == 1


def test_histories_of_which_the_server_gives_samples_keep_every_epoch(stub):
    stub.runs, stub.most_rows = [make_run("abc")], 50
    (run,) = load_wandb(PATH)
    assert len(run.curves["val/top1_error"].values) == len(run.curves["train/loss"].values) == 20
    assert len(run.curves["train/batch_loss"].values) < 40


def test_all_pages_are_read_filters_are_passed_on_and_ensembles_left_out(stub):
    stub.runs = [make_run(f"run{number}", 1) for number in range(60)]
    stub.runs[7].job_type = "ensemble"
    assert [run.version for run in load_wandb(PATH, {"state": "finished"})] == [
        f"run{number}" for number in range(60) if number != 7
    ]
    assert stub.filters == {"state": "finished"}


@pytest.mark.parametrize(
    ("said", "epochs", "loss", "state", "reason"),
    [
        ("running", 6.5, (), "running", "Training now, in epoch 7 of 20"),
        ("finished", 6.5, (), "stopped", "Stopped in epoch 7 of 20"),
        ("finished", 20, (), "finished", ""),
        ("crashed", 6.5, (), "killed", "Killed in epoch 7 of 20: W&B has lost contact"),
        ("crashed", 0, (), "empty", "No epoch has ended"),
        ("killed", 6.5, (), "stopped", "Stopped in epoch 7 of 20"),
        ("failed", 6.5, (), "failed", "Failed in epoch 7 of 20"),
        ("finished", 20, (math.nan, math.nan), "diverged", "The training loss is nan since epoch 19"),
    ],
)
def test_states(stub, said, epochs, loss, state, reason):
    stub.runs = [make_run("abc", epochs, loss, state=said)]
    (run,) = load_wandb(PATH)
    assert (run.state, run.reason) == (state, reason)


def test_a_run_of_another_program_is_shown(stub):
    stub.runs = [StubRun("abc", {"lr": 0.1}, [{"loss": 1.0}], name="\x1b[31m", group=None, job_type=None)]
    (run,) = load_wandb(PATH)
    assert (run.experiment, run.state, run.curves, run.facts) == (PROJECT, "stopped", {}, None)


@pytest.mark.parametrize(
    ("project", "filters", "sentence"),
    [
        (f"{ENTITY}/unknown", None, f"There is no project {ENTITY}/unknown on W&B that this account may read"),
        ("nobody/x", None, "There is no project nobody/x"),
        (PATH, None, f"The project {PATH} on W&B has no trainings in it"),
        (PATH, {"tags": "x"}, 'has no trainings that match --filters {"tags": "x"}'),
        ("a/b/c", None, "--wandb is a/b/c: give ENTITY/PROJECT"),
        ("", None, "--wandb is : give"),
        ("a b\n/c", None, "--wandb is a b\\n/c: give"),
    ],
)
def test_a_wrong_project_is_one_sentence(stub, capsys, project, filters, sentence):
    with pytest.raises(UserError) as error:
        load_wandb(project, filters)
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert capsys.readouterr().err == ""


def test_nobody_logged_in_is_one_sentence(stub, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", "nowhere")
    monkeypatch.setenv("WANDB_BASE_URL", stub.address.replace("127.0.0.1", "127.0.0.2"))  # of which W&B has no key yet
    with pytest.raises(UserError, match=r"^Nobody is logged in to W&B on http://127[^ ]* \(.*\): run `wandb login`"):
        load_wandb(PATH)


def test_a_malformed_key_is_one_sentence(stub, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    with pytest.raises(UserError, match=r"^Nobody is logged in") as error:
        load_wandb(PATH)
    assert "secret" not in str(error.value)


def test_no_network_is_one_sentence_and_soon(stub, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("reports.run_sources.online.SECONDS", 1)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"^W&B on http://127.0.0.1:9 is not reached \("):
        load_wandb(PATH)
    assert time.monotonic() - start < 30


def test_filters_are_json():
    assert parse_filters('{"state": "finished"}') == {"state": "finished"}
    for wrong, reason in (("{state", "no JSON \\("), ("[1]", "no JSON object"), ("[" * 5000, "nested too deeply")):
        with pytest.raises(UserError, match=reason):
            parse_filters(wrong)
