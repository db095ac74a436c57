"""The variables by which a launcher tells each process its rank, checked before Lightning is imported.

Lightning and torchmetrics read them while they are imported, and end in a traceback if one is not a number.
"""

import os

from errors import UserError

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")  # 0 in the first process
VARIABLES = (
    *RANKS,
    "WORLD_SIZE",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_NTASKS",
    "SLURM_STEP_NUM_TASKS",
    "JSM_NAMESPACE_RANK",
)


def is_first_process() -> bool:
    """Whether this process is the one that makes run directories, before Lightning has said so."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"))


def refuse_odd_ranks() -> None:
    """Raise UserError for a rank or a number of processes that is none."""
    for name in VARIABLES:
        value = os.environ.get(name, "0")
        if not (value.isascii() and value.isdecimal()):
            raise UserError(
                f"The environment variable {name} is {value!r}, and must be a number (0, 1, ...): launchers set it for "
                f"each of several processes; if it is left over, type `env -u {name} python main.py ...`."
            )
