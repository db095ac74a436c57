"""A training that is killed inside its epochs and goes on with another number of processes reads every image once."""

import json
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from tests.conftest import STEP_CHECKPOINTS
from tests.datamodules.test_imagenet import NET
from tests.packing import pack_noise
from tests.test_ddp import TWO, type_it

ONE = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.strategy", "auto"]
BATCHES = 5  # of 8 images in each epoch


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    return pack_noise(tmp_path_factory.mktemp("elastic"), images=20, images_per_chunk=2)


@pytest.fixture
def start(here, packed, request, monkeypatch) -> list[object]:
    """The command that begins a run of two epochs."""
    checkpoints = "trainer:\n  callbacks+:" + STEP_CHECKPOINTS
    checkpoints += "    - class_path: tests.reading.RecordReads\n      init_args: {name: reads}\n"
    (here / "steps.yaml").write_text(checkpoints)
    root = f"local:{packed}" if request.param == "local:" else packed
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(here / "cache"))
    command = ["fit", "--config", "steps.yaml", "--run_name", "photos/net", "--data", "datamodules.ImageNet", *NET]
    command += ["--data.root", root, "--data.size", 16, "--data.batch_size", 8, "--data.num_workers", 0]
    return [*command, "--trainer.max_epochs", 2]


def type_until(step: int | None, monkeypatch, *args: object) -> None:
    """Type a command whose processes are killed after a number of steps."""
    monkeypatch.setenv("KILL_AT", str(-1 if step is None else step))
    done = type_it(*args)
    assert (done.returncode == 0) == (step is None), done.stderr
    if step is not None:
        assert "Traceback" not in done.stderr, done.stderr


def go_on(start: list[object], step: int) -> list[object]:
    """The command that goes on after a step with the data of the one that began the run."""
    checkpoint = f"runs/photos/net/version_0/checkpoints/step-{step}.ckpt"
    root = start[start.index("--data.root") + 1]
    return ["fit", "--ckpt_path", checkpoint, "--allow", "tests", "--data.root", root]


def read_indices() -> dict[int, list[int]]:
    """The indices of the images of each epoch, of all ranks; of a step that was repeated, those of its last reading."""
    steps: dict[int, dict[tuple[int, int], list[int]]] = defaultdict(dict)
    for path in sorted(Path().glob("reads-*.jsonl")):
        for line in path.read_text().splitlines():
            epoch, step, indices = json.loads(line)
            steps[epoch][step, int(path.stem[-1])] = indices
    return {epoch: sum(parts.values(), []) for epoch, parts in steps.items()}  # noqa: RUF017


@pytest.mark.slow
@pytest.mark.parametrize("start", ["folder", "local:"], indirect=True)
@pytest.mark.parametrize("processes", [(TWO, ONE, TWO), (ONE, TWO, ONE)], ids=["2-1-2", "1-2-1"])
def test_every_image_is_read_once_whatever_the_number_of_processes(start, processes, monkeypatch):
    first, second, third = processes
    type_until(3, monkeypatch, *start, *first)
    type_until(7, monkeypatch, *go_on(start, 3), *second)
    type_until(None, monkeypatch, *go_on(start, 7), *third)
    found = read_indices()
    assert sorted(found) == [0, 1]
    for indices in found.values():
        assert sorted(indices) == list(range(8 * BATCHES))
    assert found[0] != found[1]


@pytest.mark.slow
@pytest.mark.parametrize("start", ["local:"], indirect=True)
@pytest.mark.parametrize("processes", [ONE, TWO], ids=["1", "2"])
def test_killed_and_resumed_runs_end_with_the_same_weights(start, processes, monkeypatch):
    last = Path("runs/photos/net/version_0/checkpoints/last.ckpt")
    type_until(None, monkeypatch, *start, *processes)
    whole = torch.load(last, weights_only=True)["state_dict"]
    Path("runs").rename("whole")
    type_until(7, monkeypatch, *start, *processes)
    type_until(None, monkeypatch, *go_on(start, 7), *processes)
    resumed = torch.load(last, weights_only=True)["state_dict"]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["folder"], indirect=True)
def test_inside_an_epoch_the_global_batch_stays(start, monkeypatch):
    type_until(3, monkeypatch, *start, *ONE)
    monkeypatch.setenv("KILL_AT", "-1")
    done = type_it(*go_on(start, 3), *ONE, "--data.batch_size", 4)
    assert done.returncode == 1 and "This epoch was begun with batch_size 8, and the resumed run has 4" in done.stderr
