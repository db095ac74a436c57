"""The kinds of values that a checkpoint must hold: a malformed file is refused in one sentence before it is used."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from errors import UserError

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


def check_savers(callbacks: Any, path: Path | str) -> None:
    """Refuse the state of a ModelCheckpoint that lacks a value, or holds one of another kind."""
    check_content({"callbacks": callbacks}, {"callbacks": {}}, path)
    for name, state in callbacks.items():
        check_content(name, "", path)
        check_content({name: state}, {name: {}}, path)
        if name.startswith("ModelCheckpoint") or "best_k_models" in state:
            check_content(state, SAVER, path)
            check_content(list(state["best_k_models"]), [""], path)


def find_mismatch(value: Any, example: Any, name: str = "") -> str | None:
    """What differs in kind between a value and an example: the first difference in words, or None.

    Dicts need at least the example's keys; the items of a list are compared with the example's first; a value is of the
    example's type, or an int for a float, or matches the example if that is a pattern; None stands for any value. Where
    the example is no negative count, nor is it.
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
    shown = f" ({value})" if isinstance(value, int | float | str) else ""
    of_kind = not isinstance(example, re.Pattern) or not isinstance(value, str)
    expected = f"a {kind(example)}" if of_kind else "of another form"
    return f"{name or 'its content'} is a {kind(value)}{shown} and should be {expected}"


def is_like(value: Any, example: Any) -> bool:
    """Whether a single value is of an example's type."""
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(example, bool)
    if isinstance(example, re.Pattern):
        return isinstance(value, str) and bool(example.fullmatch(value))
    if isinstance(example, Tensor):
        return isinstance(value, Tensor) and value.shape == example.shape
    if isinstance(example, int):
        return isinstance(value, int) and value >= min(example, 0)
    return isinstance(value, int | float if isinstance(example, float) else type(example))


def join(name: str, key: Any) -> str:
    """The name of an item."""
    return f"{name}.{key}" if name else str(key)


def kind(value: Any) -> str:
    """The name of a value's type."""
    return "str" if isinstance(value, re.Pattern) else type(value).__name__
