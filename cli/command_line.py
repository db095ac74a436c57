"""Train, validate, test and use the classic ConvNets, from YAML files and flags.

  python main.py fit --config configs/digits/resnet20.yaml
  python main.py test --ckpt_path runs/digits/resnet20
  python main.py predict --ckpt_path runs/digits/resnet20 --data.paths photo.jpg

`python main.py fit --help` begins with the flags that people use.
"""

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from callbacks.finite_loss import Policy
from callbacks.input_checks import check_inputs
from callbacks.save_config import SaveConfig
from callbacks.stop_signals import StopSignals
from checkpointing.confinement import refuse_roots
from checkpointing.finished_run import schedule_progress
from checkpointing.import_policy import names_given, restored_import_policy
from checkpointing.progress import ended_on_epoch_boundary
from checkpointing.record import Checkpoint
from checkpointing.requeue import find_requeued_run
from checkpointing.resume import (
    check_can_resume,
    refuse_longer_schedule,
    refuse_other_model,
    refuse_other_weights,
)
from cli.callbacks import complete_callbacks
from cli.config_files import Flag, Layer, insert_files, list_values, read_config, read_flags
from cli.devices import refuse_missing_devices
from cli.early_checks import VERBS, asks_for_help, take_flag, take_verb
from cli.failures import explain_failure
from cli.layer_notes import describe_changed_run, describe_losses, describe_unused, print_notes
from cli.layers import (
    add_up_paths,
    check_run_name,
    check_seed,
    complete_trainer,
    make_paths_absolute,
    name_run,
    order_layers,
    put_classes_first,
    read_layers,
)
from cli.literal_values import read_names_literally
from cli.loggers import close_run, open_run
from cli.messages import find_user_error
from cli.nulls import refuse_nulls
from cli.parser import BASE, Parser, parser_settings
from cli.rank_variables import is_first_process
from cli.reference_batch import fill_reference_batch_size
from cli.rendezvous import prepare_processes, reports_error
from cli.resumed_run import (
    follow_run,
    keep_place,
    keep_weights,
    leave_out_weights,
    read_given_checkpoint,
    refuse_optimizer_flags,
    refuse_other_preprocessing,
)
from cli.silence import silence_known_warnings
from cli.trainer import Trainer, count_steps, refuse_root_dir
from datamodules.base import ImageData
from datamodules.identity import compare_with_run, refuse_other_epoch
from errors import UserError, printable_lines, protect_output
from lit_models import LitClassifier
from lit_models.optimization import run_length


@restored_import_policy()
def run_cli(args: ArgsType = None, callbacks: Sequence[Callback] = ()) -> None:
    """Run one verb.

    A mistake of the user's ends in one sentence on stderr, with exit status 2 if it is one of usage and 1 otherwise;
    any other exception keeps its traceback. A signal ends it with 130 (Ctrl-C) or 143: see `StopSignals`.

    Args:
        args: a list of arguments; by default, those of the process.
        callbacks: for the Trainer, beside those of the config.
    """
    silence_known_warnings()
    protect_output()
    read_names_literally()
    arguments = [str(arg) for arg in (args if isinstance(args, list) else sys.argv[1:])]
    verbs = arguments[:1] if arguments and arguments[0] in VERBS else VERBS
    try:
        with StopSignals() as signals:
            CommandLine(
                verbs,
                LitClassifier,
                pl.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                trainer_class=Trainer,
                # Samplers here shard by themselves; evaluation writes its results beside the run, not to a logger
                trainer_defaults={
                    "logger": False,
                    "use_distributed_sampler": False,
                    "callbacks": [*callbacks, signals],
                },
                save_config_callback=SaveConfig,
                save_config_kwargs={"arguments": arguments},
                seed_everything_default=0,
                auto_configure_optimizers=False,
                parser_class=Parser,
                parser_kwargs={"description": __doc__, **parser_settings(verbs)},
                args=arguments,
            )
    except Exception as error:
        if (mistake := find_user_error(error) or explain_failure(error)) is None:
            raise
        sys.exit(f"error: {printable_lines(mistake)}" if reports_error() else 1)
    finally:
        close_run(failed=sys.exc_info()[0] is not None)


class CommandLine(LightningCLI):
    """LightningCLI with run directories, checkpoints that bring their own config, and the one link.

    Args:
        verbs: which can be typed; the parser of each takes a twentieth of a second to make.
        *args: of LightningCLI.
        **kwargs: of LightningCLI.
    """

    def __init__(self, verbs: Collection[str], *args: Any, **kwargs: Any) -> None:
        self.verbs = verbs
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # called on the object alone
        return {verb: skipped for verb, skipped in super().subcommands().items() if verb in self.verbs}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data", "model.init_args.num_classes", compute_fn=count_classes, apply_on="instantiate")
        if parser.default_config_files:  # the parser of fit, which alone opens run directories
            parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run directories are made")
            parser.add_argument(
                "--run_name",
                type=str | None,
                help="<dataset>/<experiment> of the run; by default, folder and name of the first --config",
            )
            parser.add_argument(
                "--run_version",
                type=int | None,
                help="number of the run's folder version_N; by default, the next one",
            )
            parser.add_argument(
                "--on_nonfinite",
                type=Policy,
                default="stop",
                help="what a loss that is NaN or infinite does: stop the run, or continue (saving only finite weights)",
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the layers of the config; the checkpoint's path is set aside until the classes are instantiated.

        Lightning would put the model's arguments from the checkpoint above the user's.
        """
        arguments = [str(arg) for arg in (args if isinstance(args, list) else sys.argv[1:])]
        verb, argv = take_verb(arguments)
        paths, argv = take_flag(argv, "--ckpt_path")
        allowed, argv = take_flag(argv, "--allow")
        self.checkpoint: Checkpoint | None = None
        self.layers: list[Layer] = []
        self.flags: list[str] = []
        self.given: list[Flag] = []
        if verb and asks_for_help(argv):
            argv = [verb, *argv]
        elif verb:
            self.checkpoint = read_given_checkpoint(verb, paths)
            configs, flags = take_flag(argv, "--config", "-c")
            flags = put_classes_first([*add_up_paths(flags)])
            refuse_optimizer_flags(verb, flags)
            self.given = read_flags(flags)
            words, files = insert_files(self.given)
            self.layers = read_layers(verb, self.checkpoint, configs, [*allowed, *names_given(words)])
            ckpt_paths = [f"--ckpt_path={path}" for path in paths]
            self.flags = [*flags, *ckpt_paths]
            self.given += read_flags(ckpt_paths)
            assert isinstance(parser, Parser)
            parser.set_layers([*self.layers, *files], self.flags, lambda config: self._complete(config, str(verb)))
            argv = [verb, *order_layers(self.layers, words)]
        self.config = parser.parse_args(argv)
        check_seed(self.config[verb].seed_everything)
        if verb == "fit":
            self.config.fit.run_name = self.config.fit.run_name or name_run(self.layers)
            check_run_name(self.config.fit.run_name, self.config.fit.runs)
            requeued = find_requeued_run(self.config.fit.runs / self.config.fit.run_name, arguments)
            if requeued and not self.checkpoint:
                if is_first_process():
                    print(f"This job was requeued: it goes on with its run {requeued}.", flush=True)
                self.parse_arguments(parser, [*arguments, "--ckpt_path", str(requeued)])

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        self._complete(config, str(self.subcommand))
        refuse_nulls(config)
        refuse_missing_devices(config.trainer)
        if (by_hand := config.model.init_args.get("num_classes")) is not None:
            raise UserError(
                f"num_classes is given as {by_hand}: leave it out, the number of classes comes from the data."
            )
        if self.checkpoint:
            given = list_values(self.layers[1:], self.given)
            refuse_roots(config.data.as_dict(), self.checkpoint.record.config["data"], given)
        if self.subcommand in ("validate", "test"):
            config.verbose = False  # one sentence instead of Lightning's table
        if self.subcommand != "fit" and self.checkpoint:
            refuse_other_model(config, self.checkpoint)
        if self.subcommand == "predict" and self.checkpoint:
            refuse_other_preprocessing(config, self.checkpoint.record)
        if self.subcommand == "fit":
            if self.checkpoint:
                keep_place(config, self.checkpoint.path, self.flags)
                check_can_resume(config, self.checkpoint)
            refuse_root_dir(config.trainer)
            self.run_folder = open_run(config, self.checkpoint) if config.trainer.logger else None
        if self.checkpoint:
            leave_out_weights(config)

    def _complete(self, config: Namespace, verb: str) -> None:
        """Complete the merged config of a verb in place, and print what one layer undoes of another."""
        base = [read_config(str(BASE))] if verb == "fit" else []
        print_notes(describe_losses([*base, *self.layers], self.given, config))
        print_notes(describe_unused(verb, self.given))
        if config.data:
            make_paths_absolute(config.data)
        resumed = self.checkpoint if verb == "fit" else None
        complete_trainer(config.trainer, verb, self.layers[0].content["trainer"]["callbacks"] if resumed else None)
        fill_reference_batch_size(config.trainer.callbacks, self.layers)
        if resumed:
            print_notes(describe_changed_run(resumed.record.config, self.layers, self.given, config))

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        if self.subcommand == "fit":
            # There, and not in the directory where the command is typed, Lightning looks for another job's hpc_ckpt
            kwargs["default_root_dir"] = str(self.run_folder or Path(self.config.fit.runs, "no run directory"))
        config = self.config_init[self.subcommand]
        callbacks = complete_callbacks(str(self.subcommand), config, self.checkpoint)
        trainer = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        prepare_processes(trainer, self.config[self.subcommand], self.checkpoint)
        return trainer

    def after_instantiate_classes(self) -> None:
        if self.checkpoint:
            follow_run(self.datamodule, self.config[self.subcommand].data, self.checkpoint)
            refuse_other_weights(self.model, self.checkpoint)
            keep_weights(self.config[self.subcommand], self.checkpoint)
            self.config_init[self.subcommand].ckpt_path = str(self.checkpoint.path)
            self.config_init[self.subcommand].weights_only = True
            if self.subcommand != "fit" and is_first_process():
                print(f"Checkpoint: {self.checkpoint.path} ({type(self.model).__name__})", flush=True)

    def before_fit(self) -> None:
        self._check_inputs()
        if self.checkpoint and is_first_process() and isinstance(self.datamodule, ImageData):
            schedule_steps = schedule_progress(self.checkpoint)[1]
            steps = count_steps(self.trainer, self.datamodule)
            length = run_length(self.trainer, self.model.lr_interval, steps)
            refuse_longer_schedule(schedule_steps, self.model.lr_interval, length)
            if not ended_on_epoch_boundary(self.checkpoint.content["loops"]["fit_loop"]):
                refuse_other_epoch(self.datamodule, self.checkpoint.record)
        self.checkpoint = None  # the file is mapped into memory; let go of it

    def _check_inputs(self) -> None:
        """Check model against data before any logger opens a file; in one process, for the data may be downloaded."""
        if is_first_process():
            check_inputs(self.trainer, self.model, self.datamodule, str(self.subcommand))
            if isinstance(self.datamodule, ImageData):
                for note in compare_with_run(self.datamodule, str(self.subcommand)):
                    print(f"Data: {note}", flush=True)

    before_validate = before_test = _check_inputs


def count_classes(data: pl.LightningDataModule) -> int:
    """The one link between data and model: the number of classes."""
    count = getattr(data, "num_classes", None)
    if count is None:
        raise UserError(
            f"{type(data).__name__} has no num_classes after __init__: a data module sets it there, for the model."
        )
    return count
