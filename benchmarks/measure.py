"""Measures one case: our `fit` through its command line, and its competitors in its pauses."""

import re
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.cases import EPOCH_IMAGES, Case
from benchmarks.competitors import bare_step, measure_loaders, plain_loop
from benchmarks.results import Result
from benchmarks.timing import Competitor, TakeTurns
from cli import command_line
from cli.trainer import cpu_has_bf16
from reports.zoo import CONFIGS, count_multiply_adds

# Floating-point operations of NVIDIA's tensor cores in bfloat16 per second, without sparsity. Cards for PCIe are slower
# than those on a board of their own (SXM), whose names have no addition: the first name that fits decides.
PEAK_FLOPS = {
    "H200 NVL": 835e12, "H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "RTX 4090": 165e12,
}  # fmt: skip


def measure_case(name: str, case: Case, root: Path | None, turns: int) -> Result:
    """The results of a case, for JSON.

    Args:
        name: of the case.
        case: what to measure.
        root: folder of the images; None for noise on the device.
        turns: of the fit and of each competitor.
    """
    flags = ["--config", CONFIGS / f"{case.experiment}.yaml", "--trainer.precision=auto", *case.flags]
    competitors: dict[str, Competitor] = {"limit": bare_step}
    if root is None:
        noise = [f"--data.size={case.size}", "--data.classes=1000", f"--data.train_size={EPOCH_IMAGES}"]
        flags += ["--data=datamodules.Synthetic", *noise, "--data.batch_size=256"]
    else:
        competitors = {"plain": plain_loop, **competitors}
        flags += [f"--data.root={root}", "--data.val_size=0"]
    timing = TakeTurns(competitors, case.steps, turns)
    run_fit(name, flags, timing)
    result = summarize(name, timing.results)
    result |= {"peak_memory_bytes": timing.peak_memory_bytes, "first_step_s": timing.first_step_s}
    if root is not None:
        result |= measure_loaders(timing.data)
    if timing.model.device.type == "cuda":
        result["utilisation"] = utilization(timing.blueprint, result["fit_images_per_s"], case.size)
    return result


def run_fit(name: str, flags: list[Any], timing: TakeTurns) -> None:
    """Run a `fit` until its last turn."""
    flags = [
        "--trainer.enable_checkpointing=false", *flags, "--trainer.max_epochs=1000", "--trainer.max_steps=-1",
        "--trainer.limit_val_batches=0", "--trainer.devices=1", f"--run_name=benchmark/{name}",
        "--model.lr_scheduler=null",  # some schedules want a validation
    ]  # fmt: skip
    command_line.run_cli(["fit", *map(str, flags)], [timing])


def summarize(name: str, turns: list[dict[str, float]]) -> Result:
    """Medians over the turns of a case; a ratio is the median of the ratios of all turns."""
    result: Result = {"case": name, "device": device_name(), "turns": turns}
    for competitor in turns[0]:
        result[f"{competitor}_images_per_s"] = statistics.median(turn[competitor] for turn in turns)
        if competitor != "fit":
            result[f"fit_over_{competitor}"] = statistics.median(turn["fit"] / turn[competitor] for turn in turns)
    return result


def device_name() -> str:
    """The GPU, or the processor and the number of its threads that are used."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    bf16 = ", AVX512-BF16" if cpu_has_bf16() else ""
    return f"{model[1].strip() if model else 'CPU'}, {torch.get_num_threads()} threads{bf16}"


def peak_multiply_adds(gpu: str) -> float | None:
    """Multiply-adds (two operations each) per second of a GPU, None for an unknown one."""
    return next((flops / 2 for name, flops in PEAK_FLOPS.items() if name in gpu), None)


def utilization(net: nn.Module, images_per_s: float, size: int) -> float | None:
    """Share of the GPU's peak: one forward pass and a backward pass of twice as many multiply-adds.

    Args:
        net: on the meta device.
        images_per_s: trained.
        size: pixels per side of the images.
    """
    peak = peak_multiply_adds(torch.cuda.get_device_name())
    return None if peak is None else 3 * count_multiply_adds(net.eval(), size) * images_per_s / peak
