"""Every YAML under configs/ builds and trains through the real command line, on images that it makes itself."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from PIL import Image

from datamodules.base import ImageData
from lit_models import LitClassifier
from tests.conftest import DIGITS, HOME, write_synthetic_cifar
from tests.families import smallest_training_size

CONFIGS = HOME / "configs"
OVERLAYS = sorted((CONFIGS / "overlays").glob("*.yaml"))
SWEEPS = sorted((CONFIGS / "sweeps").glob("*.yaml"))  # see test_sweeps.py
STUDIES = sorted((CONFIGS / "studies").glob("*.yaml"))  # see studies/
EXPERIMENTS = sorted(set(CONFIGS.glob("*/**/*.yaml")) - set(OVERLAYS) - set(SWEEPS) - set(STUDIES))


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS).with_suffix(""))


def read_section(path: Path, name: str) -> dict[str, Any]:
    return {"init_args": {}} | yaml.safe_load(path.read_text())[name]


def instantiate(base_class: type, section: dict[str, Any]) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base_class, "it")
    return parser.instantiate_classes(parser.parse_object({"it": section})).it


IMAGE_FOLDERS = [p for p in EXPERIMENTS if read_section(p, "data")["class_path"] == "datamodules.ImageNet"]


def test_every_yaml_is_an_experiment_an_overlay_a_sweep_or_a_study():
    """No other test would find a YAML at another place."""
    assert len(EXPERIMENTS) >= 59 and len(IMAGE_FOLDERS) >= 37 and len(OVERLAYS) >= 8
    assert CONFIGS / "imagenet" / "modern" / "resnet50_tv2.yaml" in IMAGE_FOLDERS
    known = {CONFIGS / "base.yaml", *EXPERIMENTS, *OVERLAYS, *SWEEPS, *STUDIES}
    assert {*CONFIGS.rglob("*.y*ml"), *CONFIGS.rglob("*.json")} == known


def build_model(path: Path) -> LitClassifier:
    """The experiment's model for 10 classes, with weights as they are initialised."""
    section = read_section(path, "model")
    arguments = {name: value for name, value in section["init_args"].items() if name != "weights"}
    return instantiate(LitClassifier, section | {"init_args": arguments | {"num_classes": 10}})


def train_a_batch(run: Callable[..., None], capsys: pytest.CaptureFixture[str], path: Path, size: int) -> None:
    """Fit one batch of two noise images of `size` px, and validate one where the experiment holds images back.

    Weights of a hub are replaced by a local file.
    """
    flags = ["--data", "datamodules.Synthetic", "--data.size", size, "--data.classes", 10, "--data.batch_size", 2]
    if "weights" in read_section(path, "model")["init_args"]:
        torch.save(build_model(path).net.state_dict(), "weights.pth")
        flags += ["--model.weights", "weights.pth"]
    run("fit", "--config", path, *flags, "--trainer.fast_dev_run", 1)
    said, validates = capsys.readouterr().out, read_section(path, "data")["init_args"].get("val_size") != 0
    assert "train/loss" in said and ("val/loss" in said) == validates
    gc.collect()  # nets are large, and some contain reference cycles


def smallest_size(path: Path) -> int:
    """Pixels per side of the smallest images on which the experiment's net can be trained."""
    with torch.device("meta"):
        return smallest_training_size(build_model(path))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_experiment_is_read_and_built(run, capsys, path):
    """`make smoke` trains it."""
    with pytest.raises(SystemExit) as stop:
        run("fit", "--config", path, "--print_config")
    assert stop.value.code == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    for section in ("model", "data"):
        assert resolved[section]["class_path"] == read_section(path, section)["class_path"]
    smallest_size(path)


# Of each LightningModule the first experiment: those of CIFAR-10 come before ImageNet's, which take longer
FIRST_OF_EACH = {read_section(path, "model")["class_path"]: path for path in reversed(EXPERIMENTS)}


@pytest.mark.parametrize("path", sorted(FIRST_OF_EACH.values()), ids=name_of)
def test_experiment_trains_a_batch(run, capsys, path):
    train_a_batch(run, capsys, path, smallest_size(path))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_experiment_trains_a_batch_at_its_own_size(run, capsys, path):
    native = 224 if path in IMAGE_FOLDERS else 32
    train_a_batch(run, capsys, path, read_section(path, "data")["init_args"].get("size", native))


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """Arguments with which each data set finds a few images: two folders of four images; CIFAR-10's files."""
    folder = tmp_path_factory.mktemp("image folder")
    rng = np.random.default_rng(0)
    for index in range(8):
        path = folder / ("cat", "dog")[index % 2] / f"{index}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(path)
    cifar = write_synthetic_cifar(tmp_path_factory.mktemp("cifar"))
    return {
        "datamodules.ImageNet": {"root": str(folder), "val_size": 2, "num_workers": 0},
        "datamodules.CIFAR10": {"root": str(cifar), "val_size": 20},
        "datamodules.Digits": {},
    }


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_experiment_reads_its_images(path, roots):
    """Images from files, cropped and augmented as the experiment says; a network is not needed."""
    section = read_section(path, "data")
    if section["class_path"] not in roots:
        pytest.skip(f"`roots` has no images for {section['class_path']}")
    own, tiny = section["init_args"], roots[section["class_path"]]
    trains_on_all = own.get("val_size") == 0
    sizes = {"batch_size": 4} | ({"val_size": 0} if trains_on_all else {})
    data = instantiate(ImageData, section | {"init_args": own | tiny | sizes})
    data.setup("fit")
    batch = data.on_before_batch_transfer(next(iter(data.train_dataloader())), 0)
    side = data.preprocessing["crop"]
    if path in IMAGE_FOLDERS:
        side = data.augmentation.crop_size(0, own.get("size", 224))
    assert batch.images.shape == (4, 3, side, side) and len(batch.labels) == 4
    assert data.augment(batch.images).shape == batch.images.shape
    if trains_on_all:
        assert data.val_set is None
    else:
        batch = data.on_before_batch_transfer(next(iter(data.val_dataloader())), 0)
        assert batch.images.shape[-1] == data.preprocessing["crop"]


@pytest.mark.parametrize("name", ["resnet20", "resnet20_short"])
def test_cifar10_is_trained_with_and_without_validation(run, here, capsys, name):
    root = ["--data.root", write_synthetic_cifar(here / "data"), "--data.batch_size", 4]
    val_size = ["--data.val_size", 20] if name == "resnet20_short" else []
    run("fit", "--config", CONFIGS / "cifar10" / f"{name}.yaml", *root, *val_size, "--trainer.fast_dev_run", 1)
    said = capsys.readouterr().out
    assert "train/loss" in said and ("val/loss" in said) == bool(val_size)


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlay_builds_over_an_experiment(run, here, path, capsys):
    with pytest.raises(SystemExit) as stop:
        run("fit", "--config", DIGITS, "--config", path, "--print_config")
    assert stop.value.code == 0
    overlay = yaml.safe_load(path.read_text())
    resolved = yaml.safe_load(capsys.readouterr().out)
    for name, value in overlay.get("trainer", {}).items():
        if name == "callbacks+":  # appended to base.yaml's
            own = resolved["trainer"]["callbacks"][-len(value) :]
            assert [callback["class_path"] for callback in own] == [callback["class_path"] for callback in value]
        else:
            assert includes(resolved["trainer"][name], value)
    for section in ("model", "data"):
        for name, value in overlay.get(section, {}).get("init_args", {}).items():
            assert resolved[section]["init_args"][name] == value


def includes(resolved: Any, value: Any) -> bool:
    """Whether a resolved config has what a file says; a class has the defaults of its other arguments too."""
    if not isinstance(value, dict):
        return resolved == value
    return all(includes(resolved[name], each) for name, each in value.items())


@pytest.mark.parametrize("path", EXPERIMENTS + OVERLAYS, ids=name_of)
def test_header_says_what_and_how(path):
    header = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert header.count("\n") >= 2 and "python main.py" in header
    if path in EXPERIMENTS:
        assert ("arXiv" in header or "no paper" in header) and f"--config configs/{name_of(path)}.yaml" in header
    if path in IMAGE_FOLDERS:
        assert "--data.root DIR" in header


def test_plain_nets_are_the_ones_without_shortcuts():
    plain = {path.stem for path in EXPERIMENTS if path.stem.startswith("plain")}
    assert plain == {"plain18", "plain20", "plain34", "plain56"}
    for path in EXPERIMENTS:
        assert (read_section(path, "model")["init_args"].get("shortcut") == "none") == (path.stem in plain)
