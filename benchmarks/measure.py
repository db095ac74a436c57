"""Measures one case: our `fit` through its command line, and its competitors in its pauses."""

import statistics
from pathlib import Path

import torch
from torch import nn

from benchmarks.callbacks_cost import AlternateCallbacks
from benchmarks.cases import CASES, Case
from benchmarks.competitors import bare_step, loading_bound, measure_loaders, plain_loop
from benchmarks.evaluation import time_test
from benchmarks.prediction import time_predictions
from benchmarks.tables import Result
from benchmarks.timing import Competitor, TakeTurns
from benchmarks.timm_script import TimmScript
from callbacks.run_facts import processor
from cli.command_line import run_cli
from cli.trainer import cpu_has_bf16
from datamodules.loading import choose_num_workers
from lit_models.counts import count_used
from reports.zoo import CONFIGS

# Floating-point operations of NVIDIA's tensor cores in bfloat16 per second, without sparsity. Cards for PCIe are slower
# than those on a board of their own (SXM), whose names have no addition: the first name that fits decides.
PEAK_FLOPS = {
    "H200 NVL": 835e12, "H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "RTX 4090": 165e12,
}  # fmt: skip
COMMON_FLAGS = [
    "--trainer.precision=auto", "--trainer.max_epochs=1000", "--trainer.max_steps=-1", "--trainer.devices=1",
    "--model.lr_scheduler=null",  # some schedules want a validation
]  # fmt: skip
TRAINING_FLAGS = ["--trainer.enable_checkpointing=false", "--trainer.limit_val_batches=0"]


def measure_case(name: str, root: Path | None, runs: Path, turns: int, timm: TimmScript | None = None) -> Result:
    """The results of a case, for JSON.

    Args:
        name: of the case.
        root: folder of the images; None for data without files.
        runs: where the run directory is made.
        turns: of the fit and of each competitor.
        timm: timm's train script, for the cases that are measured beside it.
    """
    case = CASES[name]
    config, run_name = CONFIGS / f"{case.experiment}.yaml", f"benchmark/{name}"
    fit = ["fit", f"--config={config}", f"--runs={runs}", f"--run_name={run_name}", *case.flags, *COMMON_FLAGS]
    fit += [f"--data.root={root}"] if root else []
    result: Result = {"case": name, "device": device_name()}
    if case.kind == "callbacks":
        alternate = AlternateCallbacks(turns)
        run_cli(fit, [alternate])
        return result | summarize(alternate.results, "fit") | {"turns": alternate.results}
    if case.kind == "evaluation":
        timing = time_test(fit, runs / run_name, case.steps, turns)
        return result | summarize(timing.results, "test") | {"turns": timing.results}
    if case.kind == "predict":
        assert root is not None
        rates = time_predictions(fit, runs / run_name, root, case.steps, turns)
        return result | summarize(rates, "predict") | {"turns": rates}
    competitors = choose_competitors(case, timm)
    timing = TakeTurns(competitors, case.steps, turns)
    run_cli([*fit, *TRAINING_FLAGS, *(["--data.val_size=0"] if root else [])], [timing])
    result |= summarize(timing.results, "fit") | {"turns": timing.results}
    result |= {"peak_memory_bytes": timing.peak_memory_bytes, "first_step_s": timing.first_step_s}
    if root is not None:
        result |= measure_loaders(timing.data, with_plain="plain" in competitors)
        result["bound_over_limit"] = bound_over_limit(timing, result)
    if torch.cuda.is_available():
        result["utilisation"] = utilization(timing.model.net, result["fit_images_per_s"], timing.data.train_size)
    return result


def choose_competitors(case: Case, timm: TimmScript | None) -> dict[str, Competitor]:
    """What takes turns with the fit of a case, by name."""
    if case.kind == "timm":
        assert timm is not None
        return {"timm": timm, "limit": bare_step}
    # A packed copy has no files that a plain loop could read
    return {"plain": plain_loop, "limit": bare_step} if case.data in ("cifar", "images") else {"limit": bare_step}


def bound_over_limit(timing: TakeTurns, result: Result) -> float:
    """The rate that loading allows, as a share of the bare step's."""
    step, loader = result["limit_images_per_s"], result["loader_images_per_s_per_core"]
    shared = timing.model.device.type == "cpu"
    cores = torch.get_num_threads() if shared else choose_num_workers(timing.model.trainer, timing.data.train_set)
    return loading_bound(step, loader, cores, shared) / step


def summarize(turns: list[dict[str, float]], ours: str) -> dict[str, float]:
    """Medians over the turns of a case; a ratio of ours to another is the median of the ratios of all turns."""
    summary = {}
    for name in turns[0]:
        summary[f"{name}_images_per_s"] = statistics.median(turn[name] for turn in turns)
        if name != ours:
            summary[f"{ours}_over_{name}"] = statistics.median(turn[ours] / turn[name] for turn in turns)
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
