"""Reports take the results of a run's own images, unless others are asked for, and mark what was selected on test."""

import json
import shutil
from pathlib import Path

import pytest

from checkpointing.predictions import Predictions
from reports.protocols import main as protocols
from tests.conftest import DIGITS
from tests.datamodules.test_imagenet import write

RUN = Path("runs/digits/resnet20/version_0")
SMALL = ["--data", "datamodules.ImageNet", "--data.size", 16, "--data.num_workers", 0]
SMALL += ["--data.batch_size", 8, "--trainer.max_epochs", 1, "--trainer.precision", "32-true"]


@pytest.fixture
def root(tmp_path: Path, run) -> Path:
    """A folder with 24 photos of two classes, on which `RUN` was trained; 2 of them are held back."""
    for seed, name in enumerate(("cat", "dog")):
        write(tmp_path / "images" / name, 12, seed)
    run("fit", "--config", DIGITS, *SMALL, "--data.root", tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder with other photos of the same classes in it, under names of their own."""
    for seed, name in enumerate(("cat", "dog")):
        folder = write(tmp_path / "other" / name, 3, 20 + seed)
        for path in list(folder.iterdir()):
            path.rename(folder / f"other {path.name}")
    return tmp_path / "other"


def report(*flags: object) -> dict:
    """The JSON of `reports.protocols` on the run."""
    protocols(["--checkpoints", str(RUN), "--json", "report.json", *map(str, flags)])
    return json.loads(Path("report.json").read_text())


def test_results_of_other_images_have_files_of_their_own_and_reports_tell_them_apart(run, root, other, capsys):
    run("test", "--ckpt_path", RUN, "--data.root", other)
    (foreign,) = RUN.glob("test-*.json")
    assert foreign.name.startswith("test-best-center-") and json.loads(foreign.read_text())["images"] == 6
    assert not json.loads(foreign.read_text())["is_run_data"]
    capsys.readouterr()
    assert report()["images"] == 2  # no result of the run's own images was there
    assert "Test 1 of 1" in capsys.readouterr().out
    own = {path: path.read_bytes() for path in RUN.glob("*best-center.*")}
    assert len(own) == 2 and json.loads((RUN / "test-best-center.json").read_text())["is_run_data"]
    assert report()["images"] == 2 and "Test 1 of 1" not in capsys.readouterr().out
    assert report("--data.root", other)["images"] == 6
    assert "Tested before: " in capsys.readouterr().out
    moved = shutil.copytree(root, root.with_name("copy"))
    assert report("--data.root", moved)["images"] == 2
    assert {path: path.read_bytes() for path in own} == own and len(list(RUN.glob("test-*.json"))) == 2


def test_what_was_chosen_by_the_very_images_of_the_test_is_marked(run, root, capsys):
    run("test", "--ckpt_path", RUN)
    assert "chosen by its error on these images: this error is optimistic" in capsys.readouterr().out
    run("test", "--ckpt_path", RUN / "checkpoints" / "last.ckpt")
    assert "optimistic" not in capsys.readouterr().out
    results = [json.loads((RUN / f"test-{name}-center.json").read_text()) for name in ("best", "last")]
    assert [result["selected_on_test"] for result in results] == [True, False]
    found = report()
    assert found["rows"][0]["selected_on_test"] and "* Selected on test" in (said := capsys.readouterr().out)
    assert "center *" in said
    protocols(["--checkpoints", str(RUN / "checkpoints" / "last.ckpt")])
    assert "center *" not in (said := capsys.readouterr().out) and "Selected on test" not in said
    copied = shutil.copy(RUN / "checkpoints" / "best.ckpt", "mine.ckpt")
    run("test", "--ckpt_path", copied, "--data.root", root)
    assert json.loads(Path("test-mine-center.json").read_text())["selected_on_test"]


def test_images_for_the_test_alone_select_nothing(run, tmp_path, root):
    for folder in ("train", "val", "test"):
        for seed, name in enumerate(("cat", "dog")):
            write(tmp_path / "three" / folder / name, 4, 60 + len(folder) + seed)
    run("fit", "--config", DIGITS, *SMALL, "--data.root", tmp_path / "three", "--run_name", "digits/three")
    version = Path("runs/digits/three/version_0")
    run("test", "--ckpt_path", version)
    result = json.loads((version / "test-best-center.json").read_text())
    assert result["is_run_data"] and not result["selected_on_test"]
    assert not Predictions.read(version / "predictions-best-center.npz").selected_on_test
    shutil.rmtree(tmp_path / "three" / "test")
    run("test", "--ckpt_path", version)
    (path,) = version.glob("test-best-center-*.json")
    assert json.loads(path.read_text())["selected_on_test"]
