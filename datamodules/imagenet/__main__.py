"""Prepare ImageNet, or any images in class folders.

python -m datamodules.imagenet resize SRC DST        # a copy with smaller images, which loads several times faster
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from datamodules.resize import resize_tree
from errors import UserError, pluralize


def main(args: list[str] | None = None) -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m datamodules.imagenet", description=__doc__)
    resize = parser.add_subparsers(required=True).add_parser("resize", help="copy a folder of images, made smaller")
    resize.add_argument("source", type=Path, help="a folder of images at any depth")
    resize.add_argument("target", type=Path, help="the copy; files that it has already are kept")
    resize.add_argument("--shorter_side", type=int, default=256, help="in pixels (256)")
    resize.add_argument("--quality", type=int, default=90, help="of the JPEGs (90)")
    resize.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (one for each core)")
    given = parser.parse_args(args)
    try:
        failed = resize_tree(given.source, given.target, given.shorter_side, given.quality, given.workers)
    except (OSError, UserError) as error:
        sys.exit(f"error: {error}")
    if failed:
        what = pluralize(len(failed), "image")
        sys.exit("\n".join([f"error: {what} could not be read and are not in the copy:", *failed[:10]]))
    print(f"{given.target} is complete. Train on it with --data.root {shlex.quote(str(given.target))}.")


if __name__ == "__main__":
    main()
