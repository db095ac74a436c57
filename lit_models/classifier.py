"""What all families share: loss, metrics, views, optimizer groups, memory format, compilation."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from batch import Batch, Images
from checkpointing.record import RECORD_KEY, CheckpointRecord
from errors import check_at_least, check_probability
from lit_models.from_checkpoint import load_model
from lit_models.input_size import InputSize
from lit_models.logged_metrics import LoggedMetrics
from lit_models.losses import LossName, check_logits, classification_loss, main_logits
from lit_models.metrics import MeanLoss
from lit_models.nets.dense import make_dense
from lit_models.nets.dropout_masks import DropoutMasks
from lit_models.nets.layers import find_batch_norms, freeze_batch_norms
from lit_models.nets.surgery import Activation, Norm, apply_surgery
from lit_models.optimization import check_schedules, make_optimizer, make_schedule, match_memory_layout
from lit_models.view_average import ViewAverage
from lit_models.weights import NORMALISATION, load_weights
from random_draws import LOCAL_DRAWS
from trainer_settings import settings


class LitClassifier(LoggedMetrics):
    """A network for `num_classes` classes, trained on cross-entropy.

    A family derives from it, builds its net and says what is its own: the weights of its auxiliary heads, the mode it
    trains in. A net with auxiliary heads returns a named tuple in training mode, whose first field is `logits`.

    Batches are as in `Batch`. Views count by the mean of their softmax probabilities.

    Logs `train/loss`, `train/top1_error`, and for val and test also `top5_error` (where there are more than five
    classes); errors are in [0, 1]. With auxiliary heads, `train/loss` is the weighted sum, and `train/main_loss` and
    `train/<head>_loss` are its parts.

    Args:
        net: [B, 3, H, W] to [B, num_classes] logits.
        num_classes: K; the command line takes it from the data.
        optimizer: called with the parameters, or with groups of them.
        lr_scheduler: called with the optimizer. Leave it out where a callback sets the learning rate. If its
            `total_steps` is null (OneCycleLR), it is told the length of the whole run.
        lr_interval: when the scheduler steps: after each epoch, or after each optimizer step. Its lengths (total_steps,
            T_max, total_iters) are counted in this unit.
        loss: cross_entropy, or binary_cross_entropy: every class for itself, the mean over classes and images (arXiv
            2110.00476). Errors and validation losses are the same for both.
        label_smoothing: share of the target spread evenly over all classes in training, in [0, 1).
        decay_norm_and_bias: apply weight decay to biases and to gamma and beta of the norms too, as all the papers
            here do.
        channels_last: keep images as NHWC in memory, faster on current CPUs and GPUs.
        compile: compile the net with torch.compile, in place: the checkpoint's keys stay the same.
        norm: swap every norm of the net: batch; group (arXiv 1803.08494: 32 groups, fewer in layers under 64 channels);
            or none, with biases in its place.
        activation: swap every activation of the net; selu (arXiv 1706.02515) brings LeCun-normal weights and
            AlphaDropout.
        dropout: probability of every dropout of the net, or, where it has none, of one before its classifier.
        alpha_dropout: whether every dropout of the net is an AlphaDropout (arXiv 1706.02515), which keeps mean and
            variance of SELU's activations; unset, with activation selu alone.
        fixed_dropout_masks: number of masks that are drawn once, by the run's seed, and shared by all images: each
            training batch takes one, evaluation averages the probabilities over all. Unset, each image has a new one.
        weights: where the net starts from: a name of torchvision (ResNet50_Weights.IMAGENET1K_V2) or timm
            (resnet50.a1_in1k), which is downloaded, or a local .pth, .safetensors or .ckpt file. A classifier for
            another number of classes keeps its random initial weights.
        strict: whether `weights` must fit in all else. False loads what fits and says what does not.
        freeze_batch_norm: keep gamma, beta and the running statistics of all BatchNorms as they are, for fine-tuning
            on few images.
        images_per_forward: how many views go through the net at once in evaluation, which bounds its memory.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        loss: LossName = "cross_entropy",
        label_smoothing: float = 0.0,
        decay_norm_and_bias: bool = True,
        channels_last: bool = True,
        compile: bool = False,
        norm: Norm | None = None,
        activation: Activation | None = None,
        dropout: float | None = None,
        alpha_dropout: bool | None = None,
        fixed_dropout_masks: int | None = None,
        weights: str | None = None,
        strict: bool = True,
        freeze_batch_norm: bool = False,
        images_per_forward: int = 256,
    ) -> None:
        super().__init__(num_classes)
        check_probability(label_smoothing=label_smoothing)
        check_at_least(1, images_per_forward=images_per_forward)
        self.save_hyperparameters(logger=False, ignore=["net", "weights"])  # a checkpoint brings its own weights
        # Callables given from Python are left out, so that checkpoints load with `weights_only`. The command line hands
        # over its plain config, and `load_from_checkpoint` takes callables as arguments.
        # With its `_instantiator` Lightning's own loader would build whatever classes the file names.
        for name in [name for name, value in self.hparams.items() if callable(value) or name == "_instantiator"]:
            del self.hparams[name]
        apply_surgery(net, norm, activation, dropout, alpha_dropout, with_weights=weights is not None and strict)
        loaded = None if weights is None else load_weights(net, weights, num_classes, strict)
        # How the images must be normalised for these weights: {"mean": [3], "std": [3]}
        self.expected_normalisation = loaded and (NORMALISATION if getattr(net, "transform_input", False) else loaded)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.net = net.to(memory_format=self.memory_format)
        self.draws = LOCAL_DRAWS  # a context of the forward pass
        self.num_classes, self.loss_name, self.label_smoothing = num_classes, loss, label_smoothing
        self.optimizer, self.lr_scheduler, self.lr_interval = optimizer, lr_scheduler, lr_interval
        self.decay_norm_and_bias, self.compile_net = decay_norm_and_bias, compile
        self.batch_norms_frozen, self.has_weights = freeze_batch_norm, weights is not None
        self.view_average = ViewAverage(images_per_forward, keep_batch_size=compile)
        if fixed_dropout_masks is not None:
            self.view_average.masks = DropoutMasks(net, fixed_dropout_masks)
        self.limit_sizes(smallest=1)
        self.aux_weights: dict[str, float] = {}
        self.record: CheckpointRecord | None = None  # of the run, for its checkpoints; a callback fills it in
        if freeze_batch_norm:
            freeze_batch_norms(self.net)
            self.train()

    def weigh_heads(self, **weights: float) -> None:
        """Set the weight of each auxiliary head's loss, by the names of the net's outputs; 0 where it has no heads.

        Raises:
            UserError: for a negative weight.
        """
        check_at_least(0, aux_weight=min(weights.values()))
        if any(weights.values()):
            self.aux_weights = weights
            self.head_losses = nn.ModuleDict({name: MeanLoss() for name in ("main", *weights)})

    def limit_sizes(self, smallest: int, training: tuple[int, int] | None = None, small_form: str = "") -> None:
        """Set which square images the net can take: see `InputSize`."""
        self.input_size = InputSize(type(self).__name__, smallest, training, small_form)

    def forward(self, images: Tensor) -> Any:
        """[B, 3, H, W] to logits [B, K]; in training mode whatever the net returns."""
        for side in set(images.shape[-2:]):
            self.input_size.check(side, self.training)
        with self.draws:
            output = self.net(images.to(self.dtype, memory_format=self.memory_format))
        check_logits(main_logits(output), len(images), self.num_classes, type(self.net).__name__)
        return output

    def losses(self, output: Any, labels: Tensor) -> dict[str, Tensor]:
        """The training loss of each output of the net: `main`, and in training mode of the auxiliary heads."""
        outputs = {"main": output}
        if not isinstance(output, Tensor):
            outputs = {"main": output.logits, **{name: getattr(output, name) for name in self.aux_weights}}
        return {
            name: classification_loss(self.loss_name, logits, labels, self.label_smoothing)
            for name, logits in outputs.items()
        }

    def loss(self, output: Any, labels: Tensor) -> Tensor:
        """The training loss of what the net returned, auxiliary losses by their weights."""
        return self._weigh_losses(self.losses(output, labels))

    def log_probabilities(self, images: Images, view_weights: Sequence[float] | None = None) -> Tensor:
        """Logarithm, [B, K], of the mean softmax probabilities over the views of each image: see `ViewAverage`."""
        return self.view_average.log_probabilities(self, images, view_weights)

    def training_step(self, batch: tuple[Any, ...], batch_idx: int) -> Tensor | None:
        images, labels, *_ = Batch(*batch)
        if not len(labels):  # none of its images could be read
            return None
        output = self(images)
        losses = self.losses(output, labels)
        loss = self._weigh_losses(losses)
        for name, head_loss in self.head_losses.items():
            assert isinstance(head_loss, MeanLoss)
            head_loss.update(losses[name].detach(), len(labels))
            self.log_once(f"train/{name}_loss", head_loss)
        logits = main_logits(output)
        # Of mixed images the class with the larger share counts
        classes = labels if labels.ndim == 1 else labels.argmax(1)
        self.update_metrics("train", loss.detach(), logits.detach(), classes)
        step = self.trainer.global_step + 1
        every = settings(self.trainer).log_every_n_steps
        if step % 10 == 1 or (every and step % every == 0):
            self.log("train/batch_loss", loss, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Any, ...], batch_idx: int) -> dict[str, Tensor]:
        """Log-probabilities [B, K] and labels [B], for callbacks that keep them."""
        return self._evaluate("val", Batch(*batch))

    def test_step(self, batch: tuple[Any, ...], batch_idx: int) -> dict[str, Tensor]:
        """Log-probabilities [B, K] and labels [B], for callbacks that keep them."""
        self.test_images.update(float(len(batch[1])))
        self.log_once("test/images", self.test_images)
        return self._evaluate("test", Batch(*batch))

    def predict_step(self, batch: tuple[Any, ...], batch_idx: int) -> dict[str, Tensor]:
        """Probabilities [B, K] and what came with the images: their indices in the set, or their labels."""
        images, indices, view_weights, _ = Batch(*batch)
        log_probs = self.log_probabilities(images, view_weights) if len(indices) else torch.empty(0, self.num_classes)
        return {"indices": indices, "probabilities": log_probs.exp()}

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.optimizer, self, self.decay_norm_and_bias)
        if self.lr_scheduler is None:
            return optimizer
        schedule = make_schedule(self.lr_scheduler, optimizer, self, self.lr_interval)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy, as averaging of weights makes. It shares `optimizer` and `lr_scheduler`.

        From the command line they hold the parser, and with it the data module and the loggers.
        """
        memo |= {id(shared): shared for shared in (self.optimizer, self.lr_scheduler)}
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for norm in find_batch_norms(self) if self.batch_norms_frozen else ():
            norm.eval()
        return self

    def setup(self, stage: str) -> None:
        if self.compile_net:
            self.net.compile()

    def on_train_start(self) -> None:
        match_memory_layout(self.trainer.optimizers)
        check_schedules(self.trainer, self.lr_interval)

    def on_validation_start(self) -> None:
        """Let every process validate the running statistics of the first one, which are those that are saved."""
        if self.trainer.world_size > 1:
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.record:
            checkpoint[RECORD_KEY] = self.record.to_plain()

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Path | str, map_location: Any = None, **kwargs: Any) -> Self:  # type: ignore[override]  # of Lightning's arguments, those that plain files need
        """The model of a checkpoint with its weights, of the family that the checkpoint names; no code in it is run.

        Args:
            checkpoint_path: a .ckpt file.
            map_location: the device of the weights; unset, the CPU.
            **kwargs: arguments of the family in place of the saved ones; `optimizer` for a model that is to be trained.

        Raises:
            UserError: if the file cannot be read, names anything to call, or names a family outside `lit_models` and
                `cls` is not that class.
        """
        model = load_model(None if cls is LitClassifier else cls, Path(checkpoint_path), **kwargs)
        assert isinstance(model, cls)
        return model.to(map_location or "cpu")

    def _weigh_losses(self, losses: dict[str, Tensor]) -> Tensor:
        return sum((losses[name] * weight for name, weight in self.aux_weights.items()), losses["main"])

    def _evaluate(self, stage: str, batch: Batch) -> dict[str, Tensor]:
        images, labels, view_weights, dense_size = batch
        if not len(labels):
            return {"log_probabilities": torch.empty(0, self.num_classes), "labels": labels}
        if dense_size is not None:
            make_dense(self.net, dense_size)
        scores = self.log_probabilities(images, view_weights)
        self.update_metrics(stage, F.nll_loss(scores, labels), scores, labels)
        return {"log_probabilities": scores, "labels": labels}
