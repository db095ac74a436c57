"""The entry point: `python main.py fit --config configs/digits/resnet20.yaml`, and `python main.py --help`."""

import sys

from cli.rank_variables import refuse_odd_ranks
from errors import UserError


def main() -> None:
    """Run one verb, once the ranks are checked and the packages are there: see `cli.command_line.run_cli`."""
    try:
        refuse_odd_ranks()
    except UserError as error:
        sys.exit(f"error: {error}")
    try:
        from cli.command_line import run_cli  # imports Lightning, which reads the ranks
    except ModuleNotFoundError as error:
        if error.name != "lightning":
            raise
        sys.exit(
            f"error: The packages of this project are not installed in {sys.executable}: type `make setup` once, then "
            "`.venv/bin/python main.py ...`, or `. .venv/bin/activate` before `python main.py ...`."
        )
    run_cli()


if __name__ == "__main__":
    main()
