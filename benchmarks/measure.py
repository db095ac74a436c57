"""Measures one case: our `fit` through its command line, and its competitors in its pauses."""

import statistics
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.cases import CASES
from benchmarks.competitors import bare_step, measure_loaders, plain_loop
from benchmarks.timing import Competitor, TakeTurns
from callbacks.run_facts import processor
from cli.command_line import run_cli
from cli.trainer import cpu_has_bf16
from lit_models.counts import count_used
from reports.zoo import CONFIGS

Result = dict[str, Any]
# Floating-point operations of NVIDIA's tensor cores in bfloat16 per second, without sparsity. Cards for PCIe are slower
# than those on a board of their own (SXM), whose names have no addition: the first name that fits decides.
PEAK_FLOPS = {
    "H200 NVL": 835e12, "H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "RTX 4090": 165e12,
}  # fmt: skip
FLAGS = [
    "--trainer.enable_checkpointing=false", "--trainer.precision=auto", "--trainer.max_epochs=1000",
    "--trainer.max_steps=-1", "--trainer.limit_val_batches=0", "--trainer.devices=1",
    "--model.lr_scheduler=null",  # some schedules want a validation
]  # fmt: skip


def measure_case(name: str, root: Path | None, runs: Path, turns: int) -> Result:
    """The results of a case, for JSON.

    Args:
        name: of the case.
        root: folder of the images; None for data without files.
        runs: where the run directory is made.
        turns: of the fit and of each competitor.
    """
    case = CASES[name]
    competitors: dict[str, Competitor] = {"plain": plain_loop, "limit": bare_step}
    flags = [f"--data.root={root}", "--data.val_size=0"]
    if root is None:
        competitors, flags = {"limit": bare_step}, []
    timing = TakeTurns(competitors, case.steps, turns)
    config = CONFIGS / f"{case.experiment}.yaml"
    names = [f"--config={config}", f"--runs={runs}", f"--run_name=benchmark/{name}"]
    run_cli(["fit", *names, *FLAGS, *case.flags, *flags], [timing])
    result: Result = {"case": name, "device": device_name(), **summarize(timing.results), "turns": timing.results}
    result |= {"peak_memory_bytes": timing.peak_memory_bytes, "first_step_s": timing.first_step_s}
    if root is not None:
        result |= measure_loaders(timing.data)
    if torch.cuda.is_available():
        result["utilisation"] = utilization(timing.model.net, result["fit_images_per_s"], timing.data.train_size)
    return result


def summarize(turns: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the turns of a case; a ratio is the median of the ratios of all turns."""
    summary = {}
    for name in turns[0]:
        summary[f"{name}_images_per_s"] = statistics.median(turn[name] for turn in turns)
        if name != "fit":
            summary[f"fit_over_{name}"] = statistics.median(turn["fit"] / turn[name] for turn in turns)
    return summary


def device_name() -> str:
    """The GPU, or the processor and the number of its threads that are used."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    bf16 = ", AVX512-BF16" if cpu_has_bf16() else ""
    return f"{processor()}, {torch.get_num_threads()} threads{bf16}"


def peak_multiply_adds(gpu: str) -> float | None:
    """Multiply-adds (two operations each) per second of a GPU, None for an unknown one."""
    return next((flops / 2 for name, flops in PEAK_FLOPS.items() if name in gpu), None)


def utilization(net: nn.Module, images_per_s: float, size: int) -> float | None:
    """Share of the GPU's peak: one forward pass and a backward pass of twice as many multiply-adds.

    Args:
        net: what is trained.
        images_per_s: how fast.
        size: pixels per side of the images.
    """
    peak = peak_multiply_adds(torch.cuda.get_device_name())
    if peak is None:
        return None
    return 3 * count_used(net, size).multiply_adds * images_per_s / peak
