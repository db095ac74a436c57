"""run.json of a run directory: what was trained, on what, where, and how each command on the run ended."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from checkpointing.atomic import atomic_write, end_run_if_unwritable
from checkpointing.content import find_mismatch, is_like

FILE = "run.json"
Outcome = Literal["running", "finished", "stopped", "diverged", "failed"]
SESSION = {
    "command": "",
    "code_version": "",
    "started": "",
    "ended": "",
    "outcome": "",
    "reason": "",
    "environment": {},
}
MODEL = {"name": "", "parameters": 0, "multiply_adds": None, "input_size": 0}
DATA = {"name": "", "num_classes": 0, "train_images": 0, "val_images": 0, "data_hash": None, "val_hash": None}


@dataclass(frozen=True)
class ModelFacts:
    """A model in numbers.

    Args:
        name: class of the LightningModule.
        parameters: without auxiliary classifiers, which are not used after the training.
        multiply_adds: of convolutions and linear layers in one forward pass of one image; None where they cannot be
            counted.
        input_size: pixels per side of the image.
    """

    name: str
    parameters: int
    multiply_adds: int | None
    input_size: int


@dataclass(frozen=True)
class DataFacts:
    """A data set in numbers.

    Args:
        name: class of the data module.
        num_classes: K.
        train_images, val_images: images that are trained on, and held back.
        data_hash, val_hash, test_hash: as in `checkpointing.record.CheckpointRecord`.
    """

    name: str
    num_classes: int
    train_images: int
    val_images: int
    data_hash: str | None = None
    val_hash: str | None = None
    test_hash: str | None = None


@dataclass(frozen=True)
class Session:
    """One `fit` command on a run: the first one, or one that resumed it.

    Args:
        command: as it was typed.
        code_version: the git commit.
        started, ended: times in UTC, ISO 8601; `ended` is empty while it runs, and for good after a kill.
        outcome: "running" until it ends; "stopped" by a signal or a limit of time, "failed" by an error.
        reason: the sentence of the error that ended it.
        environment: what it ran on, by name: versions, processor, devices, precision.
    """

    command: str
    code_version: str
    started: str
    environment: dict[str, str]
    ended: str = ""
    outcome: Outcome = "running"
    reason: str = ""


@dataclass(frozen=True)
class RunFacts:
    """What run.json holds.

    Args:
        seed: of the run.
        model, data: in numbers.
        sessions: the commands on the run, in their order.
    """

    seed: int
    model: ModelFacts
    data: DataFacts
    sessions: list[Session] = field(default_factory=list)

    def write(self, run_dir: Path) -> None:
        """Write run.json.

        Raises:
            UserError: if it cannot be written.
        """
        path = run_dir / FILE
        with end_run_if_unwritable(path), atomic_write(path) as file:
            file.write(json.dumps(asdict(self), indent=2) + "\n")


def read_run_facts(run_dir: Path) -> RunFacts | None:
    """The facts of a run; None without run.json, and where it is not as this project writes it."""
    path = run_dir / FILE
    if not os.path.isfile(path):
        return None
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return parse_run_facts(content)


def parse_run_facts(content: object) -> RunFacts | None:
    """The facts in plain types, as run.json and W&B's config hold them; None where they are malformed."""
    example = {"seed": 0, "model": MODEL, "data": DATA, "sessions": [SESSION]}
    if find_mismatch(content, example) or not isinstance(content, dict) or not has_valid_options(content):
        return None
    try:
        sessions = [Session(**each) for each in content["sessions"]]
        return RunFacts(content["seed"], ModelFacts(**content["model"]), DataFacts(**content["data"]), sessions)
    except TypeError:  # fields of newer code
        return None


def has_valid_options(content: dict[str, Any]) -> bool:
    """Whether what may be None, the outcomes and the environments in a run.json are of their types."""
    data, sessions = content["data"], content["sessions"]
    hashes = [data.get(name) for name in ("data_hash", "val_hash", "test_hash")]
    environments = [value for each in sessions for value in each["environment"].values()]
    return (
        (content["model"]["multiply_adds"] is None or is_like(content["model"]["multiply_adds"], 0))
        and all(isinstance(value, str | None) for value in hashes)
        and all(isinstance(value, str) for value in environments)
        and all(each["outcome"] in get_args(Outcome) for each in sessions)
    )
