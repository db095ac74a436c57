"""Resuming a run: what may change, what may not, and what of the old run is moved."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from checkpointing.record import saved_step
from checkpointing.run_dir import free_name
from errors import UserError, pluralize

# Arguments of a model that change how it is computed, and not what it is
COMPUTING = {"compile", "channels_last", "images_per_forward", "strict"}


def refuse_bare_weights(checkpoint: dict[str, Any], path: Path | None) -> None:
    """Averaged weights, and checkpoints of `save_weights_only`, have no optimizer to go on with."""
    if "optimizer_states" not in checkpoint:
        raise UserError(
            f"{path} holds weights alone and no state of a training to go on with: resume from last.ckpt, or start a "
            f"new run from these weights with --model.weights {path}."
        )


def stop_if_finished(trainer: Namespace, checkpoint: dict[str, Any], path: Path | None) -> None:
    """Say so where a resumed run has nothing left to do, and leave it as it is."""
    loop = checkpoint["loops"]["fit_loop"]
    whole = loop["epoch_loop.batch_progress"]["is_last_batch"]  # max_steps may have ended the run inside an epoch
    epochs = loop["epoch_progress"]["current"]["processed"] - (not whole)
    taken, planned = cycle(checkpoint)
    for thing, done, wanted in (
        ("epoch", epochs, trainer.max_epochs),
        ("step", checkpoint["global_step"], trainer.max_steps),
    ):
        if wanted is None or not 0 <= wanted <= done:
            continue
        further = f"give a larger --trainer.max_{thing}s."
        if planned is not None and planned <= taken:
            further = (
                f"start a new run from its weights, with --model.weights {shlex.quote(str(path))}: the cycle of its "
                "learning rate is over and cannot be made longer."
            )
        print(
            f"Nothing to do: the run of {path} has finished {done:,} of {pluralize(wanted, thing)}. "
            f"To train further, {further}"
        )
        sys.exit(0)


def cycle(checkpoint: dict[str, Any]) -> tuple[int, int | None]:
    """How many steps a schedule has taken, and for how many it was laid out: None for one without an end."""
    states = checkpoint["lr_schedulers"] or [{}]
    return states[0].get("last_epoch", 0), states[0].get("total_steps")


def refuse_longer_schedule(planned: int | None, interval: str, total_steps: int | float) -> None:
    """Refuse a run longer than its learning-rate schedule, which cannot be extended once it has begun.

    Args:
        planned: optimizer steps of the schedule in the checkpoint; None for one without an end.
        interval: whether the schedule steps by epoch or by step.
        total_steps: optimizer steps of the run that is resumed.
    """
    if planned is not None and interval == "step" and planned < total_steps:
        raise UserError(
            f"The cycle of the learning rate was laid out for {planned:,} steps and this run takes {total_steps:,}: it "
            "cannot be made longer once it has begun, so start a new run, from its weights with --model.weights FILE."
        )


def refuse_other_model(config: Namespace, old: dict[str, Any]) -> None:
    """Another activation or dropout may fit a checkpoint's weights as well, and would be another net."""
    before, now = old["model"]["init_args"], config.model.init_args.as_dict()
    for name in before.keys() & now.keys() - COMPUTING - {"optimizer", "lr_scheduler", "weights", "init_from"}:
        was, becomes = before[name], now[name]
        if json.dumps(was, default=str) != json.dumps(becomes, default=str):  # tuples are lists in a checkpoint
            raise UserError(
                f"{name} is {becomes} here, but the model of this checkpoint was trained with {was}: leave it out, or "
                "start a new run from its weights with --model.weights."
            )


def refuse_other_optimizer(config: Namespace, old: dict[str, Any]) -> None:
    """A resumed optimizer comes from the checkpoint: another one in the config would silently do nothing."""
    before, now = old["model"]["init_args"], config.model.init_args.as_dict()
    for part in ("optimizer", "lr_scheduler"):
        first, second = (flat(arguments.get(part)) for arguments in (before, now))
        for name in second.keys() | first.keys():
            was, becomes = first.get(name), second.get(name)
            if was == becomes:
                continue
            raise UserError(
                f"The {part}'s {name} is {becomes} here, but this run was begun with {was}, and resuming goes on "
                "with the optimizer of the checkpoint: leave it out, or start a new run."
            )


def flat(part: dict[str, Any] | None) -> dict[str, Any]:
    """Class and arguments of a part of the config, side by side."""
    return {"class_path": part["class_path"], **part.get("init_args", {})} if part else {}


def check_weights(model: torch.nn.Module, saved: dict[str, Any], path: Path) -> None:
    """Raise where a checkpoint's weights do not fit the model, before Lightning does at length."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in saved.items()}
    different = [name for name in [*own, *theirs] if own.get(name) != theirs.get(name)]
    if different:
        name = "net.fc.weight" if "net.fc.weight" in different else different[0]
        raise UserError(
            f"{path} does not fit this model: {name} is {theirs.get(name, 'not there')} in the checkpoint and "
            f"{own.get(name, 'not there')} in the model ({len(different)} such). Leave out the flags that change the "
            "model or its number of classes."
        )


def rebase(state: dict[str, Any], old: Path, new: Path) -> None:
    """Move every path of a ModelCheckpoint's state from one folder to another."""

    def moved(path: str) -> str:
        return str(new / Path(path).relative_to(old)) if path and Path(path).is_relative_to(old) else path

    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = moved(state[name])
    state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}
    state["dirpath"] = str(new)


def enter_unfinished_epoch(fit_loop: dict[str, Any]) -> None:
    """Let a run that max_steps or max_time ended inside an epoch go on inside it.

    Lightning counts that epoch as processed when it stops, and on resuming would look for its remaining batches in the
    next one.
    """
    progress, batches = fit_loop["epoch_progress"], fit_loop["epoch_loop.batch_progress"]
    if not batches["is_last_batch"] and progress["current"]["processed"] == progress["current"]["started"]:
        for count in ("current", "total"):
            progress[count]["processed"] -= 1


def set_later_aside(folder: Path, step: int) -> None:
    """Move checkpoints of later steps than the one resumed from into a folder of their own; the run overtakes them."""
    later = [path for path in sorted(folder.glob("*.ckpt")) if saved_step(path)[0] > step]
    if not later:
        return
    aside = free_name(folder / f"before_resuming_from_step_{step}")
    aside.mkdir()
    for path in later:
        path.rename(aside / path.name)
    print(f"Checkpoints of later steps are kept in {aside}: {', '.join(path.name for path in later)}", flush=True)
