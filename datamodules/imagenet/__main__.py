"""Prepare ImageNet, or any images in class folders.

python -m datamodules.imagenet resize SRC DST        # a copy with smaller images, which loads several times faster
python -m datamodules.imagenet pack SRC DST          # the same with many images in each file, as JPEG or as pixels
"""

import sys

from jsonargparse import auto_cli

from datamodules.imagenet.pack import pack_tree
from datamodules.resize import resize_tree
from errors import UserError, protect_output


def main(args: list[str] | None = None) -> None:
    """The command line of this module."""
    protect_output()
    try:
        auto_cli(
            {"resize": resize_tree, "pack": pack_tree},
            args=args,
            prog="python -m datamodules.imagenet",
            description=__doc__,
        )
    except (OSError, UserError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on where it stopped.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
