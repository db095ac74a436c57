"""The device that a benchmark runs on: its name, its memory, its peak."""

import contextlib
import sys
from pathlib import Path

import torch
from torch import nn

from cli.trainer import cpu_has_bf16
from reports.zoo import count_multiply_adds

# Floating-point operations of NVIDIA's tensor cores in bfloat16 per second, without sparsity. Cards for PCIe are slower
# than those on a board of their own (SXM), whose names have no addition.
PEAK_FLOPS = {
    "H200 NVL": 835e12, "H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "RTX 4090": 165e12,
}  # fmt: skip


def synchronize(device: torch.device) -> None:
    """Wait until a CUDA device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that CUDA's allocator handed out, or on a CPU the largest resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def device_name() -> str:
    """The GPU, or the processor and the number of its threads that are used."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = "CPU"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    bf16 = ", AVX512-BF16" if cpu_has_bf16() else ""
    return f"{model}, {torch.get_num_threads()} threads{bf16}"


def peak_multiply_adds(gpu: str) -> float | None:
    """Multiply-adds (two operations each) per second of a GPU, None for an unknown one; the longest name decides."""
    names = sorted((name for name in PEAK_FLOPS if name in gpu), key=len)
    return PEAK_FLOPS[names[-1]] / 2 if names else None


def utilization(net: nn.Module, images_per_s: float, size: int) -> float | None:
    """Share of the GPU's peak: one forward pass and a backward pass of twice as many multiply-adds.

    Args:
        net: on the meta device.
        images_per_s: trained.
        size: pixels per side of the images.
    """
    peak = peak_multiply_adds(torch.cuda.get_device_name())
    return None if peak is None else 3 * count_multiply_adds(net.eval(), size) * images_per_s / peak
