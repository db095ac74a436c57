"""The entry point: `python main.py fit --config configs/digits/resnet20.yaml`, and `python main.py --help`."""

import signal
import sys
from importlib.util import find_spec

from cli.rank_variables import defer_to_first_process, refuse_odd_ranks, refuse_restart
from errors import UserError, printable_lines


def main() -> None:
    """Run one verb, once what needs no torch is checked: see `cli.command_line.run_cli`."""
    try:
        refuse_odd_ranks()
        refuse_restart()
        if find_spec("lightning") is None:
            raise UserError(
                f"The packages of this project are not installed in {sys.executable}: type `make setup` once, then "
                "`.venv/bin/python main.py ...`, or `. .venv/bin/activate` before `python main.py ...`."
            )
        from cli.early_checks import announce_start, check_early

        check_early(sys.argv[1:])
    except UserError as error:
        defer_to_first_process()
        sys.exit(f"error: {printable_lines(error)}")
    announce_start()
    from cli.command_line import run_cli  # imports torch and Lightning, which takes seconds and reads the ranks

    run_cli()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports: no traceback
    main()
