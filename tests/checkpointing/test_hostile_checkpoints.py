"""No checkpoint, weights file or file of predictions runs code, and none changes a file outside of its run.

The payloads are real: each is run once by hand, to see that it leaves a trace.
"""

import contextlib
import importlib
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from checkpointing.confinement import is_inner, rebase
from checkpointing.predictions import Predictions
from checkpointing.record import RECORD_KEY, read_checkpoint
from cli.command_line import run_cli
from errors import UserError, address_of
from lit_models import LitClassifier, LitResNet
from reports import ensemble, protocols
from tests.conftest import DIGITS, TINY, train_once
from tests.hostile import (
    LOADER_WAYS,
    PICKLES,
    PLANTED,
    SLOTS,
    UNPICKLER,
    change_record,
    loader_data,
    prepare,
    run_payload,
    specs,
    write_pickle,
)

NAMES = list(specs(Path("outside")))
VERBS = ["fit", "test", "validate", "predict", "reports.protocols", "reports.ensemble"]
FEW = 12  # of the combinations, in every run of the tests; the others are slow


def one_quick(quick: str, *others: str) -> list:
    """One command in every run of the tests; the others are slow."""
    return [quick, *(pytest.param(other, marks=pytest.mark.slow) for other in others)]


def sample_combinations(count: int) -> list:
    """Payload x slot x command, each payload and slot as often as the others."""
    draw = random.Random(0)
    payloads, slots, verbs = (draw.sample(names, len(names)) for names in (NAMES, list(SLOTS), VERBS))
    drawn = [
        (payloads[k % len(payloads)], slots[k % len(slots)], verbs[(k + k // 6) % len(verbs)]) for k in range(count)
    ]
    marks = [() if k < FEW else pytest.mark.slow for k in range(count)]
    return [pytest.param(*each, marks=mark) for each, mark in zip(drawn, marks, strict=True)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished tiny run, made once."""
    return train_once(tmp_path_factory, "--trainer.max_epochs", 1)


@pytest.fixture
def attacked(here, trained, tmp_path, monkeypatch) -> Path:
    """A copy of the run in a directory with planted modules, and `outside`, what must not change."""
    monkeypatch.syspath_prepend(str(here))
    shutil.copytree(trained, here / "runs")
    Image.new("RGB", (20, 20)).save(here / "photo.png")
    prepare(tmp_path / "outside", here)
    return here / "runs/digits/resnet20/version_0"


def snapshot(*folders: Path) -> dict[Path, bytes]:
    """All files outside of runs, but for Python's caches and the results of commands in the working directory."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    ignored = {"runs", "__pycache__", "predictions.csv"}
    return {path: path.read_bytes() for path in files if not ignored & {*path.parts}}


def command(verb: str, run: Path) -> None:
    """Type a command on a run."""
    if verb == "reports.protocols":
        protocols.main(["--checkpoints", str(run)])
    elif verb == "reports.ensemble":
        ensemble.main(["--members", str(run), str(run / "checkpoints/last.ckpt"), "--runs", str(run.parents[2])])
    else:
        extra = {"predict": ["--data.paths", "photo.png"], "fit": ["--trainer.max_epochs", "2"]}.get(verb, [])
        run_cli([verb, "--ckpt_path", str(run), *extra])


def assert_harmless(verb: str, run: Path, outside: Path, here: Path) -> str:
    """Type the command; whether it is refused or not, nothing outside of the run has changed. Return the refusal."""
    before, said = snapshot(outside, here), ""
    try:
        command(verb, run)
    except SystemExit as stop:
        said = str(stop.code)
    assert snapshot(outside, here) == before
    return said


@pytest.mark.parametrize("name", NAMES)
def test_every_payload_leaves_a_trace_when_it_is_run(name, here, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(here))
    outside = tmp_path / "outside"
    prepare(outside, here)
    before = snapshot(outside)
    run_payload(specs(outside)[name], outside)
    assert snapshot(outside) != before


@pytest.mark.parametrize(("payload", "slot", "verb"), sample_combinations(72))
def test_a_hostile_record_runs_nothing(payload, slot, verb, attacked, tmp_path, here):
    change_record(attacked, lambda config: SLOTS[slot](config, specs(tmp_path / "outside")[payload]))
    assert_harmless(verb, attacked, tmp_path / "outside", here)


@pytest.mark.parametrize("verb", one_quick("test", "fit", "validate", "reports.protocols"))
@pytest.mark.parametrize("way", LOADER_WAYS)
def test_data_of_a_record_have_no_loader_that_unpickles(way, verb, attacked, tmp_path, here):
    outside, run = tmp_path / "outside", attacked.absolute()
    change_record(attacked, lambda config: config.update(data=loader_data(way, outside, run)))
    before = snapshot(outside)
    module, _, name = UNPICKLER.rpartition(".")
    getattr(importlib.import_module(module), name)(next((run / "d").rglob("*.pt")))
    assert snapshot(outside) != before, "the payload is none"
    (outside / "trace").unlink()
    assert assert_harmless(verb, attacked, outside, here).startswith("error: data.train") or way in ("a dict",)


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_the_refusal_names_class_slot_and_flag(verb, attacked, fails, tmp_path):
    slot = {"fit": "model.optimizer", "test": "data"}[verb]
    change_record(attacked, lambda config: SLOTS[slot](config, specs(tmp_path)["subprocess.getoutput"]))
    said = fails(verb, "--ckpt_path", attacked)
    assert f"names subprocess.getoutput for {slot}" in said and said.endswith("--allow subprocess.")


def test_an_evaluation_builds_no_optimizer_schedule_or_callback_of_a_record(attacked, run, tmp_path):
    payloads = specs(tmp_path / "outside")
    for slot in ("model.optimizer", "model.lr_scheduler", "trainer.callbacks", "trainer.logger", "trainer.strategy"):
        change_record(attacked, lambda config, slot=slot: SLOTS[slot](config, payloads["os.system"]))
    for verb in ("test", "validate"):
        run(verb, "--ckpt_path", attacked)
    run("predict", "--ckpt_path", attacked, "--data.paths", "photo.png")
    assert not (tmp_path / "outside/trace").exists()


@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize(
    "verb", one_quick("test", "fit", "reports.protocols", "load_from_checkpoint", "--model.weights")
)
def test_a_pickle_runs_nothing(verb, kind, attacked, tmp_path, here):
    outside, path = tmp_path / "outside", attacked / "checkpoints/best.ckpt"
    write_pickle(kind, path, outside)
    before = snapshot(outside, here)
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    assert snapshot(outside, here) != before, "the payload is none"
    prepare(outside, here)
    shutil.copy(path, attacked / "checkpoints/last.ckpt")
    before = snapshot(outside, here)
    with pytest.raises((SystemExit, UserError)) as refused:
        if verb == "load_from_checkpoint":
            LitClassifier.load_from_checkpoint(path)
        elif verb == "--model.weights":
            run_cli(["fit", "--config", DIGITS, *TINY, "--model.weights", str(path)])
        else:
            command(verb, path)
    assert str(path) in str(refused.value) and snapshot(outside, here) == before


@pytest.mark.parametrize("verb", ["test", "load_from_checkpoint", "--model.weights"])
def test_an_archive_that_grows_is_not_unpacked(verb, attacked, tmp_path):
    path = attacked / "checkpoints/best.ckpt"
    with zipfile.ZipFile(path) as stored, zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in stored.infolist():
            packed.writestr(entry.filename, stored.read(entry))
    assert torch.load(tmp_path / "x.ckpt", weights_only=True), "torch unpacks it"
    with pytest.raises((SystemExit, UserError), match="truncated or corrupt"):
        if verb == "load_from_checkpoint":
            LitClassifier.load_from_checkpoint(tmp_path / "x.ckpt")
        elif verb == "--model.weights":
            run_cli(["fit", "--config", DIGITS, *TINY, "--model.weights", str(tmp_path / "x.ckpt")])
        else:
            command(verb, tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    "change",
    [
        {"_instantiator": "lightning.pytorch.cli.instantiate_module"},
        {"stem": {"class_path": "os.system", "init_args": {"command": "touch outside/trace"}}},
        {"stem": ["x", {"class_path": "planted.Net"}]},
        {"_class_path": "planted.Net"},
        {"_class_path": "lit_models_extra.Net"},
        {"_class_path": "lit_models.from_checkpoint.importlib"},
        {"_class_path": "lit_models.os.system"},
        {"num_classes": 10**12},
        {"depth": 10**9},
        {"no_such": 1},
    ],
)
def test_hyper_parameters_call_nothing(change, attacked, tmp_path, here):
    path = attacked / "checkpoints/best.ckpt"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] |= change
    torch.save(content, path)
    before = snapshot(tmp_path / "outside", here)
    for family in (LitClassifier, LitResNet):
        with pytest.raises(ValueError, match="checkpoint|holds|no ResNet"):
            family.load_from_checkpoint(path)
    assert snapshot(tmp_path / "outside", here) == before


def test_hyper_parameters_open_no_file_and_hold_no_instantiator(attacked):
    path = attacked / "checkpoints/best.ckpt"
    content = torch.load(path, weights_only=True)
    assert "_instantiator" not in content["hyper_parameters"]
    content["hyper_parameters"] |= {"weights": "no/such/file.pth", "init_from": "no/such/file.pth"}
    content["hyper_parameters"]["optimizer"] = {"class_path": "os.system", "init_args": {"command": "touch trace"}}
    torch.save(content, path)
    assert isinstance(LitClassifier.load_from_checkpoint(path), LitResNet)


def test_predictions_beside_a_checkpoint_run_nothing(attacked, tmp_path, here):
    """numpy keeps arrays of objects as pickles."""
    command("test", attacked)
    path = next(attacked.glob("predictions-*.npz"))
    content = {**np.load(path)}
    content["files"] = np.array([write_evil(tmp_path)], dtype=object)
    np.savez(path, **content)
    with pytest.raises(UserError, match="cannot be read as a file of predictions"):
        Predictions.read(path)
    assert assert_harmless("reports.protocols", attacked, tmp_path / "outside", here) == ""


def write_evil(tmp_path: Path) -> object:
    from tests.hostile import Reduced

    return Reduced(f"touch {tmp_path}/outside/trace")


def nested(depth: int, width: int) -> list:
    """Lists in each other, `depth` of them, each `width` times in the one around it."""
    value: list = [0]
    for _ in range(depth):
        value = [value] * width
    return value


def cycle() -> list:
    value: list = []
    value.append(value)
    return value


@pytest.mark.parametrize("verb", one_quick("test", "fit", "predict"))
@pytest.mark.parametrize(
    "value",
    [
        nested(300, 1),
        nested(40, 10),
        cycle(),
        {"a" * 10**6: 1},
        {1: 2},
        {"class_path": 7},
        {"class_path": "torch.optim.SGD", "init_args": ["lr"]},
        {"class_path": "torch.optim.SGD", "init_args": {}, "more": 1},
        {"class_path": "torch.optim." + "x" * 10**5},
        {"class_path": "torch.optim..SGD"},
        {"class_path": " torch.optim.SGD"},
        {"class_path": "torch.optim.Optimizer.__init__"},
        "&a [1, *a]",
        "[" * 5000,
        "{a: &a [1, 1], b: &b [*a, *a], c: &c [*b, *b]}",
        torch.zeros(2),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, dict | str) else type(value).__name__,
)
def test_a_config_without_an_end_or_of_odd_kinds_is_one_sentence(value, verb, attacked, fails):
    slot = {"fit": "optimizer", "test": "depth", "predict": "depth"}[verb]
    change_record(attacked, lambda config: config["model"]["init_args"].update({slot: value}))
    extra = {"predict": ["--data.paths", "photo.png"]}.get(verb, [])
    assert len(fails(verb, "--ckpt_path", attacked, *extra)) < 1500


@pytest.mark.parametrize("root", ["{here}/new", "{here}//new", "new", "./new/."])
def test_data_of_a_checkpoint_are_not_downloaded_into_a_folder_that_does_not_exist(root, attacked, fails, here):
    data = {"class_path": "datamodules.CIFAR10", "init_args": {"root": root.format(here=here)}}
    change_record(attacked, lambda config: config.update(data=data))
    for verb in ("test", "validate"):
        assert "There is no folder" in fails(verb, "--ckpt_path", attacked)
    assert not (here / "new").exists()


@pytest.mark.parametrize("verb", one_quick("test", "fit", "validate", "reports.protocols"))
@pytest.mark.parametrize("address", one_quick("s3://bucket/photos", "s3:/bucket/photos", "local:{here}"))
def test_nothing_is_fetched_from_an_address_that_a_checkpoint_alone_names(verb, address, attacked, here, monkeypatch):
    asked = []
    monkeypatch.setattr("datamodules.imagenet.open_packed", asked.append)
    data = {"class_path": "datamodules.ImageNet", "init_args": {"root": address.format(here=here)}}
    change_record(attacked, lambda config: config.update(data=data))
    with pytest.raises(SystemExit) as stop:
        command(verb, attacked)
    assert "a checkpoint may not decide where a command fetches from" in str(stop.value.code) and not asked


@pytest.mark.parametrize("by", one_quick("flag", "flag of a class", "file"))
def test_data_are_fetched_from_an_address_that_the_user_names(by, attacked, fails, here, monkeypatch):
    asked = []
    monkeypatch.setattr("datamodules.imagenet.open_packed", lambda root: asked.append(address_of(root)))
    address = f"local:{here}"
    data = {"class_path": "datamodules.ImageNet", "init_args": {"root": address}}
    change_record(attacked, lambda config: config.update(data=data))
    (here / "data.yaml").write_text(yaml.safe_dump({"data": data}))
    given = {
        "flag": ["--data.root", f"{address}/"],
        "flag of a class": ["--data", str(data)],
        "file": ["--config", "data.yaml"],
    }
    fails("test", "--ckpt_path", attacked, *given[by])  # nothing is there
    assert asked == [address]


def test_no_address_is_taken_for_a_folder_of_the_run(attacked, fails, tmp_path, monkeypatch):
    """Typed in the run directory, file:///x looks like a folder there; fsspec reads it as /x."""
    outside = {"save_dir": f"file://{tmp_path}/outside", "name": "", "version": ""}
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": outside}
    change_record(attacked, lambda config: config["trainer"]["logger"].append(logger))
    monkeypatch.chdir(attacked)
    assert "leads out of its run" in fails("fit", "--ckpt_path", "checkpoints/last.ckpt", "--trainer.max_epochs", 2)


def test_no_sentence_controls_the_terminal(attacked, fails):
    name = "lit_models.\x1b]0;title\x07\x1b[31mNet"
    change_record(attacked, lambda config: config["model"].update(class_path=name))
    said = fails("test", "--ckpt_path", attacked)
    assert "\\x1b[31mNet" in said and not {"\x1b", "\x07"} & set(said)


MODEL_CHECKPOINT = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"dirpath": "{outside}"},
        {"dirpath": "~"},
        {"dirpath": "elsewhere"},
        {"dirpath": "runs/digits/resnet20/version_0/../../../../outside"},
        {"dirpath": "file://{outside}"},
        {"filename": "../../../../../../outside/x"},
        {"filename": "{outside}/x"},
        {"filename": "{epoch:/>2}x"},
        {"filename": "{{outside}/x}"},
        {"filename": "{../../../../../../outside/x}-{step}"},
        {"dirpath": "$HOME/x"},
        {"filename": "{epoch:.>2}/x"},
    ],
)
def test_a_checkpoint_names_no_folder_outside_of_its_run(arguments, attacked, fails, tmp_path, here):
    outside = tmp_path / "outside"
    init_args = {key: value.replace("{outside}", str(outside)) for key, value in arguments.items()}
    change_record(attacked, lambda c: c["trainer"]["callbacks"].append(MODEL_CHECKPOINT | {"init_args": init_args}))
    before = snapshot(outside, here)
    said = fails("fit", "--ckpt_path", attacked, "--trainer.max_epochs", 2)
    assert f"trainer.callbacks.init_args.{next(iter(arguments))} is " in said and "leads out of its run" in said
    assert snapshot(outside, here) == before and not (here / "elsewhere").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda config: config.update(run_name="../../outside"), "run_name is ../../outside"),
        (lambda config: config.update(run_name="/outside/x"), "run_name is /outside/x"),
        (lambda config: config["trainer"].update(default_root_dir="/outside"), "trainer.default_root_dir is /outside"),
        (
            lambda config: config["trainer"]["logger"].append(
                {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "logs"}}
            ),
            "trainer.logger.init_args.save_dir is logs",
        ),
        (
            lambda config: config["trainer"].update(
                callbacks={"class_path": "callbacks.Throughput", "init_args": {"exclude_batches_path": "outdir"}}
            ),
            "exclude_batches_path is outdir",
        ),
        (
            lambda config: config["trainer"].update(
                profiler={
                    "class_path": "lightning.pytorch.profilers.SimpleProfiler",
                    "init_args": {"dirpath": "/outside", "filename": "x"},
                }
            ),
            "trainer.profiler.init_args.dirpath is /outside",
        ),
    ],
)
def test_other_paths_of_a_record_stay_inside_too(change, sentence, attacked, fails):
    change_record(attacked, change)
    assert sentence in fails("fit", "--ckpt_path", attacked, "--trainer.max_epochs", 2)


def test_a_resumed_run_deletes_and_writes_nothing_elsewhere(attacked, run, tmp_path, here):
    """A ModelCheckpoint deletes the files that its state calls its own."""
    outside = tmp_path / "outside"
    precious = "{dirpath}/../../../../../../outside/precious.txt"  # in the folder, as Lightning looks at it
    for path in attacked.glob("checkpoints/*.ckpt"):
        content = torch.load(path, weights_only=True)
        for state in content["callbacks"].values():
            if "best_k_models" in state:
                worst = torch.tensor(2.0)  # the next epoch is better, and this one's file is deleted
                old = precious.format(dirpath=state["dirpath"])
                state |= {"best_model_path": old, "kth_best_model_path": old, "last_model_path": old}
                state |= {"best_k_models": {old: worst}, "best_model_score": worst, "kth_value": worst}
        torch.save(content, path)
    before = snapshot(outside, here)
    run("fit", "--ckpt_path", attacked, "--trainer.max_epochs", 2)
    assert snapshot(outside, here) == before


def test_paths_of_a_state_are_moved_or_removed(tmp_path):
    new = tmp_path / "run" / "checkpoints"
    new.mkdir(parents=True)
    (new / "link").symlink_to(tmp_path)
    old = Path("there/checkpoints")
    assert rebase("there/checkpoints/best.ckpt", old, new) == str(new / "best.ckpt")
    for path in ("", "elsewhere/best.ckpt", "there/checkpoints/../../x.ckpt", "there/checkpoints/link/x.ckpt", 7):
        assert rebase(path, old, new) == ""
    assert not any(map(is_inner, ("/x", "~/x", "a/../../x", "C:/x", "s3://x", "..\\x"))) and is_inner("epoch_{epoch}")


@pytest.mark.parametrize("verb", one_quick("fit", "test", "validate", "reports.protocols"))
@pytest.mark.parametrize(
    "name", ["metrics.csv", "test-best-center.json", "checkpoints/x.ckpt", "checkpoints", "checkpoints/a/b", "logs"]
)
def test_links_out_of_a_run_are_refused(verb, name, attacked, tmp_path, here):
    link, outside = attacked / name, tmp_path / "outside"
    if name == "checkpoints":
        shutil.move(link, outside)
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside / {"checkpoints": "checkpoints"}.get(name, "precious.txt"))
    said = assert_harmless(verb, attacked, outside, here)
    assert f"{link} is a link to" in said


EXPERIMENT = """
model:
  class_path: lit_models.LitResNet
  init_args:
    depth: 20
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
    lr_scheduler: {class_path: torch.optim.lr_scheduler.LambdaLR, init_args: {lr_lambda: mine.halve}}
trainer:
  callbacks+: [{class_path: mine.Note}]
"""


def test_what_the_user_allows_or_names_is_loaded(attacked, run, fails, here):
    (here / "mine.py").write_text(
        "from lightning.pytorch import Callback\nclass Note(Callback):\n"
        "    def on_fit_start(self, *_): open('noted', 'a').write('x')\n"
        "def halve(epoch): return 0.5 ** epoch\n"
    )
    (here / "mine.yaml").write_text(EXPERIMENT)
    run("fit", "--config", "mine.yaml", *TINY, "--trainer.max_epochs", 1, "--run_name", "a/b")
    assert (here / "noted").read_text() == "x"
    said = fails("fit", "--ckpt_path", "runs/a/b", "--trainer.max_epochs", 2)
    assert "mine.Note for trainer.callbacks" in said and "--allow mine" in said
    run("fit", "--ckpt_path", "runs/a/b", "--trainer.max_epochs", 2, "--allow", "mine")
    run("fit", "--ckpt_path", "runs/a/b", "--trainer.max_epochs", 3, "--config", "mine.yaml")
    assert (here / "noted").read_text() == "xxx"
    change_record(here / "runs/a/b/version_0", lambda config: config["trainer"]["callbacks"].pop())
    said = fails("fit", "--ckpt_path", "runs/a/b", "--trainer.max_epochs", 4)
    assert "names mine.halve" in said and said.endswith("--allow mine.")
    assert read_checkpoint(here / "runs/a/b/version_0/checkpoints/last.ckpt").record.config["model"]
    assert all((here / f"{name}.py").is_file() for name in PLANTED)
    assert RECORD_KEY in torch.load(attacked / "checkpoints/last.ckpt", weights_only=True)
