"""Checkpoints of a run as artifacts on W&B."""

import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from checkpointing.record import read_checkpoint

if TYPE_CHECKING:
    from wandb import Run

STAGING = Path("wandb", "artifacts", "staging")  # in a run directory: where W&B keeps what it is to upload


def log_checkpoints(run: "Run", run_dir: Path, keep_all: bool) -> None:
    """Log checkpoints as versions of the artifact model-<id of the run>; the name of each is its alias.

    Args:
        run: that is open.
        run_dir: of the checkpoints.
        keep_all: every checkpoint; else best.ckpt and last.ckpt.
    """
    import wandb

    paths = sorted((run_dir / "checkpoints").glob("*.ckpt"), key=lambda path: (path.stem == "last", path.name))
    for path in paths:  # last.ckpt at the end, so that W&B calls it the latest too
        if not keep_all and path.stem not in ("best", "last"):
            continue
        checkpoint = read_checkpoint(path, verify=False)
        metadata = {"epoch": checkpoint.epoch, "step": checkpoint.step}
        artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=metadata)
        artifact.add_file(str(stage(path, run_dir)), name=path.name, policy="immutable")
        run.log_artifact(artifact, aliases=[path.stem.replace(":", "-")])


def stage(path: Path, run_dir: Path) -> Path:
    """A file's content, kept as it is now for the upload; as a link, which takes no room, where the disk has them."""
    folder = run_dir.absolute() / STAGING
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f"{secrets.token_hex(4)}-{path.name}"
    try:
        os.link(path, staged)
    except OSError:
        shutil.copyfile(path, staged)
    return staged
