"""The entry point: `python main.py fit --config configs/digits/resnet20.yaml`, and `python main.py --help`."""

from cli.command_line import run_cli

if __name__ == "__main__":
    run_cli()
