"""LitNASNet: Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", arXiv 1707.07012."""

from typing import Any

from lit_models.classifier import LitClassifier
from lit_models.nets.nasnet_tables import NORMAL_CELL, REDUCTION_CELL, CellTable, VariantName, choose_variant

# Smallest image, and the smallest and largest that the auxiliary head takes, in pixels per side
SIZES = {"large": (3, 307, 354), "mobile": (3, 211, 258), "cifar": (1, 27, 32)}


class LitNASNet(LitClassifier):
    """A NASNet-A for ImageNet or CIFAR, or a net with cells of your own.

    ScheduledDropPath (appendix A.5) drops a path of cell c of C with probability `drop_path` * c / C * t / T at step t
    of T, the optimizer steps that the trainer plans. A resumed run with more epochs has another T.

    `weights` of timm's large net (nasnetalarge.tf_in1k) contain no auxiliary head: load them with `aux_weight` 0.

    Args:
        num_classes: K; the command line takes it from the data.
        variant: large (6 @ 4032, 331 px), mobile (4 @ 1056, 224 px) or cifar (6 @ 768, 32 px).
        aux_weight: weight of the loss of the auxiliary head (appendix A.7), added to the main loss; 0 builds none.
        drop_path: probability that the last cell drops a path at the end of the training, in [0, 1): 1 - the paper's
            keep probability; by default 0.3 (large), 0 (mobile) or 0.4 (cifar).
        repeats: N in the paper, normal cells in each of three stacks; by default 6 (large), 4 (mobile) or 6 (cifar).
        filters: F, filters of the first stack, which each reduction doubles; by default 168 (large), 44 (mobile) or 32
            (cifar). "N @ x" in the paper has x = 24 F.
        normal_cell: a cell in place of NASNet-A's normal cell, as {rows: [[sep_5x5, 0, sep_3x3, 1], ...], output: [1,
            2, ...]}; see `lit_models.nets.nasnet_tables.CellTable`.
        reduction_cell: a cell in place of NASNet-A's reduction cell, in the same form.
        bn_momentum: share of each batch in the running statistics of the norms; by default 0.1 for cifar and 0.0003
            for large and mobile, the authors' decay of 0.9997 for runs of 250,000 steps: raise it for short runs.
        **kwargs: see `LitClassifier`.
    """

    def __init__(
        self,
        num_classes: int,
        variant: VariantName = "large",
        aux_weight: float = 0.4,
        drop_path: float | None = None,
        repeats: int | None = None,
        filters: int | None = None,
        normal_cell: CellTable | None = None,
        reduction_cell: CellTable | None = None,
        bn_momentum: float | None = None,
        **kwargs: Any,
    ) -> None:
        from lit_models.nets.nasnet import NASNet  # and with it timm, which takes two seconds to import

        numbers = choose_variant(
            variant, repeats=repeats, filters=filters, drop_path=drop_path, bn_momentum=bn_momentum
        )
        normal = NORMAL_CELL if normal_cell is None else normal_cell
        reduction = REDUCTION_CELL if reduction_cell is None else reduction_cell
        net = NASNet(num_classes, numbers, normal, reduction, auxiliary=aux_weight > 0)
        super().__init__(net, num_classes, **kwargs)
        smallest, least, most = SIZES[variant]
        self.weigh_heads(aux=aux_weight)
        self.limit_sizes(smallest, (least, most) if aux_weight > 0 else None, small_form="--model.variant cifar")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the completed share of the training in the net, for ScheduledDropPath."""
        done = self.trainer.global_step / self.trainer.estimated_stepping_batches
        self.net.get_buffer("progress").fill_(min(done, 1.0))
