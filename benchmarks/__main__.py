"""Images per second, side by side in one run: a plain PyTorch loop, our `fit`, and the bare training step.

python -m benchmarks                                  # everything, on noise: a quarter of an hour on two cores
python -m benchmarks cifar_resnet20 --cifar DIR --json benchmark.json --plot benchmark.png
python -m benchmarks imagenet_resnet18 --images DIR   # a folder with train/<class>/ in it

The three take turns every few steps, so that the noise of a shared machine meets all of them; a ratio is the median of
the ratios of all turns.
"""

import argparse
import contextlib
import copy
import io
import json
import logging
import math
import multiprocessing
import os
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset, default_collate

from benchmarks import timing
from cli import command_line
from cli.trainer import cpu_has_bf16
from datamodules.augment import normalise, random_flip
from datamodules.cifar10 import FOLDER, TEST_FILE, TRAIN_FILES, read_batch
from datamodules.image_files import class_folders, is_image
from datamodules.loading import choose_num_workers, keep_batch
from datamodules.samplers import SampleSpec
from datamodules.tensor_images import TensorImages
from reports.zoo import count_multiply_adds

HOME = Path(__file__).resolve().parent.parent
# Floating-point operations of NVIDIA's tensor cores in bfloat16 per second, without sparsity. Cards for PCIe are slower
# than those on a board of their own (SXM), whose names have no addition.
PEAKS = {
    "H200 NVL": 835e12, "H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "RTX 4090": 165e12,
}  # fmt: skip


# Images that an epoch has at least, 50 batches of the largest: where epochs are short, their ends are what is measured.
# On the device they take 1.9 GB.
EPOCH = 50 * 256


@dataclass
class Case:
    """Something to measure.

    Args:
        experiment: the YAML file, from configs/ on.
        data: cifar, images, or resident (noise that lies on the device; then there is no loader to compare with).
        size: pixels per side of the images.
        steps: of each turn.
        flags: more of the command line.
        cuda: whether it wants a GPU.
    """

    experiment: str
    data: str
    size: int
    steps: int
    flags: list[str] = field(default_factory=list)
    cuda: bool = False


COMPILED = ["--model.compile=true", "--data.drop_last=true"]  # a ragged batch would be compiled for itself
CASES = {
    "cifar_resnet20": Case("cifar10/resnet20", "cifar", 32, 20),
    "cifar_resnet18": Case("cifar10/resnet18_fast", "cifar", 32, 6, ["--data.batch_size=64"]),
    "cifar_densenet_bc_100_12": Case("cifar10/densenet_bc_100_12", "cifar", 32, 6),
    "imagenet_resnet18": Case("imagenet/resnet18", "images", 224, 4, ["--data.batch_size=32"]),
    "imagenet_resnet50": Case("imagenet/resnet50", "images", 224, 40, COMPILED, cuda=True),
    "resident_resnet50": Case(
        "imagenet/resnet50", "resident", 224, 40, [*COMPILED, "--model.stride_in_1x1=false"], cuda=True
    ),
}
OVERHEAD = "trainer_overhead"


class PlainImages(Dataset):
    """Images as torchvision's data sets hand them out: one by one, through PIL."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, transform: Callable[[Image.Image], torch.Tensor]
    ) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[place])), int(self.labels[place])


def plain_cifar(root: Path) -> Dataset:
    """CIFAR-10 with the transforms that every tutorial has."""
    from torchvision import transforms

    folder = root / FOLDER if (root / FOLDER).is_dir() else root
    parts = [read_batch(folder / name) for name in TRAIN_FILES]
    images = torch.cat([part.images for part in parts]).permute(0, 2, 3, 1).contiguous().numpy()
    return PlainImages(
        images,
        torch.cat([part.labels for part in parts]).numpy(),
        transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
            ]
        ),
    )


def plain_images(root: Path, size: int) -> Dataset:
    """torchvision's ImageFolder with the transforms of its ImageNet example."""
    from torchvision import datasets, transforms

    end = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    crop = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    return datasets.ImageFolder(root / "train", transforms.Compose([*crop, *end]))


def as_bytes(photos: Any) -> Dataset:
    """The same set without what comes after uint8, which ours does on the device."""
    from torchvision import transforms

    photos = copy.copy(photos)
    photos.transform = transforms.Compose([*photos.transform.transforms[:2], transforms.PILToTensor()])
    return photos


def write_cifar(root: Path) -> Path:
    """Noise in the layout of CIFAR-10, for machines that have no CIFAR-10."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in [*TRAIN_FILES, TEST_FILE]:
        content = {
            "data": random.integers(256, size=(10_000, 3072), dtype=np.uint8),
            "labels": random.integers(10, size=10_000).tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return root


def write_images(root: Path) -> Path:
    """A tree of 256 JPEGs of 500 x 375 pixels whose files are as large as those of photographs (110 KB)."""
    random = np.random.default_rng(0)
    for number in range(256):
        path = root / "train" / f"class_{number % 8}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(256, size=(48, 64, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + random.normal(0, 12, smooth.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return root


def repeat(root: Path, to: Path) -> Path:
    """A tree of links in which the photos of a tree occur often enough for an epoch; the tree itself if it has none."""
    walk = os.walk(root / "train", followlinks=True)
    count = sum(1 for _ in islice((name for _, _, names in walk for name in names if is_image(name)), EPOCH))
    if not count:
        return root
    for folder in class_folders(root / "train"):
        (to / "train" / folder).mkdir(parents=True, exist_ok=True)
        for number in range(math.ceil(EPOCH / count)):
            (to / "train" / folder / str(number)).symlink_to(root / "train" / folder)
    return to


def data_root(case: Case, given: argparse.Namespace, folder: Path) -> Path | None:
    """Where the images of a case are: those that were given, or made-up ones."""
    if case.data == "resident":
        return None
    if (root := getattr(given, case.data)) is None and not (root := folder / case.data).exists():
        (write_cifar if case.data == "cifar" else write_images)(root)
    if case.data == "cifar":
        return root
    repeated = folder / "repeated"
    return repeated if repeated.exists() else repeat(root, repeated)


def measure(name: str, case: Case, root: Path | None, turns: int) -> dict[str, Any]:
    """One case: our `fit` through its command line, and the others in its pauses."""
    others: dict[str, Any] = {"limit": timing.bare_step}
    flags = ["--config", HOME / "configs" / f"{case.experiment}.yaml", "--trainer.precision=auto", *case.flags]
    if root is None:
        noise = [f"--data.size={case.size}", "--data.classes=1000", f"--data.train_size={EPOCH}"]
        noise += ["--data.batch_size=256"]
        flags += ["--data=datamodules.Synthetic", *noise]
    else:
        # Read once, and not before its turn: the memory of our `fit` is measured without it
        plain = cache(partial(plain_cifar, root) if case.data == "cifar" else partial(plain_images, root, case.size))
        others = {"plain": partial(plain_later, plain), **others}
        flags += [f"--data.root={root}", "--data.val_size=0"]
    fit(name, flags, case.steps, turns, others)
    result = row(name, [{**turn, "plain": turn.get("plain", float("nan"))} for turn in timing.Rounds.results])
    data, module = timing.Rounds.data, timing.Rounds.module
    device = timing.Rounds.on
    result |= {"peak_memory_bytes": timing.Rounds.peak, "first_step_s": timing.Rounds.first_step}
    if root is not None:
        result |= loaders(data, plain() if case.data == "cifar" else as_bytes(plain()))
    if device.type == "cuda":
        result["utilisation"] = utilisation(module.net, result["fit_images_per_s"], case.size)
    return result


def alone(measured: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Measure in a process of its own, so that no case meets what another has left: memory, imports, compiled nets."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, *args).result()


def plain_later(
    dataset: Callable[[], Dataset], trainer: pl.Trainer, pl_module: pl.LightningModule, steps: int
) -> timing.Round:
    """The plain loop with the batch size of our `fit` and two loader processes, or what a GPU wants."""
    workers = choose_num_workers(trainer) if pl_module.device.type == "cuda" else 2
    loader = DataLoader(
        dataset(),
        trainer.datamodule.batch_size,  # type: ignore[attr-defined]
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        pin_memory=pl_module.device.type == "cuda",
        persistent_workers=True,
    )
    return timing.plain_loop(loader)(trainer, pl_module, steps)


def fit(name: str, flags: list[Any], steps: int, turns: int, others: dict[str, Any]) -> None:
    """Type a `fit` that pauses for the others."""
    timing.Rounds.others, timing.Rounds.started = others, time.perf_counter()
    flags += [
        "--trainer.callbacks+=benchmarks.timing.Rounds", f"--trainer.callbacks.steps={steps}",
        f"--trainer.callbacks.rounds={turns}", "--trainer.max_epochs=1000", "--trainer.max_steps=-1",
        "--trainer.limit_val_batches=0", "--trainer.devices=1", f"--run_name=benchmark/{name}",
        # Some schedules want a validation; and an epoch of a small tree is so short that checkpoints would weigh
        "--model.lr_scheduler=null",
    ]  # fmt: skip
    type_in(["fit", "--trainer.enable_checkpointing=false", *map(str, flags)])


class Terminal(io.StringIO):
    """What is printed, by those who draw a bar in a terminal and nowhere else."""

    def isatty(self) -> bool:
        return True


def type_in(command: list[str]) -> None:
    """Run a command of main.py quietly; what it printed is shown if it fails."""
    printed = Terminal()
    try:
        with quiet(printed):
            command_line.run_cli(command)
    except SystemExit as stop:
        sys.exit(f"{printed.getvalue()}\n{stop.code}")


@contextlib.contextmanager
def quiet(printed: io.StringIO) -> Iterator[None]:
    """Keep what is printed, and what Lightning logs to the terminal itself."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield
    finally:
        logging.disable(before)


def row(name: str, turns: list[dict[str, float]]) -> dict[str, Any]:
    """What the turns of a case come to."""

    def median(values: list[float]) -> float | None:
        return None if any(np.isnan(values)) else statistics.median(values)

    fits, plains, limits = ([turn.get(who, float("nan")) for turn in turns] for who in ("fit", "plain", "limit"))
    return {
        "case": name,
        "plain_images_per_s": median(plains),
        "fit_images_per_s": median(fits),
        "limit_images_per_s": median(limits),
        "fit_over_plain": median([a / b for a, b in zip(fits, plains, strict=True)]),
        "fit_over_limit": median([a / b for a, b in zip(fits, limits, strict=True)]),
        "loader_images_per_s_per_core": None,
        "plain_loader_images_per_s_per_core": None,
        "peak_memory_bytes": None,
        "first_step_s": None,
        "device": device_name(),
        "turns": turns,
    }


def loaders(data: Any, plain: Dataset, turns: int = 5, images: int = 256) -> dict[str, float]:
    """Images per second of one core that does nothing but load, ours and the plain one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    size = len(data.train_set)

    def ours(turn: int) -> None:
        for first in range(0, images, 64):
            places = [place % size for place in range(first, first + 64)]
            if isinstance(data.train_set, TensorImages):
                batch = data.augment(data.train_set.__getitems__(places).images)
                normalise(batch, data.preprocessing["mean"], data.preprocessing["std"])
            else:
                draws = [SampleSpec(place, seed=turn * images + place, size=data.train_size) for place in places]
                random_flip(data.train_set.__getitems__(draws).images)

    def theirs(turn: int) -> None:
        for first in range(0, images, 64):
            default_collate([plain[place % size] for place in range(first, first + 64)])

    seconds: dict[str, list[float]] = {"loader": [], "plain_loader": []}
    for turn in range(turns):
        for name, load in (("loader", ours), ("plain_loader", theirs)):
            start = time.process_time()
            load(turn)
            seconds[name].append(time.process_time() - start)
    torch.set_num_threads(threads)
    return {f"{name}_images_per_s_per_core": images / statistics.median(times) for name, times in seconds.items()}


def overhead(turns: int, steps: int = 300) -> dict[str, Any]:
    """A tiny net in a bare Trainer with a progress bar and a CSV logger, and in ours with all that comes with it."""
    batch, warm_up = 8, 50

    class Clock(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == warm_up:
                self.start = time.perf_counter()
            if trainer.global_step == warm_up + steps:
                self.rate = steps * batch / (time.perf_counter() - self.start)

    size = batch * (steps + warm_up + 10)
    noise = TensorImages(torch.randn(size, 3, 16, 16), torch.randint(10, (size,)))  # whole batches, as ours
    flags = [
        "--config", HOME / "configs/digits/resnet20.yaml", "--model=benchmarks.timing.TinyNet",
        "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.001", "--model.optimizer.momentum=0.9",
        "--data=datamodules.Synthetic", "--data.size=16", "--data.classes=10", f"--data.train_size={len(noise)}",
        f"--data.batch_size={batch}", "--trainer.precision=32-true",
        "--trainer.log_every_n_steps=50",  # the Trainer's default, as on the other side; digits log more often
    ]  # fmt: skip
    results = []
    for _ in range(turns):
        clock = Clock()
        with quiet(Terminal()):
            trainer = pl.Trainer(
                max_epochs=1,
                logger=CSVLogger("bare"),
                callbacks=[clock, TQDMProgressBar()],
                accelerator="cpu",
                enable_model_summary=False,
            )
            trainer.fit(timing.BareModule(), DataLoader(noise, batch, shuffle=True, collate_fn=keep_batch))
        fit(OVERHEAD, [*flags, "--trainer.accelerator=cpu", "--trainer.enable_checkpointing=true"], steps, 1, {})
        results.append({"plain": clock.rate, "fit": timing.Rounds.results[0]["fit"]})
    return row(OVERHEAD, results)


def utilisation(net: torch.nn.Module, images_per_s: float, size: int) -> float | None:
    """Share of the GPU's bfloat16 multiply-adds: forward, and twice as many backward."""
    peak = gpu_peak(torch.cuda.get_device_name())
    counted = timing.fresh(net, torch.contiguous_format).to("meta").eval()
    return None if peak is None else 3 * count_multiply_adds(counted, size) * images_per_s / peak


def gpu_peak(device: str) -> float | None:
    """Multiply-adds per second of a GPU, of two operations each; of several names that fit, the longest is its own."""
    names = sorted((name for name in PEAKS if name in device), key=len)
    return PEAKS[names[-1]] / 2 if names else None


def device_name() -> str:
    """The GPU, or the processor and how many of its cores are ours."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = "CPU"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    bf16 = ", AVX512-BF16" if cpu_has_bf16() else ""
    return f"{model}, {torch.get_num_threads()} threads{bf16}"


def number(value: float | None, form: str = "{:,.0f}") -> str:
    """A cell of the table."""
    return "" if value is None else form.format(value)


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "case": lambda row: row["case"],
    "plain loop, images/s": lambda row: number(row["plain_images_per_s"]),
    "our fit": lambda row: number(row["fit_images_per_s"]),
    "the limit": lambda row: number(row["limit_images_per_s"]),
    "fit / plain": lambda row: number(row["fit_over_plain"], "{:.2f}"),
    "fit / limit": lambda row: number(row["fit_over_limit"], "{:.2f}"),
    "loader, images/s per core": lambda row: number(row["loader_images_per_s_per_core"]),
    "plain loader": lambda row: number(row["plain_loader_images_per_s_per_core"]),
    "peak memory, GiB": lambda row: number(row["peak_memory_bytes"] and row["peak_memory_bytes"] / 2**30, "{:.1f}"),
    "first step, s": lambda row: number(row["first_step_s"], "{:.1f}"),
    "of the GPU's peak": lambda row: number(row.get("utilisation"), "{:.1%}"),
}


def table(results: list[dict[str, Any]]) -> Table:
    """The terminal's table, without columns that are empty."""
    result = Table(title=f"Training on {results[0]['device']}: medians of {len(results[0]['turns'])} turns")
    shown = {name: cell for name, cell in COLUMNS.items() if any(cell(row) for row in results)}
    for name in shown:
        result.add_column(name, justify="left" if name == "case" else "right")
    for row in results:
        result.add_row(*(cell(row) for cell in shown.values()))
    return result


def markdown(results: list[dict[str, Any]]) -> str:
    """The same table for a README."""
    shown = {name: cell for name, cell in COLUMNS.items() if any(cell(row) for row in results)}
    lines = [
        list(shown),
        ["---", *["--:"] * (len(shown) - 1)],
        *([cell(r) for cell in shown.values()] for r in results),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{results[0]['device']}\n"


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Bars of each case relative to the plain loop (or to the limit where there is none), a dot for each turn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.9 * len(results)), layout="constrained")
    colours = {"plain": "#b0b0b0", "fit": "#2a6f97", "limit": "#e0a458"}
    names = {"plain": "plain loop", "fit": "our fit", "limit": "the bare step"}
    for place, row in enumerate(reversed(results)):
        base = "limit" if row["plain_images_per_s"] is None else "plain"
        for offset, who in enumerate(("limit", "fit", "plain")):
            if (rate := row[f"{who}_images_per_s"]) is None:
                continue
            y = place + (offset - 1) * 0.27
            ratios = [turn[who] / turn[base] for turn in row["turns"]]
            middle = statistics.median(ratios)
            axes.barh(y, middle, 0.25, color=colours[who])
            axes.plot(ratios, [y] * len(ratios), ".", color="black", markersize=2, alpha=0.5)
            axes.annotate(
                f"{rate:,.0f} images/s", (max(ratios), y), (5, 0), textcoords="offset points", va="center", fontsize=8
            )
    axes.set_yticks(range(len(results)), [row["case"] for row in reversed(results)])
    axes.set_xlabel("times the plain loop (each dot a turn)")
    axes.set_title(results[0]["device"], fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.2)
    patches = [Patch(color=colours[who], label=name) for who, name in names.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)


def main(args: list[str] | None = None) -> None:
    here = [name for name, case in CASES.items() if torch.cuda.is_available() or not case.cuda] + [OVERHEAD]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join([*CASES, OVERHEAD])}; unset, all")
    parser.add_argument("--cifar", type=Path, metavar="DIR", help="CIFAR-10; unset, noise in its layout")
    parser.add_argument("--images", type=Path, metavar="DIR", help="a tree with train/<class>/; unset, made-up JPEGs")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it: .png, .svg or .pdf")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table for a README")
    given = parser.parse_args(args)
    if unknown := set(given.cases) - {*CASES, OVERHEAD}:
        parser.error(f"there is no case {', '.join(sorted(unknown))}: choose from {', '.join([*CASES, OVERHEAD])}")
    if given.rounds < 1:
        parser.error(f"rounds is {given.rounds}: it must be at least 1")
    files = {name: path.absolute() for name in ("json", "plot", "markdown") if (path := getattr(given, name))}
    for name in ("cifar", "images"):
        if (path := getattr(given, name)) is not None:
            if not path.is_dir():
                parser.error(f"there is no folder {path} for --{name}")
            if name == "images" and not (path / "train").is_dir():
                parser.error(f"{path} has no folder train: --images wants a tree with train/<class>/")
            setattr(given, name, path.absolute())
    console = Console()
    results, home = [], Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # runs and made-up data are gone with it
        os.environ["PYTHONPATH"] = str(HOME)
        try:
            for name in given.cases or here:
                console.print(f"{name} ...", highlight=False)
                case = CASES.get(name)
                root = data_root(case, given, Path(folder)) if case else None
                results.append(
                    alone(measure, name, case, root, given.rounds) if case else alone(overhead, given.rounds)
                )
                if "json" in files:  # whatever befalls the next case
                    files["json"].write_text(json.dumps(results, indent=2) + "\n")
        finally:
            os.chdir(home)
    console = console if console.is_terminal else Console(width=160)
    console.print(table(results))
    if "plot" in files:
        plot(results, files["plot"])
    if "markdown" in files:
        files["markdown"].write_text(markdown(results))
    for path in files.values():
        console.print(f"Wrote {path}", highlight=False)


if __name__ == "__main__":
    main()
