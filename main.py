"""The command line: fit, validate, test and predict, from YAML files and flags.

python main.py fit --config configs/digits/resnet20.yaml
python main.py test --ckpt_path runs/digits/resnet20
"""

from cli.command_line import main

if __name__ == "__main__":
    main()
