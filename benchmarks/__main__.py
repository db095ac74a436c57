"""Training speed in images per second, side by side: a plain PyTorch loop, our `fit`, and the bare training step.

python -m benchmarks                                  # all cases, on noise: a quarter of an hour on two cores
python -m benchmarks cifar_resnet20 --cifar DIR --json benchmark.json
python -m benchmarks imagenet_resnet18 --images DIR   # a folder with train/<class>/ in it

The three take turns every few steps, so that the noise of a shared machine meets them all; a ratio is the median of the
ratios of all turns.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.cases import CASES, find_or_make_images
from benchmarks.measure import Result, measure_case
from benchmarks.process import run_in_new_process
from reports.command import print_sections
from reports.html_page import Section, Table

IMAGES_PER_S = "{:,.0f}".format
# Column: key of a result, and how its value is shown
COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "plain loop": ("plain_images_per_s", IMAGES_PER_S),
    "our fit": ("fit_images_per_s", IMAGES_PER_S),
    "bare step": ("limit_images_per_s", IMAGES_PER_S),
    "fit / plain": ("fit_over_plain", "{:.2f}".format),
    "fit / bare": ("fit_over_limit", "{:.2f}".format),
    "loader per core": ("loader_images_per_s_per_core", IMAGES_PER_S),
    "plain loader": ("plain_loader_images_per_s_per_core", IMAGES_PER_S),
    "memory, GiB": ("peak_memory_bytes", lambda number: f"{number / 2**30:.1f}"),
    "first step, s": ("first_step_s", "{:.1f}".format),
    "of the GPU's peak": ("utilisation", "{:.1%}".format),
}


def existing_folder(text: str) -> Path:
    """The path of a folder, for argparse."""
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return Path(text)


def new_file(text: str) -> Path:
    """The path of a file to write, for argparse."""
    return existing_folder(str(Path(text).parent)) / Path(text).name


def parse(args: list[str] | None) -> argparse.Namespace:
    """The arguments; a mistake ends the program with a sentence and status 2."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; unset, all that can run here")
    add("--cifar", type=existing_folder, metavar="DIR", help="folder of CIFAR-10; unset, noise in its layout")
    add("--images", type=existing_folder, metavar="DIR", help="folder with train/<class>/; unset, synthetic JPEGs")
    add("--turns", type=int, default=9, metavar="N", help="how often each is timed (default: 9)")
    add("--json", type=new_file, metavar="FILE", help="write all measurements to FILE")
    given = parser.parse_args(args)
    if unknown := set(given.cases) - {*CASES}:
        parser.error(f"there is no case {', '.join(sorted(unknown))}: choose from {', '.join(CASES)}")
    if given.turns < 1:
        parser.error(f"--turns is {given.turns}: it must be at least 1")
    if given.images and not os.path.isdir(given.images / "train"):
        parser.error(f"{given.images} has no folder train: --images needs a folder with train/<class>/")
    return given


def measure_all(given: argparse.Namespace, folder: Path) -> list[Result]:
    """The results of all cases; the JSON file grows with them, because the next case may fail.

    Args:
        given: the arguments of the command.
        folder: for runs and synthetic images.
    """
    runnable = [name for name, case in CASES.items() if torch.cuda.is_available() or not case.cuda]
    results = []
    for name in given.cases or runnable:
        print(f"{name} ...", flush=True)
        root = find_or_make_images(CASES[name], given.cifar, given.images, folder)
        results.append(run_in_new_process(measure_case, name, root, folder / "runs", given.turns))
        if given.json:
            try:
                given.json.write_text(json.dumps(results, indent=2) + "\n")
            except OSError as error:  # the results are printed in the end
                print(f"{given.json} could not be written ({error.strerror}).", flush=True)
    return results


def speed_table(results: list[Result]) -> Table:
    """A row for each case, without columns that are empty in all of them."""
    columns = {name: column for name, column in COLUMNS.items() if any(result.get(column[0]) for result in results)}
    rows = [
        [result["case"], *(show(result[key]) if result.get(key) else "" for key, show in columns.values())]
        for result in results
    ]
    title = f"Images per second in training on {results[0]['device']}: medians of {len(results[0]['turns'])} turns"
    return Table(title, ["<case", *columns], rows)


def main(args: list[str] | None = None) -> None:
    """Measure the cases of a command line, by default that of the process, and print the table."""
    given = parse(args)
    with tempfile.TemporaryDirectory() as folder:  # runs and synthetic images vanish with it
        results = measure_all(given, Path(folder))
    print_sections([Section("Speed", [speed_table(results)])])
    if given.json:
        print(f"Wrote {given.json}")


if __name__ == "__main__":
    main()
