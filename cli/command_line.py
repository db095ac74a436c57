"""The command line: fit, validate, test and predict, from YAML files and flags.

python main.py fit --config configs/digits/resnet20.yaml
python main.py test --ckpt_path runs/digits/resnet20
"""

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import WandbLogger

from callbacks import InputChecks, PhotoTable, PredictionWriter, Progress, RunRecord
from checkpointing.record import RECORD, read_checkpoint
from checkpointing.resume import (
    check_weights,
    cycle,
    refuse_bare_weights,
    refuse_longer_schedule,
    refuse_other_model,
    refuse_other_optimizer,
    stop_if_finished,
)
from checkpointing.run_dir import claim_version, find_checkpoint, release_version, version_folder
from cli.layers import (
    as_lists,
    config_below,
    drop_idle_callbacks,
    experiments,
    flags,
    make_absolute,
    one_path_as_list,
    run_name,
)
from cli.loggers import first_process, offline
from cli.messages import is_for_user, rephrase
from cli.parser import VERBS, Parser, parser_settings
from cli.trainer import Trainer, count_steps, resolve_precision
from datamodules.base import ImageData
from errors import UserError
from lit_models import LitClassifier

QUIET = (
    "litlogger|LitLogger|litmodels|TPU available|HPU available|Restoring states|Loaded model weights|to estimate number"
)
CLAIMED = "LIT_CLASSICS_RUN"  # tells the processes that Lightning launches which folder the first one claimed


def main(args: ArgsType = None, callbacks: Sequence[Callback] = ()) -> None:
    """Run one verb; a mistake of the user's ends in one sentence on stderr and exit status 1 or 2.

    Args:
        args: the words of the command; None takes those of the process.
        callbacks: for the Trainer, beside those of the config.
    """
    quieten()
    try:
        CommandLine(
            LitClassifier,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_class=Trainer,
            # Samplers here shard by themselves, exactly; evaluation writes its results beside the run, not to a logger
            trainer_defaults={"logger": False, "use_distributed_sampler": False, "callbacks": list(callbacks)},
            save_config_callback=RunRecord,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={"description": __doc__, **parser_settings()},
            args=args,
        )
    except (ValueError, MisconfigurationException) as error:
        if not is_for_user(error):
            raise
        sys.exit(f"error: {rephrase(str(error))}")
    finally:
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish()
        if first_process() and CLAIMED in os.environ:
            release_version(Path(os.environ.pop(CLAIMED)))


class CommandLine(LightningCLI):
    """LightningCLI with run directories, checkpoints that bring their own config, and the one link."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data", "model.init_args.num_classes", compute_fn=class_count, apply_on="instantiate")
        if parser.default_config_files:  # the parser of fit, which alone opens run directories
            parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run directories are made")
            parser.add_argument(
                "--run_name",
                type=str | None,
                help="<dataset>/<experiment> of the run; unset, the folder and name of the first --config",
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse with the checkpoint's config below the user's, and the checkpoint itself set aside."""
        argv = [str(arg) for arg in (args if isinstance(args, list) else sys.argv[1:])]
        verb = next((arg for arg in argv if arg in VERBS), None)
        self.checkpoint_path: Path | None = None
        self.checkpoint: dict[str, Any] = {}
        self.planned_steps: int | None = None  # of the learning-rate schedule of a run that is resumed
        given, rest = flags("ckpt_path").parse_known_args(argv)
        if verb and given.ckpt_path:
            self.checkpoint_path = find_checkpoint(Path(given.ckpt_path).expanduser(), verb)
            self.checkpoint = read_checkpoint(self.checkpoint_path)
            below = config_below(verb, self.checkpoint[RECORD], experiments(rest))
            place = rest.index(verb) + 1
            argv = [*rest[:place], "--config", json.dumps(below), *one_path_as_list(rest[place:])]
            if verb == "predict" and not any(arg.startswith("--data") for arg in argv[place + 2 :]):
                raise UserError("predict wants photos: give --data.paths '[photo.jpg, folder/]'.")
        elif verb in VERBS[1:] and not {"-h", "--help"} & set(argv):
            raise UserError(f"{verb} wants a trained model: give --ckpt_path runs/<dataset>/<experiment>, or a file.")
        self.config = parser.parse_args(argv)
        if verb == "fit":
            self.config.fit.run_name = self.config.fit.run_name or run_name(argv)

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if (by_hand := config.model.init_args.get("num_classes")) is not None:
            raise UserError(
                f"num_classes is given as {by_hand}: leave it out, the number of classes comes from the data."
            )
        as_lists(config.trainer)
        config.trainer.precision = resolve_precision(config.trainer.precision)
        make_absolute(config.data)
        if self.subcommand != "fit" or not config.trainer.logger:
            config.trainer.enable_checkpointing = False  # checkpoints lie in the run directory, or nowhere
        if self.subcommand == "predict" and config.trainer.devices == "auto":
            config.trainer.devices = 1  # a few photos are not worth more, and may be fewer than the devices
        drop_idle_callbacks(config.trainer)
        if self.subcommand in ("validate", "test"):
            config.verbose = False  # one sentence instead of Lightning's table
        if self.checkpoint and self.subcommand != "predict":
            refuse_other_model(config, self.checkpoint[RECORD]["config"])
        if self.subcommand == "fit":
            if self.checkpoint:
                refuse_bare_weights(self.checkpoint, self.checkpoint_path)
                refuse_other_optimizer(config, self.checkpoint[RECORD]["config"])
                stop_if_finished(config.trainer, self.checkpoint, self.checkpoint_path)
            if config.trainer.logger and not config.trainer.fast_dev_run:
                self._open_run(config)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self.config_init[self.subcommand].trainer
        self.input_checks = InputChecks()
        added: list[Callback] = [self.input_checks]
        added += [] if config.enable_progress_bar is False else [Progress()]
        added += [PhotoTable()] if self.subcommand == "predict" else []
        added += [PredictionWriter()] if self.subcommand in ("validate", "test") else []
        return super().instantiate_trainer(callbacks=[*(config.callbacks or []), *added], **kwargs)

    def after_instantiate_classes(self) -> None:
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger):
                # Lightning 2.6 hands over a setting of which wandb says in each run that it is no more
                logger._wandb_init.pop("anonymous", None)
        if self.checkpoint_path:
            check_weights(self.model, self.checkpoint["state_dict"], self.checkpoint_path)
            self.config_init[self.subcommand].ckpt_path = str(self.checkpoint_path)
            self.config_init[self.subcommand].weights_only = True
            if self.subcommand == "fit":
                self.planned_steps = cycle(self.checkpoint)[1]
            else:
                print(f"Checkpoint: {self.checkpoint_path} ({type(self.model).__name__})", flush=True)
            self.checkpoint = {}  # the file is mapped into memory; let go of it

    def before_fit(self) -> None:
        self._check_inputs()
        if isinstance(self.datamodule, ImageData) and isinstance(self.model, LitClassifier):
            total = count_steps(self.trainer, self.datamodule)
            refuse_longer_schedule(self.planned_steps, self.model.lr_interval, total)

    def before_validate(self) -> None:
        self._check_inputs()

    def before_test(self) -> None:
        self._check_inputs()

    def _check_inputs(self) -> None:
        """Check model against data before any logger opens a file."""
        self.input_checks.check(self.trainer, self.model, self.datamodule, str(self.subcommand))

    def _open_run(self, config: Namespace) -> None:
        """Tell the loggers where this run lies: in the folder it resumes, or in a new version."""
        folder = version_folder(self.checkpoint_path) if self.checkpoint_path else None
        if folder is None and CLAIMED in os.environ:
            folder = Path(os.environ[CLAIMED])
        elif folder is None and first_process():
            folder = claim_version(config.runs / config.run_name)
            os.environ[CLAIMED] = str(folder)
        elif folder and not os.access(folder, os.W_OK):
            raise UserError(f"The run directory {folder} cannot be written to: copy the run to where you may write.")
        for logger in config.trainer.logger:
            if logger.class_path.endswith("RunLogger") and folder:
                logger.init_args.save_dir = str(folder.parent.parent)
                logger.init_args.name, logger.init_args.version = folder.parent.name, folder.name
            if logger.class_path.endswith("WandbLogger"):
                logger.init_args.save_dir = str(folder or ".")
                logger.init_args.name = f"{config.run_name}/{folder.name}" if folder else None
                logger.init_args.offline = offline()
                if self.checkpoint:
                    logger.init_args.id = self.checkpoint[RECORD]["wandb_run_id"]


def class_count(data: pl.LightningDataModule) -> int:
    """The one link: how many classes the data have."""
    count = getattr(data, "num_classes", None)
    if count is None:
        raise UserError(
            f"{type(data).__name__} has no num_classes after __init__: a data module sets it there, for the model."
        )
    return count


def quieten() -> None:
    """Silence what would tell the user nothing, and the places in code that warnings come from."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    os.environ.setdefault("WANDB_SILENT", "true")
    for pattern in (
        r".*isinstance\(treespec, LeafSpec\).*",
        r".*does not have many workers which may be a bottleneck.*",
        r".*LearningRateMonitor.*no learning rate schedulers.*",
        r".*could not find the monitored key.*",
        r"Found \d+ module\(s\) in eval mode at the start of training.*",  # frozen BatchNorms are meant to be
        r".*callbacks used to create the checkpoint need to be provided.*",
        r"Checkpoint directory .* exists and is not empty.*",
        r"Precision .* is not supported by the model summary.*",
        r"Total length of `?list`? across ranks is zero.*",
        r"The number of training batches .* is smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", pattern)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not re.search(QUIET, record.getMessage())
    )
