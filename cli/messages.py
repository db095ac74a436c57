"""jsonargparse's errors, each made one sentence in the user's words.

Lightning's parser reports every type that a value might have had; the user wants the one that was meant. `SENTENCES`
maps patterns of jsonargparse's messages to sentences, or to functions that build them; the first pattern found decides.

The arguments of a class are parsed by a parser of their own, which does not know under which flag the class was given:
it marks its sentence (START, END) and the beginning of each flag (FLAG), and each parser around it adds its part.
"""

import difflib
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException

from errors import UserError

HOME = Path(__file__).resolve().parent.parent
FLAG = "\1"  # stands for "--" and all that belongs between it and a name
START, END = "\2", "\3"  # around the sentence of a class's parser
UNION = "Does not validate against any of the Union subtypes"
TYPE_NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
SEE_HELP = " See --help, and --model.help CLASS or --data.help CLASS for those of a class."
# Lines of a message that give no reason
NO_REASON = ("Expected a path", "Expected a <class 'NoneType'>", "Given", "Subtypes", "Errors", "Problem with", UNION)


@dataclass
class Problem:
    """A message of jsonargparse, and what it is about."""

    message: str
    flag: str  # "it" if the message names none
    value: str
    names: list[str]  # flags and class paths that exist


def find_user_error(error: BaseException | None) -> BaseException | None:
    """The user's mistake behind an error: a UserError, or Lightning's complaint about a flag; None for a bug.

    jsonargparse wraps the errors that it meets while it links arguments.
    """
    while error is not None and not isinstance(error, UserError | MisconfigurationException):
        error = error.__cause__
    return error


def rephrase(message: str, names: list[str]) -> str:
    """One sentence for the user.

    Args:
        message: jsonargparse's; one of an unknown kind is returned unchanged.
        names: flags and class paths that exist, to guess the one that was meant.
    """
    return build_sentence(message, names).replace(FLAG, "--")


def rephrase_for_outer_parser(message: str, names: list[str]) -> str:
    """The sentence of a class's parser, marked for the parser around it."""
    return START + build_sentence(message, names) + END


def build_sentence(message: str, names: list[str]) -> str:
    """The sentence with FLAG in front of each flag's name."""
    key = re.search(r'Parser key "([^"]+)"', message)
    value = re.search(r"(?:Given|Got) value: (.*)", message)
    problem = Problem(message, FLAG + key[1] if key else "it", value[1] if value else "", names)
    for pattern, build in SENTENCES:
        if match := re.search(pattern, message, re.DOTALL):
            if isinstance(build, str):
                return build.format(*match.groups(), flag=problem.flag, value=problem.value)
            return build(match, problem)
    return message


def add_flag(match: re.Match, problem: Problem) -> str:
    return match[1] if problem.flag == "it" else match[1].replace(FLAG, f"{problem.flag}.")


def unknown_word(match: re.Match, problem: Problem) -> str:
    word = match[1]
    if word.endswith((".yaml", ".yml")):
        return f"There is no argument {word} here. Did you mean --config {word}?"
    return f"There is no argument {word} here: a value with spaces needs quotes."


def unknown_flag(match: re.Match, problem: Problem) -> str:
    name = match[1].removeprefix("--").partition("=")[0]
    flags = [flag.removeprefix("--") for flag in problem.names if flag.startswith("--")]
    typed = name if name.startswith("-") else FLAG + name
    return f"There is no argument {typed} here.{guess(name, flags, FLAG) or SEE_HELP}"


def raise_if_broken(class_path: str) -> None:
    """Show the traceback of a fault inside a module, of which jsonargparse only says that there is no class."""
    module = class_path.rpartition(".")[0]
    try:
        importlib.import_module(module or "builtins")
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise


def unknown_class(match: re.Match, problem: Problem) -> str:
    raise_if_broken(match[1])
    classes = [name for name in problem.names if "." in name and not name.startswith("-")]
    return f"{problem.flag}: there is no class {match[1]} for it.{guess(match[1], classes)}"


def missing_config(match: re.Match, problem: Problem) -> str:
    path = Path(match[1])
    typed = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    existing = [str(file.relative_to(HOME).with_suffix("")) for file in sorted(HOME.glob("configs/*/**/*.yaml"))]
    return f"There is no config file {path}.{guess(str(typed.with_suffix('')), existing)}"


def unknown_verb(match: re.Match, problem: Problem) -> str:
    verbs = re.findall(r"\w+", match[2])
    return f"There is no command {match[1]}: choose from {', '.join(verbs)}.{guess(match[1], verbs)}"


def missing_arguments(match: re.Match, problem: Problem) -> str:
    missing = [name.removeprefix("fit.") for name in match[1].split(", ")]
    flags = " and ".join(FLAG + name for name in missing)
    if missing == ["paths"]:
        return "predict needs images: give --data.paths '[photo.jpg, folder/]'."
    if set(missing) <= {"data", "model"}:
        return f"Not given: {flags}. Name an experiment, such as --config configs/digits/resnet20.yaml."
    return f"Not given: {flags}, which {'has' if len(missing) == 1 else 'have'} no default."


def not_a_choice(match: re.Match, problem: Problem) -> str:
    choices = match[1].replace("'", "").split(", ")
    meant = guess(problem.value, choices)
    return f"{problem.flag} is {problem.value}: it must be one of {', '.join(choices)}.{meant}"


def wrong_type(match: re.Match, problem: Problem) -> str:
    reasons = [line.strip(" -") for line in problem.message.splitlines()[1:]]
    reasons = [reason for reason in reasons if reason and not reason.startswith(NO_REASON)]
    types = re.findall(r"^Expected an? <class '([^']+)'>", "\n".join(reasons), re.MULTILINE)
    if types:
        expected = dict.fromkeys(TYPE_NAMES.get(name, name) for name in types)
        return f"{problem.flag} is {problem.value}: it must be {' or '.join(expected)}."
    return reasons[0] if reasons else problem.message


SENTENCES: list[tuple[str, str | Callable[[re.Match, Problem], str]]] = [
    (f"{START}(.*?){END}", add_flag),
    (r"[Uu]nrecognized arguments: ([^-\s]\S*)", unknown_word),
    (r"[Uu]nrecognized arguments: (\S+)", unknown_flag),
    (r"(?:Option|Key) '([^']+)' is not", unknown_flag),
    (r"not accept option '([^']+)'", unknown_flag),
    (r"Problem with given class_path '([^']+)':\s+(?:module|No module|unexpected|Class|Expected)", unknown_class),
    (r"\"config\":\s+File does not exist: '?([^']+)'?", missing_config),
    (r'expected "subcommand"', "Give a command: fit, validate, test or predict. See --help."),
    (r"(?=.*Expected a dot import path string).*<class 'float'>", "{flag} is {value}: it must be a number."),
    (r"(?:Expected a dot import path string|has no attribute '\w+'. Got value): (\S+)", unknown_class),
    (r"does not correspond to a subclass of (\w+)", "{flag} is {value}: it must be a {}."),
    (r"Expected a typing.Literal\[([^]]*)\]", not_a_choice),
    (r"Literal\[([^\n]*)\]. Got", not_a_choice),
    (r"arguments are required: ([^\n]*)", missing_arguments),
    (r"invalid choice: '([^']+)' \(choose from ([^\n]*)\)", unknown_verb),
    (f"{UNION}|Parser key", wrong_type),
]


def guess(name: str, names: list[str], before: str = "") -> str:
    """ " Did you mean ...?" with the nearest of `names`, and `before` in front of it; empty if none is near."""
    bare = {n.lower(): n for n in names} | {n.rsplit(".", 1)[-1].lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), bare, n=1, cutoff=0.6) or difflib.get_close_matches(
        name.rsplit(".", 1)[-1].lower(), bare, n=1, cutoff=0.6
    )
    return f" Did you mean {before}{bare[near[0]]}?" if near and bare[near[0]] != name else ""
