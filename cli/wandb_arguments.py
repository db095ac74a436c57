"""The arguments of W&B's logger that neither flags nor configs give: from the environment, or the run's own names.

What was chosen stands in the run's config, so that a resumed run keeps it, whatever the environment says by then.
"""

import glob
import os
import secrets
import warnings
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_warn

from checkpointing.record import CheckpointRecord
from cli.rank_variables import is_first_process
from errors import UserError

VARIABLES = {
    "project": "WANDB_PROJECT",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "tags": "WANDB_TAGS",
    "notes": "WANDB_NOTES",
    "name": "WANDB_NAME",
}


def fill_in(arguments: Namespace, run_name: str, folder: Path | None) -> None:
    """Give the logger the arguments that it lacks.

    Args:
        arguments: of the logger, completed in place.
        run_name: <dataset>/<experiment>.
        folder: of the run; None in a later process, which logs nothing.
    """
    own = {"project": "lit-classics", "group": run_name, "job_type": "fit"}
    own |= {"name": f"{run_name}/{folder.name}"} if folder else {}
    for argument, variable in VARIABLES.items():
        if not arguments.get(argument):
            arguments[argument] = os.environ.get(variable) or own.get(argument)
    if isinstance(arguments.tags, str):
        arguments.tags = [tag.strip() for tag in arguments.tags.split(",") if tag.strip()]


def leave_out_nulls(arguments: Namespace) -> None:
    """Leave the many arguments of `wandb.init` that nobody has set out of the run's config."""
    for name, value in list(arguments.items()):
        if value is None:
            del arguments[name]


def choose_id(arguments: Namespace, resumed: CheckpointRecord | None, runs: Path) -> None:
    """Decide which W&B run this one is: a resumed run goes on as it was, and no other takes the ID of an earlier one.

    `wandb agent` sets WANDB_RUN_ID anew for each run. Where it is left over from an earlier run (as in a job script
    whose tasks all inherit it), the training goes on under an ID of its own: W&B would mix the rows of the two.

    Args:
        arguments: of the logger, completed in place.
        resumed: record of the run that is resumed, if one is.
        runs: folder of all runs.

    Raises:
        UserError: if a flag or a config names the ID of an earlier run.
    """
    given, variable = arguments.id or arguments.get("version"), os.environ.get("WANDB_RUN_ID")
    if resumed and resumed.wandb_run_id:
        arguments.id = resumed.wandb_run_id
        if variable not in (None, "", arguments.id):
            rank_zero_warn(
                f"WANDB_RUN_ID is {variable}, but a resumed run keeps its own, {arguments.id}.", stacklevel=2
            )
        return
    if not is_first_process() or not (given or variable):
        return
    earlier = find_run(given or str(variable), runs)
    if given and earlier:
        raise UserError(
            f"{given} is the W&B run of {earlier} already, and two runs would mix their rows: leave the ID out, or "
            f"resume that run with --ckpt_path {earlier}."
        )
    if earlier:
        arguments.id = secrets.token_hex(4)
        warnings.warn(
            f"WANDB_RUN_ID is {variable}, the W&B run of {earlier}, and two runs would mix their rows: this one is "
            f"{arguments.id}.",
            stacklevel=2,
        )


def find_run(run_id: str, runs: Path) -> Path | None:
    """The run directory that has logged to W&B under an ID; None if none has."""
    folders = runs.glob(f"**/wandb/*run-*-{glob.escape(run_id)}")
    return next((folder.parent.parent for folder in folders), None)
