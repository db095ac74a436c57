"""The layers of a config, the lowest first; where two say something of the same key, the higher one wins:

1. configs/base.yaml, which every `fit` starts from;
2. the config inside the checkpoint that --ckpt_path names, as far as the verb needs it (`checkpoint_layer`);
3. the --config files in their order;
4. flags, wherever they stand on the command line.

jsonargparse reads base.yaml as defaults, and merges files and flags in the order of the command line: `order_layers`
writes it in the order above. Once merged, the config is completed: lists, absolute paths, and what one key means for
another.
"""

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, dict_to_namespace

from checkpointing.class_paths import check_config
from checkpointing.confinement import check_run_id, confine_config
from checkpointing.content import EVALUATION_CONFIG, FIT_CONFIG, check_content
from checkpointing.import_policy import names_given, restrict_imports
from checkpointing.record import INITIAL_WEIGHTS, Checkpoint, CheckpointRecord
from checkpointing.run_dir import version_folder
from cli.config_files import Layer, read_config
from cli.config_parts import flag_name, group_flags, split_flag
from cli.parser import BASE
from cli.trainer import resolve_precision, write_plainly
from cli.yaml_files import write_yaml
from errors import UserError, address_of, expand_home, printable

MAX_SEED = 2**32 - 1  # of numpy
NO_OPTIMIZER = "lit_models.optimization.refuse_to_train"


def read_layers(verb: str, checkpoint: Checkpoint | None, configs: list[str], trusted: Sequence[str]) -> list[Layer]:
    """The layers between base.yaml and the flags, the lowest first.

    With a checkpoint, only what its config may name can be imported from here on, and what the user names.

    Args:
        verb: fit, validate, test or predict.
        checkpoint: that --ckpt_path names.
        configs: values of the --config flags.
        trusted: modules and class paths that the user names on the command line.
    """
    files = [read_config(config) for config in configs]
    if checkpoint is None:
        return files
    check_content(checkpoint.record.config, FIT_CONFIG if verb == "fit" else EVALUATION_CONFIG, checkpoint.path)
    content = checkpoint_layer(verb, checkpoint.record)
    check_seed(content["seed_everything"], f"seed_everything in {checkpoint.path}")
    trusted = [*trusted, *names_given([f"--config={file.text}" for file in files])]
    names = check_config(checked_part(verb, content), trusted)
    base = [f"--config={read_config(str(BASE)).text}"]
    restrict_imports(names, names_given(base) if verb == "fit" else [NO_OPTIMIZER])
    if verb != "fit":  # nothing that would train is built
        content["model"]["init_args"] |= {"optimizer": NO_OPTIMIZER, "lr_scheduler": None}
    else:
        check_run_id(checkpoint.record.wandb_run_id)
        confine_config(content, version_folder(checkpoint.path))
        files = reuse_callbacks(content["trainer"]["callbacks"] or [], files)
    return [Layer(str(checkpoint.path), content, write_yaml(content), is_file=False), *files]


def checked_part(verb: str, content: dict[str, Any]) -> dict[str, Any]:
    """The config of a checkpoint without the names of its classes, which predict takes as they are: any text."""
    if verb != "predict":
        return content
    preprocessing = {"preprocessing": content["data"]["init_args"]["preprocessing"]}
    return content | {"data": content["data"] | {"init_args": preprocessing}}


def reuse_callbacks(run: list[dict[str, Any]], files: list[Layer]) -> list[Layer]:
    """The --config files beside a resumed run, without the callbacks that they append and the run has already.

    So the experiment's file can be given again. A callback of the run that a file gives other arguments is replaced.

    Args:
        run: callbacks of the run, changed in place.
        files: in their order; those behind one that replaces the run's callbacks are left alone.
    """
    replaced = False
    left = []
    for file in files:
        trainer = file.content.get("trainer")
        replaced |= isinstance(trainer, dict) and "callbacks" in trainer
        if not replaced and isinstance(trainer, dict) and "callbacks+" in trainer:
            new = [item for item in list_classes(trainer["callbacks+"]) if not take_place(run, item)]
            content = {**file.content, "trainer": {**trainer, "callbacks+": new}}
            file = replace(file, content=content, text=write_yaml(content))
        left.append(file)
    return left


def list_classes(value: Any) -> list[dict[str, Any]]:
    """One class or a list of them, as a list of dicts with a class_path."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    return [item if isinstance(item, dict) else {"class_path": str(item)} for item in items]


def take_place(run: list[dict[str, Any]], added: dict[str, Any]) -> bool:
    """Whether a callback is one of the run's; with other arguments, it takes the place of the run's own.

    Alike are two of one class with the same `filename`, or else `monitor`, if they have any.
    """
    alike = [index for index, callback in enumerate(run) if identity(callback) == identity(added)]
    arguments = added.get("init_args", {}).items()
    if any(arguments <= run[index].get("init_args", {}).items() for index in alike):
        return True
    if len(alike) == 1:
        run[alike[0]] = added
    return len(alike) == 1


def identity(callback: dict[str, Any]) -> tuple[str, str | None]:
    """What tells a callback from others of its class: the name of its files, or the metric that it monitors."""
    arguments = callback.get("init_args", {})
    return str(callback.get("class_path")).rpartition(".")[2], arguments.get("filename") or arguments.get("monitor")


def order_layers(layers: list[Layer], flags: list[str]) -> list[str]:
    """The words of a command line that jsonargparse merges in the order of the layers, flags last."""
    return [*(f"--config={layer.name if layer.is_file else layer.text}" for layer in layers), *flags]


def add_up_paths(flags: list[str]) -> Iterator[str]:
    """The flags, of which --data.paths adds to the paths that one before it has given."""
    names = {"--data.paths", "--data.init_args.paths"}
    given = False
    for word in flags:
        name, equals, value = word.partition("=")
        yield f"{name}+{equals}{value}" if name in names and given else word
        given |= name in names


def put_classes_first(flags: list[str]) -> list[str]:
    """The flags, of which those that name a class stand before those for its arguments.

    jsonargparse drops an argument without a word when a flag behind it changes the class. Callbacks and loggers are
    lists, where a flag is for the item before it; the trainer is no class, and the last of its flags counts.
    """
    ordered: list[tuple[str, list[str]]] = []
    for group in group_flags(flags):
        name = split_flag(group)[0]
        key = flag_name(name) + (".init_args" if name.endswith(".init_args") else "")
        inside = (i for i, (other, _) in enumerate(ordered) if other.startswith(f"{key}."))
        in_place = key == "trainer" or key.rstrip("+").rpartition(".")[2] in ("callbacks", "logger", "plugins")
        ordered.insert(len(ordered) if in_place else next(inside, len(ordered)), (key, group))
    return [word for _, group in ordered for word in group]


def checkpoint_layer(verb: str, record: CheckpointRecord) -> dict[str, Any]:
    """The part of a checkpoint's config that a verb starts from.

    Args:
        verb: fit takes everything; validate and test take seed, model and data, without optimizer and schedule; predict
            takes seed, model, and the preprocessing and class names of the data.
        record: of the checkpoint.
    """
    config = copy.deepcopy(record.config)
    for name in INITIAL_WEIGHTS & record.model_args.keys():
        config["model"]["init_args"][name] = None  # the checkpoint has its own weights: no file is looked for again
    if verb == "fit":
        return {key: value for key, value in config.items() if key != "runs"}
    layer = {key: config[key] for key in ("seed_everything", "model", "data")}
    for name in ("optimizer", "lr_scheduler"):
        layer["model"]["init_args"].pop(name, None)
    if verb == "predict":
        if not record.preprocessing:
            raise UserError(
                f"predict cannot prepare images: {config['data']['class_path']}, on which this checkpoint was trained, "
                "holds no preprocessing. Derive it from datamodules.ImageData and train again, or run test."
            )
        init_args = {"preprocessing": record.preprocessing, "class_names": record.class_names}
        layer["data"] = {"class_path": "datamodules.Photos", "init_args": init_args}
    return layer


def name_run(layers: list[Layer]) -> str:
    """<dataset>/<experiment>: folder and name of the first --config file that is no overlay."""
    paths = [Path(os.path.abspath(expand_home(layer.name))) for layer in layers if layer.is_file]
    experiments = [path for path in paths if path.parent.name != "overlays"]
    if not experiments:
        raise UserError(
            "This run has no name: give --config configs/<dataset>/<experiment>.yaml, "
            "or --run_name <dataset>/<experiment>."
        )
    return f"{experiments[0].parent.name}/{experiments[0].stem}"


def check_run_name(run_name: str, runs: Path) -> None:
    """Refuse the name of a run whose folder would not lie below --runs."""
    if {"", ".", ".."} & {*run_name.split("/")} or "\0" in run_name:
        raise UserError(
            f"The name of the run is {printable(run_name)!r}, but its folder should lie below {runs}: give --run_name "
            "<dataset>/<experiment>, without an empty part, `.` or `..`."
        )


def check_seed(seed: Any, where: str = "seed_everything") -> None:
    """Refuse a seed that numpy does not take; True stands for a random one."""
    if not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise UserError(f"{where} is {seed}: it must be between 0 and {MAX_SEED:,}.")


def make_paths_absolute(config: Namespace) -> None:
    """Write the paths of a class and of the classes nested in it so that they hold in any directory.

    A path is any value of the type Path, and any `root`: torchvision's data sets take it as text.
    """
    for key, value in config.items():  # dotted keys, down to the values of nested classes
        is_path = isinstance(value, Path) or (isinstance(value, str) and key.endswith(".root"))
        if is_path and not address_of(value):
            config[key] = type(value)(expand_home(value).absolute())
        for item in value if isinstance(value, list) else ():
            if isinstance(item, Namespace):
                make_paths_absolute(item)


def complete_trainer(trainer: Namespace, verb: str, run: list[dict[str, Any]] | None = None) -> None:
    """Write loggers and callbacks as lists, resolve `auto`, and switch off what the verb has no use for.

    Args:
        trainer: section of the config, completed in place.
        verb: fit, validate, test or predict.
        run: callbacks of the run that is resumed, if one is.
    """
    for name in ("logger", "callbacks"):
        trainer[name] = normalize_to_list(trainer[name])
    for callback in trainer.callbacks:
        write_plainly(callback)
    trainer.callbacks = merge_callbacks(trainer.callbacks, run or [])
    trainer.precision = resolve_precision(trainer.precision)
    if verb == "fit" and not any(logger.class_path.endswith("RunLogger") for logger in trainer.logger):
        # Without it a training would leave nothing; `logger: false` switches off all others
        trainer.logger.insert(0, Namespace(class_path="callbacks.RunLogger", init_args=Namespace(save_dir="runs")))
    if trainer.fast_dev_run:
        trainer.logger = []  # Lightning swaps them too late: EMA copies the model with its loggers, which starts W&B
    if verb != "fit" or not trainer.logger:
        trainer.enable_checkpointing = False  # checkpoints lie in the run directory, or nowhere
    if verb == "predict" and trainer.devices == "auto":
        trainer.devices = 1  # a few images are not worth more, and may be fewer than the devices
    remove_unusable_callbacks(trainer)


def normalize_to_list(value: Any) -> list[Namespace]:
    """True, None, one item or a list, as a list; True, Lightning's default, is no item of ours."""
    return value if isinstance(value, list) else [value] if isinstance(value, Namespace) else []


def merge_callbacks(callbacks: list[Namespace], run: list[dict[str, Any]]) -> list[Namespace]:
    """The callbacks of a resumed run without those that a flag appends and the run has already, see `take_place`.

    Args:
        callbacks: those of the run, unless they were replaced, and behind them those that were appended.
        run: callbacks of the run.
    """
    own, added = callbacks[: len(run)], callbacks[len(run) :]
    if [callback.class_path for callback in own] != [callback["class_path"] for callback in run]:
        return callbacks
    merged = [callback.as_dict() for callback in own]
    new = [callback for callback in added if not take_place(merged, callback.as_dict())]
    return [*(dict_to_namespace(callback) for callback in merged), *new]


def remove_unusable_callbacks(trainer: Namespace) -> None:
    """Remove callbacks of base.yaml that Lightning would refuse, since a flag has taken away what they need."""
    names = {"ModelCheckpoint"} if trainer.enable_checkpointing is False else set()
    names |= set() if trainer.logger else {"LearningRateMonitor"}
    trainer.callbacks = [c for c in trainer.callbacks if c.class_path.rsplit(".")[-1] not in names]
