"""Paths of a checkpoint stay inside its run directory: what comes from somewhere else may not name where we write.

Lightning's ModelCheckpoint deletes and writes whatever files a checkpoint's state and config name.
"""

import itertools
import os
import re
from pathlib import Path, PurePath
from typing import Any

from checkpointing.run_dir import version_number
from errors import UserError, address_of, check_reachable, expand_home, printable

# The ends of the names of arguments that name a file or folder, also where they are a plain word
FOLDER_ENDINGS = ("path", "dir", "directory", "file", "filename")
NAMED_IN_FOLDER = ("ModelCheckpoint", "Profiler")  # classes whose `filename` is put behind their `dirpath`
# A file name may hold a metric, such as val/loss, and its number of digits; other text in braces could lead elsewhere
FILE_NAME = re.compile(r"([^{}]|\{(\w[\w-]*(/\w[\w-]*)*)?(:\d*\.?\d*[a-z]?)?\})*", re.DOTALL)
# Loggers read addresses (file://), and replace variables of the environment, in what they take for a folder
ADDRESS = re.compile(r"\w[\w+.-]+:|.*(::|[$%])", re.DOTALL)
FILE_LOGGERS = ("TensorBoardLogger", "CSVLogger", "MLFlowLogger")  # those of Lightning that write below `save_dir`
# Arguments of loggers that the command line fills in for each run
FILLED_IN_LOGGERS = ("RunLogger", "WandbLogger")
TO_FILL_IN = "runs"  # `save_dir` of a logger whose folder the command line chooses
# and what the user alone decides: the account on W&B that gets what is logged
FILLED_IN = {"save_dir", "name", "version", "dir", "id", "entity"}
# Arguments of W&B's logger that are names and remarks, and lead nowhere
WANDB_TEXTS = {"project", "group", "job_type", "tags", "notes", "name"}
# What a command reads, appends to or replaces in a folder of results
RESULTS = ("*.csv", "*.json", "*.npz", "*.part", "config.yaml", ".lock", "checkpoints", "wandb")


def confine_config(config: dict[str, Any], run_dir: Path | None) -> None:
    """Refuse paths in a checkpoint's config for `fit` that lead out of its run directory.

    The folders of loggers are not looked at: the command line fills them in. Nor does the checkpoint
    name the account on W&B.

    Args:
        config: of the checkpoint, changed in place.
        run_dir: None for a checkpoint file outside of any run directory.

    Raises:
        UserError: with the path and its place in the config.
    """
    name = config.get("run_name")
    if name is not None and not is_inner(str(name)):
        raise UserError(
            f"run_name is {name} in the config of this checkpoint, which leads out of --runs: give --run_name."
        )
    trainer = config.get("trainer") or {}
    ours = [
        *find_loggers(trainer, FILLED_IN_LOGGERS),
        *(each for each in find_loggers(trainer, FILE_LOGGERS) if writes_into_run(each)),
    ]
    for each in ours:
        kept = WANDB_TEXTS if each["class_path"].endswith("WandbLogger") else set()
        for arguments in (each.setdefault("init_args", {}), each.get("dict_kwargs", {})):
            for name in FILLED_IN & arguments.keys() - kept:
                del arguments[name]
    check_paths(trainer, "trainer", run_dir)
    for each in ours:
        each["init_args"]["save_dir"] = TO_FILL_IN


def writes_into_run(logger: dict[str, Any]) -> bool:
    """Whether the command line has given a logger its folder, which is in the run directory wherever that is now."""
    save_dir = (logger.get("init_args") or {}).get("save_dir")
    return isinstance(save_dir, str) and version_number(Path(save_dir).parent) >= 0


def find_loggers(trainer: dict[str, Any], names: str | tuple[str, ...]) -> list[dict[str, Any]]:
    """The loggers of a config whose class paths end in one of the names."""
    loggers = trainer["logger"] if isinstance(trainer.get("logger"), list) else [trainer.get("logger")]
    return [each for each in loggers if isinstance(each, dict) and each["class_path"].endswith(names)]


def find_entities(trainer: dict[str, Any]) -> list[str]:
    """The W&B accounts, of a user or a team, that the loggers of a checkpoint's config name."""
    arguments = [
        each.get(part, {}) for each in find_loggers(trainer, "WandbLogger") for part in ("init_args", "dict_kwargs")
    ]
    return [str(each["entity"]) for each in arguments if each.get("entity") is not None]


def check_run_id(run_id: Any) -> None:
    """Refuse a W&B run of a checkpoint that would be a path: W&B names a folder after it."""
    if run_id is not None and not re.fullmatch(r"[\w-]{1,64}", str(run_id)):
        raise UserError(
            f"The W&B run of this checkpoint is {str(run_id)[:80]!r}, which is no ID of W&B: start a new run from its "
            "weights with --model.weights."
        )


def check_paths(value: Any, where: str, run_dir: Path | None, class_path: str = "") -> None:
    """Refuse text in a value of the config that leads out of the run directory.

    Args:
        value: of the config.
        where: its dotted key.
        run_dir: see `confine_config`.
        class_path: of the class to whose arguments the value belongs.
    """
    if isinstance(value, dict):
        texts = WANDB_TEXTS if class_path.endswith("WandbLogger") else ()
        for name, item in value.items():
            if name not in texts:
                check_paths(item, f"{where}.{name}", run_dir, str(value.get("class_path", class_path)))
    elif isinstance(value, list | tuple):
        for item in value:
            check_paths(item, where, run_dir, class_path)
    elif isinstance(value, str):
        is_path = names_path(where, class_path) or not is_inner(value)
        is_outer = is_path and bool(ADDRESS.match(value) or not lies_in(value, run_dir))
        if is_outer or not FILE_NAME.fullmatch(value):
            raise UserError(
                f"{where} is {value[:200]} in the config of this checkpoint, which leads out of its run directory: "
                "give it in a --config file or a flag of your own if you want it."
            )


def names_path(where: str, class_path: str) -> bool:
    """Whether an argument names a file or folder; see `check_paths`."""
    is_behind_folder = where.endswith(".init_args.filename") and class_path.endswith(NAMED_IN_FOLDER)
    name = where.rpartition(".")[2]
    return name.endswith(FOLDER_ENDINGS) and name != "class_path" and not is_behind_folder


def is_inner(path: str) -> bool:
    """Whether a text, taken as a path, stays below the folder that it is put behind."""
    return not (re.match(r"[/\\~]|[A-Za-z]:|\w+:/", path) or ".." in PurePath(path.replace("\\", "/")).parts)


def lies_in(path: str, folder: Path | None) -> bool:
    """Whether a path is inside a folder once all links are followed."""
    if folder is None:
        return False
    try:
        return expand_home(path).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def refuse_roots(data: dict[str, Any], recorded: dict[str, Any], given: Any) -> None:
    """Refuse folders of data that a checkpoint names and that are missing, and addresses that it alone names.

    A download would make the folder. An address is fetched from in the user's name, into a cache on the disk.

    Args:
        data: this command's config of the data.
        recorded: the checkpoint's.
        given: what the user's own flags and --config files hold.

    Raises:
        UserError: with the folder or the address.
    """
    for root in sorted(find_roots(data) & find_roots(recorded)):
        if address_of(root):
            if root in find_roots(given):
                continue
            raise UserError(
                f"The data of this checkpoint are at {printable(root)[:200]}, and a checkpoint may not decide where a "
                "command fetches from: give --data.root, with the same address or a folder."
            )
        check_reachable(root)
        if not os.path.exists(root):
            raise UserError(
                f"There is no folder {root}, where the data of this checkpoint were: give --data.root DIR, or the "
                "argument of the data that names it."
            )


def find_roots(value: Any) -> set[str]:
    """The values of all arguments called `root` in a config: addresses, and absolute paths in their normal form."""
    if isinstance(value, dict):
        root = value.get("root")
        own = {address_of(root) or os.path.abspath(expand_home(root))} if isinstance(root, str | Path) else set()
        return own.union(*map(find_roots, value.values()))
    return set().union(*map(find_roots, value)) if isinstance(value, list) else set()


def rebase(path: Any, old: Path, new: Path) -> str:
    """A path in a ModelCheckpoint's state moved from one folder to another; empty if it is outside of them."""
    if not isinstance(path, str) or not path or not Path(path).is_relative_to(old):
        return ""
    moved = new / Path(path).relative_to(old)
    return str(moved) if ".." not in moved.parts and lies_in(str(moved.parent), new) else ""


def refuse_links(folder: Path) -> None:
    """Refuse links in a folder of results that lead out of it: what is written there would be written elsewhere.

    Pipes, sockets and devices are refused too: whoever opens one waits without an end.

    Args:
        folder: a run directory, or the folder of a checkpoint file.

    Raises:
        UserError: with the link and where it leads, or with the pipe.
    """
    # Of the folder of a file that lies outside of any run, the results alone
    is_run = version_number(folder) >= 0
    found = list(folder.iterdir()) if is_run else [path for pattern in RESULTS for path in folder.glob(pattern)]
    for top in tuple(found):
        if top.name == "wandb":  # and not further, where W&B itself links to its log
            found += top.glob("*")
        elif not top.is_symlink():
            found += [Path(parent, name) for parent, *names in os.walk(top) for name in itertools.chain(*names)]
    for path in found:
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            raise UserError(f"{path} is a pipe, socket or device, which no run writes: remove it, or copy the run.")
        if path.is_symlink() and not lies_in(str(path), folder):
            raise UserError(
                f"{path} is a link to {os.path.realpath(path)}, outside of its run, where this command would write: "
                "replace it by a copy, or move the whole run."
            )
