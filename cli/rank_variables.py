"""The variables by which a launcher tells each process its rank and what it has started, checked before Lightning is
imported.

Lightning and torchmetrics read them while they are imported, and end in a traceback if one is not a number.
"""

import os
import time
from typing import NamedTuple

from errors import UserError

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")  # 0 in the first process
# Nodes and processes on each of torchrun; processes and nodes of srun, and nodes of its job
COUNTS = ("GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_NNODES")
VARIABLES = (
    *RANKS,
    *COUNTS,
    "WORLD_SIZE",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_NTASKS",
    "JSM_NAMESPACE_RANK",
    "TORCHELASTIC_RESTART_COUNT",
)
SECONDS_FOR_FIRST = 10  # in which the first process ends a command that all of them find wrong


class Launch(NamedTuple):
    """What a launcher has started.

    Args:
        name: of the launcher.
        rank: the variable that is 0 in the process that speaks for the others: torchrun prints on each node.
        nodes: machines.
        devices: processes on each.
    """

    name: str
    rank: str
    nodes: int
    devices: int


def find_launch() -> Launch | None:
    """What torchrun or srun has started; None where this process was started alone, or by Lightning."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return Launch("torchrun", "LOCAL_RANK", read_count("GROUP_WORLD_SIZE"), read_count("LOCAL_WORLD_SIZE"))
    tasks, nodes = read_count("SLURM_STEP_NUM_TASKS"), read_count("SLURM_STEP_NUM_NODES", "SLURM_NNODES")
    if tasks == 1 or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    return Launch("srun", "SLURM_PROCID", nodes, tasks // nodes)


def read_count(*names: str) -> int:
    """The first of some variables that is set to a number; 1 where none is."""
    counts = [int(value) for name in names if (value := os.environ.get(name, "")).isdecimal()]
    return max(1, counts[0]) if counts else 1


def defer_to_first_process() -> None:
    """Wait where the first process of a launcher finds the same mistake, so that it says so before all are ended."""
    launch = find_launch()
    if launch and os.environ.get(launch.rank, "0") != "0":
        time.sleep(SECONDS_FOR_FIRST)


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


def refuse_restart() -> None:
    """Raise UserError where torchrun has started the command again: `fit` would begin another run.

    Besides, the processes find the addresses of those before them at the port, and wait for them (static rendezvous).
    """
    if (restarts := int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))) > 0:
        raise UserError(
            f"torchrun has restarted this command ({restarts}), which would begin another run: leave its "
            "--max_restarts at 0, and go on with the run by fit --ckpt_path runs/<dataset>/<experiment>."
        )
