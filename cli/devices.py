"""Devices, nodes and strategies that this machine does not have, refused before any data are read.

Lightning would start any number of processes on a CPU, and learns of a strategy that it cannot run once the data are
there, in a traceback or not at all.
"""

from datetime import timedelta
from difflib import get_close_matches
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.strategies import StrategyRegistry

from datamodules.loading import usable_cores
from errors import UserError, pluralize

ACCELERATORS = {"gpu": "GPU", "cuda": "GPU", "mps": "Apple GPU"}
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")  # on any device
ON_GPUS = ("fsdp", "deepspeed")  # how their names begin
# Their processes begin in the middle of a command: it could neither stop them with a checkpoint nor tell their failures
STARTED_INSIDE = ("spawn", "fork", "forkserver", "notebook")
LONGEST_WAIT = timedelta(weeks=1)  # of one process for another


def refuse_missing_devices(trainer: Namespace) -> None:
    """Refuse devices, nodes and strategies that cannot be.

    Args:
        trainer: section of the config.

    Raises:
        UserError: with the value, what the machine has, and the flag to give.
    """
    if trainer.num_nodes < 1:
        raise UserError(f"num_nodes is {trainer.num_nodes}: give the number of machines, 1 or more.")
    accelerator = resolve_accelerator(trainer.accelerator)
    check_strategy(trainer.strategy, accelerator)
    if accelerator == "cuda":
        check_gpus(trainer.devices, torch.cuda.device_count())
    elif accelerator == "cpu":
        check_cores(trainer.devices, trainer.accelerator == "auto")


def resolve_accelerator(given: Any) -> str:
    """cpu, cuda, mps or another name of Lightning's; "other" for a class of the user's.

    Raises:
        UserError: for one that this machine does not have.
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = next(name for name, there in has.items() if there)
    if given == "auto":
        return found
    if not isinstance(given, str):
        return "other"
    name = (found if found != "cpu" else "cuda") if given == "gpu" else given
    if given in ACCELERATORS and not has.get(name):
        raise UserError(
            f"accelerator is {given}, and PyTorch finds no {ACCELERATORS[given]} on this machine: give "
            "--trainer.accelerator auto, which takes what there is, or look at the driver (nvidia-smi)."
        )
    return name


def check_strategy(given: Any, accelerator: str) -> None:
    """Refuse a strategy that is none, that needs other devices, or that starts its processes inside the command."""
    if isinstance(given, Namespace):  # a class
        name = given.class_path.rpartition(".")[2]
        inside = given.get("init_args", Namespace()).get("start_method") in STARTED_INSIDE
        known = True
        check_timeout(given.get("init_args", Namespace()).get("timeout"))
    else:
        name = str(given).lower()
        inside = any(word in name.split("_") for word in STARTED_INSIDE)
        known = name in (*STRATEGIES, *StrategyRegistry.available_strategies())
    if not known:
        close = get_close_matches(name, STRATEGIES, 1)
        guess = f"Did you mean {close[0]}? " if close else ""
        raise UserError(
            f"There is no strategy {name}. {guess}There are {', '.join(STRATEGIES)}; on GPUs fsdp, deepspeed."
        )
    if inside:
        raise UserError(
            f"The strategy {name} starts its processes from inside of a command, as notebooks need it, where no signal "
            "reaches them: give --trainer.strategy ddp."
        )
    if name.lower().startswith(ON_GPUS) and accelerator == "cpu":
        raise UserError(f"The strategy {name} needs GPUs, and this command runs on a CPU: give ddp, or auto.")
    if name.startswith(("single_", "xla")) and accelerator != "tpu":
        raise UserError(f"The strategy {name} cannot be asked for by name here: give --trainer.strategy auto.")


def check_timeout(timeout: timedelta | None) -> None:
    """Refuse a time limit of a strategy that is over before the processes have met, or that torch cannot count."""
    if timeout is not None and not timedelta(seconds=1) <= timeout <= LONGEST_WAIT:
        raise UserError(f"The strategy's timeout is {timeout}: give from 0:00:01 to 7 days, such as 0:30:00.")


def check_gpus(devices: Any, available: int) -> None:
    """Refuse another number of GPUs than there are, and indices of none.

    Args:
        devices: a number, indices, text with either, or auto.
        available: GPUs of this machine, as far as CUDA_VISIBLE_DEVICES shows them.
    """
    there = f"PyTorch sees {pluralize(available, 'GPU')} on this machine"
    count, indices = read_count(devices), read_indices(devices)
    if devices == "auto" or count == -1:
        return
    if not indices and (count is None or not 1 <= count <= available):
        raise UserError(f"devices is {devices}, and {there}: give --trainer.devices {available}, or auto.")
    if wrong := [index for index in indices if not 0 <= index < available]:
        raise UserError(f"devices names GPU {wrong[0]}, and {there}: indices go from 0 to {available - 1}.")


def check_cores(devices: Any, is_fallback: bool) -> None:
    """Refuse more processes on a CPU than it has cores; two are always allowed, to try what several do.

    Args:
        devices: a number, text with one, or auto.
        is_fallback: whether the CPU was taken because there is no GPU.
    """
    if devices == "auto":
        return
    count, most = read_count(devices), max(usable_cores(), 2)
    if count is None or not 1 <= count <= most:
        cores = pluralize(usable_cores(), "core")
        no_gpu = ", and no GPU that PyTorch finds" if is_fallback else ""
        raise UserError(
            f"devices is {devices}, and on a CPU it is the number of processes, each of which needs a core: this "
            f"machine has {cores}{no_gpu}, so give --trainer.devices 1 to {most}."
        )


def read_count(devices: Any) -> int | None:
    """The number that `devices` is, as text too; None for indices and auto."""
    try:
        return None if isinstance(devices, list) else int(devices)
    except ValueError:
        return None


def read_indices(devices: Any) -> list[int]:
    """The indices that `devices` lists, as text too; none for a number and auto."""
    if isinstance(devices, list):
        return devices
    words = str(devices).split(",") if "," in str(devices) else []
    return [int(word) for word in words if word.strip().isdecimal()]
