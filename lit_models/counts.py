"""Parameters and multiply-adds of a net, counted without computing anything."""

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

    modes = {module: module.training for module in net.modules()}
    hooks = [module.register_forward_hook(count) for module in net.modules()]
    state = {name: torch.empty_like(each, device="meta") for name, each in net.state_dict().items()}
    dtype = next((each.dtype for each in net.parameters()), None)  # such as float64 with `precision: 64-true`
    net.eval()
    try:
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            functional_call(net, state, (torch.empty(1, 3, size, size, device="meta", dtype=dtype),))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    counts.parameters = sum(parameter.numel() for parameter in used)
    return counts
