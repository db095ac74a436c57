"""The zoo: every architecture counted, and laid beside its paper."""

import json
import subprocess
import sys

import pytest

from reports import zoo
from reports.papers.architectures import ROWS
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
    "inception_v4": 42_679_816,
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
    command = [sys.executable, "-m", "reports.zoo", "--json", str(path)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True)
    assert "vgg_a_lrn" in done.stdout and "* googlenet_paper: " in done.stdout
    return {row["name"]: row for row in json.loads(path.read_text())}


def test_parameters_are_exact(measured):
    assert {name: measured[name]["parameters"] for name in PARAMETERS} == PARAMETERS
    assert {name: measured[name]["aux_parameters"] for name in AUXILIARY} == AUXILIARY
    assert all(row["aux_parameters"] == 0 for row in measured.values() if row["family"] in ("LitVGG", "LitResNet"))


def test_multiply_adds_are_those_of_the_network(measured):
    for name, expected in MULTIPLY_ADDS.items():
        assert measured[name]["multiply_adds"] / 1e9 == pytest.approx(expected, rel=1e-3), name


def test_a_row_that_differs_from_its_paper_says_why(measured):
    for row in ROWS:
        counted = measured[row.name]
        off = zoo.differs(counted["parameters"], row.parameters)
        off |= zoo.differs(counted["multiply_adds"], row.multiply_adds)
        assert off <= bool(row.note), row.name


def test_every_experiment_trains_an_architecture_of_the_zoo(measured):
    found = {path for row in measured.values() for path in row["configs"]}
    assert found == {path for path, _, _ in zoo.experiments()} and len(found) >= 40


def test_printed_counts_have_their_rounding():
    assert zoo.quantity("0.27M") == pytest.approx((270_000, 5_000))
    assert zoo.differs(269_722, "0.27M") is False and zoo.differs(264_999, "0.27M") is True
    assert zoo.quantity("") is None and zoo.differs(5, "") is False
