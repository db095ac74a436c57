"""Studies that run: in this process, killed, in several processes, and command by command."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from studies.__main__ import main
from tests.conftest import HOME
from tests.studies.tiny import stored, write_study


def run(study: str, *flags: str) -> None:
    main([study, "--runs", "runs", "--results", "results", "--processes", "1", *flags])


def start(study: str, folder: Path) -> subprocess.Popen[str]:
    """A study in a process of its own, whose output is kept."""
    command = [sys.executable, "-m", "studies", study, "--runs", str(folder / "runs"), "--results", str(folder / "res")]
    return subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def list_runs(runs: Path) -> list[str]:
    return sorted(path.relative_to(runs).as_posix() for path in runs.glob("**/version_*"))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_study_trains_tests_stores_and_skips(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(here, "\n  residual: {}\n  ten crops: {test.data.protocol: ten_crop}\n")
    run(study)
    said = capsys.readouterr().out
    assert "2 results.\n[1 of 2] residual, seed 0: test error " in said and "[2 of 2] ten crops" in said
    rows = stored(here / "results")
    assert [*rows] == [("residual", 0), ("ten crops", 0)]
    assert all(row.state == "finished" and row.test_images == 11 and row.num_classes == 6 for row in rows.values())
    one, ten = (row.measures for row in rows.values())
    assert one["train/loss@2"] == ten["train/loss@2"] and len(one["curve:val/loss"]) == 2
    assert list_runs(here / "runs") == ["5min/tiny/residual/version_0"]
    assert "# python " in (here / "runs/5min/tiny/residual/version_0/config.yaml").read_text()
    files = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file() and path.suffix == ".ckpt"}
    (here / "results" / "tiny-5min.json").unlink()
    run(study)  # reads the run
    assert {key: row.measures for key, row in stored(here / "results").items()} == {
        key: row.measures for key, row in rows.items()
    }
    assert {path: path.stat().st_mtime_ns for path in files} == files
    run(study)
    assert "2 results, of which 2 are stored.\nNothing is left to train; --results DIR" in capsys.readouterr().out


@pytest.mark.slow
def test_members_share_runs_and_seeds_are_versions(here: Path) -> None:
    run(write_study(here))
    rows = stored(here / "results")
    assert rows["both", 0].measures["parameters"] == 2 * rows["residual", 0].measures["parameters"]
    names = [f"5min/tiny/{name}" for name in ("plain/version_0", "residual/version_0", "residual/version_1")]
    assert list_runs(here / "runs") == names
    run(write_study(here, seeds=2), "--seeds", "2")
    added = [f"5min/tiny/{name}" for name in ("plain/version_1", "residual/version_2", "residual/version_3")]
    assert list_runs(here / "runs") == sorted([*names, *added])


@pytest.mark.slow
def test_a_study_that_is_killed_again_and_again_ends_with_the_same_numbers(tmp_path: Path) -> None:
    arms = "\n  residual: {}\n  ten crops: {test.data.protocol: ten_crop}\n  both: {members: 2}\n"
    study, generator = write_study(tmp_path, arms), random.Random()
    once, killed = tmp_path / "once", tmp_path / "killed"
    begin = time.monotonic()
    assert start(study, once).wait() == 0
    whole, kills = time.monotonic() - begin, 0
    while True:
        process = start(study, killed)
        try:
            process.communicate(timeout=generator.uniform(0.3, 0.6 + 0.2 * kills) * whole)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    assert process.returncode == 0
    rows, expected = (stored(folder / "res") for folder in (killed, once))
    assert {key: row.measures for key, row in rows.items()} == {key: row.measures for key, row in expected.items()}
    assert list_runs(killed / "runs") == list_runs(once / "runs")
    for name in list_runs(once / "runs"):
        ours, theirs = (read_weights(each / "runs" / name / "checkpoints" / "last.ckpt") for each in (killed, once))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        sessions = json.loads((killed / "runs" / name / "run.json").read_text())["sessions"]
        finished = [each["outcome"] for each in sessions].count("finished")
        assert finished <= 1 and all("--ckpt_path" in each["command"] for each in sessions[1:])
    assert kills


@pytest.mark.slow
def test_an_arm_equals_its_printed_command(tmp_path: Path) -> None:
    study = write_study(tmp_path, "\n  residual: {}\n  more: {model.dropout: 0.3}\n")
    assert start(study, tmp_path).wait() == 0
    printed = [sys.executable, "-m", "studies", study, "--runs", str(tmp_path / "printed"), "--print"]
    lines = subprocess.run(printed, cwd=HOME, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        command = re.sub(r"\bpython main.py", f"{sys.executable} main.py", line)
        subprocess.run(["sh", "-c", command], cwd=HOME, check=True, capture_output=True)
    assert list_runs(tmp_path / "printed") == list_runs(tmp_path / "runs")
    for name in list_runs(tmp_path / "runs"):
        ours, theirs = (tmp_path / each / name / "checkpoints/last.ckpt" for each in ("runs", "printed"))
        one, other = read_weights(ours), read_weights(theirs)
        assert all(torch.equal(one[key], other[key]) for key in other)
    flags = ["--runs", str(tmp_path / "printed"), "--results", str(tmp_path / "again")]
    begin = time.time_ns()
    said = subprocess.run([sys.executable, "-m", "studies", study, *flags], cwd=HOME, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    files = [*(tmp_path / "printed").rglob("*.ckpt"), *(tmp_path / "printed").rglob("test-*.json")]
    assert files and all(path.stat().st_mtime_ns < begin for path in files)  # nothing was trained or tested
    measures = ({key: row.measures for key, row in stored(tmp_path / each).items()} for each in ("res", "again"))
    assert next(measures) == next(measures)


VGG = "model: lit_models.LitVGG, model.head: cifar, model.width: 0.25, model.optimizer: torch.optim.SGD"
STARTED = f"""
  A: {{{VGG}, model.optimizer.lr: 0.01, model.variant: A}}
  residual: {{{VGG}, model.optimizer.lr: 0.01, model.variant: D, start_from: A}}
"""


def test_the_line_of_an_arm_holds_that_of_the_arm_that_it_starts_from(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(write_study(here, STARTED, seeds=2), "--print")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for seed, line in enumerate(lines):
        version = f"version_{seed}/checkpoints/last.ckpt"
        commands = line.split(" && ")
        assert [" fit " in each for each in commands] == [True, False, True, False]
        assert f"--model.init_from=runs/5min/tiny/A/{version}" in commands[2] and "init_from" not in commands[0]
        assert f"--ckpt_path=runs/5min/tiny/residual/{version}" in commands[3]


@pytest.mark.slow
def test_an_arm_starts_from_the_run_of_its_seed_as_the_recipe_is_now(here: Path) -> None:
    arms = STARTED.replace("model.variant", "data.size: 32, model.variant")
    run(write_study(here, arms, seeds=2))
    names = [f"5min/tiny/{name}" for name in ("A/version_0", "A/version_1", "residual/version_0", "residual/version_1")]
    assert list_runs(here / "runs") == names
    for seed in (0, 1):
        config = (here / f"runs/5min/tiny/residual/version_{seed}/config.yaml").read_text()
        assert f"init_from: runs/5min/tiny/A/version_{seed}/checkpoints/last.ckpt" in config
    before = stored(here / "results")
    changed = arms.replace("0.01, data.size: 32, model.variant: A", "0.02, data.size: 32, model.variant: A")
    run(write_study(here, changed, seeds=2))
    assert list_runs(here / "runs") == sorted([*names, *(name.replace("n_", "n_100") for name in names)])
    assert "A/version_1001/" in (here / "runs/5min/tiny/residual/version_1001/config.yaml").read_text()
    after = stored(here / "results")
    assert all(after[key].recipe != before[key].recipe for key in before)
    (here / "results" / "tiny-5min.json").unlink()
    run(write_study(here, arms, seeds=2))  # reads the first runs again
    assert {key: row.measures for key, row in stored(here / "results").items()} == {
        key: row.measures for key, row in before.items()
    }
    assert len(list_runs(here / "runs")) == 8


@pytest.mark.slow
def test_what_diverged_is_no_start(here: Path) -> None:
    arms = STARTED.replace("0.01, model.variant: A", "1.0e+30, model.variant: A").replace(
        "model.var", "data.size: 32, model.var"
    )
    with pytest.raises(
        SystemExit, match="arm residual: it starts from .*version_0, which diverged: correct the recipe of A"
    ):
        run(write_study(here, arms))
    assert stored(here / "results")["A", 0].state == "diverged"


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=2)
    both = [start(study, tmp_path), start(study, tmp_path)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(stored(tmp_path / "res")) == 8
    lines = [[line for line in each.splitlines() if line.startswith("[")] for each in said]
    assert all(lines) and len({re.search(r"\] (.*):", line)[1] for each in lines for line in each}) == 8
    assert len(list_runs(tmp_path / "runs")) == 6


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_study_and_it_goes_on(tmp_path: Path, number: int, status: int) -> None:
    study = write_study(tmp_path)
    process = start(study, tmp_path)
    assert process.stdout
    while not process.stdout.readline().startswith("[1 of"):
        assert process.poll() is None
    os.kill(process.pid, number)
    said = process.communicate()[0]
    assert process.returncode in (status, -number) and "Traceback" not in said, said
    assert start(study, tmp_path).wait() == 0
    assert len(stored(tmp_path / "res")) == 4 and len(list_runs(tmp_path / "runs")) == 3


@pytest.mark.slow
def test_a_run_that_diverges_is_a_result(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(write_study(here, "\n  residual: {model.optimizer.lr: 1.0e+30}\n  other: {}\n"))
    rows = stored(here / "results")
    assert rows["residual", 0].state == "diverged" and rows["residual", 0].measures["test/top1_error"] is None
    assert rows["residual", 0].num_classes == 6 and rows["other", 0].state == "finished"
    assert "residual, seed 0: diverged" in capsys.readouterr().out
    checkpoints = [path.stat().st_mtime_ns for path in here.rglob("*.json")]
    run(write_study(here, "\n  residual: {model.optimizer.lr: 1.0e+30}\n  other: {}\n"))
    assert [path.stat().st_mtime_ns for path in here.rglob("*.json")] == checkpoints


@pytest.mark.parametrize(
    ("arms", "flags", "sentence"),
    [
        (
            "\n  residual: {model.dept: 20}\n",
            [],
            r"tiny, the arm residual: There is no argument --model.dept here. Did",
        ),
        ("\n  residual: {}\n  b: {model.dropout: null}\n", [], "arm b: it changes nothing: .*that of residual"),
        ("\n  residual: {test.data.protocl: ten_crop}\n", [], "arm residual: There is no argument --data.protocl"),
        ("\n  residual: {data: datamodules.ImageNet}\n", [], "arm residual: There is no argument --data.classes"),
        ("\n  residual: {config: configs/overlays/em.yaml}\n", [], "em.yaml"),
        ("\n  residual: {}\n", ["--seeds", "0"], "--seeds is 0: give a number"),
        ("\n  residual: {}\n", ["--budget", "1min"], "tiny has no budget 1min: its sizes are 5min"),
        ("\n  residual: {}\n", ["--model.depth", "56"], "A study sets --model.depth itself"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(here: Path, arms: str, flags: list[str], sentence: str) -> None:
    with pytest.raises(SystemExit, match=sentence):
        run(write_study(here, arms), *flags)
    assert [path.name for path in here.iterdir()] == ["tiny.yaml"]
