"""What the config inside a checkpoint may name: each way around the lists is refused before anything is called."""

from argparse import ArgumentError
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback

import datamodules
import lit_models
from checkpointing.class_lists import SLOTS
from checkpointing.class_paths import check_config, holds_config, import_class
from checkpointing.import_policy import listed_names, restored_import_policy, restrict_imports
from cli.literal_values import load_value, read_names_literally
from errors import UserError


def spec(class_path: Any, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


FAKE = spec("torchvision.datasets.FakeData", size=3)
FOLDER = "torchvision.datasets.ImageFolder"
UNPICKLER = "lightning.fabric.utilities.load._lazy_load"


def data(train: Any, class_path: str = "datamodules.TorchvisionData") -> dict[str, Any]:
    return {"data": spec(class_path, train=train, test=FAKE)}


def net(value: Any) -> dict[str, Any]:
    return {"model": spec("lit_models.LitResNet", depth=value)}


def callback(value: Any) -> dict[str, Any]:
    return {"trainer": {"callbacks": [value]}}


HOSTILE: dict[str, dict[str, Any]] = {
    # other spellings, re-exports and attributes
    "text": data("torchvision.datasets.FakeData"),
    "text for the other spelling": data("x", "datamodules.torchvision_data.TorchvisionData"),
    "a module's module": net(spec("lit_models.weights.torch.load", f="x")),
    "a module's class": {"data": spec("datamodules.base.DataLoader")},
    "a function of an allowed module": data(spec("torchvision.datasets.utils.download_url", url="x", root="x")),
    "os of an allowed module": data(spec("torch.utils.data.dataset.os.system", command="x")),
    "a package's inside": data(spec("datamodules.base.torch.utils.data.Subset", dataset=FAKE, indices=[0])),
    "a re-export elsewhere": data(spec("datamodules.torchvision_data.Dataset")),
    "no class": data(spec("torchvision.datasets.folder.default_loader", path="x")),
    "another package's class": {"model": spec("datamodules.TorchvisionData")},
    "a method": net(spec("lit_models.LitResNet.load_from_checkpoint", checkpoint_path="x")),
    "a main module": {"data": spec("datamodules.imagenet.__main__.main")},
    "a private name": net(spec("torch.nn.modules._functions.SyncBatchNorm")),
    "look-alike letters": {"model": spec("lit_models.LitResNet".replace("R", "\uff32"))},
    "look-alike letters in data": {"data": spec("d\u0430tamodules.TorchvisionData")},
    # data sets
    "LSUN": data(spec("torchvision.datasets.LSUN", root="x")),
    "LSUN elsewhere": data(spec("torchvision.datasets.lsun.LSUNClass", root="x")),
    "a data set of tensors": data(spec("torch.utils.data.TensorDataset")),
    "a video set": data(spec("torchvision.datasets.Kinetics", root="x")),
    "a loader": data(spec(FOLDER, root="x", loader=UNPICKLER)),
    "a loader of torch": data(spec(FOLDER, root="x", loader="torch.load")),
    "a class as loader": data(spec(FOLDER, root="x", loader=FOLDER)),
    "a dict as loader": data(spec(FOLDER, root="x", loader=FAKE)),
    "a list as loader": data(spec(FOLDER, root="x", loader=["torch.load"])),
    "accimage as loader": data(spec(FOLDER, root="x", loader="torchvision.datasets.folder.accimage_loader")),
    "a check of files": data(spec(FOLDER, root="x", is_valid_file="os.remove")),
    "a transform": data(spec(FOLDER, root="x", transform="os.remove")),
    "a transform of labels": data(spec(FOLDER, root="x", target_transform="os.remove")),
    "Lambda": data(spec(FOLDER, root="x", transform=spec("torchvision.transforms.Lambda", lambd="os.remove"))),
    "Lambda of v2": data(spec(FOLDER, root="x", transform=spec("torchvision.transforms.v2.Lambda", lambd="x"))),
    "a function of transforms": data(spec(FOLDER, transform=spec("torchvision.transforms.functional.to_tensor"))),
    # text that becomes something else
    "YAML": net("{class_path: os.system}"),
    "a YAML list": net("- a"),
    "a YAML key": net("class_path: os.system"),
    "no date": net("{class_path: os.system, x: 2001-99-99}"),
    "no number": net("!!int x"),
    "no truth": net("{class_path: os.system, x: !!bool x}"),
    "nothing of a number": net("!!int ''"),
    "half an emoji": net('{"class_path": "os.system", "x": "\\ud83d"}'),
    "an emoji in halves": net('{"class_path": "os.system", "x": "\\ud83d\\udc31"}'),
    "no Unicode": net("{class_path: os.system, x: \udcff}"),
    "what is nested too deeply": net("[" * 1000),
    "keys nested too deeply": net("? " * 600),
    "a tag for a part": net("!!seq [a]"),
    "a tag": net("!!python/name:os.system ''"),
    "an alias": net("&a [1, *a]"),
    "text in data": data(spec(FOLDER, root="{class_path: os.system}")),
    "text in a list": {"data": spec("datamodules.Synthetic", classes=["a", "{b: c}"])},
    "a file": net(__file__),
    "a file in data": {"data": spec("datamodules.Synthetic", classes=__file__)},
    "a file of the Trainer": {"trainer": {"max_epochs": __file__}},
    "the address of a file": {"data": spec("datamodules.Synthetic", classes=f"file://{__file__}")},
    "FILE": {"data": spec("datamodules.Synthetic", classes=f"FILE:{__file__}")},
    "a file of another section": {"seed_everything": __file__},
    # keys
    "a class that is no text": {"model": spec(["lit_models.LitResNet"])},
    "a class that is null": {"model": spec(None)},
    "arguments without a class": {"model": {"init_args": {}}},
    "a plus": {"model": {"class_path": "lit_models.LitResNet", "init_args+": {}}},
    "a plus inside": {"model": spec("lit_models.LitResNet", **{"optimizer+": "x"})},
    "a dot": {"model": spec("lit_models.LitResNet", **{"optimizer.class_path": "os.system"})},
    "a dot in a dict": net({"a.class_path": "os.system"}),
    "a merge": net({"<<": {"class_path": "os.system"}}),
    "a plus of a list": {"trainer": {"callbacks+": [spec("os.system")]}},
    "a default": net({"__default_config__": "x"}),
    "a path": net({"__path__": "x"}),
    "a config": {"config": "x"},
    "a nested config": {"model": {"config": "x", "class_path": "lit_models.LitResNet"}},
    "keyword arguments": {"model": {"class_path": "lit_models.LitResNet", "dict_kwargs": {"a": spec("os.system")}}},
    "keyword arguments, no dict": {"model": {"class_path": "lit_models.LitResNet", "dict_kwargs": "a"}},
    "deep": data(spec("torch.utils.data.Subset", dataset=spec("torch.utils.data.Subset", dataset=spec("os.system")))),
    # the Trainer's parts
    "LambdaCallback": callback(spec("lightning.pytorch.callbacks.LambdaCallback", setup="os.getcwd")),
    "SpikeDetection": callback(spec("lightning.pytorch.callbacks.spike.SpikeDetection", exclude_batches_path="x")),
    "ModelPruning": callback(spec("lightning.pytorch.callbacks.ModelPruning", pruning_fn="os.getcwd")),
    "a function of an average": callback(spec("lightning.pytorch.callbacks.WeightAveraging", avg_fn={"a.b": 1})),
    "a logger's program": {
        "trainer": {"logger": spec("lightning.pytorch.loggers.WandbLogger", settings={"x_executable": "x"})}
    },
    "a logger's server": {"trainer": {"logger": spec("lightning.pytorch.loggers.WandbLogger", mode="online")}},
    "another logger": {"trainer": {"logger": spec("lightning.pytorch.loggers.MLFlowLogger", tracking_uri="x")}},
    "a strategy": {"trainer": {"strategy": spec("lightning.pytorch.strategies.DeepSpeedStrategy", config="x")}},
    "a plugin": {"trainer": {"plugins": [spec("lightning.pytorch.plugins.io.AsyncCheckpointIO")]}},
    "a profiler": {"trainer": {"profiler": spec("lightning.pytorch.profilers.PyTorchProfiler")}},
    "Lookahead": {"model": spec("lit_models.LitResNet", optimizer=spec("timm.optim.Lookahead"))},
    "LambdaLR": {
        "model": spec("lit_models.LitResNet", lr_scheduler=spec("torch.optim.lr_scheduler.LambdaLR", lr_lambda="{}"))
    },
    "several processes": net(spec("torch.nn.DataParallel", module=spec("torch.nn.Identity"))),
    "a hook of torch": net(spec("torch.nn.utils.parametrize.ParametrizationList")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_way_around_the_lists_is_refused(name):
    with pytest.raises(UserError, match="checkpoint"):
        check_config(HOSTILE[name])


HARMLESS: dict[str, dict[str, Any]] = {
    "a data set": data(FAKE, "datamodules.torchvision_data.TorchvisionData"),
    "part of one": data(spec("torch.utils.data.Subset", dataset=FAKE, indices=[0])),
    "a loader": data(spec(FOLDER, root="x", loader="torchvision.datasets.folder.default_loader", transform=None)),
    "a transform": data(
        spec(
            FOLDER,
            transform=spec(
                "torchvision.transforms.v2.Compose", transforms=[spec("torchvision.transforms.v2.Resize", size=8)]
            ),
        )
    ),
    "a layer": net(spec("torch.nn.ReLU")),
    "a schedule": {
        "model": spec("lit_models.LitVGG", lr_scheduler=spec("lightning.pytorch.cli.ReduceLROnPlateau", monitor="x"))
    },
    "an optimizer": {"model": spec("lit_models.vgg.LitVGG", optimizer=spec("timm.optim.Lamb", lr=0.1))},
    "a name of files": callback(spec("lightning.pytorch.callbacks.ModelCheckpoint", filename="{epoch}-{step}")),
    "accumulation": callback(spec("lightning.pytorch.callbacks.GradientAccumulationScheduler", scheduling={"4": 2})),
    "a folder": {"data": spec("datamodules.ImageNet", root=str(Path.cwd()))},
    "words": {"trainer": {"strategy": "ddp", "precision": "32-true", "profiler": "simple", "max_time": "00:01:00:00"}},
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_fit_writes_is_taken(name):
    check_config(HARMLESS[name])


def test_a_folder_may_look_like_yaml(tmp_path):
    (tmp_path / "a: b").mkdir()
    check_config({"data": spec("datamodules.ImageNet", root=str(tmp_path / "a: b"))})


@pytest.mark.parametrize("text", ["{class_path: os.system}", "[a]", "a: b", "- a", "!!bool x"])
def test_a_folder_in_the_working_directory_makes_no_text_of_a_config(text, tmp_path, monkeypatch):
    """It would where the command is typed, and be a config for a --config file in another folder."""
    monkeypatch.chdir(tmp_path)
    Path(text).mkdir()
    with pytest.raises(UserError, match="checkpoint"):
        check_config(net(text))


TEXTS = [
    "a", "a.B", "{a: 1}", "[1]", "- a", "a: b", "a:", "{a, b}", "{a: !!bool x}", "!!int ''", "&a [*a]", "? a",
    "? " * 600, '{"a": "\\ud83d\\udc31"}', '{"a": "\\ud83d"}', "{a: \udcff}", "[" * 1000, "a:\tb", "%a", "@a",
    "{a: 2001-99-99}", "--- a", "a\n---\nb: c", "", "#", "null", "\x85a: b", "\u2028- a", "'[a]'", '"a: b"', "|\n a: b",
    "!!map {a: b}", "*a", "<<",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_is_plain_for_a_checkpoint_and_a_config_for_the_command_line(text):
    try:
        is_config = isinstance(load_value(text), dict | list)
    except (yaml.YAMLError, UserError):
        is_config = False
    assert holds_config(text) or not is_config


def test_no_address_is_opened(tmp_path):
    (tmp_path / "x.yaml").write_text("class_path: callbacks.PreciseBN")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=Callback, sub_configs=True)
    read_names_literally()
    assert parser.parse_args([f"--callback={tmp_path}/x.yaml"]).callback.class_path == "callbacks.PreciseBN"
    for address in (
        f"local://{tmp_path}/x.yaml",
        f"simplecache::file://{tmp_path}/x.yaml",
        "http://localhost:1/x.yaml",
    ):
        with pytest.raises(ArgumentError, match="not a subclass|class path|Not a valid|import"):
            parser.parse_args([f"--callback={address}"])


def test_every_listed_class_exists():
    for slots in SLOTS.values():
        for slot in slots.values():
            for module, names in slot.modules.items():
                assert all(import_class(f"{module}.{name}") for name in names), module


def test_words_of_the_user_stand_for_listed_classes():
    assert "torch.optim.sgd.SGD" in listed_names("SGD") and not listed_names("Lambdas")
    assert datamodules.__all__ and lit_models.__all__


@restored_import_policy()
def test_a_class_of_a_library_brings_no_other_along():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--function", type=Callable)
    restrict_imports(check_config(data(FAKE)), ["torch.nn.ReLU", "mine.Net", "os.path.join"])
    assert parser.parse_args(["--function=torch.nn.ReLU"])
    for name in ("torch.load", UNPICKLER, "os.system", "lightning.pytorch.Trainer", "lit_models.LitVGG", "torch.save"):
        with pytest.raises(ArgumentError, match="not allowed"):
            parser.parse_args([f"--function={name}"])
