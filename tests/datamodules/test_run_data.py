"""A command that starts from a checkpoint finds the data of its run again: classes by name, files by their lists."""

import json
import shutil
from pathlib import Path

import pytest

from tests.datamodules.test_imagenet import fit, write

RUN = Path("runs/photos/net/version_0")
OF_RUN = ["--ckpt_path", RUN, "--allow", "tests.dropout_net"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class folders with 12 photos of each of two classes, of which 2 are held back."""
    for seed, name in enumerate(("cat", "dog")):
        write(tmp_path / "images" / name, 12, seed)
    return tmp_path / "images"


@pytest.fixture
def trained(run, root) -> Path:
    """The folder of a run that has been trained on; the run is `RUN`."""
    run(*fit(root))
    return root


def split() -> dict:
    (path,) = RUN.glob("split-*.json")
    return json.loads(path.read_text())


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*.jpg")}


def result(name: str = "test-best-center.json") -> dict:
    return json.loads((RUN / name).read_text())


def other_results() -> list[Path]:
    """Results on other data than the run's."""
    return [path for path in RUN.glob("test-*.json") if path.name != "test-best-center.json"]


def test_the_run_keeps_lists_of_what_it_trained_on_and_held_back(trained):
    content = split()
    assert set(content["trained_on"]) | set(content["held_back"]) == files(trained)
    assert len(content["trained_on"]) == 22 and len(content["held_back"]) == 2 and not content["own_folder"]
    assert all((trained / path).stat().st_size == size for path, size in content["held_back"].items())


def move(root: Path) -> Path:
    return root.rename(root.with_name("elsewhere"))


def copy(root: Path) -> Path:
    return Path(shutil.copytree(root, root.with_name("copy")))


def into_train(root: Path) -> Path:
    (root.parent / "all").mkdir()
    return root.rename(root.parent / "all" / "train").parent


def link(root: Path) -> Path:
    (root.parent / "link").symlink_to(root)
    return root.parent / "link"


@pytest.mark.parametrize("change", [move, copy, into_train, link])
def test_the_same_folder_at_another_path_is_the_runs_own(run, trained, capsys, change):
    root = change(trained)
    capsys.readouterr()
    for verb in ("test", "validate"):
        run(verb, *OF_RUN, "--data.root", root)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Data: ")]
    where = root / "train" if change is into_train else root
    assert said[0] == f"Data: test: 2 images of {where}, held back for validation" and len(said) <= 4
    assert not any("new" in line or "gone" in line or "effect" in line for line in said)
    assert result()["is_run_data"] and result()["images"] == 2 and not other_results()


# A folder that has changed


def test_new_images_are_left_out_of_a_test_and_trained_on_when_resumed(run, trained, capsys):
    before = split()
    run("test", *OF_RUN)
    own = result()
    for name in ("w", "x", "y", "z"):
        shutil.copy(trained / "cat" / "0.jpg", trained / "cat" / f"{name}.jpg")
    capsys.readouterr()
    run("test", *OF_RUN)
    assert "Data: 4 new images, in neither list of the run: left out" in capsys.readouterr().out
    assert result() == own and not other_results()
    run("fit", *OF_RUN, "--trainer.max_epochs", 2)
    said = capsys.readouterr().out
    assert "Data: 4 new images, in neither list of the run: trained on from now on" in said
    assert "26 training images of 2 classes" in said
    after = [json.loads(path.read_text()) for path in RUN.glob("split-*.json")]
    assert len(after) == 2 and all(each["held_back"] == before["held_back"] for each in after)
    assert before in after and max(len(each["trained_on"]) for each in after) == 26
