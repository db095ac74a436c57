"""Train, validate, test and use the classic ConvNets, from YAML files and flags.

  python main.py fit --config configs/digits/resnet20.yaml
  python main.py test --ckpt_path runs/digits/resnet20
  python main.py predict --ckpt_path runs/digits/resnet20 --data.paths photo.jpg

`python main.py fit --help` begins with the flags that people use.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from callbacks import InputChecks, Progress
from callbacks.input_checks import check_inputs
from callbacks.prediction_table import PredictionTable
from callbacks.prediction_writer import PredictionWriter
from callbacks.result_writer import ResultWriter
from callbacks.resume_run import ResumeRun
from callbacks.run_messages import RunMessages
from callbacks.save_config import SaveConfig
from checkpointing.record import Checkpoint, read_checkpoint
from checkpointing.resume import (
    check_can_resume,
    refuse_longer_schedule,
    refuse_other_model,
    refuse_other_weights,
    schedule_progress,
)
from checkpointing.run_dir import find_checkpoint
from cli.layers import complete_trainer, insert_checkpoint_layer, make_paths_absolute, name_run, take_flag
from cli.loggers import close_run, is_first_process, open_run
from cli.messages import find_user_error
from cli.parser import VERBS, Parser, parser_settings
from cli.silence import silence_known_warnings
from cli.trainer import Trainer, count_steps
from datamodules.base import ImageData
from errors import UserError
from lit_models import LitClassifier


def run_cli(args: ArgsType = None, callbacks: Sequence[Callback] = ()) -> None:
    """Run one verb.

    A mistake of the user's ends in one sentence on stderr, with exit status 2 if it is one of usage and 1 otherwise;
    any other exception keeps its traceback.

    Args:
        args: a list of arguments; by default, those of the process.
        callbacks: for the Trainer, beside those of the config.
    """
    silence_known_warnings()
    try:
        CommandLine(
            LitClassifier,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_class=Trainer,
            # Samplers here shard by themselves, exactly; evaluation writes its results beside the run, not to a logger
            trainer_defaults={"logger": False, "use_distributed_sampler": False, "callbacks": list(callbacks)},
            save_config_callback=SaveConfig,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={"description": __doc__, **parser_settings()},
            args=args,
        )
    except (ValueError, MisconfigurationException) as error:
        if (mistake := find_user_error(error)) is None:
            raise
        sys.exit(f"error: {mistake}")
    finally:
        close_run()


class CommandLine(LightningCLI):
    """LightningCLI with run directories, checkpoints that bring their own config, and the one link."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data", "model.init_args.num_classes", compute_fn=count_classes, apply_on="instantiate")
        if parser.default_config_files:  # the parser of fit, which alone opens run directories
            parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run directories are made")
            parser.add_argument(
                "--run_name",
                type=str | None,
                help="<dataset>/<experiment> of the run; by default, folder and name of the first --config",
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the layers of the config; the checkpoint's path is set aside until the classes are instantiated.

        Lightning would put the model's arguments from the checkpoint above the user's.
        """
        argv = [str(arg) for arg in (args if isinstance(args, list) else sys.argv[1:])]
        verb = next((arg for arg in argv if arg in VERBS), None)
        paths, argv = take_flag(argv, "--ckpt_path")
        self.checkpoint: Checkpoint | None = None
        if verb and paths and paths[-1]:
            self.checkpoint = read_checkpoint(find_checkpoint(Path(paths[-1]).expanduser(), verb))
            argv = insert_checkpoint_layer(argv, verb, self.checkpoint.record)
        elif verb in VERBS[1:] and not asks_for_help(argv):
            raise UserError(f"{verb} needs a trained model: give --ckpt_path runs/<dataset>/<experiment>, or a file.")
        self.config = parser.parse_args(argv)
        if verb == "fit":
            self.config.fit.run_name = self.config.fit.run_name or name_run(argv)

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if (by_hand := config.model.init_args.get("num_classes")) is not None:
            raise UserError(
                f"num_classes is given as {by_hand}: leave it out, the number of classes comes from the data."
            )
        make_paths_absolute(config.data)
        complete_trainer(config.trainer, str(self.subcommand))
        if self.subcommand in ("validate", "test"):
            config.verbose = False  # one sentence instead of Lightning's table
            if self.checkpoint:
                refuse_other_model(config, self.checkpoint)
        if self.subcommand == "fit" and self.checkpoint:
            check_can_resume(config, self.checkpoint)
        if self.subcommand == "fit" and config.trainer.logger:
            open_run(config, self.checkpoint)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self.config_init[self.subcommand].trainer
        added: list[Callback] = [InputChecks()]
        added += [] if config.enable_progress_bar is False else [Progress()]
        added += [PredictionTable()] if self.subcommand == "predict" else []
        # A test that did not count every image is refused before its predictions replace others
        added += [] if config.fast_dev_run else [ResumeRun(), RunMessages(), ResultWriter()]
        added += [PredictionWriter()] if self.subcommand in ("validate", "test") else []
        return super().instantiate_trainer(callbacks=[*(config.callbacks or []), *added], **kwargs)

    def after_instantiate_classes(self) -> None:
        if self.checkpoint:
            refuse_other_weights(self.model, self.checkpoint)
            self.config_init[self.subcommand].ckpt_path = str(self.checkpoint.path)
            self.config_init[self.subcommand].weights_only = True
            if self.subcommand != "fit":
                print(f"Checkpoint: {self.checkpoint.path} ({type(self.model).__name__})", flush=True)

    def before_fit(self) -> None:
        self._check_inputs()
        if self.checkpoint and is_first_process() and isinstance(self.datamodule, ImageData):
            schedule_steps = schedule_progress(self.checkpoint)[1]
            total = count_steps(self.trainer, self.datamodule)
            refuse_longer_schedule(schedule_steps, self.model.lr_interval, total)
        self.checkpoint = None  # the file is mapped into memory; let go of it

    def _check_inputs(self) -> None:
        """Check model against data before any logger opens a file; in one process, for the data may be downloaded."""
        if is_first_process():
            check_inputs(self.trainer, self.model, self.datamodule, str(self.subcommand))

    before_validate = before_test = _check_inputs


def asks_for_help(argv: list[str]) -> bool:
    """Whether a command line asks for help: with -h, --help, or that of a class, such as --data.help."""
    return any(re.fullmatch(r"-h|--([\w.]+\.)?help(=.*)?", arg) for arg in argv)


def count_classes(data: pl.LightningDataModule) -> int:
    """The one link between data and model: the number of classes."""
    count = getattr(data, "num_classes", None)
    if count is None:
        raise UserError(
            f"{type(data).__name__} has no num_classes after __init__: a data module sets it there, for the model."
        )
    return count
