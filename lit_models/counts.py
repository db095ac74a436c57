"""Parameters, multiply-adds and the order of the layers of a net, found without computing anything."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


@dataclass
class Counts:
    """What one forward pass in evaluation mode uses; auxiliary heads, which it leaves out, do not count.

    Args:
        parameters: weights and biases.
        multiply_adds: of convolutions and linear layers for one image, without biases.
    """

    parameters: int = 0
    multiply_adds: int = 0


def count_used(net: nn.Module, size: int) -> Counts:
    """Count what a net uses; it keeps its weights and its modes, and nothing is computed.

    Args:
        net: on any device.
        size: pixels per side of the image.
    """
    counts = Counts()
    used: set[Tensor] = set()

    def count(module: nn.Module, _: Any, output: Any) -> None:
        used.update(module.parameters(recurse=False))
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert isinstance(output, Tensor)
            counts.multiply_adds += output.numel() * module.weight[0].numel()

    visit_modules(net, size, count)
    counts.parameters = sum(parameter.numel() for parameter in used)
    return counts


def layers_by_depth(net: nn.Module, size: int) -> dict[str, nn.Conv2d | nn.Linear]:
    """The convolutions and linear layers of a net by their names, in the order of the forward pass in evaluation mode.

    Layers that it does not use are left out, as those of auxiliary heads. Arguments as of `count_used`.
    """
    called: dict[nn.Module, None] = {}
    visit_modules(net, size, lambda module, *_: called.setdefault(module))
    names = {module: name for name, module in net.named_modules()}
    return {names[module]: module for module in called if isinstance(module, nn.Conv2d | nn.Linear)}


def visit_modules(net: nn.Module, size: int, visit: Callable[[nn.Module, Any, Any], None]) -> None:
    """Call `visit(module, inputs, output)` for each module that a forward pass in evaluation mode calls.

    Arguments as of `count_used`.
    """
    modes = {module: module.training for module in net.modules()}
    hooks = [module.register_forward_hook(visit) for module in net.modules()]
    tensors = dict(named_tensors(net))
    empty = {each: torch.empty_like(each, device="meta") for each in tensors.values()}
    state = {name: empty[each] for name, each in tensors.items()}  # shared ones stay shared
    dtype = next((each.dtype for each in net.parameters()), None)  # such as float64 with `precision: 64-true`
    net.eval()
    try:
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            functional_call(net, state, (torch.empty(1, 3, size, size, device="meta", dtype=dtype),), tie_weights=False)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode


def named_tensors(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name: each module once, and a tensor that several modules share under all its names."""
    for name, module in net.named_modules():
        own = *module.named_parameters(recurse=False), *module.named_buffers(recurse=False)
        yield from ((f"{name}.{part}" if name else part, tensor) for part, tensor in own)
