"""Refuses ranks and numbers of processes that do not fit this command, by the variables that launchers set."""

import os

import lightning.pytorch as pl
from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment
from lightning.pytorch.strategies import ParallelStrategy

from cli.rank_variables import RANKS, find_launch
from errors import UserError, pluralize


def alone_in_allocation() -> list[ClusterEnvironment]:
    """The plugin for a process that is alone in a SLURM allocation of several tasks, as in an interactive shell.

    Only srun starts a task for each; Lightning would take the process for one of them, and refuse or wait.
    """
    tasks, in_step = (int(os.environ.get(name, 1)) for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"))
    return [LightningEnvironment()] if tasks > 1 and in_step == 1 else []


def refuse_ranks_of_another_job(trainer: pl.Trainer) -> None:
    """Refuse a rank that this training has no process for: such a process would train, and write nothing.

    Several nodes without any are refused too.
    """
    refuse_unreachable_nodes(trainer)
    refuse_other_launch(trainer)
    processes = trainer.num_devices * trainer.num_nodes
    ranks = [name for name in RANKS if os.environ.get(name, "0") != "0"]
    if is_launched_by_hand(ranks, trainer.num_nodes):
        return
    if ranks and (processes == 1 or processes != int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", 1)))):
        left_over = " ".join(f"-u {name}" for name in (*RANKS, "WORLD_SIZE") if name in os.environ)
        raise UserError(
            f"{ranks[0]} is {os.environ[ranks[0]]}, and this command is for "
            f"{pluralize(processes, 'process')}: if the variable is left over from another job, type `env "
            f"{left_over} python main.py ...`; else give --trainer.devices and --trainer.num_nodes of all processes."
        )


def refuse_other_launch(trainer: pl.Trainer) -> None:
    """Refuse another number of processes than the launcher has started: some would train on their own."""
    launch = find_launch()
    if launch and (launch.nodes, launch.devices) != (trainer.num_nodes, trainer.num_devices):
        started, given = (
            f"{pluralize(devices, 'process')} on {pluralize(nodes, 'node')}"
            for nodes, devices in ((launch.nodes, launch.devices), (trainer.num_nodes, trainer.num_devices))
        )
        raise UserError(
            f"{launch.name} has started {started}, and this command is for {given}: give --trainer.devices "
            f"{launch.devices} --trainer.num_nodes {launch.nodes}."
        )


def refuse_unreachable_nodes(trainer: pl.Trainer) -> None:
    """Refuse several nodes where nothing says where they are: Lightning would wait for them without a word."""
    addresses = {"MASTER_ADDR", "MASTER_PORT", *RANKS} & os.environ.keys()
    if trainer.num_nodes == 1 or addresses or not isinstance(trainer.strategy, ParallelStrategy):
        return
    if isinstance(trainer.strategy.cluster_environment, LightningEnvironment):
        raise UserError(
            f"num_nodes is {trainer.num_nodes}, and no other node is known here: start all of them with torchrun or "
            "srun (or with MASTER_ADDR, MASTER_PORT and NODE_RANK), or give --trainer.num_nodes 1."
        )


def is_launched_by_hand(ranks: list[str], num_nodes: int) -> bool:
    """Whether this is the command that a user types on a later node, whose processes Lightning is to start.

    Args:
        ranks: the variables that are set and not 0.
        num_nodes: of the training.
    """
    of_processes = {"LOCAL_RANK", "WORLD_SIZE"} & os.environ.keys()
    numbers = [os.environ[name] for name in ranks]
    of_nodes = {*ranks} <= {"NODE_RANK", "GROUP_RANK"}
    return of_nodes and not of_processes and all(n.isdecimal() and int(n) < num_nodes for n in numbers)
