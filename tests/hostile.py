"""Checkpoints and weight files that try to run code, for the tests of what they may do: nothing.

Each payload leaves a trace in the folder that it is given, when it is run.
"""

import copy
import importlib
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from checkpointing.record import RECORD_KEY

PLANTED = ("planted", "lit_models_extra", "callbacks2")  # modules in the working directory that leave a trace


def prepare(outside: Path, cwd: Path) -> None:
    """Lay out what payloads use: a file to delete, scripts, a hub repository, and modules in the working directory."""
    shutil.rmtree(outside, ignore_errors=True)
    (outside / "hub").mkdir(parents=True)
    (outside / "precious.txt").write_text("years of work")
    leave = f"open({str(outside / 'trace')!r}, 'w').close()\n"
    (outside / "script.py").write_text(leave)
    (outside / "hub" / "hubconf.py").write_text(leave + "def net(*args, **kwargs): pass\n")
    (outside / "part.yaml").write_text(f"class_path: os.system\ninit_args: {{command: 'touch {outside}/trace'}}\n")
    for name in PLANTED:
        (cwd / f"{name}.py").write_text(leave + "class Net: pass\ndef call(*args, **kwargs): return 1.0\n")
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def specs(outside: Path) -> dict[str, Any]:
    """The payloads that a config can hold, by name."""

    def spec(class_path: str, **init_args: Any) -> dict[str, Any]:
        return {"class_path": class_path, "init_args": init_args}

    touch = f"touch {outside}/trace"
    scheduler, callback = "torch.optim.lr_scheduler.LambdaLR", "lightning.pytorch.callbacks.LambdaCallback"
    return {
        "os.system": spec("os.system", command=touch),
        "posix.system": spec("posix.system", command=touch),
        "subprocess.getoutput": spec("subprocess.getoutput", cmd=touch),
        "subprocess.Popen": spec("subprocess.Popen", args=touch, shell=True),
        "runpy.run_path": spec("runpy.run_path", path_name=f"{outside}/script.py"),
        "runpy.run_module": spec("runpy.run_module", mod_name="planted"),
        "os.remove": spec("os.remove", path=f"{outside}/precious.txt"),
        "shutil.rmtree": spec("shutil.rmtree", path=f"{outside}/hub"),
        "builtins.exec": spec("builtins.exec", source=f"open('{outside}/trace', 'w')"),
        "importlib.import_module": spec("importlib.import_module", name="planted"),
        "torch.hub.load": spec("torch.hub.load", repo_or_dir=f"{outside}/hub", model="net", source="local"),
        "torch.utils.collect_env.run": spec("torch.utils.collect_env.run", command=touch),
        "a module of ours": spec("lit_models.from_checkpoint.importlib.import_module", module="planted"),
        "another module of ours": spec("checkpointing.record.subprocess.getoutput", cmd=touch),
        "a module of Lightning's": spec("lightning.pytorch.callbacks.model_checkpoint.os.system", command=touch),
        "a planted class": spec("planted.Net"),
        "an allowed name and more": spec("lit_models_extra.Net"),
        "an allowed name and a digit": spec("callbacks2.Net"),
        "LambdaLR": spec(scheduler, lr_lambda="planted.call"),
        "LambdaCallback": spec(callback, on_fit_start="planted.call", on_test_start="planted.call"),
        "LambdaCallback of ours": spec(callback, setup="lit_models.from_checkpoint.importlib.import_module"),
        "text": "planted.Net",
        "YAML in text": f"{{class_path: os.system, init_args: {{command: '{touch}'}}}}",
        "YAML with escapes": f'{{"class\\x5fpath": os.system, init_args: {{command: "{touch}"}}}}',
        "a file": str(outside / "part.yaml"),
    }


def run_payload(payload: Any, outside: Path) -> None:
    """Run a payload as a parser would that trusts it, to see that it leaves a trace."""
    if isinstance(payload, str):
        payload = {"text": "planted.Net"}.get(payload, payload)
        payload = {"class_path": payload} if payload.startswith("planted") else specs(outside)["os.system"]
    init_args = dict(payload.get("init_args", {}))
    for name in [payload["class_path"], *(v for v in init_args.values() if str(v).startswith("planted."))]:
        module, _, attribute = name.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError:
            module, _, inner = module.rpartition(".")
            found = getattr(getattr(importlib.import_module(module), inner), attribute)
    if payload["class_path"].startswith(("torch.optim", "lightning.pytorch.callbacks.Lambda")):
        importlib.import_module("planted")
    elif not isinstance(found, type) or found.__name__ == "Popen":
        try:
            done = found(**init_args)
        except TypeError:  # builtins.exec takes no names
            done = found(*init_args.values())
        if isinstance(done, subprocess.Popen):
            done.wait()


# Where in a record's config a payload is put
SLOTS: dict[str, Callable[[dict[str, Any], Any], object]] = {
    "model": lambda config, payload: config.update(model=payload),
    "model.optimizer": lambda config, payload: config["model"]["init_args"].update(optimizer=payload),
    "model.lr_scheduler": lambda config, payload: config["model"]["init_args"].update(lr_scheduler=payload),
    "model.depth": lambda config, payload: config["model"]["init_args"].update(depth=payload),
    "data": lambda config, payload: config.update(data=payload),
    "data.classes": lambda config, payload: config["data"]["init_args"].update(classes=payload),
    "data of torchvision": lambda config, payload: config.update(data=torchvision_data(train=payload)),
    "a loader": lambda config, payload: config.update(data=torchvision_data(loader=payload)),
    "a transform": lambda config, payload: config.update(data=torchvision_data(transform=payload)),
    "trainer": lambda config, payload: config.update(trainer=payload),
    "trainer.callbacks": lambda config, payload: config["trainer"]["callbacks"].append(payload),
    "trainer.callbacks, all": lambda config, payload: config["trainer"].update(callbacks=payload),
    "trainer.logger": lambda config, payload: config["trainer"]["logger"].append(payload),
    "trainer.strategy": lambda config, payload: config["trainer"].update(strategy=payload),
    "trainer.plugins": lambda config, payload: config["trainer"].update(plugins=[payload]),
    "trainer.profiler": lambda config, payload: config["trainer"].update(profiler=payload),
    "seed_everything": lambda config, payload: config.update(seed_everything=payload),
    "a dotted key": lambda config, payload: config.update({"model.init_args.optimizer": payload}),
    "a dotted argument": lambda config, payload: config["model"].update({"init_args.optimizer": payload}),
    "a list that grows": lambda config, payload: config["trainer"].update({"callbacks+": payload}),
    "a config in the config": lambda config, payload: config.update(config=payload),
}


def torchvision_data(train: Any = None, **arguments: Any) -> dict[str, Any]:
    """A config of data of torchvision, with arguments for its training set."""
    fake = {"class_path": "torchvision.datasets.FakeData", "init_args": {"size": 8, "num_classes": 6}}
    if "loader" in arguments:
        fake = {"class_path": "torchvision.datasets.ImageFolder", "init_args": {"root": "."}}
    data_set = copy.deepcopy(fake)
    data_set["init_args"] |= arguments
    return {
        "class_path": "datamodules.TorchvisionData",
        "init_args": {"train": train or data_set, "test": fake, "num_classes": 6, "size": 16},
    }


UNPICKLER = "lightning.fabric.utilities.load._lazy_load"


def loader_data(way: str, outside: Path, run: Path) -> dict[str, Any]:
    """A config of data whose loader unpickles: as a dict, as YAML in text (with a date that is none), or in a file."""
    for name in (f"class {index}" for index in range(6)):
        (run / "d" / name).mkdir(parents=True, exist_ok=True)
        torch.save({"x": Reduced(f"touch {outside}/trace")}, run / "d" / name / "x.pt")
    spec = f"{{class_path: torchvision.datasets.DatasetFolder, init_args: {{root: {run / 'd'}, loader: {UNPICKLER}, "
    date, plain = f"{spec}extensions: [.pt, 2001-99-99]}}}}", f"{spec}extensions: [.pt, .x]}}}}"
    (run / "part.yaml").write_text(plain)
    values: dict[str, Any] = {
        "a dict": yaml.safe_load(plain),
        "YAML in text": plain,
        "a date that is none": date,
        "a file": str(run / "part.yaml"),
        "the address of a file": f"file://{run / 'part.yaml'}",
        "a subset": {"class_path": "torch.utils.data.Subset", "init_args": {"dataset": date, "indices": [0]}},
        "sets of sets": {"class_path": "torch.utils.data.ConcatDataset", "init_args": {"datasets": [date]}},
        "keyword arguments": {"class_path": "torch.utils.data.Subset", "dict_kwargs": {"dataset": date}},
        "a transform": {"class_path": "torchvision.datasets.FakeData", "init_args": {"transform": date}},
    }
    config = torchvision_data(train=values[way])
    config["init_args"]["test"] = values[way]
    return config | {"class_path": "datamodules.torchvision_data.TorchvisionData"}


LOADER_WAYS = (
    "a date that is none",
    "a file",
    "a dict",
    "YAML in text",
    "the address of a file",
    "a subset",
    "sets of sets",
    "keyword arguments",
    "a transform",
)


def change_record(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the config in the records of all checkpoints of a run."""
    for path in run.glob("checkpoints/*.ckpt"):
        content = torch.load(path, weights_only=True)
        change(content[RECORD_KEY]["config"])
        torch.save(content, path)


class Reduced:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


class Imported(Reduced):
    """An object whose pickle runs a script when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return __import__, ("planted",)


def write_pickle(kind: str, path: Path, outside: Path) -> None:
    """Write a weights file or checkpoint that runs code where it is unpickled without care."""
    evil = Reduced(f"touch {outside}/trace")
    if kind == "pickle":
        path.write_bytes(pickle.dumps(evil))
    elif kind == "the old format":
        torch.save({"state_dict": evil}, path, _use_new_zipfile_serialization=False)
    elif kind == "an import":
        torch.save({"state_dict": {}, "args": Imported("")}, path)
    elif kind == "hyper-parameters":
        torch.save({"state_dict": {}, "hyper_parameters": {"width": evil}}, path)
    elif kind == "a record":
        torch.save({"state_dict": {}, RECORD_KEY: evil}, path)
    else:
        torch.save({"state_dict": {"conv.weight": evil}}, path)


PICKLES = ("pickle", "the old format", "an import", "hyper-parameters", "a record", "a state dict")
