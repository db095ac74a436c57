"""The sentences of the command line: what went wrong, in the user's words and not jsonargparse's.

Lightning's parser tells of every type that a value might have had; the user wants the one that was meant. The arguments
of a class are parsed by a parser of their own, which does not know under which flag the class was given: its sentence
is marked, and each parser around it puts the beginning of the flag in front.
"""

import difflib
import re
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser

import callbacks
import datamodules
import lit_models
from errors import UserError

HOME = Path(__file__).resolve().parent.parent
LINK = "Call to compute_fn of link"
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
SEE_HELP = " See --help, and --model.help CLASS or --data.help CLASS for those of a class."
UNION = "Does not validate against any of the Union subtypes"
FLAG = "\1"  # stands for "--" and all that belongs between it and a name
START, END = "\2", "\3"  # of the sentence of a class's parser


def is_for_user(error: BaseException | None) -> bool:
    """Whether an error is a sentence for the user: a UserError, or Lightning's or jsonargparse's word about a flag."""
    while error is not None:  # jsonargparse wraps what it meets while it links arguments
        if isinstance(error, UserError | MisconfigurationException) or UNION in str(error):
            return True
        error = error.__cause__
    return False


def sentence(message: str, names: list[str] | None = None) -> str:
    """What jsonargparse means, which says it in many lines and of every type that might have been meant.

    Args:
        message: jsonargparse's, or any other, which is returned as it is.
        names: what exists, to guess what was meant.
    """
    return meaning(message, names or []).replace(FLAG, "--")


def sentence_of_class(message: str, names: list[str]) -> str:
    """The same of the parser of a class's arguments, for the parser around it."""
    return START + meaning(message, names) + END


def meaning(message: str, names: list[str]) -> str:
    """The sentence with FLAG where a flag begins."""
    if LINK in message:
        return message.rpartition(" failed: ")[2]
    classes = [name for name in names if "." in name and not name.startswith("-")]
    key = FLAG + match[1] if (match := re.search(r'Parser key "([^"]+)"', message)) else "it"
    if match := re.search(f"{START}(.*?){END}", message, re.DOTALL):
        return match[1].replace(FLAG, f"{key}.") if key != "it" else match[1]
    value = match[1] if (match := re.search(r"(?:Given|Got) value: (.*)", message)) else ""
    if match := re.search(
        r"[Uu]nrecognized arguments: (\S+)|Option '([^']+)' is not|not accept option '([^']+)'|Key '([^']+)' is not",
        message,
    ):
        name = next(group for group in match.groups() if group)
        if match[1] and name.endswith((".yaml", ".yml")):
            return f"There is no argument {name} here. Did you mean --config {name}?"
        if match[1] and not name.startswith("-"):
            return f"There is no argument {name} here: a value with spaces wants quotes."
        name = name.removeprefix("--").partition("=")[0]
        options = [option.removeprefix("--") for option in names if option.startswith("--")]
        meant = guess(name, options, FLAG)
        return f"There is no argument {name if name.startswith('-') else FLAG + name} here.{meant or SEE_HELP}"
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
    if match := re.search(r"(?:Expected a dot import path string:|has no attribute '\w+'. Got value:) (\S+)", message):
        return f"{key}: there is no class {match[1]}.{guess(match[1], classes)}"
    if match := re.search(r"does not correspond to a subclass of (\w+)", message):
        return f"{key} is {value}: it must be a {match[1]}."
    if match := re.search(r"Expected a typing.Literal\[([^]]*)\]|Literal\[(.*)\]. Got", message):
        choices = (match[1] or match[2]).replace("'", "").split(", ")
        return f"{key} is {value}: it must be one of {', '.join(choices)}.{guess(value, choices)}"
    if match := re.search(r"arguments are required: (.*)", message):
        missing = [name.removeprefix("fit.") for name in match[1].split(", ")]
        flags = " and ".join(FLAG + name for name in missing)
        if set(missing) <= {"data", "model"}:
            return f"Not given: {flags}. Name an experiment, such as --config configs/digits/resnet20.yaml."
        return f"Not given: {flags}, which {'has' if len(missing) == 1 else 'have'} no default."
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


def guess(name: str, names: list[str], before: str = "") -> str:
    """ " Did you mean ...?", with `before` in front of the name, or nothing where none comes near."""
    bare = {n.lower(): n for n in names} | {n.rsplit(".", 1)[-1].lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), bare, n=1, cutoff=0.6) or difflib.get_close_matches(
        name.rsplit(".", 1)[-1].lower(), bare, n=1, cutoff=0.6
    )
    return f" Did you mean {before}{bare[near[0]]}?" if near and bare[near[0]] != name else ""


def config_files() -> list[str]:
    """The experiments and overlays of this repository, without .yaml."""
    return [str(path.relative_to(HOME).with_suffix("")) for path in sorted(HOME.glob("configs/*/**/*.yaml"))]


def known_names(parser: LightningArgumentParser) -> list[str]:
    """The flags of a parser and of its verbs, the classes of this repository and torch's optimizers."""
    choices = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    parsers = [sub for verbs in choices for sub in verbs.values()] or [parser]
    flags = [option for sub in parsers for action in sub._actions for option in action.option_strings]
    classes = [getattr(module, name) for module in (lit_models, datamodules, callbacks) for name in module.__all__]
    paths = [f"{cls.__module__.split('.')[0]}.{cls.__name__}" for cls in classes]
    paths += [f"torch.optim.{name}" for name in torch.optim.__all__ if isinstance(getattr(torch.optim, name), type)]
    return [*flags, *paths]
