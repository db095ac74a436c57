"""BatchNorm statistics over all processes, where the user asks for them."""

import lightning.pytorch as pl
from torch import nn

from errors import UserError, pluralize
from lit_models.nets.layers import find_batch_norms
from lit_models.nets.sync_batch_norm import is_frozen, sync_batch_norms


class SyncBatchNorm(pl.Callback):
    """Lets the BatchNorms take their statistics from the batch of all processes.

    The command line adds this callback for `--trainer.sync_batchnorm true`. Lightning's own way is for CUDA only.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        note = "One process: sync_batchnorm changes nothing."
        if trainer.world_size > 1:
            norms = sync_batch_norms(pl_module, trainer.strategy.root_device)
            note = f"SyncBatchNorm: {pluralize(norms, 'layer')} over {trainer.world_size} processes."
        if trainer.is_global_zero:
            print(note, flush=True)


def check_sync_batch_norm(module: nn.Module) -> None:
    """Refuse to synchronise the BatchNorms of a model that has none, or frozen ones alone."""
    norms = find_batch_norms(module)
    if all(map(is_frozen, norms)):
        reason = "all its BatchNorms are frozen" if norms else "it has no BatchNorm"
        raise UserError(f"sync_batchnorm is true for a {type(module).__name__}, and {reason}: leave it out.")
