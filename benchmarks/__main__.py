"""Training speed in images per second, side by side: a plain PyTorch loop, our `fit`, and the bare training step.

python -m benchmarks                                  # all cases, on noise: half an hour on two cores
python -m benchmarks cifar_resnet20 --cifar DIR --json benchmark.json
python -m benchmarks imagenet_resnet18 --images DIR   # a folder with train/<class>/ in it
python -m benchmarks timm --timm DIR --images DIR     # beside the train.py in a checkout of timm's sources
python -m benchmarks --tables README.md docs/benchmarks.md   # measures nothing: makes their tables from the JSON files

All that are compared take turns every few steps, so that the noise of a shared machine meets them all; a ratio is the
median of the ratios of all turns.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.cases import CASES, find_or_make_images
from benchmarks.measure import measure_case
from benchmarks.process import run_in_new_process
from benchmarks.tables import Result, speed_tables, update_documents
from benchmarks.timm_script import SCRIPT, TimmScript
from errors import UserError
from reports.command import print_sections
from reports.html_page import Section


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
    add("--timm", type=existing_folder, metavar="DIR", help="checkout of timm's sources, for the cases timm*")
    add("--tables", type=Path, nargs="+", metavar="FILE", help="make the tables of these documents, and end")
    add("--json", type=new_file, metavar="FILE", help="write all measurements to FILE")
    given = parser.parse_args(args)
    if unknown := set(given.cases) - {*CASES}:
        parser.error(f"there is no case {', '.join(sorted(unknown))}: choose from {', '.join(CASES)}")
    if given.turns < 1:
        parser.error(f"--turns is {given.turns}: it must be at least 1")
    if given.images and not os.path.isdir(given.images / "train"):
        parser.error(f"{given.images} has no folder train: --images needs a folder with train/<class>/")
    if given.timm and not os.path.isfile(given.timm / SCRIPT):
        parser.error(
            f"{given.timm} has no {SCRIPT}: --timm needs a checkout of timm's sources; its wheels lack the script"
        )
    if not given.timm and (needing := [name for name in given.cases if CASES[name].kind == "timm"]):
        parser.error(f"the case {needing[0]} needs --timm DIR, a checkout of timm's sources")
    return given


def measure_all(given: argparse.Namespace, folder: Path) -> list[Result]:
    """The results of all cases; the JSON file grows with them, because the next case may fail.

    Args:
        given: the arguments of the command.
        folder: for runs and synthetic images.
    """
    runnable = [
        name
        for name, case in CASES.items()
        if (torch.cuda.is_available() or not case.cuda) and (given.timm or case.kind != "timm")
    ]
    results = []
    for name in given.cases or runnable:
        print(f"{name} ...", flush=True)
        root = find_or_make_images(CASES[name].data, given.cifar, given.images, folder)
        timm = find_timm(given, folder) if CASES[name].kind == "timm" else None
        result = run_in_new_process(measure_case, name, root, folder / "runs", given.turns, timm)
        results.append(result | {"command": describe_command(name, given)})
        if given.json:
            try:
                given.json.write_text(json.dumps(results, indent=2) + "\n")
            except OSError as error:  # the results are printed in the end
                print(f"{given.json} could not be written ({error.strerror}).", flush=True)
    return results


def find_timm(given: argparse.Namespace, folder: Path) -> TimmScript:
    """timm's script and the images that it reads: files, also where ours reads a packed copy of them."""
    images = find_or_make_images("images", None, given.images, folder)
    assert images is not None
    return TimmScript(given.timm, images)


def describe_command(name: str, given: argparse.Namespace) -> str:
    """The command that measures a case as this one does, with DIR for the folders."""
    data, needs_timm = CASES[name].data, CASES[name].kind == "timm"
    flags = [("--cifar DIR", given.cifar and data == "cifar")]
    flags += [("--images DIR", given.images and data in ("images", "packed")), ("--timm DIR", needs_timm)]
    return " ".join(
        ["python -m benchmarks", name, *(flag for flag, is_given in flags if is_given), f"--turns {given.turns}"]
    )


def main(args: list[str] | None = None) -> None:
    """Measure the cases of a command line, by default that of the process, and print the table."""
    given = parse(args)
    if given.tables:
        try:
            update_documents(given.tables)
        except (OSError, UserError) as error:
            sys.exit(f"error: {error}")
        return
    with tempfile.TemporaryDirectory() as folder:  # runs and synthetic images vanish with it
        results = measure_all(given, Path(folder))
    print_sections([Section("Speed", speed_tables(results))])
    if given.json:
        print(f"Wrote {given.json}")


if __name__ == "__main__":
    main()
