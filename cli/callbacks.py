"""The callbacks of a Trainer: those of the config, and those that the command line adds."""

from collections.abc import Sequence
from functools import partial

from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback

from callbacks import DDP, InputChecks, Progress
from callbacks.finite_loss import FiniteLoss
from callbacks.prediction_table import PredictionTable
from callbacks.prediction_writer import PredictionWriter
from callbacks.result_writer import ResultWriter
from callbacks.resume_accumulation import ResumeAccumulation
from callbacks.resume_run import CheckLoops, CheckOptimizerState, ResumeRun
from callbacks.run_facts import WriteRunFacts
from callbacks.run_messages import RunMessages
from callbacks.train_means import TrainMeans
from callbacks.wandb_results import WandbResults
from checkpointing.record import Checkpoint
from cli.wandb_runs import continue_run


def complete_callbacks(verb: str, config: Namespace, checkpoint: Checkpoint | None) -> list[Callback]:
    """The callbacks of a Trainer, in the order in which they are called.

    Args:
        verb: fit, validate, test or predict.
        config: of the verb, instantiated.
        checkpoint: the one that is resumed or evaluated.
    """
    trainer = config.trainer
    writes_files = not trainer.fast_dev_run
    first = [CheckLoops(), *([ResumeRun()] if writes_files else [])]
    # LearningRateMonitor is to see the rates that DDP scales
    own: Sequence[Callback] = sorted(trainer.callbacks or [], key=lambda callback: not isinstance(callback, DDP))
    added: list[Callback] = [InputChecks()]
    if trainer.enable_progress_bar is not False:
        added.append(Progress())
    if verb == "fit":
        added += [FiniteLoss(config.on_nonfinite), TrainMeans()]
    if verb == "predict":
        added.append(PredictionTable())
    if writes_files:
        # A test that did not count every image is refused before its predictions replace others
        added += [RunMessages(), ResultWriter()]
    if verb in ("validate", "test") and checkpoint:
        predictions = PredictionWriter()
        added += [predictions, WandbResults(predictions, partial(continue_run, checkpoint))]
    if verb == "fit":
        facts = [WriteRunFacts()] if writes_files else []
        added += [ResumeAccumulation(), CheckOptimizerState(), *facts, WandbResults()]
    return [*first, *own, *added]
