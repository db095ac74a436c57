"""The benchmark runs and adds up; what it measures is asserted nowhere, for machines are noisy."""

import json
import math
import os
import sys
from functools import partial

import pytest
import torch
from PIL import Image

from benchmarks import __main__ as benchmark
from benchmarks import cases, competitors, evaluation, measure, tables, timing
from benchmarks.cases import CASES, Case
from benchmarks.measure import peak_multiply_adds, utilization
from benchmarks.process import run_in_new_process
from benchmarks.timm_script import run_steps
from datamodules import ImageNet
from datamodules.class_folders import find_images
from errors import UserError
from lit_models import LitResNet
from tests.conftest import HOME

KEYS = {
    "case", "plain_images_per_s", "fit_images_per_s", "limit_images_per_s", "loader_images_per_s_per_core",
    "plain_loader_images_per_s_per_core", "peak_memory_bytes", "first_step_s", "device", "fit_over_plain",
    "fit_over_limit", "bound_over_limit",
}  # fmt: skip


@pytest.fixture
def small(monkeypatch, here):
    """Cases of one step a turn, in this process."""
    monkeypatch.setattr(benchmark, "run_in_new_process", lambda function, *args: function(*args))
    monkeypatch.setattr(cases, "EPOCH_IMAGES", 100)  # to make and remove 12,800 links takes a slow disk half a minute
    fp32 = "--trainer.precision=32-true"
    flags = ["--data.batch_size=4", "--data.size=64", "--data.num_workers=0", cases.ONE_BATCH, fp32]
    noise = ["--data=datamodules.Synthetic", "--data.size=16", "--data.train_size=256", "--data.batch_size=256", fp32]
    for name, case in {
        "cifar_resnet20": Case("cifar10/resnet20", "cifar", 1, ["--data.batch_size=8", fp32]),
        "imagenet_resnet18": Case("imagenet/resnet18", "images", 1, flags),
        "resident_resnet50": Case("cifar10/resnet20", None, 1, noise),
    }.items():
        monkeypatch.setitem(CASES, name, case)
    return here


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "photos"
    for number in range(8):
        path = root / "train" / f"class_{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.radial_gradient("L").resize((90, 70)).convert("RGB").save(path)
    return root


def test_three_take_turns(small, cifar, tree, capsys):
    names = ["cifar_resnet20", "imagenet_resnet18"]
    benchmark.main([*names, "--cifar", str(cifar), "--images", str(tree), "--turns", "2", "--json", "b.json"])
    rows = json.loads((small / "b.json").read_text())
    assert [row["case"] for row in rows] == names
    for row in rows:
        assert row.keys() >= KEYS and len(row["turns"]) == 2
        assert all(math.isfinite(row[key]) and row[key] > 0 for key in KEYS - {"case", "device"})
        ratios = sorted(turn["fit"] / turn["plain"] for turn in row["turns"])
        assert row["fit_over_plain"] == pytest.approx(sum(ratios) / 2)  # the median of two
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    start = next(index for index, words in enumerate(lines) if words[:3] == ["case", "plain", "loop"])
    assert [words[0] for words in lines[start + 2 : start + 4]] == names
    assert {path.name for path in small.iterdir()} == {"b.json"}  # runs are gone


def test_images_on_the_device_have_no_loader_to_compare_with(small):
    row = measure.measure_case("resident_resnet50", None, small, 1)
    assert row["fit_over_limit"] > 0 and row["turns"][0].keys() == {"fit", "limit"}
    assert not {key for key in row if "plain" in key or "loader" in key}


def test_fewer_images_than_a_batch_are_refused(monkeypatch, small, cifar):
    """The plain loop drops a last batch that is not full, and would look for another one for ever."""
    case = Case("cifar10/resnet20", "cifar", 1, ["--data.batch_size=256"])
    monkeypatch.setitem(CASES, "cifar_resnet20", case)
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["cifar_resnet20", "--cifar", str(cifar)])
    assert "The plain loop has fewer images than a batch of 256" in str(stop.value.code)


def test_memory_is_read_before_others_join_in_and_the_images_of_the_plain_loop_once(monkeypatch, small, cifar):
    events = []
    peak, plain, bare = timing.peak_memory, competitors.plain_loop, competitors.bare_step
    monkeypatch.setattr(timing, "peak_memory", lambda device: events.append("memory") or peak(device))
    monkeypatch.setattr(measure, "plain_loop", lambda *fit: events.append("plain") or plain(*fit))
    monkeypatch.setattr(measure, "bare_step", lambda *fit: events.append("limit") or bare(*fit))
    row = measure.measure_case("cifar_resnet20", cifar, small, 2)
    assert events == ["memory", "plain", "limit"] and row["peak_memory_bytes"] > 0


@pytest.mark.parametrize(
    ("layout", "compiled"),
    [(torch.contiguous_format, False), pytest.param(torch.channels_last, True, marks=pytest.mark.slow)],
)
def test_competitors_train_a_copy_of_the_network(layout, compiled):
    """Same weights, another memory, their own memory layout; of a compiled network too."""
    model = LitResNet(10, depth=20, optimizer=partial(torch.optim.SGD, lr=0.1), compile=compiled)
    model.setup("fit")
    net = competitors.copy_net(model.net, layout)
    assert net.training and net.conv1.weight.is_contiguous(memory_format=layout)
    assert (model.net._compiled_call_impl is not None) == compiled and net._compiled_call_impl is None
    for (name, tensor), copied in zip(model.net.state_dict().items(), net.state_dict().values(), strict=True):
        assert torch.equal(tensor, copied) and tensor.data_ptr() != copied.data_ptr(), name


def test_the_plain_loop_has_the_transforms_of_the_tutorials(cifar, tree):
    data = ImageNet(tree, size=48, eval_size=64, val_size=0)
    data.setup("fit")
    images = competitors.plain_images(data)
    kinds = [type(transform).__name__ for transform in images.transform.transforms]
    assert kinds == ["RandomResizedCrop", "RandomHorizontalFlip", "ToTensor", "Normalize"]
    assert images[0][0].shape == (3, 48, 48) and images[0][0].dtype == torch.float32
    assert competitors.plain_images(data, as_bytes=True)[0][0].dtype == torch.uint8


def test_each_case_is_measured_in_a_process_of_its_own():
    assert run_in_new_process(os.getpid) != os.getpid()
    with pytest.raises(SystemExit, match="one sentence"):
        run_in_new_process(exec, "import sys; sys.exit('one sentence')")


def test_what_was_printed_is_shown_if_a_measurement_fails(capfd):
    with pytest.raises(SystemExit, match="printed before\n+1$"):
        run_in_new_process(exec, "import sys; print('printed before'); sys.exit(1)")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("count", [8, 250])
def test_photos_occur_in_a_tree_of_links_as_often_as_an_epoch_needs(tmp_path, monkeypatch, count):
    monkeypatch.setattr(cases, "EPOCH_IMAGES", 100)
    for number in range(count):
        path = tmp_path / "photos" / "train" / f"class_{number % 2}" / "deep" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    root = cases.repeat_images(tmp_path / "photos", tmp_path / "links")
    names, labels = find_images(root / "train", {"class_0": 0, "class_1": 1})
    assert len(names) == {8: 104, 250: 250}[count] and list(labels).count(0) == len(names) / 2
    data = ImageNet(root, val_size=0)
    data.setup("fit")
    assert len(set(names)) == len(names) and len(competitors.plain_images(data)) == len(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet9"], "there is no case resnet9: choose from cifar_resnet20"),
        (["--turns", "0"], "--turns is 0: it must be at least 1"),
        (["--images", "nowhere"], "argument --images: there is no folder nowhere"),
        (["--images", str(HOME)], "has no folder train: --images needs a folder with train/<class>/"),
        (["--timm", str(HOME / "docs")], "has no train.py: --timm needs a checkout of timm's sources"),
        (["timm"], "the case timm needs --timm DIR, a checkout of timm's sources"),
        (["--json", "no/where.json"], "argument --json: there is no folder no"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit):
        benchmark.main(arguments)
    assert message in capsys.readouterr().err


def test_every_case_names_an_experiment():
    for case in CASES.values():
        assert (HOME / "configs" / f"{case.experiment}.yaml").is_file()


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA T4", None),
    ],
)  # fmt: skip
def test_the_peak_is_that_of_the_very_card(device, peak):
    assert peak_multiply_adds(device) == (peak and peak / 2)


def test_utilization_counts_a_forward_pass_and_twice_as_much_backward(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    with torch.device("meta"):
        net = torch.nn.Conv2d(3, 8, 3)
    assert utilization(net, 1e6, 12) == pytest.approx(3 * 10 * 10 * 27 * 8 * 1e6 / (989e12 / 2))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA T4")
    assert utilization(net, 1e6, 12) is None


@pytest.mark.parametrize("path", sorted((HOME / "benchmarks" / "results").glob("*.json")), ids=lambda path: path.stem)
def test_the_committed_results_are_tabled(path):
    results = json.loads(path.read_text())
    training, *others = tables.speed_tables(results)
    assert training.title.startswith(f"Images per second in training on {results[0]['device']}: medians of")
    assert {row[0] for table in (training, *others) for row in table.rows} == {result["case"] for result in results}
    assert all(row[training.names.index("our fit")] for row in training.rows)
    assert "of the GPU's peak" not in training.names


@pytest.mark.parametrize("document", ["README.md", "docs/benchmarks.md"])
def test_the_tables_of_documents_are_made_from_the_results(tmp_path, document):
    text = (HOME / document).read_text()
    (tmp_path / "copy.md").write_text(text)
    benchmark.main(["--tables", str(tmp_path / "copy.md")])
    assert (tmp_path / "copy.md").read_text() == text, f"run: python -m benchmarks --tables {document}"


def test_documents_without_a_table_or_its_file_are_named(tmp_path, capsys):
    (tmp_path / "a.md").write_text("no table")
    (tmp_path / "b.md").write_text("<!-- benchmarks/results/none.json -->\n<!-- end -->")
    with pytest.raises(SystemExit, match="a.md has no table to update"):
        benchmark.main(["--tables", str(tmp_path / "a.md")])
    with pytest.raises(SystemExit, match=r"There is no benchmarks/results/none.json"):
        benchmark.main(["--tables", str(tmp_path / "b.md")])


def test_loading_takes_its_share_of_the_cores_or_runs_beside_the_step():
    assert competitors.loading_bound(60, 300, cores=2, shared=True) == pytest.approx(600 / 11)  # 10 + 1 core-seconds
    assert competitors.loading_bound(60, 300, cores=2, shared=False) == 60
    assert competitors.loading_bound(900, 300, cores=2, shared=False) == 600


def test_a_script_of_timm_runs_in_its_turns_alone(tmp_path):
    """It is stopped where no step is asked for, ends with its generator, and its last words are told."""
    log = "import time; [print(f'Train: 0 [{step}/9]', flush=True) or time.sleep(0.01) for step in range(20)]"
    steps = run_steps([sys.executable, "-c", log], images=4)
    assert [next(steps) for _ in range(3)] == [4, 4, 4]
    steps.close()
    with pytest.raises(UserError, match=r"timm's script has ended:\nTrain no more"):
        list(run_steps([sys.executable, "-c", "print('Train no more')"], images=4))


def test_every_other_epoch_has_no_callbacks(small, monkeypatch):
    noise = ["--data=datamodules.Synthetic", "--data.size=8", "--data.train_size=64", "--data.classes=10"]
    monkeypatch.setitem(CASES, "default_callbacks", Case("digits/resnet20", None, 2, noise, "callbacks"))
    row = measure.measure_case("default_callbacks", None, small, 2)
    assert [turn.keys() for turn in row["turns"]] == [{"fit", "without"}] * 2 and row["fit_over_without"] > 0


@pytest.mark.slow
def test_a_test_of_144_crops_takes_turns_with_plain_passes(small, monkeypatch, tree):
    monkeypatch.setattr(timing, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(evaluation, "WARM_UP_STEPS", 1)
    flags = ["--data.batch_size=2", "--data.size=64", "--data.val_size=4", "--data.num_workers=0", cases.ONE_BATCH]
    monkeypatch.setitem(CASES, "crops_144", Case("imagenet/resnet18", "images", 1, flags, "evaluation"))
    row = measure.measure_case("crops_144", tree, small, 2)
    assert row["test_over_passes"] > 0 and len(row["turns"]) == 2


@pytest.mark.slow
def test_predictions_take_turns_with_plain_passes(small, monkeypatch, tree):
    flags = ["--data.batch_size=2", "--data.size=64", "--data.val_size=4", "--data.num_workers=0", cases.ONE_BATCH]
    monkeypatch.setitem(CASES, "predict_resnet18", Case("imagenet/resnet18", "images", 10, flags, "predict"))
    row = measure.measure_case("predict_resnet18", tree, small, 2)
    assert row["predict_over_passes"] > 0 and [turn.keys() for turn in row["turns"]] == [{"predict", "passes"}] * 2
    assert not list(small.glob("predictions*.csv"))


@pytest.mark.slow
def test_packed_images_and_the_script_of_timm_take_turns_with_the_fit(small, monkeypatch, tree, tmp_path):
    (tmp_path / "train.py").write_text("while True: print('Train: 0 [1/9]', flush=True)")
    monkeypatch.setattr(cases, "EPOCH_IMAGES", 8)
    flags = [*CASES["timm_packed"].flags, "--data.batch_size=4", "--data.size=64", "--data.num_workers=0"]
    monkeypatch.setitem(CASES, "timm_packed", Case("imagenet/resnet18", "packed", 1, flags, "timm"))
    benchmark.main(["timm_packed", "--timm", str(tmp_path), "--images", str(tree), "--turns", "1", "--json", "t.json"])
    (row,) = json.loads((small / "t.json").read_text())
    assert row["fit_over_timm"] > 0 and row["bound_over_limit"] > 0
    assert row["command"] == "python -m benchmarks timm_packed --images DIR --timm DIR --turns 1"
