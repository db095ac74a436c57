"""Measures one case: our `fit` through its command line, and its competitors in its pauses."""

import statistics
from pathlib import Path
from typing import Any

from benchmarks.cases import EPOCH_IMAGES, Case
from benchmarks.devices import device_name, utilization
from benchmarks.loaders import measure_loaders
from benchmarks.plain_loop import plain_loop
from benchmarks.timing import Competitor, TakeTurns, bare_step
from cli import command_line

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def measure_case(name: str, case: Case, root: Path | None, turns: int) -> dict[str, Any]:
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
        result |= measure_loaders(timing.fit.data)
    if timing.fit.model.device.type == "cuda":
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


def summarize(name: str, turns: list[dict[str, float]]) -> dict[str, Any]:
    """Medians over the turns of a case; a ratio is the median of the ratios of all turns."""
    result: dict[str, Any] = {"case": name, "device": device_name(), "turns": turns}
    for competitor in turns[0]:
        result[f"{competitor}_images_per_s"] = statistics.median(turn[competitor] for turn in turns)
        if competitor != "fit":
            result[f"fit_over_{competitor}"] = statistics.median(turn["fit"] / turn[competitor] for turn in turns)
    return result
