"""Where the loggers of a run write."""

import os
import warnings


def first_process() -> bool:
    """Whether this process is the one that makes run directories, before Lightning has said so."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"))


def offline() -> bool:
    """Whether W&B stays offline: unless WANDB_MODE asks for it to be online (or off) and the user is logged in."""
    mode = os.environ.get("WANDB_MODE", "offline")
    if mode != "online":
        return mode != "disabled"
    import wandb

    if not wandb.api.api_key:
        warnings.warn("W&B stays offline: nobody is logged in on this machine (wandb login).", stacklevel=2)
        return True
    return False
