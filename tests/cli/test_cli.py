"""The command line as a user types it."""

import csv
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import wandb
import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter
from PIL import Image

import callbacks
import datamodules
import lit_models
from batch import Batch
from cli.early_checks import VERBS, asks_for_help
from cli.loggers import choose_wandb_mode
from cli.trainer import resolve_precision
from errors import UserError
from lit_models import LitClassifier, LitResNet
from tests.conftest import DIGITS, HOME, TINY, write_synthetic_cifar
from tests.datamodules.test_datamodules import Evil

FIT = ["fit", "--config", DIGITS]


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_a_run_directory_holds_what_the_contract_says(tiny_run):
    files = {"config.yaml", "metrics.csv", "run.json", "checkpoints", ".lock"}
    assert {path.name for path in tiny_run.iterdir()} == files
    assert {path.name for path in (tiny_run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    rows = list(csv.DictReader((tiny_run / "metrics.csv").open()))
    for name in ("train/loss", "train/top1_error", "val/loss", "val/top1_error", "val/top5_error"):
        values = [float(row[name]) for row in rows if row[name]]
        assert len(values) == 3 and ("error" not in name or all(0 <= value <= 1 for value in values))
    assert any(row["train/images_per_s"] for row in rows) and any(row["lr-SGD"] for row in rows)


def test_best_is_the_best_and_last_the_last(tiny_run):
    best, last = read(tiny_run / "checkpoints/best.ckpt"), read(tiny_run / "checkpoints/last.ckpt")
    rows = list(csv.DictReader((tiny_run / "metrics.csv").open()))
    errors = [float(row["val/top1_error"]) for row in rows if row["val/top1_error"]]
    assert last["epoch"] == 2 and best["epoch"] == errors.index(min(errors))


def test_a_checkpoint_carries_its_record_in_plain_types(tiny_run):
    checkpoint = read(tiny_run / "checkpoints/last.ckpt")
    record = checkpoint["lit_classics"]
    assert record["config"]["seed_everything"] == 0
    assert record["config"]["model"]["class_path"] == "lit_models.LitResNet"
    assert record["config"]["data"]["init_args"]["classes"] == 6
    assert record["class_names"] == [f"class {k}" for k in range(6)]
    assert record["preprocessing"]["crop"] == 16
    assert record["code_version"]
    json.dumps(record)
    assert not any(key.startswith("net._orig_mod") for key in checkpoint["state_dict"])


def test_a_checkpoint_loads_in_python_by_its_base_class(tiny_run):
    model = LitClassifier.load_from_checkpoint(tiny_run / "checkpoints/best.ckpt")
    assert isinstance(model, LitResNet) and model.num_classes == 6


def test_versions_count_up_and_names_follow_the_first_experiment_file(run, here):
    smoke = HOME / "configs/overlays/smoke.yaml"
    run(*FIT, "--config", smoke, *TINY, "--trainer.max_epochs", 1)
    run("fit", "--config", smoke, *FIT[1:], *TINY, "--trainer.max_epochs", 1)
    run(*FIT, *TINY, "--trainer.max_epochs", 1, "--runs", "other place", "--run_name", "a/b")
    assert sorted(p.name for p in Path("runs/digits/resnet20").iterdir()) == ["version_0", "version_1"]
    assert Path("other place/a/b/version_0/checkpoints/last.ckpt").is_file()


def test_test_and_validate_need_nothing_but_the_checkpoint(run, tiny_run, capsys):
    for path in (Path("runs/digits/resnet20"), tiny_run, tiny_run / "checkpoints/best.ckpt"):
        (tiny_run / "test-best-center.json").unlink(missing_ok=True)
        run("test", "--ckpt_path", path)
        result = json.loads((tiny_run / "test-best-center.json").read_text())
        facts = {"checkpoint", "protocol", "images", "metrics", "partial"}
        assert set(result) == facts | {"data_hash", "is_run_data", "selected_on_test"}
        assert (result["images"], result["partial"], result["protocol"]) == (11, False, "center")
        assert Path(result["checkpoint"]) == (tiny_run / "checkpoints/best.ckpt").absolute()
    capsys.readouterr()
    run("validate", "--ckpt_path", tiny_run)
    assert "val/top1_error" in capsys.readouterr().out
    run("test", "--ckpt_path", tiny_run / "checkpoints/last.ckpt")
    assert (tiny_run / "test-last-center.json").is_file()
    assert {p.name for p in Path().iterdir()} == {"runs"}  # evaluation leaves nothing else behind


def test_flags_lie_above_files_and_files_above_the_checkpoint(run, tiny_run, here):
    overlay = here / "overlays" / "few.yaml"
    overlay.parent.mkdir()
    overlay.write_text("data: {init_args: {test_size: 7}}\n")
    for images, flags in ((7, []), (5, ["--data.test_size", 5])):
        run("test", "--ckpt_path", tiny_run, "--config", overlay, *flags)
        (result,) = tiny_run.glob("test-best-center-*.json")  # of other images than the run's
        assert json.loads(result.read_text())["images"] == images
        result.unlink()


def test_a_part_of_the_set_is_called_partial(run, tiny_run):
    run("test", "--ckpt_path", tiny_run, "--trainer.limit_test_batches", 1)
    result = json.loads((tiny_run / "test-best-center.json").read_text())
    assert (result["images"], result["partial"]) == (8, True)


def test_a_test_that_lost_images_fails(fails, tiny_run, monkeypatch):
    monkeypatch.setattr("datamodules.base.ExactSampler.__iter__", lambda self: iter(range(10)))
    assert "counted 10 of the set's 11 images" in fails("test", "--ckpt_path", tiny_run)
    assert not list(tiny_run.glob("test-*.json")) and not list(tiny_run.glob("predictions-*.npz"))


def test_the_error_on_the_test_set_is_the_share_of_wrong_images(run, here):
    run(*FIT, "--trainer.max_epochs", 1)
    folder = Path("runs/digits/resnet20/version_0")
    run("test", "--ckpt_path", folder)
    model = LitClassifier.load_from_checkpoint(folder / "checkpoints/best.ckpt").eval()
    data = datamodules.Digits()
    data.setup("test")
    images, labels, *_ = data.to_inputs(Batch(data.test_set.images, data.test_set.labels), training=False)
    with torch.no_grad():
        wrong = (model(images).argmax(1) != labels).sum().item()
    result = json.loads((folder / "test-best-center.json").read_text())
    assert result["metrics"]["test/top1_error"] == pytest.approx(wrong / 360)
    assert result["images"] == 360


def test_predict_writes_a_table_and_keeps_the_older_one(run, tiny_run, here, capsys, caplog):
    (here / "my photos").mkdir()
    for k in range(3):
        Image.effect_noise((40 + k, 30), 50).convert("RGB").save(here / "my photos" / f"{k}.png")
    (here / "my photos" / "broken.jpg").write_bytes(b"no image")
    run("predict", "--ckpt_path", tiny_run, "--data.paths", f'["{here}/my photos"]')
    assert f"Skipped: {here}/my photos/broken.jpg: " in caplog.text
    printed = capsys.readouterr().out
    assert "2.png" in printed and "Wrote predictions.csv: 3 images, 1 unreadable file skipped.\n" in printed
    rows = list(csv.DictReader((here / "predictions.csv").open()))
    assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "2.png"]
    probabilities = [float(rows[0][f"probability_{k}"]) for k in range(1, 6)]
    assert probabilities == sorted(probabilities, reverse=True) and rows[0]["class_1"].startswith("class ")
    run("predict", "--ckpt_path", tiny_run, "--data.paths", here / "my photos" / "1.png")
    assert "Wrote predictions.csv: 1 image.\n" in capsys.readouterr().out
    assert (here / "predictions-1.csv").is_file() and len(list(csv.DictReader((here / "predictions.csv").open()))) == 1


def test_predict_takes_the_paths_from_a_config_file_too(run, tiny_run, here, capsys):
    for name in ("a.png", "b.png"):
        Image.effect_noise((30, 30), 50).convert("RGB").save(here / name)
    for paths in ("a.png", "[a.png]", "[a.png, b.png]"):
        (here / "images.yaml").write_text(f"data: {{init_args: {{paths: {paths}}}}}\n")
        run("predict", "--ckpt_path", tiny_run, "--config", "images.yaml")
        assert f": {paths.count('png')} image" in capsys.readouterr().out


def test_predict_sees_what_validation_sees(run, here):
    """A digit saved as a file and predicted gets the probabilities of the same image in the data module."""
    run(*FIT, "--trainer.max_epochs", 1)
    data = datamodules.Digits()
    data.setup("test")
    Image.fromarray(data.test_set.images[0].permute(1, 2, 0).numpy()).save(here / "digit.png")
    run("predict", "--ckpt_path", "runs/digits/resnet20", "--data.paths", "[digit.png]")
    row = next(csv.DictReader((here / "predictions.csv").open()))
    path = "runs/digits/resnet20/version_0/checkpoints/best.ckpt"
    model = LitClassifier.load_from_checkpoint(path).eval()
    with torch.no_grad():
        images = data.to_inputs(Batch(data.test_set.images[:1], data.test_set.labels[:1]), training=False).images
        expected = model.log_probabilities(images).exp()[0]
    assert row["class_1"] == str(expected.argmax().item())
    assert float(row["probability_1"]) == pytest.approx(expected.max().item(), abs=1e-4)


def test_wandb_goes_online_only_for_those_who_ask_and_are_logged_in(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert choose_wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "api", type("Api", (), {"api_key": None}))
    with pytest.warns(UserWarning, match="nobody is logged in"):
        assert choose_wandb_mode() == "offline"
    monkeypatch.setattr(wandb, "api", type("Api", (), {"api_key": "key"}))
    monkeypatch.setattr(wandb, "login", lambda verify: True)
    assert choose_wandb_mode() == "online"


def refuse_login(verify):
    raise wandb.Error("the key is not known\nand more")


@pytest.mark.parametrize(
    ("login", "reason"), [(refuse_login, "the key is not known"), (lambda verify: time.sleep(1), "does not answer")]
)
def test_wandb_stays_offline_where_its_server_cannot_be_used(monkeypatch, login, reason):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr("cli.loggers.SECONDS_FOR_LOGIN", 0.1)
    monkeypatch.setattr(wandb, "api", type("Api", (), {"api_key": "key"}))
    monkeypatch.setattr(wandb, "login", login)
    with pytest.warns(UserWarning, match=f"W&B stays offline: .*{reason}. Upload the run later with wandb sync"):
        assert choose_wandb_mode() == "offline"


def test_fast_dev_run_leaves_no_run_directory(run, here):
    run(*FIT, *TINY, "--trainer.fast_dev_run", 1)
    assert not list(here.rglob("version_*"))


def test_fast_dev_run_starts_no_wandb_run_when_ema_copies_the_model(run, here, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(*FIT, "--config", HOME / "configs/overlays/ema.yaml", *TINY, "--trainer.fast_dev_run", 1)
    assert not list(here.iterdir())


def test_nothing_is_logged_within_an_epoch_when_log_every_n_steps_is_0(run, here):
    run(*FIT, *TINY, "--trainer.max_epochs", 1, "--trainer.log_every_n_steps", 0)
    with Path("runs/digits/resnet20/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("train/images_per_s", "train/loss", "val/loss"):
        assert len([row for row in rows if row[name]]) == 1, name


def test_base_yaml_is_found_from_any_directory(run, here, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*FIT, "--print_config")
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    names = [callback["class_path"].rsplit(".")[-1] for callback in config["trainer"]["callbacks"]]
    assert names == ["Throughput", "LearningRateMonitor", "ModelCheckpoint", "ModelCheckpoint", "StepLRDecay"]
    loggers = [logger["class_path"].rsplit(".")[-1] for logger in config["trainer"]["logger"]]
    assert loggers == ["RunLogger", "WandbLogger"]


def test_checkpoints_can_be_switched_off(run, here):
    run(*FIT, *TINY, "--trainer.enable_checkpointing", "false", "--trainer.max_epochs", 1)
    assert not list(here.rglob("*.ckpt")) and list(here.rglob("metrics.csv"))


@pytest.mark.parametrize("logger", ["false", "true", "null", "[]", "lightning.pytorch.loggers.CSVLogger"])
def test_whatever_loggers_are_off_a_training_leaves_its_run(run, here, monkeypatch, logger):
    monkeypatch.setenv("WANDB_MODE", "offline")
    extra = ["--trainer.logger.save_dir", "elsewhere"] if "." in logger else []
    run(*FIT, *TINY, "--trainer.max_epochs", 1, "--trainer.logger", logger, *extra)
    folder = Path("runs/digits/resnet20/version_0")
    files = {"config.yaml", "metrics.csv", "run.json", "checkpoints", ".lock"}
    assert {path.name for path in folder.iterdir()} == files
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    run("test", "--ckpt_path", folder)
    assert bool(extra) == Path("elsewhere").is_dir()


def test_precision_auto_comes_to_something_that_the_record_names(run, here):
    run(*FIT, *TINY, "--trainer.precision", "auto", "--trainer.max_epochs", 1)
    config = yaml.safe_load(Path("runs/digits/resnet20/version_0/config.yaml").read_text())
    assert config["trainer"]["precision"] == resolve_precision("auto") != "auto"


def test_precision_auto_on_a_processor_that_torch_cannot_ask_about(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert resolve_precision("auto") == "32-true"


def test_cifar10_from_a_relative_path_is_found_again_from_elsewhere(run, here, monkeypatch):
    write_synthetic_cifar(here / "my data")
    config = HOME / "configs/cifar10/resnet20.yaml"
    flags = ["--data.batch_size", 20, "--trainer.max_steps", 4, "--trainer.max_epochs", -1]
    run("fit", "--config", config, "--data.root", "my data", *flags)
    assert not list(here.rglob("best.ckpt"))  # trained on all images: nothing to choose by
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    run("test", "--ckpt_path", "../runs/cifar10/resnet20")
    result = json.loads((here / "runs/cifar10/resnet20/version_0/test-last-center.json").read_text())
    assert result["images"] == 20


TORCHVISION = """
data:
  class_path: datamodules.TorchvisionData
  init_args:
    train:
      class_path: torch.utils.data.ConcatDataset
      init_args:
        datasets:
          - {class_path: torchvision.datasets.ImageFolder, init_args: {root: images/train}}
          - {class_path: torchvision.datasets.ImageFolder, init_args: {root: images/train}}
    test: {class_path: torchvision.datasets.ImageFolder, init_args: {root: images/test}}
    num_classes: 2
    size: 16
    val_size: 2
    batch_size: 4
"""


def test_a_relative_root_of_a_torchvision_data_set_is_found_again_from_elsewhere(run, here, monkeypatch):
    for number in range(4):
        for folder in ("train", "test"):
            path = here / "images" / folder / f"class_{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((16, 16), 50).convert("RGB").save(path)
    (here / "torchvision.yaml").write_text(TORCHVISION)
    run(*FIT, "--config", "torchvision.yaml", "--trainer.max_epochs", 1)
    folder = here / "runs/digits/resnet20/version_0"
    data = yaml.safe_load((folder / "config.yaml").read_text())["data"]["init_args"]
    assert data["test"]["init_args"]["root"] == str(here / "images" / "test")
    roots = [part["init_args"]["root"] for part in data["train"]["init_args"]["datasets"]]
    assert roots == [str(here / "images" / "train")] * 2
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    run("test", "--ckpt_path", "../runs/digits/resnet20")
    assert json.loads((folder / "test-best-center.json").read_text())["images"] == 4


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        (["test", "-h"], True),
        (["test", "--help"], True),
        (["test", "--data.help", "datamodules.Digits"], True),
        (["test", "--model.help=lit_models.LitVGG"], True),
        (["test", "--trainer.callbacks.help", "callbacks.Throughput"], True),
        (["test"], False),
        (["predict", "--data.paths", "images-h", "need-help"], False),
    ],
)
def test_help_is_asked_for_by_a_flag(argv, asked):
    assert asks_for_help(argv) == asked


WRONG_FLAGS = [
    ([*FIT, "--model.dept", "3"], "There is no argument --model.dept here. Did you mean --model.depth?"),
    ([*FIT, "--model.depth", "21"], "error: --model.depth is 21: it must be one of 18, 34"),
    (
        [*FIT, "--trainer.callbacks+=callbacks.DDP", "--trainer.callbacks.sync_batchnorm", "AUTO"],
        "sync_batchnorm is AUTO: it must be one of auto, true, false. Did you mean auto?",
    ),
    ([*FIT, "--trainer.callbacks+=callbacks.DDP", "--trainer.callbacks.sync_batchnorm", "tru"], "Did you mean true?"),
    (
        [*FIT, "--trainer.strategy", "DDPStrategy", "--trainer.strategy.timeout", "5"],
        "timeout is 5: it must be hours, minutes and seconds, such as 0:30:00.",
    ),
    ([*FIT, "--model.norm", "bach"], "Did you mean batch?"),
    ([*FIT, "--model", "lit_models.LitResnet"], "Did you mean lit_models.LitResNet?"),
    ([*FIT, "--data", "datamodules.Cifar10"], "Did you mean datamodules.CIFAR10?"),
    (
        [*FIT, "--model.optimizer", "SDG"],
        "error: --model.optimizer: there is no class SDG for it. Did you mean torch.optim.SGD?",
    ),
    ([*FIT, "--model.optimizer", "torch.optim.SDG"], "no class torch.optim.SDG for it. Did you mean torch.optim.SGD?"),
    ([*FIT, "--model", "torch.nn.Linear"], "error: --model is torch.nn.Linear: it must be a LitClassifier."),
    ([*FIT, "--max_epochs", "3"], "There is no argument --max_epochs here. Did you mean --trainer.max_epochs?"),
    ([*FIT, "--trainer.precisio", "16-true"], "Did you mean --trainer.precision?"),
    ([*FIT, "--trainer.max_epochs", "abc"], "error: --trainer.max_epochs is abc: it must be a whole number"),
    ([*FIT, "--trainer.callbacks+=callbacks.StepDecay"], "Did you mean callbacks.StepLRDecay?"),
    ([*FIT, "--data.batch_size", "x"], "error: --data.batch_size is x: it must be a whole number"),
    ([*FIT, "--data.batch_size", "0"], "batch_size is 0"),
    ([*FIT, "--data", "datamodules.Synthetic", "--data.shift", "3"], "no argument --data.shift here. See --help"),
    ([*FIT, "--model.label_smoothing", "2"], "label_smoothing is 2.0: it must be in [0, 1)"),
    ([*FIT, "--model.num_classes", "7"], "num_classes is given as 7: leave it out"),
    ([*FIT, "--data.batch_size", "8"], "the last batch holds one image"),
    ([*FIT, "--data.batch_size", "1258", "--data.drop_last", "true"], "there is no full batch, and drop_last"),
    ([*FIT, "--model.optimizer.lr", "abc"], "error: --model.optimizer.lr is abc: it must be a number."),
    ([*FIT, "--trainer", "{max_epochs: 1}", "two"], "There is no argument two here: a value with spaces needs quotes."),
    ([*FIT, "--data.batch_size", "0x" + "f" * 5000], "this number has 5,002 digits: give a shorter"),
    ([*FIT, "--data.batch_size", "8", "two"], "There is no argument two here: a value with spaces needs quotes."),
    ([], "Give a command: fit, validate, test or predict."),
    (["fit", "configs/digits/resnet20.yaml"], "Did you mean --config configs/digits/resnet20.yaml?"),
    (["fit", "--config", "nowhere.yaml"], "nowhere.yaml."),
    (["fit", "--config", "configs/digits/resnet21.yaml"], "Did you mean configs/digits/resnet20?"),
    ([*FIT, "--model.optimizer.nestrov", "true"], "Did you mean --model.optimizer.nesterov?"),
    ([*FIT, "--trainer.callbacks.step_siz", "3"], "Did you mean --trainer.callbacks.step_size?"),
    ([*FIT, "--data", "datamodules.ImageNet"], "error: Not given: --data.root, which has no default."),
    (
        ["fit", "--data", "datamodules.Digits", "--model", "lit_models.LitVGG"],
        "error: Not given: --model.optimizer, which has no default.",
    ),
    (
        ["fit"],
        "error: Not given: --data and --model. Name an experiment, such as --config configs/digits/resnet20.yaml.",
    ),
    (["fti"], "Did you mean fit?"),
    (["test"], "give --ckpt_path"),
    (["test", "--ckpt_path", "nowhere"], "There is no checkpoint nowhere"),
    (["fit", "--config", "configs/cifar10/resnet20.yaml"], "configs/cifar10/resnet20.yaml"),
]


@pytest.mark.parametrize(("command", "message"), WRONG_FLAGS)
def test_wrong_flags_get_one_sentence_and_leave_nothing(fails, here, command, message):
    assert message in fails(*command)
    assert not list(here.rglob("version_*"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {init_args: {depht: 20}}", "There is no argument --model.depht here. Did you mean --model.depth?"),
        ("model: {init_args: {optimizer: {init_args: {lr: x}}}}", "--model.optimizer.lr is x: it must be a number."),
        (
            "trainer: {max_epoch: 3}",
            "There is no argument --trainer.max_epoch here. Did you mean --trainer.max_epochs?",
        ),
        ("data: {init_args: {batch_size: x}}", "--data.batch_size is x: it must be a whole number."),
    ],
)
def test_what_is_wrong_in_a_file_is_named_as_a_flag_would_be(fails, here, text, said):
    (here / "x.yaml").write_text(text)
    assert f"error: x.yaml: {said}" == fails(*FIT, "--config", "x.yaml")


def test_a_bug_keeps_its_traceback(here):
    code = """
import lit_models
from cli.command_line import run_cli
def forward(self, images):
    raise ValueError("a bug")
lit_models.LitResNet.forward = forward
run_cli()"""
    command = [sys.executable, "-c", code, *FIT, *TINY, "--trainer.fast_dev_run", "1"]
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" in done.stderr and done.stderr.endswith("\nValueError: a bug\n")


def test_a_mistake_of_the_users_is_one_sentence_wherever_it_is_noticed(fails, monkeypatch):
    def forward(self, images):
        raise UserError("the value, the reason, the fix")

    monkeypatch.setattr(LitResNet, "forward", forward)
    assert fails(*FIT, *TINY, "--trainer.fast_dev_run", 1) == "error: the value, the reason, the fix"


def test_trainer_flags_that_are_none_are_one_sentence(fails):
    assert "Precision 'half' is invalid" in fails(*FIT, *TINY, "--trainer.precision", "half")
    assert "There is no strategy ddpp. Did you mean ddp?" in fails(*FIT, *TINY, "--trainer.strategy", "ddpp")
    assert "devices is x, and on a CPU it is the number of processes" in fails(*FIT, *TINY, "--trainer.devices", "x")


def test_num_classes_in_yaml_is_refused(fails, here):
    (here / "x.yaml").write_text("model: {init_args: {num_classes: 10}}\n")
    assert "num_classes is given as 10" in fails(*FIT, "--config", "x.yaml")


def test_half_a_cifar10_stops_before_a_run_directory_is_made(fails, here):
    root = write_synthetic_cifar(here / "data")
    (root / "cifar-10-batches-py/data_batch_4").unlink()
    message = fails("fit", "--config", HOME / "configs/cifar10/resnet20.yaml", "--data.root", root)
    assert "data_batch_4 missing" in message and not list(here.rglob("version_*"))


def test_a_run_directory_that_cannot_be_written(fails, here):
    (here / "runs").write_text("a file where a folder should be")
    assert "cannot be made" in fails(*FIT, *TINY)


def test_predict_without_photos(fails, tiny_run):
    assert "give --data.paths" in fails("predict", "--ckpt_path", tiny_run)
    assert "no file or folder x.jpg" in fails("predict", "--ckpt_path", tiny_run, "--data.paths", "[x.jpg]")


def test_validate_without_a_validation_set(fails, tiny_run):
    assert "val_size is 0" in fails("validate", "--ckpt_path", tiny_run, "--data.val_size", "0")


def test_broken_checkpoints(fails, tiny_run, here):
    good = tiny_run / "checkpoints/best.ckpt"
    cut, text, evil, bare = (here / f"{name}.ckpt" for name in ("cut", "text", "evil", "bare"))
    cut.write_bytes(good.read_bytes()[:20_000])
    text.write_text("hello")
    evil.write_bytes(pickle.dumps(Evil(here / "ran")))
    torch.save(read(good)["state_dict"], bare)
    zipped = here / "zipped.ckpt"
    torch.save({"state_dict": Evil(here / "ran")}, zipped)
    for verb in ("test", "fit", "predict"):
        assert "no checkpoint that can be read: it is truncated or corrupt" in fails(verb, "--ckpt_path", cut)
        assert "no checkpoint that can be read: it is truncated or corrupt" in fails(verb, "--ckpt_path", text)
        assert "evil.ckpt" in fails(verb, "--ckpt_path", evil)
        assert "runs code is not to be trusted" in fails(verb, "--ckpt_path", zipped)
        assert "no record of its run" in fails(verb, "--ckpt_path", bare)
    assert not (here / "ran").exists()
    (here / "empty").mkdir()
    assert "holds no checkpoint" in fails("test", "--ckpt_path", here / "empty")


def test_a_checkpoint_of_another_class_count(fails, tiny_run):
    message = fails("test", "--ckpt_path", tiny_run, "--data.classes", 9)
    assert "the checkpoint knows no class class 6, class 7, class 8" in message


def test_a_data_module_without_num_classes_is_named(fails, here):
    message = fails(*FIT, "--data", "tests.no_classes.NoClasses")
    assert "num_classes" in message and "NoClasses" in message


def test_a_newer_version_without_a_checkpoint_is_named(run, tiny_run):
    newer = tiny_run.with_name("version_1")
    newer.mkdir()
    (newer / "config.yaml").touch()
    with pytest.warns(UserWarning, match="version_1 of runs/digits/resnet20 holds no checkpoint: version_0 is taken"):
        run("test", "--ckpt_path", tiny_run.parent)


def test_a_result_that_cannot_be_written_is_printed(run, tiny_run, capsys, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("callbacks.result_writer.atomic_write", refuse)
    with pytest.raises(SystemExit) as stop:
        run("test", "--ckpt_path", tiny_run)
    printed = capsys.readouterr().out
    assert "could not be written (Permission denied)" in stop.value.code
    assert "top-1 error" in printed and '"images": 11' in printed


def test_fit_reads_no_test_image(run, here, capsys):
    root = write_synthetic_cifar(here / "data")
    (root / "cifar-10-batches-py/test_batch").write_bytes(b"not to be read")
    with pytest.raises(UserError, match="test_batch"):
        datamodules.CIFAR10(root).setup("test")
    config = HOME / "configs/cifar10/resnet20.yaml"
    run("fit", "--config", config, "--data.root", root, "--data.batch_size", 20, "--trainer.fast_dev_run", 1)
    assert "train/loss" in capsys.readouterr().out


def test_a_logger_may_also_be_given_alone(run, here):
    run(
        *FIT,
        *TINY,
        "--trainer.max_epochs",
        1,
        "--trainer.logger",
        "callbacks.RunLogger",
        "--trainer.logger.save_dir",
        "x",
    )
    assert Path("runs/digits/resnet20/version_0/metrics.csv").is_file()


@pytest.mark.parametrize("verb", VERBS)
def test_help_begins_with_the_flags_that_people_use(verb, run, capsys):
    with pytest.raises(SystemExit) as stop:
        run(verb, "--help")
    assert stop.value.code == 0
    head, _, rest = capsys.readouterr().out.partition("\noptions:\n")
    flags = re.findall(r"^  (--[\w.]+)", head, re.MULTILINE)
    assert len(flags) == 10 and "--ckpt_path" in flags and f"\n  python main.py {verb} --" in head
    for flag in flags:
        assert f" {flag} " in rest or flag.startswith(("--model.", "--data.")), flag  # those depend on the class
    assert len(head.splitlines()) < 30 and "an experiment folder" in " ".join(rest.split())


def help_texts(cls: type) -> dict[str, str | None]:
    """The text that `--help` shows for each argument of a class, as it stands in the class's docstring."""
    texts = {}

    class Recorder(DefaultHelpFormatter):
        def add_argument(self, action):
            texts[action.dest] = action.help

    parser = ArgumentParser(prog="x", formatter_class=Recorder)
    parser.add_class_arguments(cls, fail_untyped=False)
    parser.format_help()
    return texts


ROOMS = (lit_models, datamodules, callbacks)
CLASSES = [cls for room in ROOMS for name in room.__all__ if isinstance(cls := getattr(room, name), type)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_argument_that_a_yaml_file_can_name_has_a_text(cls):
    texts = help_texts(cls)
    assert set(inspect.signature(cls).parameters) - {"args", "kwargs"} <= texts.keys()
    assert not [name for name, text in texts.items() if not text]


def test_the_verbs_are_listed_with_the_first_line_of_their_help(run, capsys):
    with pytest.raises(SystemExit):
        run("--help")
    printed = " ".join(capsys.readouterr().out.split())
    for verb in VERBS:
        first_line, _, _ = (HOME / "cli" / "help" / f"{verb}.txt").read_text().partition("\n")
        assert f"{verb} {first_line}" in printed


def test_a_fault_inside_a_module_is_not_taken_for_a_missing_class(run, here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    (here / "my_nets.py").write_text("from lit_models.nets.layerz import x\n\n\nclass LitMine:\n    pass\n")
    with pytest.raises(ModuleNotFoundError, match=r"lit_models\.nets\.layerz"):
        run(*FIT, "--model", "my_nets.LitMine")
