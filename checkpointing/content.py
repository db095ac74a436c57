"""The kinds of values that a checkpoint must hold: a malformed file is refused in one sentence before it is used."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from errors import UserError

LARGEST_INT = 2**63 - 1  # of a tensor; text of longer ones names no file, and of much longer ones cannot be had
LONGEST_NAME = 200  # characters
COUNTS = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
PROGRESS = {"total": COUNTS, "current": COUNTS}
# Examples of what is read before there is a Trainer to compare with
RECORD = {"config": {}, "class_names": [""], "preprocessing": {}, "code_version": "", "averaged_from": [""]}
CONFIG = {"model": {"class_path": "", "init_args": {}}, "data": {"class_path": ""}}
# And what a command line that starts from a checkpoint's config reads of it
EVALUATION_CONFIG = {"seed_everything": None}
FIT_CONFIG = EVALUATION_CONFIG | {"trainer": {"callbacks": None}}
# Lightning converts files of older versions, and takes them to be whole
LIGHTNING_VERSION = re.compile(r"(2\.[1-9]|[3-9]|[1-9]\d)\d*(\.\d+)*((a|b|rc|\.?post|\.?dev)\d+)*(\+[a-z0-9.]+)?")
WEIGHTS = {"epoch": 0, "global_step": 0, "state_dict": {}, "pytorch-lightning_version": LIGHTNING_VERSION}
FIT_LOOP = {"epoch_progress": PROGRESS, "epoch_loop.batch_progress": PROGRESS | {"is_last_batch": False}}
TRAINING = {
    "loops": {"fit_loop": FIT_LOOP},
    "callbacks": {},
    "optimizer_states": [{"state": {}, "param_groups": [{}]}],
    "lr_schedulers": [{}],
}
VALIDATION = {"loops": {"fit_loop": {"epoch_loop.val_loop.batch_progress": PROGRESS}}}
PATHS = {"best_model_path": "", "kth_best_model_path": "", "last_model_path": ""}
SAVER: dict[str, Any] = {
    "monitor": None,
    "current_score": None,
    "best_model_score": None,
    "best_k_models": {},
    "dirpath": "",
} | PATHS


def check_content(content: Any, example: Any, path: Path | str) -> None:
    """Refuse values that are missing or of another kind than in an example.

    Raises:
        UserError: with the first of them.
    """
    if mismatch := find_mismatch(content, example):
        raise UserError(
            f"{path} is not as `main.py fit` writes checkpoints: {mismatch}. The file is damaged or was changed; give "
            "another checkpoint."
        )


def check_state_dict(state_dict: dict[Any, Any], path: Path | str) -> None:
    """Refuse a state dict that does not map names to tensors."""
    for name, value in state_dict.items():
        check_content(name, "", path)
        if not isinstance(value, Tensor):
            raise UserError(
                f"{path} is not as `main.py fit` writes checkpoints: its weight {name} is a {kind(value)} and no "
                "tensor. The file is damaged or was changed; give another checkpoint."
            )


def check_tensors(content: Any, path: Path) -> None:
    """Refuse a file with a tensor that is larger than the file itself.

    One stored number can stand for a tensor of any size (`Tensor.expand`), and so can the few of a sparse one: whoever
    copies or reads it asks for more memory than there is. Nets and optimizers have each of their numbers in the file.

    Args:
        content: of the file, as it was loaded: each list, tuple and dict in it is looked through once.
        path: of the file.
    """
    size = path.stat().st_size
    waiting, seen = [("", content)], set()
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, Tensor) and item.numel() * item.element_size() > size:
            raise UserError(
                f"{path} is not loaded: {name[:LONGEST_NAME] or 'its content'} is a {kind(item)}, larger than the file "
                "that should hold it. The file was changed, or holds an expanded tensor; save a .contiguous() copy."
            )
        if isinstance(item, Tensor) and (item.layout != torch.strided or item.is_meta or item.is_quantized):
            raise UserError(
                f"{path} is not loaded: {name[:LONGEST_NAME] or 'its content'} is a tensor without an array of numbers "
                "(sparse, quantised, or on the device meta): save a dense copy of it."
            )
        if isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            items = item.items() if isinstance(item, dict) else enumerate(item)
            waiting += [(join(name, key), each) for key, each in items]


def check_averages(content: dict[str, Any], path: Path | str) -> None:
    """Refuse other weights beside averaged ones than the net has: Lightning's `WeightAveraging` keeps both."""
    current, averaged = "current_model_state", "state_dict"
    if current in content or "averaging_state" in content:
        check_content(content, {"averaging_state": {"n_averaged": torch.zeros(())}}, path)
        check_content(content, {current: content[averaged]}, path)
        check_content(content, {averaged: content[current]}, path)
        own = {"n_averaged": torch.zeros(())}
        check_content(own, content["averaging_state"], path)  # and nothing else


def check_numbers(values: dict[Any, Any], path: Path | str) -> None:
    """Refuse tensors of more than one number, such as the score of a checkpoint."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    check_content(tensors, {name: torch.zeros(()) for name in tensors}, path)


def check_savers(callbacks: Any, path: Path | str) -> None:
    """Refuse the state of a ModelCheckpoint that lacks a value, or holds one of another kind."""
    check_content({"callbacks": callbacks}, {"callbacks": {}}, path)
    for name, state in callbacks.items():
        check_content(name, "", path)
        check_content({name: state}, {name: {}}, path)
        if name.startswith("ModelCheckpoint") or "best_k_models" in state:
            check_content(state, SAVER, path)
            scores = state["best_k_models"]
            check_content(list(scores), [""], path)
            check_content(state, {"best_k_models": dict.fromkeys(scores, torch.zeros(()))}, path)
            check_numbers(state, path)


def find_mismatch(value: Any, example: Any, name: str = "") -> str | None:
    """What differs in kind between a value and an example: the first difference in words, or None.

    Dicts need at least the example's keys; the items of a list are compared with the example's first; a value is of the
    example's type, or an int for a float, or matches the example if that is a pattern; None stands for any value. Where
    the example is no negative count, nor is it. An int is one of 64 bits.
    """
    if isinstance(example, dict) and isinstance(value, dict):
        if missing := [key for key in example if key not in value]:
            return f"{join(name, missing[0])} is missing"
        found = (find_mismatch(value[key], example[key], join(name, key)) for key in example)
        return next(filter(None, found), None)
    if isinstance(example, list | tuple) and isinstance(value, list | tuple):
        items = enumerate(value) if example else ()
        found = (find_mismatch(item, example[0], join(name, index)) for index, item in items)
        return next(filter(None, found), None)
    if example is None or is_like(value, example):
        return None
    is_long = isinstance(value, int) and abs(value) > LARGEST_INT
    shown = f" ({value})" if isinstance(value, int | float | str) and not is_long else " of many digits" * is_long
    of_kind = not isinstance(example, re.Pattern) or not isinstance(value, str)
    expected = f"a {kind(example)}" if of_kind else "of another form"
    if kind(value) == kind(example) == "int" and value < 0:
        expected = "0 or more"
    return f"{name or 'its content'} is a {kind(value)}{shown} and should be {expected}"


def is_like(value: Any, example: Any) -> bool:
    """Whether a single value is of an example's type."""
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(example, bool)
    if isinstance(example, re.Pattern):
        return isinstance(value, str) and bool(example.fullmatch(value))
    if isinstance(example, Tensor):
        same_kind = isinstance(value, Tensor) and value.is_complex() == example.is_complex()
        return same_kind and value.shape == example.shape and (value.dtype == example.dtype or not is_float8(value))
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        return False
    if isinstance(example, int):
        return isinstance(value, int) and value >= min(example, 0)
    return isinstance(value, int | float if isinstance(example, float) else type(example))


def is_float8(value: Tensor) -> bool:
    """Whether a tensor is of floats of 8 bits, which torch can neither compare nor add up."""
    return value.is_floating_point() and value.dtype.itemsize == 1


def join(name: str, key: Any) -> str:
    """The name of an item; of items in one whose name is long already, that name."""
    if len(name) > LONGEST_NAME:
        return name
    shown = key if isinstance(key, str) or (isinstance(key, int) and abs(key) <= LARGEST_INT) else kind(key)
    return f"{name}.{shown}" if name else f"{shown}"


def kind(value: Any) -> str:
    """The name of a value's type; of a tensor with its shape."""
    if isinstance(value, Tensor):
        unusual = value.is_complex() or is_float8(value)
        return f"Tensor {list(value.shape)}{f' of {value.dtype}' if unusual else ''}"
    return "str" if isinstance(value, re.Pattern) else type(value).__name__
