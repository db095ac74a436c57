"""Prepare ImageNet, or any images in class folders.

python -m datamodules.imagenet resize SRC DST        # a copy with smaller images, which loads several times faster
"""

import sys

from jsonargparse import auto_cli

from datamodules.resize import resize_tree
from errors import UserError, protect_output


def main(args: list[str] | None = None) -> None:
    """The command line of this module."""
    protect_output()
    try:
        auto_cli({"resize": resize_tree}, args=args, prog="python -m datamodules.imagenet", description=__doc__)
    except (OSError, UserError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
