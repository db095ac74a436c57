"""Training speed in images per second, side by side: a plain PyTorch loop, our `fit`, and the bare training step.

python -m benchmarks                                  # all cases, on noise: a quarter of an hour on two cores
python -m benchmarks cifar_resnet20 --cifar DIR --json benchmark.json --plot benchmark.png
python -m benchmarks imagenet_resnet18 --images DIR   # a folder with train/<class>/ in it

The three take turns every few steps, so that the noise of a shared machine meets them all; a ratio is the median of the
ratios of all turns. The case trainer_overhead compares our `fit` with a bare Lightning Trainer on a tiny net.
"""

import argparse
import contextlib
import json
import os
import tempfile
from pathlib import Path

import torch

from benchmarks.cases import CASES, OVERHEAD, Case
from benchmarks.measure import CONFIGS, measure_case
from benchmarks.process import run_in_new_process
from benchmarks.results import Result, save_plot, speed_table
from benchmarks.synthetic_data import repeat_images, write_synthetic_cifar, write_synthetic_images
from benchmarks.trainer_overhead import measure_overhead
from reports.command import print_sections
from reports.html_page import Section

NAMES = [*CASES, OVERHEAD]


def existing_folder(text: str) -> Path:
    """A folder's absolute path, for argparse."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return Path(text).absolute()


def new_file(text: str) -> Path:
    """The absolute path of a file to write, for argparse."""
    return existing_folder(str(Path(text).parent)) / Path(text).name


def parse(args: list[str] | None) -> argparse.Namespace:
    """The arguments; a mistake ends the program with a sentence and status 2."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("cases", nargs="*", metavar="CASE", help=f"{', '.join(NAMES)}; unset, all that can run here")
    add("--cifar", type=existing_folder, metavar="DIR", help="folder of CIFAR-10; unset, noise in its layout")
    add("--images", type=existing_folder, metavar="DIR", help="folder with train/<class>/; unset, synthetic JPEGs")
    add("--turns", type=int, default=9, metavar="N", help="how often each is timed (default: 9)")
    add("--json", type=new_file, metavar="FILE", help="write all measurements to FILE")
    add("--plot", type=new_file, metavar="FILE", help="draw the results: .png, .svg or .pdf")
    given = parser.parse_args(args)
    if unknown := set(given.cases) - {*NAMES}:
        parser.error(f"there is no case {', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}")
    if given.turns < 1:
        parser.error(f"--turns is {given.turns}: it must be at least 1")
    if given.images and not (given.images / "train").is_dir():
        parser.error(f"{given.images} has no folder train: --images needs a folder with train/<class>/")
    return given


def data_root(case: Case, given: argparse.Namespace, folder: Path) -> Path | None:
    """The folder with the images of a case, the user's or one that is made below `folder`; None without files."""
    if case.data == "resident":
        return None
    if case.data == "cifar":
        return given.cifar or write_synthetic_cifar(folder / "cifar")
    return repeat_images(given.images or write_synthetic_images(folder / "images"), folder / "repeated")


def measure_all(given: argparse.Namespace, folder: Path) -> list[Result]:
    """The results of all cases; the JSON file grows with them, because the next case may fail."""
    runnable = [name for name, case in CASES.items() if torch.cuda.is_available() or not case.cuda]
    results = []
    for name in given.cases or [*runnable, OVERHEAD]:
        print(f"{name} ...", flush=True)
        if name == OVERHEAD:
            results.append(run_in_new_process(measure_overhead, given.turns))
        else:
            root = data_root(CASES[name], given, folder)
            results.append(run_in_new_process(measure_case, name, CASES[name], root, given.turns))
        if given.json:
            given.json.write_text(json.dumps(results, indent=2) + "\n")
    return results


def main(args: list[str] | None = None) -> None:
    given = parse(args)
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):  # runs and made-up images vanish with it
        os.environ["PYTHONPATH"] = str(CONFIGS.parent)
        results = measure_all(given, Path(name))
    print_sections([Section("Speed", [speed_table(results)])])
    if given.plot:
        save_plot(results, given.plot)
    for path in filter(None, (given.json, given.plot)):
        print(f"Wrote {path}")


if __name__ == "__main__":
    main()
