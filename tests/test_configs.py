"""Every YAML under configs/ builds through the real command line."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from jsonargparse import ArgumentParser
from PIL import Image

from datamodules import ImageNet
from datamodules.views import PROTOCOLS
from tests.conftest import DIGITS, HOME, write_cifar

CONFIGS = HOME / "configs"
EXPERIMENTS = sorted(p for p in CONFIGS.glob("*/**/*.yaml") if p.parent.name != "overlays")
OVERLAYS = sorted((CONFIGS / "overlays").glob("*.yaml"))


def name_of(path):
    return str(path.relative_to(CONFIGS).with_suffix(""))


def data_of(path):
    return yaml.safe_load(path.read_text())["data"]


OF_PHOTOS = [path for path in EXPERIMENTS if data_of(path)["class_path"] == "datamodules.ImageNet"]


def test_some_were_found():
    assert len(EXPERIMENTS) >= 55 and len(OF_PHOTOS) >= 35 and len(OVERLAYS) >= 3
    assert CONFIGS / "imagenet" / "modern" / "resnet50_tv2.yaml" in OF_PHOTOS


def heavy(path):
    """Experiments that want more than a few seconds for one batch: `make smoke` has them, `make test` has not."""
    slow = ("cifar10/densenet_bc_190_40", "cifar10/densenet_bc_250_24", "cifar10/nasnet_a_6_768")
    return name_of(path).startswith("imagenet/") or name_of(path) in slow


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=[pytest.mark.slow] if heavy(p) else []) for p in EXPERIMENTS], ids=name_of
)
def test_experiment_trains_a_batch(run, here, path):
    """On noise of its own size and number of classes; without a network, so that weights are a local file's."""
    size = data_of(path)["init_args"].get("size", 224 if path in OF_PHOTOS else 32)
    classes = 1000 if name_of(path).startswith("imagenet/") else 10
    noise = ["--data.size", size, "--data.classes", classes, "--data.batch_size", 2]
    if name_of(path).startswith("photos/"):
        torch.save(torchvision.models.resnet18().state_dict(), here / "resnet18.pth")
        noise += ["--model.weights", here / "resnet18.pth"]
    run("fit", "--config", path, "--data", "datamodules.Synthetic", *noise, "--trainer.fast_dev_run", 1)
    gc.collect()  # nets are large, and some are built in cycles


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two class folders with four photos each."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for place in range(8):
        path = root / ("cat", "dog")[place % 2] / f"{place}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(path)
    return root


@pytest.mark.parametrize("path", OF_PHOTOS, ids=name_of)
def test_experiment_reads_its_images(path, photos):
    """Photos of a folder, cropped and augmented as the experiment says; of the net nothing is needed."""
    wanted = data_of(path)
    wanted["init_args"] |= {"root": str(photos), "batch_size": 4, "num_workers": 0, "val_size": 2}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageNet, "data")
    data = parser.instantiate_classes(parser.parse_object({"data": wanted})).data
    data.setup("fit")
    size = data.augmentation.size(0, wanted["init_args"].get("size", 224))
    images, labels = data.on_before_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert images.shape == (4, 3, size, size)
    assert data.augment(images).shape == images.shape and len(labels) == 4
    assert next(iter(data.val_dataloader())).images.shape[2] == data.preprocessing["crop"]


@pytest.mark.parametrize(
    "path", [p for p in EXPERIMENTS if p.parent.name == "cifar10" and not heavy(p)], ids=lambda path: path.stem
)
def test_experiment_finds_its_data(run, here, path):
    """CIFAR-10's own files; of the net one batch is enough."""
    root = ["--data.root", write_cifar(here / "data"), "--data.batch_size", 4]
    held_back = yaml.safe_load(path.read_text())["data"]["init_args"].get("val_size", 5000)
    root += ["--data.val_size", 20] if held_back else []
    run("fit", "--config", path, *root, "--trainer.fast_dev_run", 1)


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlay_builds_over_an_experiment(run, here, path, capsys):
    with pytest.raises(SystemExit) as stop:
        run("fit", "--config", DIGITS, "--config", path, "--print_config")
    assert stop.value.code == 0
    overlay = yaml.safe_load(path.read_text())
    resolved = yaml.safe_load(capsys.readouterr().out)
    for name, value in overlay.get("trainer", {}).items():
        if name == "callbacks+":  # behind those that are there
            own = resolved["trainer"]["callbacks"][-len(value) :]
            assert [callback["class_path"] for callback in own] == [callback["class_path"] for callback in value]
        else:
            assert resolved["trainer"][name] == value
    for name, value in overlay.get("data", {}).get("init_args", {}).items():
        assert resolved["data"]["init_args"][name] == value


def test_every_protocol_has_an_overlay():
    overlays = {path.stem: yaml.safe_load(path.read_text()) for path in OVERLAYS}
    for name in PROTOCOLS.keys() - {"center"}:
        assert overlays[name] == {"data": {"init_args": {"protocol": name}}}


@pytest.mark.parametrize("path", EXPERIMENTS + OVERLAYS, ids=name_of)
def test_header_says_what_and_how(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(header) >= 3 and any("python main.py" in line for line in header)
    if path.parent.name != "overlays":
        assert "arXiv" in "".join(header) and f"--config configs/{name_of(path)}.yaml" in "".join(header)
    if path in OF_PHOTOS:
        assert "--data.root DIR" in "".join(header)


@pytest.mark.parametrize(
    "name", ["resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202", "plain20", "plain56"]
)
def test_the_papers_recipe(name):
    config = yaml.safe_load(Path(HOME / "configs" / "cifar10" / f"{name}.yaml").read_text())
    assert config["trainer"]["max_steps"] == 64_000 and config["trainer"]["max_epochs"] == -1
    assert config["data"]["init_args"] == {"batch_size": 128, "val_size": 0}
    (decay,) = config["trainer"]["callbacks+"]
    assert decay["init_args"]["milestones"] == [32_000, 48_000] and decay["init_args"]["interval"] == "step"
    assert ("warmup" in decay["init_args"]) == (name in ("resnet110", "resnet1202"))
    optimizer = config["model"]["init_args"]["optimizer"]["init_args"]
    assert optimizer == {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
    assert (config["model"]["init_args"].get("shortcut") == "none") == name.startswith("plain")
