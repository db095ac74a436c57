"""The sentences of the command line: what went wrong, in the user's words and not jsonargparse's.

Lightning's parser tells of every type that a value might have had; the user wants the one that was meant.
"""

import difflib
import inspect
import re
import traceback
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser

import callbacks
import datamodules
import lit_models

HOME = Path(__file__).resolve().parent
LINK = "Call to compute_fn of link"
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
SEE_HELP = " See --help, and --model.help CLASS or --data.help CLASS for those of a class."
UNION = "Does not validate against any of the Union subtypes"


def is_for_user(error: BaseException) -> bool:
    """Whether an error is a sentence for the user: one that this repository raised, or Lightning about its flags."""
    if isinstance(error, MisconfigurationException) or UNION in str(error) or LINK in str(error):
        return True
    frame = traceback.extract_tb(error.__traceback__)[-1]
    path = Path(frame.filename).resolve()
    return path.is_relative_to(HOME) and ".venv" not in path.parts and (frame.line or "").startswith("raise ")


def sentence(message: str, names: list[str] | None = None) -> str:
    """What jsonargparse means, which says it in many lines and of every type that might have been meant.

    Args:
        message: jsonargparse's, or any other, which is returned as it is.
        names: what exists, to guess what was meant.
    """
    if LINK in message:
        return message.rpartition(" failed: ")[2]
    names = names or []
    classes = [name for name in names if "." in name and not name.startswith("-")]
    key = match[1] if (match := re.search(r'Parser key "([^"]+)"', message)) else "it"
    value = match[1] if (match := re.search(r"(?:Given|Got) value: (.*)", message)) else ""
    if match := re.search(
        r"Option '([^']+)' is not accepted|[Uu]nrecognized arguments: (\S+)|Key '([^']+)' is not", message
    ):
        name = next(group for group in match.groups() if group)
        if match[2] and name.endswith((".yaml", ".yml")):
            return f"There is no argument {name} here. Did you mean --config {name}?"
        if match[2] and not name.startswith("-"):
            return f"There is no argument {name} here: a value with spaces wants quotes."
        return f"There is no argument {name} here.{guess(name, names) or SEE_HELP}"
    if match := re.search(
        r"Problem with given class_path '([^']+)':\s+(module|No module|unexpected|Class|Expected)", message
    ):
        return f"{key}: there is no class {match[1]} for it.{guess(match[1], classes)}"
    if match := re.search(r'"config":\s+File does not exist: \'?([^\']+)\'?', message):
        path = Path(match[1])
        typed = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"There is no config file {path}.{guess(str(typed.with_suffix('')), config_files())}"
    if 'expected "subcommand"' in message:
        return "Give a command: fit, validate, test or predict. See --help."
    if "Expected a dot import path string" in message and "<class 'float'>" in message:
        return f"{key} is {value}: it must be a number."
    if match := re.search(r"Expected a dot import path string: (\S+)", message):
        return f"{key}: there is no class {match[1]}.{guess(match[1], classes)}"
    if match := re.search(r"Expected a typing.Literal\[([^]]*)\]|Literal\[(.*)\]. Got", message):
        choices = (match[1] or match[2]).replace("'", "").split(", ")
        return f"{key} is {value}: it must be one of {', '.join(choices)}.{guess(value, choices)}"
    if match := re.search(r"arguments are required: (.*)", message):
        missing = " and ".join(name.split(".", 1)[-1] for name in match[1].split(", "))
        return f"Not given: {missing}. Name an experiment, such as --config configs/digits/resnet20.yaml."
    if match := re.search(r"invalid choice: '([^']+)' \(choose from (.*)\)", message):
        verbs = re.findall(r"\w+", match[2])
        return f"There is no command {match[1]}: choose from {', '.join(verbs)}.{guess(match[1], verbs)}"
    if UNION in message or key != "it":
        reasons = [line.strip(" -") for line in message.splitlines()[1:]]
        skip = (
            "Expected a path",
            "Expected a <class 'NoneType'>",
            "Given value",
            "Subtypes",
            "Errors",
            UNION,
            "Problem with",
        )
        reasons = [reason for reason in reasons if reason and not reason.startswith(skip)]
        expected = [match[1] for reason in reasons if (match := re.search(r"Expected an? <class '([^']+)'>", reason))]
        if expected:
            kinds = [KINDS.get(name, name) for name in expected]
            return f"{key} is {value}: it must be {' or '.join(dict.fromkeys(kinds))}."
        return " ".join(reasons[:1]) or message
    return message


def guess(name: str, names: list[str]) -> str:
    """ " Did you mean ...?", or nothing where no name comes near."""
    bare = {n.lower(): n for n in names} | {n.rsplit(".", 1)[-1].lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), bare, n=1, cutoff=0.6) or difflib.get_close_matches(
        name.rsplit(".", 1)[-1].lower(), bare, n=1, cutoff=0.6
    )
    return f" Did you mean {bare[near[0]]}?" if near and bare[near[0]] != name else ""


def config_files() -> list[str]:
    """The experiments and overlays of this repository, without .yaml."""
    return [str(path.relative_to(HOME).with_suffix("")) for path in sorted(HOME.glob("configs/*/**/*.yaml"))]


def known_names(parser: LightningArgumentParser) -> list[str]:
    """The flags of every verb, the classes of this repository and torch's optimizers, and all their arguments."""
    choices = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    parsers = [sub for verbs in choices for sub in verbs.values()] or [parser]
    flags = [option for sub in parsers for action in sub._actions for option in action.option_strings]
    optimizers = [
        getattr(torch.optim, name) for name in torch.optim.__all__ if inspect.isclass(getattr(torch.optim, name))
    ]
    classes = [getattr(module, name) for module in (lit_models, datamodules, callbacks) for name in module.__all__]
    paths = [f"{cls.__module__.split('.')[0]}.{cls.__name__}" for cls in classes]
    paths += [f"torch.optim.{cls.__name__}" for cls in optimizers]
    arguments = {
        name
        for cls in [*classes, *optimizers]
        for base in cls.__mro__[:-1]
        if "__init__" in vars(base)
        for name in inspect.signature(base.__init__).parameters
    }
    return [*flags, *paths, *sorted(arguments - {"self", "args", "kwargs"})]
