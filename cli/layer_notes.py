"""Sentences on what a layer of the config undoes of a lower one, where the user may not have meant it.

A key that a higher layer sets anew is ordinary layering, and so are another model and other data: of these nothing is
said. Said are a flag given twice, a list of callbacks or loggers that loses some, an optimizer or another part that
keeps arguments chosen for the class before, and what a file changes of the run that it resumes.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jsonargparse import Namespace

from cli.config_files import Flag, Layer
from cli.config_parts import SECTIONS, flag_name, flatten
from cli.rank_variables import is_first_process
from errors import printable_lines

# Settings of the trainer that only `fit` reads
TRAINING_ONLY = {"max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "limit_train_batches"}
TRAINING_ONLY |= {"check_val_every_n_epoch", "val_check_interval", "num_sanity_val_steps", "accumulate_grad_batches"}
TRAINING_ONLY |= {"gradient_clip_val", "gradient_clip_algorithm", "log_every_n_steps", "enable_checkpointing"}


@dataclass(frozen=True)
class Setting:
    """A value that a layer gives to a key.

    Args:
        source: the layer's name; of a flag, the flag.
        layer: number of the layer, the lowest first; each flag is a layer.
        key: as a flag would give it, without the dashes.
        value: from YAML.
    """

    source: str
    layer: int
    key: str
    value: Any


def describe_losses(layers: list[Layer], flags: list[Flag], config: Namespace) -> list[str]:
    """The sentences on flags given twice, shortened lists and arguments kept for another class.

    Args:
        layers: below the flags, base.yaml included, the lowest first.
        flags: of the command line.
        config: that they result in.
    """
    settings = [
        Setting(layer.file_of(key), number, key, value)
        for number, layer in enumerate(layers)
        for key, value in flatten(layer.content)
    ]
    for number, flag in enumerate(flags, len(layers)):
        settings += [Setting(flag.shown, number, key, value) for key, value in flatten({flag.name: flag.value})]
    return [*repeated_flags(flags), *shortened_lists(settings), *kept_arguments(settings, config)]


def describe_unused(verb: str, flags: list[Flag]) -> Iterator[str]:
    """The sentences on flags of the trainer that a verb takes and makes no use of."""
    limits = {"validate": "val", "test": "test", "predict": "predict"}
    others = {f"limit_{name}_batches" for other, name in limits.items() if other != verb}
    unused = set() if verb == "fit" else TRAINING_ONLY | others
    keys = [key for flag in flags for key, _ in flatten({flag.name: flag.value})]
    for key in dict.fromkeys(keys):
        if key.removeprefix("trainer.") in unused:
            yield f"--{key} has no effect on {verb}."


def repeated_flags(flags: list[Flag]) -> Iterator[str]:
    """Flags that are given twice with different values, also as a key inside another, of which the last counts.

    A flag of a list's last item, such as --trainer.callbacks.decay, may be given for each item.
    """
    last: dict[str, Any] = {}
    for key, value in (item for flag in flags for item in flatten({flag.name: flag.value})):
        if key.endswith("+") or key.startswith("trainer.callbacks."):
            continue
        if key in last and last[key] != value:
            yield f"--{key} is given twice: {in_yaml(value)} counts, and {in_yaml(last[key])} does not."
        last[key] = value


def in_yaml(value: Any) -> str:
    """A value of a flag as the user has typed it: null, true and false."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def shortened_lists(settings: list[Setting]) -> Iterator[str]:
    """Lists of classes that a higher layer replaces by one without some of the classes, or by none.

    No logger is a wish that leaves metrics.csv; without callbacks a run neither decays its rate nor writes best.ckpt.
    """
    lists: dict[str, Counter[str]] = {}
    for setting in settings:
        key, names = setting.key.removesuffix("+"), Counter(class_names(setting.value))
        if key.rpartition(".")[2] not in ("callbacks", "logger"):
            continue
        before = lists.get(key, Counter())
        if setting.key.endswith("+"):
            names = before + names
        elif names and (lost := list((before - names).elements())):
            yield f"{setting.source} replaces {', '.join(lost)}: write {key}+ to add to them instead."
        elif before and not names and key.endswith("callbacks"):
            yield f"{setting.source} removes {', '.join(before.elements())}: leave it out to keep them."
        lists[key] = names


def class_names(value: Any) -> list[str]:
    """Names of the classes in a list of callbacks or loggers; none for true, false and null."""
    items = value if isinstance(value, list) else [value]
    paths = [item.get("class_path") if isinstance(item, dict) else item for item in items]
    return [path.rpartition(".")[2] for path in paths if isinstance(path, str)]


def kept_arguments(settings: list[Setting], config: Namespace) -> Iterator[str]:
    """Classes of parts, such as optimizers, that keep arguments chosen for the class of a lower layer.

    jsonargparse keeps those that the new class takes too, such as the learning rate of another optimizer.
    """
    final = dict(flatten(config.as_dict()))
    classes: dict[str, str] = {}
    for setting in settings:
        key, name = setting.key, str(setting.value).rpartition(".")[2]
        if key in SECTIONS or not any(other.startswith(f"{key}.") for other in final):
            continue
        before = classes.setdefault(key, name)
        if name == before:
            continue
        classes[key] = name
        lower = arguments([other for other in settings if other.layer < setting.layer], key)
        higher = arguments([other for other in settings if other.layer >= setting.layer], key)
        now = arguments([Setting("", 0, *item) for item in final.items()], key)
        kept = [f"{arg} {value}" for arg, value in lower.items() if arg not in higher and now.get(arg) == value]
        if kept:
            yield f"{setting.source} keeps {', '.join(kept)} of {before}: set them too if others are meant."


def arguments(settings: list[Setting], key: str) -> dict[str, str]:
    """Arguments that settings give to the class of a key, with their values; a class among them without its own."""
    found: dict[str, str] = {}
    for setting in settings:
        name, dot, _ = setting.key.removeprefix(f"{key}.").partition(".")
        if setting.key.startswith(f"{key}.") and setting.value is not None:
            found[name] = found.get(name, "") if dot else str(setting.value)
    return found


def describe_changed_run(run: dict[str, Any], layers: list[Layer], flags: list[Flag], config: Namespace) -> list[str]:
    """The sentence on what --config files change of the run that they resume; what flags change was asked for.

    Args:
        run: config of the run.
        layers: of the run and of the files.
        flags: of the command line.
        config: of this command, completed as that of the run.
    """
    before, now = dict(flatten(run)), dict(flatten(config.as_dict()))
    sources = {key: layer.file_of(key) for layer in layers if layer.is_file for key, _ in flatten(layer.content)}
    typed = {flag_name(flag.name) for flag in flags}
    changes = [
        f"{key} {now[key]} instead of {before[key]} ({source})"
        for key, source in sources.items()
        if key not in typed and key in before and key in now and str(before[key]) != str(now[key])
    ]
    callbacks = zip(run["trainer"]["callbacks"] or [], layers[0].content["trainer"]["callbacks"] or [], strict=True)
    changes += [f"another {class_names(new)[0]}" for old, new in callbacks if old != new]
    return [f"The run goes on with {', '.join(changes)}."] if changes else []


def print_notes(sentences: Iterable[str]) -> None:
    """Print what the user may not have meant on stderr, once for all processes."""
    for sentence in sentences if is_first_process() else ():
        print(f"note: {printable_lines(sentence)}", file=sys.stderr, flush=True)
