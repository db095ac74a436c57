"""Lightning's loggers that write files, beside the run's own: each in a folder of the run directory.

A logger is added by its name, such as --trainer.logger+=TensorBoardLogger; nothing else has to be said.
"""

from importlib.util import find_spec
from pathlib import Path

from jsonargparse import Namespace

from checkpointing.confinement import FILE_LOGGERS, TO_FILL_IN
from checkpointing.record import Checkpoint
from errors import UserError

# What each logger needs: the names of packages, one of which must be there, and what installs the first
PACKAGES = {
    "TensorBoardLogger": ("tensorboard", "tensorboardX"),
    "MLFlowLogger": ("mlflow", "mlflow_skinny"),
    "CometLogger": ("comet_ml",),
    "NeptuneLogger": ("neptune",),
    "LitLogger": ("litlogger",),
}


def refuse_missing_packages(loggers: list[Namespace]) -> None:
    """Refuse a logger whose package is not installed, before a run directory is made."""
    for logger in loggers:
        name = logger.class_path.rpartition(".")[2]
        packages = PACKAGES.get(name, ())
        if packages and not any(map(find_spec, packages)):
            raise UserError(
                f"{name} needs the package {packages[0]}, which is not installed: type "
                f"`.venv/bin/python -m pip install {packages[0]}`, or leave the logger out."
            )


def place_file_loggers(loggers: list[Namespace], folder: Path, checkpoint: Checkpoint | None) -> None:
    """Let each of Lightning's loggers that was given no `save_dir` write into a folder of its own in the run directory.

    TensorBoardLogger goes on in the folder of a resumed run, where it drops what was logged behind the checkpoint. The
    others begin another version or run there: CSVLogger would delete what it finds.

    Args:
        loggers: of the config, whose arguments are completed in place.
        folder: the run directory.
        checkpoint: from which a run is resumed.
    """
    taken: set[str] = set()
    for logger in loggers:
        name = logger.class_path.rpartition(".")[2]
        if name not in FILE_LOGGERS or logger.init_args.get("save_dir") not in (TO_FILL_IN, "./mlruns"):
            continue
        kind = name.removesuffix("Logger").lower()
        subfolder = next(each for each in (kind, *(f"{kind}_{index}" for index in range(2, 100))) if each not in taken)
        taken.add(subfolder)
        logger.init_args.save_dir = str(folder / subfolder)
        if name == "MLFlowLogger":
            logger.init_args.run_name = f"{folder.parent.name}/{folder.name}"
            continue
        logger.init_args.name = ""
        logger.init_args.version = "" if name == "TensorBoardLogger" else None
        if name == "TensorBoardLogger" and checkpoint:
            logger.init_args.purge_step = checkpoint.content["global_step"]
