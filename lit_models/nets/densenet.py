"""DenseNets: Huang et al., "Densely Connected Convolutional Networks", arXiv 1608.06993.

Table 1 (ImageNet) and section 3 (CIFAR). One class holds them all, because torchvision's has no CIFAR nets, and its
`memory_efficient` counts every batch twice in BatchNorm's running statistics. Its state-dict keys are torchvision's,
so that the published weights load into it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from errors import UserError, check_at_least, check_probability
from lit_models.nets.layers import find_batch_norms, init_convolutions, named_sequential
from random_draws import current_draws

# Table 1: layers in each dense block, and the growth rate k. 161 is not in the table, but among the authors' models.
IMAGENET_BLOCKS: dict[int, tuple[int, ...]] = {
    121: (6, 12, 24, 16),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
    161: (6, 12, 36, 24),
}
IMAGENET_GROWTH: dict[int, int] = {121: 32, 169: 32, 201: 32, 264: 32, 161: 48}
CIFAR_GROWTH = 12


class DenseNet(nn.Module):
    """First convolution, dense blocks with transitions between them, global average pooling, linear classifier.

    Args:
        num_classes: K, the number of logits.
        depth: L. 121, 169, 201, 264 or 161 for ImageNet (Table 1), which begin with a 7x7 convolution and a max
            pooling. Any other is a CIFAR net (section 3), which begins with a 3x3 convolution and has three blocks of
            (L - 4) / 6 layers, or of (L - 4) / 3 without `bottleneck`; the paper has 40, 100, 190 and 250.
        growth_rate: k, how many feature maps each layer adds. None means 32 on ImageNet, but 48 at depth 161, and 12
            on CIFAR.
        bottleneck: begin each layer with a 1x1 convolution to 4k feature maps (DenseNet-B).
        compression: theta, the share of its feature maps that a transition hands on, in (0, 1] (DenseNet-C below 1).
        dropout: probability of the dropout after every convolution but the first, in [0, 1).
        memory_efficient: recompute the inside of the layers in the backward pass instead of keeping it (arXiv
            1707.06990).

    Raises:
        UserError: for a depth that the paper's rules do not give, or a number out of range.
    """

    def __init__(
        self,
        num_classes: int,
        depth: int,
        growth_rate: int | None = None,
        bottleneck: bool = True,
        compression: float = 0.5,
        dropout: float = 0.0,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        check_ranges(growth_rate, compression, dropout)
        blocks = count_layers(depth, bottleneck)
        growth_rate = growth_rate or IMAGENET_GROWTH.get(depth, CIFAR_GROWTH)
        # The paper names the two ends, plain and BC; with one of B and C alone we take the plain net's 16
        channels = 2 * growth_rate if depth in IMAGENET_BLOCKS or (bottleneck and compression < 1) else 16
        if depth in IMAGENET_BLOCKS:
            self.features = named_sequential(
                conv0=nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
                norm0=nn.BatchNorm2d(channels),
                relu0=nn.ReLU(inplace=True),
                pool0=nn.MaxPool2d(3, stride=2, padding=1),
            )
        else:
            self.features = named_sequential(conv0=nn.Conv2d(3, channels, 3, padding=1, bias=False))
        for i, layers in enumerate(blocks, 1):
            block = DenseBlock(memory_efficient)
            for j in range(1, layers + 1):
                block.add_module(f"denselayer{j}", dense_layer(channels, growth_rate, bottleneck, dropout))
                channels += growth_rate
            self.features.add_module(f"denseblock{i}", block)
            if i < len(blocks):
                outputs = int(channels * compression)
                self.features.add_module(f"transition{i}", transition(channels, outputs, dropout))
                channels = outputs
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.features.add_module("relu5", nn.ReLU(inplace=True))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        init_convolutions(self)  # section 4.2; over the fan-out as in the authors' code, torchvision takes the fan-in
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        # DenseNet-121 at 224 px | DenseNet-BC (L = 100, k = 12) at 32 px
        x = self.features(x)  # [B, 1024, 7, 7] | [B, 342, 8, 8]
        return self.classifier(torch.flatten(self.avgpool(x), 1))  # [B, K]


def count_layers(depth: int, bottleneck: bool) -> tuple[int, ...]:
    """Layers in each dense block.

    Raises:
        UserError: for a depth that the paper's rules do not give.
    """
    if depth in IMAGENET_BLOCKS:
        if not bottleneck:
            raise UserError(
                f"bottleneck is false, but depth {depth} is an ImageNet net, whose layers all have one: leave it out, "
                "or take a CIFAR depth, such as 40 or 100."
            )
        return IMAGENET_BLOCKS[depth]
    per_layer = 2 if bottleneck else 1  # convolutions
    layers, rest = divmod(depth - 4, 3 * per_layer)
    if layers < 1 or rest:
        raise UserError(
            f"depth {depth} is no DenseNet: choose one of {', '.join(map(str, IMAGENET_BLOCKS))} (ImageNet), or "
            f"{3 * per_layer}n + 4, such as 40 or 100, {'with' if bottleneck else 'without'} bottleneck (CIFAR)."
        )
    return (layers,) * 3


def check_ranges(growth_rate: int | None, compression: float, dropout: float) -> None:
    """Raise UserError for a number out of range."""
    check_at_least(1, growth_rate=growth_rate)  # feature maps that every layer adds
    if not 0 < compression <= 1:
        raise UserError(f"compression is {compression}: it must be in (0, 1].")
    check_probability(dropout=dropout)


class DenseBlock(nn.Module):
    """Its children each see the feature maps of all those before them, and add k of their own (equation 2)."""

    def __init__(self, memory_efficient: bool) -> None:
        super().__init__()
        self.memory_efficient = memory_efficient

    def forward(self, x: Tensor) -> Tensor:
        if self.memory_efficient and torch.is_grad_enabled():
            maps = [x]
            for layer in self.children():
                maps.append(checkpoint_layer(layer, *maps))  # [B, k, H, W]
            return torch.cat(maps, 1)  # [B, C + layers * k, H, W]
        # Two tensors at a time: many thin ones, side by side in each pixel, made a step on a CPU 1.4 times as long
        for layer in self.children():
            x = torch.cat([x, layer(x)], 1)
        return x


def dense_layer(channels: int, growth_rate: int, bottleneck: bool, dropout: float) -> nn.Sequential:
    """BN-ReLU-conv(3x3) to k feature maps, after BN-ReLU-conv(1x1) to 4k of them with a bottleneck (section 3)."""
    width = 4 * growth_rate
    convolutions = [(channels, width, 1), (width, growth_rate, 3)] if bottleneck else [(channels, growth_rate, 3)]
    layers: dict[str, nn.Module] = {}
    for i, (inputs, outputs, kernel) in enumerate(convolutions, 1):
        layers[f"norm{i}"] = nn.BatchNorm2d(inputs)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        layers[f"conv{i}"] = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        layers[f"drop{i}"] = nn.Dropout(dropout)
    return named_sequential(**layers)


def transition(channels: int, outputs: int, dropout: float) -> nn.Sequential:
    """BN-ReLU-conv(1x1) and average pooling, which halves the image between two blocks (section 3)."""
    return named_sequential(
        norm=nn.BatchNorm2d(channels),
        relu=nn.ReLU(inplace=True),
        conv=nn.Conv2d(channels, outputs, 1, bias=False),
        drop=nn.Dropout(dropout),
        pool=nn.AvgPool2d(2),
    )


def checkpoint_layer(layer: nn.Module, *maps: Tensor) -> Tensor:
    """Run a layer on all feature maps so far, and again in the backward pass instead of keeping its intermediates.

    The authors recompute concatenation, BN and ReLU and keep the output of the 1x1 convolution (arXiv 1707.06990). That
    is recomputed too here: the peak of a DenseNet-121 halves once more, and a step takes about a tenth longer.
    """
    if torch.compiler.is_compiling():
        # Compiled code updates running statistics once, and its tracing knows no context_fn
        return checkpoint(run_concatenated, layer, *maps, use_reentrant=False)
    # Contexts of the forward pass and of its recomputation
    contexts = (nullcontext(), recompute(layer, current_draws()))
    return checkpoint(run_concatenated, layer, *maps, use_reentrant=False, context_fn=lambda: contexts)


def run_concatenated(layer: nn.Module, *maps: Tensor) -> Tensor:
    """Apply a layer to feature maps [B, C_i, H, W], concatenated along their channels."""
    return layer(torch.cat(maps, 1))


@contextmanager
def recompute(layer: nn.Module, draws: AbstractContextManager[object]) -> Iterator[None]:
    """Compute as in the forward pass: its draws anew, and no running statistics a second time."""
    with draws, freeze_running_stats(layer):
        yield


@contextmanager
def freeze_running_stats(layer: nn.Module) -> Iterator[None]:
    """Let BatchNorms in training mode normalise by the batch without updating their running statistics again.

    By momentum and counter: with `track_running_stats` false, autograd would save fewer tensors than in the forward
    pass, which `checkpoint` refuses.
    """
    norms = find_batch_norms(layer)
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
