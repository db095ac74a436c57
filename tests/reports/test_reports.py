"""The papers' rows as data, and the zoo: every architecture counted, beside the counts of its paper."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from torch import nn

from errors import UserError
from lit_models.nets.googlenet import GoogLeNet
from reports import zoo, zoo_errors
from reports.papers.architectures import ARCHITECTURES, Architecture, read_rows
from reports.papers.published import PublishedRow
from reports.run import EvaluationResult, Run
from tests.conftest import HOME

# Fixed here, so that no change of code moves them unseen
PARAMETERS = {
    "vgg_a": 132_863_336,
    "vgg_a_lrn": 132_863_336,
    "vgg_b": 133_047_848,
    "vgg_c": 133_638_952,
    "vgg_d": 138_357_544,
    "vgg_e": 143_667_240,
    "googlenet_paper": 6_998_552,
    "googlenet_naive": 97_526_008,
    "googlenet_batch_norm": 7_005_832,
    "googlenet_torchvision": 6_624_904,
    "resnet34_a": 21_623_848,
    "resnet34_c": 22_716_840,
    "resnet50": 25_557_032,
    "resnet152": 60_192_808,
    "resnet50_gn": 25_557_032,
    "densenet121": 7_978_856,
    "densenet264": 33_337_704,
    "inception_v3": 23_834_568,
    "inception_v3_table_1": 23_928_904,
    "inception_v4": 42_679_816,
    "inception_resnet_v1": 22_756_328,
    "inception_resnet_v2": 55_843_464,
    "nasnet_a_large": 88_753_150,
    "nasnet_a_mobile": 5_289_978,
    "nasnet_a_cifar": 3_346_538,
    "cifar_resnet18": 11_173_962,
    "cifar_resnet20": 269_722,
    "cifar_resnet1202": 19_421_274,
    "cifar_densenet_bc_100_12": 769_162,
    "shake_shake_26_2x32d": 2_923_162,
    "shake_shake_26_2x96d": 26_192_922,
}
AUXILIARY = {
    "googlenet_paper": 6_379_728,
    "googlenet_batch_norm": 6_379_984,
    "googlenet_torchvision": 6_379_984,
    "inception_v3": 3_326_696,
    "inception_v3_table_1": 3_326_696,
    "nasnet_a_large": 4_567_784,
    "nasnet_a_mobile": 2_411_240,
    "nasnet_a_cifar": 1_631_498,
}
MULTIPLY_ADDS = {
    "vgg_d": 15.4703,
    "googlenet_paper": 1.5827,
    "resnet50": 3.8580,
    "resnet101_v1.5": 7.8014,
    "densenet264": 5.7517,
    "inception_v3": 5.7132,
    "inception_v4": 12.2540,
    "inception_resnet_v2": 13.1558,
    "nasnet_a_large": 23.7834,
    "nasnet_a_mobile": 0.5636,
    "nasnet_a_cifar": 0.5443,
    "cifar_resnet18": 0.5554,
    "cifar_densenet_bc_190_40": 9.3019,
    "shake_shake_26_2x96d": 3.7769,
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the report itself writes."""
    path = tmp_path_factory.mktemp("zoo") / "zoo.json"
    command = [sys.executable, "-m", "reports.zoo", "--json", str(path), "--html", str(path.with_suffix(".html"))]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True)
    assert "vgg_a_lrn" in done.stdout and "* googlenet_paper: " in done.stdout
    page = path.with_suffix(".html").read_text()
    assert page.count('class="chart"') == 4 and "Top-1 error on CIFAR-10 as published" in page
    return {row["name"]: row for row in json.loads(path.read_text())}


def test_parameters_are_exact(measured):
    assert {name: measured[name]["parameters"] for name in PARAMETERS} == PARAMETERS
    assert {name: measured[name]["aux_parameters"] for name in AUXILIARY} == AUXILIARY
    assert all(row["aux_parameters"] == 0 for row in measured.values() if row["family"] in ("LitVGG", "LitResNet"))


def test_multiply_adds_are_those_of_the_network(measured):
    for name, expected in MULTIPLY_ADDS.items():
        assert measured[name]["multiply_adds"] / 1e9 == pytest.approx(expected, rel=1e-3), name


def differs(counted, printed):
    """Whether a count is not what a paper prints, by more than its rounding."""
    if not printed:
        return False
    digits = len(printed[:-1].partition(".")[2])
    return abs(counted - zoo.parse_count(printed)) > zoo.parse_count(f"0.5{printed[-1]}") / 10**digits * 1.000001


def test_a_row_that_differs_from_its_paper_says_why(measured):
    for row in ARCHITECTURES:
        counted = measured[row.name]
        off = differs(counted["parameters"], row.parameters) | differs(counted["multiply_adds"], row.multiply_adds)
        assert off <= bool(row.note), row.name


def test_every_experiment_of_the_papers_trains_an_architecture_of_theirs(measured):
    found = {path for row in ARCHITECTURES for path in measured[row.name]["configs"]}
    experiments = zoo.read_experiments()
    papers = {path for path, each in experiments.items() if each.dataset in ("imagenet", "cifar10")}
    papers.remove("configs/cifar10/nasnet_child.yaml")
    assert found == papers and len(found) >= 40
    assert {each.dataset for each in experiments.values()} >= {"digits", "photos"}
    # Others are made for a comparison, or take the cells that a search tries
    compared = {"digits/grid_reduction", "digits/inception_resnet", "digits/kernel_stacks"}
    own = compared | {"digits/nasnet_child", "cifar10/nasnet_child"}
    assert measured.keys() - {row.name for row in ARCHITECTURES} == own


def test_published_errors_are_numbers_too(measured):
    assert {row.name: measured[row.name]["published_top1_error"] for row in ARCHITECTURES} == {
        row.name: zoo_errors.published_top1(row.error) for row in ARCHITECTURES
    }
    assert measured["vgg_d"]["published_top1_error"] == pytest.approx(0.27)
    assert measured["cifar_resnet110"]["published_top1_error"] == pytest.approx(0.0643)
    assert measured["googlenet_paper"]["published_top1_error"] is None  # it prints a top-5 error alone
    assert measured["vgg_a_bn"]["published_top1_error"] is None
    assert all(row["our_top1_error"] is None and row["our_runs"] == 0 for row in measured.values())


@pytest.mark.slow
def test_errors_of_runs_stand_beside_those_of_the_papers(run, cifar, here, capsys, monkeypatch):
    monkeypatch.setattr(zoo, "ARCHITECTURES", [row for row in ARCHITECTURES if row.name.startswith("cifar_resnet2")])
    fit = ["fit", "--config", HOME / "configs/cifar10/resnet20.yaml", "--data.root", cifar, "--trainer.max_epochs", 1]
    for depth in (20, 20, 32):
        run(*fit, "--data.batch_size", 100, "--data.val_size", 10, "--model.depth", depth)
    errors = []
    for version in (0, 1):
        run("test", "--ckpt_path", f"runs/cifar10/resnet20/version_{version}")
        [path] = Path(f"runs/cifar10/resnet20/version_{version}").glob("test-*-center.json")
        errors.append(json.loads(path.read_text())["metrics"]["test/top1_error"])
    zoo.main(["--runs", "runs", "--json", "zoo.json", "--html", "zoo.html"])
    rows = {row["name"]: row for row in json.loads(Path("zoo.json").read_text())}
    assert rows["cifar_resnet20"]["our_runs"] == 2
    assert rows["cifar_resnet20"]["our_top1_error"] == pytest.approx(np.mean(errors))
    assert f"{100 * np.mean(errors):.2f} (n = 2)" in capsys.readouterr().out
    assert "cifar_resnet20 (ours)" in Path("zoo.html").read_text()
    with pytest.raises(SystemExit, match="^error: "):
        zoo.main(["--runs", "nowhere"])


MALFORMED = [{}, {"model": 3, "data": []}, {"model": {"class_path": {}}, "data": {"class_path": 1}}]


@pytest.mark.parametrize("config", MALFORMED)
def test_a_run_whose_config_is_malformed_trains_no_architecture(config):
    run = Run("x", "cifar10/resnet20", "version_0", "finished", config=config)
    assert not any(zoo_errors.is_run_of(row, run) for row in ARCHITECTURES)


def test_a_run_trains_the_network_of_its_config_on_its_data():
    rows = {row.name: row for row in ARCHITECTURES}
    net = {"class_path": "lit_models.LitResNet", "init_args": {"depth": 20}}
    config = {"model": net, "data": {"class_path": "datamodules.CIFAR10"}}
    run = Run("x", "any/name", "version_0", "finished", config=config)
    assert zoo_errors.is_run_of(rows["cifar_resnet20"], run) and not zoo_errors.is_run_of(rows["cifar_resnet32"], run)
    found = {"best": 0.1, "last": 0.2, "other": float("nan")}
    run.results = [
        EvaluationResult("test", stem, "center", {"top1_error": error}, 10_000, None) for stem, error in found.items()
    ]
    assert zoo_errors.find_errors(rows["cifar_resnet20"], [run, run]) == [0.1, 0.1]
    run.results = [replace(run.results[1], partial=True), *run.results[1:]]
    assert zoo_errors.find_errors(rows["cifar_resnet20"], [run]) == [0.2]
    assert zoo_errors.find_errors(rows["cifar_resnet32"], [run]) == []
    run.config["data"] = {"class_path": "datamodules.Digits"}
    assert not zoo_errors.is_run_of(rows["cifar_resnet20"], run)
    run.config |= {"model": net | {"init_args": [1]}, "data": {"class_path": "datamodules.CIFAR10"}}
    assert not zoo_errors.is_run_of(rows["cifar_resnet20"], run)


def test_printed_counts():
    assert zoo.parse_count("0.27M") == 270_000 and zoo.parse_count("3.8G") == 3_800_000_000
    assert zoo.parse_count("") is None
    assert differs(269_722, "0.27M") is False and differs(264_999, "0.27M") is True
    assert zoo.paper_count_cell(26_000_000, 25_600_000, 1e6, "M") == "25.6 M (+1.6%)"


OWN_FAMILY = """
from torch import nn

from lit_models import LitClassifier


class Net(nn.Module):
    def __init__(self, width, num_classes):
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(3, width, 3), nn.Linear(width, num_classes), nn.Linear(num_classes, 7)

    def forward(self, images):
        logits = self.fc(self.conv(images).mean((2, 3)))
        return (logits, self.head(logits)) if self.training else logits


class LitOwn(LitClassifier):
    def __init__(self, num_classes: int, width: int, aux_weight: float = 0.3, **kwargs):
        super().__init__(Net(width, num_classes), num_classes, **kwargs)
"""


def test_an_architecture_of_ones_own_costs_one_python_file_and_one_yaml(tmp_path, monkeypatch):
    (tmp_path / "own_family.py").write_text(OWN_FAMILY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(zoo, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(zoo, "ARCHITECTURES", ARCHITECTURES[:1])
    own = {"class_path": "own_family.LitOwn", "init_args": {"width": 8, "optimizer": {"class_path": "torch.optim.SGD"}}}
    vgg = {"class_path": "lit_models.vgg.LitVGG", "init_args": {"variant": "A", "dropout": 0.3}}
    contents = {
        "cifar10/own.yaml": {"model": own},
        "cifar10/own_short.yaml": {"model": own, "trainer": {"max_epochs": 2}},
        "photos/own.yaml": {"model": own, "data": {"init_args": {"size": 64}}},
        "photos/vgg.yaml": {"model": vgg},  # a paper's network on other images
        "imagenet/vgg_a.yaml": {"model": vgg},
        "overlays/step.yaml": {"model": {"init_args": {"width": 3}}},
        "base.yaml": {"trainer": {}},
    }
    for name, content in contents.items():
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
    zoo.main(["--json", str(tmp_path / "zoo.json")])
    rows = {row["name"]: row for row in json.loads((tmp_path / "zoo.json").read_text())}
    assert list(rows) == ["vgg_a", "cifar10/own", "photos/own"]
    assert rows["vgg_a"]["configs"] == ["configs/imagenet/vgg_a.yaml"]
    own_row = rows["cifar10/own"]
    assert own_row["configs"] == ["configs/cifar10/own.yaml", "configs/cifar10/own_short.yaml"]
    assert (own_row["family"], own_row["input_size"]) == ("LitOwn", 32)
    assert own_row["parameters"] == (27 + 1) * 8 + (8 + 1) * 10 and own_row["aux_parameters"] == (10 + 1) * 7
    assert own_row["multiply_adds"] == 30 * 30 * 27 * 8 + 8 * 10
    assert (rows["photos/own"]["input_size"], rows["photos/own"]["configs"]) == (64, ["configs/photos/own.yaml"])


def test_a_family_without_an_experiment_is_named(monkeypatch, capsys):
    monkeypatch.setattr(zoo, "ARCHITECTURES", ARCHITECTURES[:1])
    monkeypatch.setattr(zoo, "read_experiments", dict)
    zoo.main([])
    printed = capsys.readouterr().out
    assert "lit_models.LitResNet is not counted: no experiment under configs/ names it." in printed
    assert "LitVGG is not" not in printed and "LitClassifier is not" not in printed


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--jso", "x"], "There is no argument --jso here. Did you mean --json?"),
        (["--data.root", "x"], "There is no argument --data.root here. See --help."),
        (["--html", "no/x"], "no/x cannot be written: there is no folder"),
        (["--json", "x", "--latex", "x"], "--latex and --json both name x: give each its own file."),
    ],
)
def test_a_mistake_is_one_sentence(here, args, sentence):
    with pytest.raises(SystemExit) as stop:
        zoo.main(args)
    assert str(stop.value.code).startswith("error: ") and sentence in stop.value.code and not list(here.iterdir())


# The papers' rows


@pytest.mark.parametrize(
    ("row", "row_class", "reason"),
    [
        ({"name": "a"}, Architecture, "required: row.family"),
        ({"name": "a", "family": "lit_models.LitVGG", "sizes": 3}, Architecture, "does not accept option 'sizes'"),
        ({"name": "a", "family": "lit_models.LitVGG", "size": "big"}, Architecture, "Got value: big"),
        ({"nets": ["a"], "protocol": "center", "error": 7.0}, PublishedRow, "Got value: 7.0"),
    ],
)
def test_a_row_that_is_none_is_refused_with_the_reason(tmp_path, row, row_class, reason):
    path = tmp_path / "rows.yaml"
    path.write_text(yaml.safe_dump([{"paper": "X", "arxiv": "1", "rows": [row]}]))
    with pytest.raises(UserError, match=re.escape(reason)) as error:
        read_rows(path, row_class)
    assert str(error.value).startswith(f"{path} has a row {{") and "\n" not in str(error.value)


# GoogLeNet's Table 1: weights in K (1,024) and multiply-adds in M, as printed
TABLE_1 = {
    "conv1": (2.7, 34), "conv2": (112, 360), "3a": (159, 128), "3b": (380, 304), "4a": (364, 73), "4b": (437, 88),
    "4c": (463, 100), "4d": (580, 119), "4e": (840, 170), "5a": (1072, 54), "5b": (1388, 71), "linear": (1000, 1),
}  # fmt: skip


def counts_by_row():
    """(weights, multiply-adds) of each row of Table 1, as they follow from its filters."""
    with torch.device("meta"):
        net = GoogLeNet(1000, auxiliary=False).eval()
    rows = {name: [0, 0] for name in TABLE_1}

    def count(module, _, output):
        part = names[module].partition(".")[0].removeprefix("inception")
        row = rows[{"conv3": "conv2", "fc": "linear"}.get(part, part)]
        row[0] += module.weight.numel()
        row[1] += output.numel() * module.weight[0].numel()

    names = {module: name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    for module in names:
        module.register_forward_hook(count)
    net(torch.empty(1, 3, 224, 224, device="meta"))
    return rows


def test_the_note_on_googlenets_table_1_names_the_rows_that_differ():
    note = next(row.note for row in ARCHITECTURES if row.name == "googlenet_paper")
    rows = counts_by_row()
    weights = {row for row, (printed, _) in TABLE_1.items() if abs(rows[row][0] / 1024 / printed - 1) > 0.01}
    multiply_adds = {row for row, (_, printed) in TABLE_1.items() if abs(rows[row][1] / 1e6 - printed) > 1}
    assert weights == {"conv1", "4c", "4d", "5a", "5b"} and multiply_adds == {"conv1", "5a"}
    nearly = {row for row, (printed, _) in TABLE_1.items() if rows[row][0] / 1024 != printed} - weights
    assert nearly == {"3a", "3b", "4a", "4b", "4e"} and "3a, 3b, 4a, 4b and 4e differ by less" in note
    for row in weights:
        counted = f"{rows[row][0] / 1024:,.1f}".removesuffix(".0")
        assert re.search(rf"{row} \({TABLE_1[row][0]:,} K( printed)?, {counted} K", note), row
    for row in multiply_adds:
        assert f"{row} ({TABLE_1[row][1]} M, {rows[row][1] / 1e6:.0f} M)" in note
    total = sum(weights for weights, _ in rows.values())
    assert f"{sum(printed for printed, _ in TABLE_1.values()):,.0f} K weights" in note
    assert f"{total / 1024:,.0f} K weights ({total / 1e6:.2f} M" in note


def test_the_released_inception_v3_keeps_three_5x5_convolutions():
    with torch.device("meta"):
        net = torchvision.models.inception_v3(aux_logits=False, init_weights=False)
    convolutions = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    wide = [name for name, module in convolutions.items() if module.kernel_size == (5, 5)]
    assert wide == [f"Mixed_5{letter}.branch5x5_2.conv" for letter in "bcd"]
    stem = [module for name, module in convolutions.items() if name.startswith("Conv2d_")]
    assert len(stem) == 5 and stem[3].kernel_size == (1, 1) and stem[3].out_channels == 80 and stem[4].stride == (1, 1)
    note = next(row.note for row in ARCHITECTURES if row.name == "inception_v3")
    assert "keeps a 5x5 convolution, which Figure 5 replaces by two 3x3" in note
