"""Every YAML under configs/ builds through the real command line."""

import gc
from pathlib import Path

import pytest
import yaml

from tests.conftest import DIGITS, HOME, write_cifar

EXPERIMENTS = sorted(p for p in (HOME / "configs").glob("*/*.yaml") if p.parent.name != "overlays")
OVERLAYS = sorted((HOME / "configs" / "overlays").glob("*.yaml"))


def test_some_were_found():
    assert len(EXPERIMENTS) >= 40 and len(OVERLAYS) >= 3


def heavy(path):
    """Experiments that want more than a few seconds for one batch: `make smoke` has them, `make test` has not."""
    return path.parent.name == "imagenet" or path.stem in ("densenet_bc_190_40", "densenet_bc_250_24", "nasnet_a_6_768")


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] if heavy(p) else []) for p in EXPERIMENTS],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_experiment_trains_a_batch(run, here, path):
    """On noise of its own size and number of classes."""
    data = yaml.safe_load(path.read_text())["data"]["init_args"]
    noise = ["--data.size", data.get("size", 32), "--data.classes", data.get("classes", 10), "--data.batch_size", 2]
    run("fit", "--config", path, "--data", "datamodules.Synthetic", *noise, "--trainer.fast_dev_run", 1)
    gc.collect()  # nets are large, and some are built in cycles


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
        assert resolved["trainer"][name] == value


@pytest.mark.parametrize("path", EXPERIMENTS + OVERLAYS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_header_says_what_and_how(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(header) >= 3 and any("python main.py" in line for line in header)
    if path.parent.name != "overlays":
        assert "arXiv" in "".join(header) and f"configs/{path.parent.name}/{path.name}" in "".join(header)


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
