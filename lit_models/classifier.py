"""What all families share: loss, metrics, views, optimizer groups, memory format, compilation."""

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics import Metric, SumMetric

from checkpointing.record import RECORD
from errors import UserError
from lit_models.metrics import MeanLoss, TopKError
from lit_models.nets.dense import make_dense
from lit_models.nets.surgery import Activation, Norm, swap_activation, swap_dropout, swap_norm
from lit_models.optimization import match_strides, steps_of_run
from lit_models.weights import NORMALISATION, load_weights

Images = Tensor | list[Tensor]
MAX_SIZE = 1 << 16  # pixels per side: no limit


class LitClassifier(pl.LightningModule):
    """A network for `num_classes` classes, trained on cross-entropy.

    A family derives from it, builds its net and says what is its own: the weights of its auxiliary heads, the mode it
    trains in. A net with auxiliary heads returns a named tuple in training mode, whose first field is `logits`.

    Images come as [B, 3, H, W]; in evaluation also as [B, V, 3, H, W], V views of each image, or a list of these where
    views differ in size. Views count by the mean of their softmax probabilities.

    Logs `train/loss`, `train/top1_error`, and for val and test also `top5_error` (where there are more than five
    classes); errors are in [0, 1]. With auxiliary heads, `train/loss` is the weighted sum, and `train/main_loss` and
    `train/<head>_loss` are its parts.

    Args:
        net: [B, 3, H, W] to [B, num_classes] logits.
        num_classes: K; the command line takes it from the data.
        optimizer: called with the parameters, or with groups of them.
        lr_scheduler: called with the optimizer. Leave it out where a callback sets the learning rate. If its
            `total_steps` is null (OneCycleLR), it is told the optimizer steps of the whole run.
        lr_interval: when the scheduler steps: after each epoch, or after each optimizer step.
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
        weights: where the net starts from: a name of torchvision (ResNet50_Weights.IMAGENET1K_V2) or timm
            (resnet50.a1_in1k), which is downloaded, or a local .pth or .safetensors file. A classifier for another
            number of classes starts anew.
        strict: whether `weights` must fit in all else. False loads what fits and says what does not.
        freeze_batch_norm: keep gamma, beta and the running statistics of all BatchNorms as they are, for fine-tuning
            on few images.
        images_per_forward: how many views go through the net at once in evaluation, which bounds its memory.
    """

    small_form = ""  # how to ask for a family's form for small images, in brackets

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy",
        label_smoothing: float = 0.0,
        decay_norm_and_bias: bool = True,
        channels_last: bool = True,
        compile: bool = False,
        norm: Norm | None = None,
        activation: Activation | None = None,
        dropout: float | None = None,
        weights: str | None = None,
        strict: bool = True,
        freeze_batch_norm: bool = False,
        images_per_forward: int = 256,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing is {label_smoothing}: it must be in [0, 1).")
        if images_per_forward < 1:
            raise UserError(f"images_per_forward is {images_per_forward}: it must be at least 1.")
        self.save_hyperparameters(logger=False, ignore="net")
        # Plain types only, so that checkpoints load with weights_only: the command line hands over its own plain
        # config; callables given from Python are left out, and load_from_checkpoint wants them once more.
        for name in [name for name, value in self.hparams.items() if callable(value)]:
            del self.hparams[name]
        self.hparams.pop("weights", None)  # a checkpoint brings its own
        operate(net, norm, activation, dropout, with_weights=weights is not None and strict)
        self.weights_normalisation = None if weights is None else load_weights(net, weights, num_classes, strict)
        self.aux_weights: dict[str, float] = {}
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.net = net.to(memory_format=self.memory_format)
        self.num_classes, self.loss_name, self.label_smoothing = num_classes, loss, label_smoothing
        self.optimizer, self.lr_scheduler, self.lr_interval = optimizer, lr_scheduler, lr_interval
        self.steps_planned: int | None = None  # of the cycle that a resumed run is in; the command line fills it in
        self.decay_norm_and_bias, self.compile_net = decay_norm_and_bias, compile
        self.whole_batch: dict[torch.Size, int] = {}  # images in the largest batch of each size that was evaluated
        self.batch_norms_frozen, self.images_per_forward = freeze_batch_norm, images_per_forward
        if freeze_batch_norm:
            if not batch_norms(self):
                raise UserError(f"freeze_batch_norm is true, but {type(net).__name__} has no BatchNorm: leave it out.")
            for module in batch_norms(self):
                module.requires_grad_(False)
            self.train()
        # What a checkpoint carries besides weights, in plain types: see callbacks.RunRecord, which fills it
        self.record: dict[str, Any] = {}
        self.train_metrics = metrics(num_classes)
        self.head_losses = nn.ModuleDict()
        self.limit_sizes(smallest=1)
        self.val_metrics = metrics(num_classes)
        self.test_metrics = metrics(num_classes)
        self.test_images = SumMetric(nan_strategy="disable")
        self.logged: set[str] = set()  # names of the metrics that Lightning knows of in this epoch

    def weigh_heads(self, **weights: float) -> None:
        """Say what the loss of each auxiliary head counts beside the main one, by the names of the net's outputs."""
        self.aux_weights = weights
        self.head_losses = nn.ModuleDict({name: MeanLoss() for name in ("main", *weights)})

    def limit_sizes(self, smallest: int, training: tuple[int, int] | None = None) -> None:
        """Say which square images the net can take, in pixels per side.

        Args:
            smallest: the smallest, in evaluation and, unless `training` says otherwise, in training.
            training: the smallest and the largest in training.
        """
        self.size_limits = {False: (smallest, MAX_SIZE), True: training or (smallest, MAX_SIZE)}

    def check_size(self, size: int, training: bool) -> None:
        """Raise ValueError for images with a side that the net cannot take."""
        least, most = self.size_limits[training]
        if least <= size <= most:
            return
        mode = "training" if training else "evaluation"
        allowed = f"at least {least}" if most == MAX_SIZE else f"between {least} and {most}"
        ways = ["larger images", f"the net's form for small ones{self.small_form}"]
        if size > most:
            ways = ["smaller images"]
        if training and size >= self.size_limits[False][0]:
            ways.append("no auxiliary heads (--model.aux_weight 0)")
        raise UserError(
            f"{type(self).__name__} cannot take images of {size} px in {mode}: they must have {allowed} px a side. "
            f"Take {' or '.join(ways)}."
        )

    def forward(self, images: Tensor) -> Any:
        """[B, 3, H, W] to logits [B, K]; in training mode whatever the net returns."""
        for side in set(images.shape[-2:]):
            self.check_size(side, self.training)
        return self.net(images.contiguous(memory_format=self.memory_format))

    def losses(self, output: Any, labels: Tensor) -> dict[str, Tensor]:
        """The training loss of each output of the net: `main`, and in training mode of the auxiliary heads."""
        outputs = {"main": output}
        if not isinstance(output, Tensor):
            outputs = {"main": output.logits, **{name: getattr(output, name) for name in self.aux_weights}}
        return {name: self._loss_of(logits, labels) for name, logits in outputs.items()}

    def loss(self, output: Any, labels: Tensor) -> Tensor:
        """The training loss of what the net returned, auxiliary losses by their weights."""
        return self._weighted(self.losses(output, labels))

    def log_probabilities(self, images: Images, weights: Sequence[float] | None = None) -> Tensor:
        """Logarithm, [B, K] float32, of the softmax probabilities averaged over all views of each image.

        Args:
            images: see the class.
            weights: what the mean over each tensor of a list counts, in sum 1; unset, every view counts the same.
        """
        sizes = images if isinstance(images, list) else [images if images.ndim == 5 else images[:, None]]
        counts = [views.shape[1] for views in sizes]
        weights = weights or [count / sum(counts) for count in counts]
        shares = [math.log(weight / count) for weight, count in zip(weights, counts, strict=True)]
        views = [self._log_softmax(views) + share for views, share in zip(sizes, shares, strict=True)]  # [B, V, K] each
        return torch.cat(views, dim=1).logsumexp(1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        images, labels = batch
        if not len(labels):  # none of its images could be read
            return None
        output = self(images)
        losses = self.losses(output, labels)
        loss = self._weighted(losses)
        for name, head_loss in self.head_losses.items():
            assert isinstance(head_loss, MeanLoss)
            head_loss.update(losses[name].detach(), len(labels))
            self._log_once(f"train/{name}_loss", head_loss)
        logits = output if isinstance(output, Tensor) else output.logits
        # Of mixed images the one with the larger share counts
        classes = labels if labels.ndim == 1 else labels.argmax(1)
        self._update("train", loss.detach(), logits.detach(), classes)
        step = self.trainer.global_step + 1
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % 10 == 1 or (every and step % every == 0):
            self.log("train/batch_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Images, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Log-probabilities [B, K] beside the labels, for whoever keeps them."""
        return self._evaluate("val", *batch)

    def test_step(self, batch: tuple[Images, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Log-probabilities [B, K] beside the labels, for whoever keeps them."""
        self.test_images.update(float(len(batch[1])))
        self._log_once("test/images", self.test_images)
        return self._evaluate("test", *batch)

    def predict_step(self, batch: tuple[Images, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Probabilities [B, K] beside what came with the images: the places of their files, or their labels."""
        images, places = batch
        return {"places": places, "probabilities": self.log_probabilities(images).exp()}

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self._parameter_groups())
        for group in optimizer.param_groups:
            if group.get("fused", False) is None and not group.get("foreach"):
                group["fused"] = True  # one kernel for all parameters, unless the user has chosen
        if self.lr_scheduler is None:
            return optimizer
        config: dict[str, Any] = {"interval": self.lr_interval, "monitor": "val/loss"}
        if getattr(self.lr_scheduler, "keywords", {}).get("total_steps", 0) is None:
            # OneCycleLR from a YAML file, which cannot know how many steps the data make
            total_steps = int(steps_of_run(self.trainer))
            config["scheduler"] = self.lr_scheduler(optimizer, total_steps=total_steps)  # type: ignore[call-arg]
        else:
            config["scheduler"] = self.lr_scheduler(optimizer)
        if isinstance(config["scheduler"], ReduceLROnPlateau):
            config["monitor"] = config["scheduler"].monitor
        return {"optimizer": optimizer, "lr_scheduler": config}

    def train(self, mode: bool = True) -> "LitClassifier":
        super().train(mode)
        if self.batch_norms_frozen:
            for module in batch_norms(self):
                module.eval()
        return self

    def prepare_data(self) -> None:
        # Before anything is written; crops of another size, where an augmentation makes some, are caught in forward
        data = getattr(self.trainer, "datamodule", None)
        if data is None or "crop" not in getattr(data, "preprocessing", {}):
            return
        size = data.preprocessing["crop"]
        self.check_size(size, training=False)
        if self.trainer.state.fn == "fit":
            self.check_size(getattr(data, "train_size", size), training=True)
            self._refuse_a_longer_cycle(self.steps_planned)

    def setup(self, stage: str) -> None:
        if self.compile_net:
            self.net.compile()

    def on_fit_start(self) -> None:
        """Say so where images come otherwise than the pretrained weights have seen them."""
        data = getattr(self.trainer, "datamodule", None)
        wanted = NORMALISATION if getattr(self.net, "transform_input", False) else self.weights_normalisation
        given = {} if data is None else {name: list(data.preprocessing[name]) for name in ("mean", "std")}
        if self.weights_normalisation and given and wanted and max_difference(wanted, given) > 0.02:
            warnings.warn(
                f"The pretrained weights were trained on images normalised with {wanted}, these data use {given}: "
                "training will adapt, but a test without training would be wrong.",
                stacklevel=2,
            )

    def on_train_epoch_start(self) -> None:
        self.logged.clear()

    def on_validation_epoch_start(self) -> None:
        self.logged.clear()

    def on_test_epoch_start(self) -> None:
        self.logged.clear()

    def on_train_start(self) -> None:
        for optimizer in self.trainer.optimizers:
            match_strides(optimizer)
        if any(isinstance(each, StochasticWeightAveraging) for each in self.trainer.callbacks):  # type: ignore[attr-defined]
            return  # the epoch that it adds takes no step
        for config in self.trainer.lr_scheduler_configs:
            self._refuse_a_longer_cycle(getattr(config.scheduler, "total_steps", None))

    def on_validation_start(self) -> None:
        """Let every process validate the running statistics of the first one, which are those that are saved."""
        if self.trainer.world_size > 1:
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, src=0)
        if self.trainer.state.fn == "validate":
            self._make_dense()

    def on_test_start(self) -> None:
        self._make_dense()

    def on_test_epoch_end(self) -> None:
        """A result over another number of images than the set has is no result."""
        seen, size = int(self.test_images.compute()), len(self.trainer.test_dataloaders.dataset)  # type: ignore[union-attr]
        if not seen:
            raise UserError(f"None of the {size:,} images of the test can be read: there is no error to tell.")
        if seen + left_out(self.trainer) != size and not limited(self.trainer):
            raise UserError(f"The test counted {seen:,} of the set's {size:,} images: the errors would be wrong.")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[RECORD] = self.record

    def _refuse_a_longer_cycle(self, planned: int | None) -> None:
        if planned is None or self.lr_interval != "step" or planned >= (steps := steps_of_run(self.trainer)):
            return
        raise UserError(
            f"The cycle of the learning rate was laid out for {planned:,} steps and this run takes {steps:,}: it "
            "cannot be made longer once it has begun, so start a new run, from its weights with --model.weights FILE."
        )

    def _update(self, stage: str, loss: Tensor, scores: Tensor, labels: Tensor) -> None:
        for name, metric in getattr(self, f"{stage}_metrics").items():
            if name == "loss":
                metric.update(loss, len(labels))
            else:
                metric.update(scores, labels)
            self._log_once(f"{stage}/{name}", metric)

    def _log_once(self, name: str, metric: Metric) -> None:
        """Tell Lightning, with the first batch of an epoch, of a metric to log at its end.

        Once is enough, and with each batch it would cost as much as a step of a small net.
        """
        if name not in self.logged:
            self.logged.add(name)
            self.log(name, metric, on_step=False, on_epoch=True, prog_bar=name.endswith("top1_error"))

    def _loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of one output, [B, K], for labels [B] or, where images were mixed, shares of the classes [B, K]."""
        if self.loss_name == "cross_entropy":
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        targets = F.one_hot(labels, self.num_classes) if labels.ndim == 1 else labels
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes
        return F.binary_cross_entropy_with_logits(logits, targets)

    def _weighted(self, losses: dict[str, Tensor]) -> Tensor:
        return sum((losses[name] * weight for name, weight in self.aux_weights.items()), losses["main"])

    def _make_dense(self) -> None:
        """Prepare the net for whole images where the data's protocol shows it such."""
        data = getattr(self.trainer, "datamodule", None)
        if (views := getattr(data, "views", None)) is not None and views.dense:
            make_dense(self.net, views.size)

    def _evaluate(self, stage: str, images: Images, labels: Tensor) -> dict[str, Tensor]:
        if not len(labels):
            return {"log_probabilities": torch.empty(0, self.num_classes), "labels": labels}
        weights = self.trainer.datamodule.views.weights if isinstance(images, list) else None  # type: ignore[attr-defined]
        scores = self.log_probabilities(images, weights)
        self._update(stage, F.nll_loss(scores, labels), scores, labels)
        return {"log_probabilities": scores, "labels": labels}

    def _log_softmax(self, views: Tensor) -> Tensor:
        """[B, V, 3, H, W] to [B, V, K], a bounded number of views at a time."""
        chunks = views.flatten(0, 1).split(self.images_per_forward)
        return torch.cat([self._filled_up(chunk).float().log_softmax(1) for chunk in chunks]).unflatten(
            0, views.shape[:2]
        )

    def _filled_up(self, images: Tensor) -> Tensor:
        """Logits of a batch, [B, K]; a compiled net is given no batch smaller than the first, to be compiled once."""
        size = len(images)
        if self.compile_net:
            whole = self.whole_batch[images.shape[1:]] = max(self.whole_batch.get(images.shape[1:], 0), size)
            images = torch.cat([images, images[-1:].expand(whole - size, -1, -1, -1)])
        return self(images)[:size]

    def _parameter_groups(self) -> Iterable[Any]:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.decay_norm_and_bias:
            return trained
        # Biases, gammas and betas are the parameters of one dimension
        return [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]


def operate(
    net: nn.Module, norm: Norm | None, activation: Activation | None, dropout: float | None, with_weights: bool
) -> None:
    """The surgery that the arguments ask for.

    Raises:
        ValueError: if the net cannot have it, or weights that were trained without it are to be loaded.
    """
    for name, value in (("norm", norm), ("activation", activation)):
        if value is not None and with_weights:
            raise UserError(
                f"{name} is {value} and weights are given, which were likely trained without it: leave one of them "
                "out. If they were trained with it, or shall be adapted to it, add --model.strict false."
            )
    if norm is not None:
        swap_norm(net, norm)
    if activation is not None:
        swap_activation(net, activation)
    if dropout is not None:
        swap_dropout(net, dropout)


def max_difference(first: dict[str, list[float]], second: dict[str, list[float]]) -> float:
    """The largest difference between two normalisations."""
    return max(abs(a - b) for name in first for a, b in zip(first[name], second[name], strict=True))


def metrics(num_classes: int) -> nn.ModuleDict:
    """Mean loss and errors of one stage; top-5 only where there are more than five classes."""
    errors = {f"top{k}_error": TopKError(k) for k in (1, 5) if k < num_classes}
    return nn.ModuleDict({"loss": MeanLoss(), **errors})


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """All BatchNorm layers in a module, of any dimension, SyncBatchNorm too."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def left_out(trainer: pl.Trainer) -> int:
    """How many images of the test could not be read, on all devices together, where the user wants them skipped."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    places = getattr(data, "left_out", ())
    # On the device: NCCL moves nothing else
    count = torch.tensor(len(places), device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(count, reduce_op="sum"))


def limited(trainer: pl.Trainer) -> bool:
    """Whether the trainer was told to test, or to validate, a part of the set only."""
    # 1.0 is all of them, 1 is one batch
    limit = trainer.limit_val_batches if trainer.state.fn == "validate" else trainer.limit_test_batches
    return bool(trainer.fast_dev_run) or limit != 1.0 or isinstance(limit, int)  # type: ignore[attr-defined]
