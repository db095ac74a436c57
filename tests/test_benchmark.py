"""The benchmark runs and adds up; what it measures is asserted nowhere, for machines are noisy."""

import io
import json
import logging
import math
import os
import sys

import pytest
from PIL import Image

from benchmarks import __main__ as benchmark
from benchmarks import timing
from benchmarks.__main__ import Case
from datamodules import image_files
from tests.conftest import HOME

KEYS = {
    "case", "plain_images_per_s", "fit_images_per_s", "limit_images_per_s", "loader_images_per_s_per_core",
    "plain_loader_images_per_s_per_core", "peak_memory_bytes", "first_step_s", "device",
}  # fmt: skip


@pytest.fixture
def small(monkeypatch, here):
    """Cases of one step a turn, in this process."""
    monkeypatch.setattr(benchmark, "alone", lambda measured, *args: measured(*args))
    cifar = Case("cifar10/resnet20", "cifar", 32, 1, ["--data.batch_size=8", "--trainer.precision=32-true"])
    flags = ["--data.batch_size=4", "--data.size=64", "--data.num_workers=0", "--trainer.precision=32-true"]
    monkeypatch.setattr(
        benchmark, "CASES", {"cifar": cifar, "images": Case("imagenet/resnet18", "images", 64, 1, flags)}
    )
    return here


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "photos"
    for number in range(8):
        path = root / "train" / f"class_{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.radial_gradient("L").resize((90, 70)).convert("RGB").save(path)
    return root


def test_three_take_turns(small, cifar, tree):
    files = ["--json", "b.json", "--plot", "b.png", "--markdown", "b.md"]
    benchmark.main(["cifar", "images", "--cifar", str(cifar), "--images", str(tree), "--rounds", "2", *files])
    rows = json.loads((small / "b.json").read_text())
    assert [row["case"] for row in rows] == ["cifar", "images"]
    for row in rows:
        assert row.keys() >= KEYS and len(row["turns"]) == 2
        assert all(math.isfinite(row[key]) and row[key] > 0 for key in KEYS - {"case", "device"})
        ratios = sorted(turn["fit"] / turn["plain"] for turn in row["turns"])
        assert row["fit_over_plain"] == pytest.approx(sum(ratios) / 2)  # the median of two
    assert Image.open(small / "b.png").size[0] > 500
    table = (small / "b.md").read_text().splitlines()
    assert table[0].startswith("| case | plain loop") and table[2].startswith("| cifar |")
    assert {path.name for path in small.iterdir()} == {"b.json", "b.png", "b.md"}  # runs are gone


def test_fewer_images_than_a_batch_are_refused(monkeypatch, small, cifar):
    """The plain loop drops a last batch that is not full, and would look for another one for ever."""
    monkeypatch.setitem(benchmark.CASES, "cifar", Case("cifar10/resnet20", "cifar", 32, 1, ["--data.batch_size=256"]))
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["cifar", "--cifar", str(cifar)])
    assert "The plain loop has fewer images than a batch of 256" in str(stop.value.code)


def test_memory_is_read_before_others_join_in_and_the_images_of_the_plain_loop_once(monkeypatch, here, cifar):
    reads, peaks = [], []
    read = benchmark.plain_cifar
    monkeypatch.setattr(benchmark, "plain_cifar", lambda root: reads.append(timing.Rounds.peak) or read(root))
    monkeypatch.setattr(timing, "bare_step", lambda *_: peaks.append(timing.Rounds.peak) or (lambda: 1.0))
    case = Case("cifar10/resnet20", "cifar", 32, 1, ["--data.batch_size=8", "--trainer.precision=32-true"])
    row = benchmark.measure("cifar", case, cifar, 2)
    assert reads == peaks == [row["peak_memory_bytes"]] and reads[0] > 0


def test_each_case_is_measured_in_a_process_of_its_own():
    assert benchmark.alone(os.getpid) != os.getpid()
    with pytest.raises(SystemExit, match="one sentence"):
        benchmark.alone(sys.exit, "one sentence")


@pytest.mark.parametrize("count", [8, 250])
def test_photos_occur_in_a_tree_of_links_as_often_as_an_epoch_wants(tmp_path, monkeypatch, count):
    monkeypatch.setattr(benchmark, "EPOCH", 100)
    for number in range(count):
        path = tmp_path / "photos" / "train" / f"class_{number % 2}" / "deep" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    root = benchmark.repeat(tmp_path / "photos", tmp_path / "links")
    names, labels = image_files.tree(root / "train", ["class_0", "class_1"])
    assert len(names) == {8: 104, 250: 250}[count] and list(labels).count(0) == len(names) / 2
    assert len(set(names)) == len(names) and len(benchmark.plain_images(root, 8)) == len(names)


@pytest.mark.slow
def test_a_tiny_net_in_two_trainers(here):
    row = benchmark.overhead(turns=1, steps=20)
    assert row["plain_images_per_s"] > 0 and row["fit_images_per_s"] > 0 and row["limit_images_per_s"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet9"], "there is no case resnet9: choose from cifar_resnet20"),
        (["--rounds", "0"], "rounds is 0: it must be at least 1"),
        (["--images", "nowhere"], "there is no folder nowhere for --images"),
        (["--images", str(HOME)], "has no folder train: --images wants a tree with train/<class>/"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit):
        benchmark.main(arguments)
    assert message in capsys.readouterr().err


def test_every_case_names_an_experiment():
    for case in benchmark.CASES.values():
        assert (HOME / "configs" / f"{case.experiment}.yaml").is_file()


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA T4", None),
    ],
)  # fmt: skip
def test_the_peak_is_that_of_the_very_card(device, peak):
    assert benchmark.gpu_peak(device) == (peak and peak / 2)


def test_logging_goes_on_after_a_failure():
    with pytest.raises(KeyError), benchmark.quiet(io.StringIO()):
        raise KeyError
    assert logging.root.manager.disable == logging.NOTSET
