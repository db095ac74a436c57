"""jsonargparse's errors, each made one sentence in the user's words.

Lightning's parser reports every type that a value might have had; the user wants the one that was meant. `SENTENCES`
maps patterns of jsonargparse's messages to sentences, or to functions that build them; the first pattern found decides.

The arguments of a class are parsed by a parser of their own, which does not know under which flag the class was given:
it marks its sentence (START, END) and the beginning of each flag (FLAG), and each parser around it adds its part.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from errors import UserError

HOME = Path(__file__).resolve().parent.parent
FLAG = "\1"  # stands for "--" and all that belongs between it and a name
START, END = "\2", "\3"  # around the sentence of a class's parser
NO_VERB = "Give a command: fit, validate, test or predict. See --help."
UNION = "Does not validate against any of the Union subtypes"
TYPE_NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
SEE_HELP = " See --help, and --model.help CLASS or --data.help CLASS for those of a class."
# Lines of a message that give no reason
NO_REASON = ("Expected a path", "Expected a <class 'NoneType'>", "Given", "Subtypes", "Errors", "Problem with", UNION)


@dataclass
class Problem:
    """A message of jsonargparse, and what it is about.

    Args:
        message: of jsonargparse.
        flag: that it names; "it" if it names none.
        value: that was given.
        names: flags and class paths that exist.
    """

    message: str
    flag: str
    value: str
    names: list[str]


def find_user_error(error: BaseException | None) -> BaseException | None:
    """The user's mistake behind an error: a UserError, or Lightning's complaint about a flag; None for a bug.

    jsonargparse wraps the errors that it meets while it links arguments.
    """
    # Here, for the sentences alone need no Lightning: see `cli.early_checks`
    from lightning.fabric.utilities.exceptions import MisconfigurationException

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
    given = value[1] if value else ""
    given = "null" if given == "None" else given
    problem = Problem(message, FLAG + key[1] if key else "it", given, names)
    for pattern, build in SENTENCES:
        if match := re.search(pattern, message, re.DOTALL):
            if isinstance(build, str):
                return build.format(*match.groups(), flag=problem.flag, value=problem.value)
            return build(problem, *match.groups())
    return message


def add_flag(problem: Problem, sentence: str) -> str:
    """The sentence of a class's parser, with the flag of the class in front of the class's own flags."""
    return sentence if problem.flag == "it" else sentence.replace(FLAG, f"{problem.flag}.")


def unknown_word(problem: Problem, word: str) -> str:
    """A word that is no flag: a YAML file without --config, or the rest of a value with spaces."""
    if word.endswith((".yaml", ".yml")):
        return f"There is no argument {word} here. Did you mean --config {word}?"
    return f"There is no argument {word} here: a value with spaces needs quotes."


def unknown_flag(problem: Problem, typed: str) -> str:
    """A flag that does not exist, and the nearest one that does."""
    name = typed.removeprefix("--").partition("=")[0]
    flags = [flag.removeprefix("--") for flag in problem.names if flag.startswith("--")]
    shown = name if name.startswith("-") else FLAG + name
    return f"There is no argument {shown} here.{guess(name, flags, FLAG) or SEE_HELP}"


def unknown_key(problem: Problem, section: str, name: str) -> str:
    """A key that does not exist in one of the topmost sections."""
    return unknown_flag(problem, f"{section}.{name}")


def unknown_class(problem: Problem, class_path: str) -> str:
    """A class that does not exist, and the nearest one that does.

    Raises:
        ModuleNotFoundError: if its module exists, and imports another that does not.
    """
    raise_if_broken(class_path)
    classes = [name for name in problem.names if "." in name and not name.startswith("-")]
    return f"{problem.flag}: there is no class {class_path} for it.{guess(class_path, classes)}"


def denied_import(problem: Problem, class_path: str) -> str:
    """A class or function that neither a checkpoint may name nor the user has named."""
    module = class_path.rpartition(".")[0]
    return f"{problem.flag} names {class_path}, which a checkpoint may not: if you trust it, give --allow {module}."


def raise_if_broken(class_path: str) -> None:
    """Show the traceback of a fault inside a module, of which jsonargparse only says that there is no class."""
    module = class_path.rpartition(".")[0]
    try:
        importlib.import_module(module or "builtins")
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise


def missing_config(typed: str) -> str:
    """A --config file that does not exist, and the nearest one below configs/."""
    path = Path(typed)
    relative = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    existing = [str(file.relative_to(HOME).with_suffix("")) for file in sorted(HOME.glob("configs/*/**/*.yaml"))]
    return f"There is no config file {path}.{guess(str(relative).removesuffix('.yaml'), existing)}"


def missing_checkpoint(verb: str) -> str:
    """The sentence for a verb that was given no --ckpt_path."""
    return f"{verb} needs a trained model: give --ckpt_path runs/<dataset>/<experiment>, or a file."


def unknown_verb(problem: Problem, typed: str, choices: str) -> str:
    """A verb that does not exist, and those that do."""
    return describe_unknown_verb(typed, re.findall(r"\w+", choices))


def describe_unknown_verb(typed: str, verbs: Sequence[str]) -> str:
    """The sentence for a verb that does not exist."""
    return f"There is no command {typed}: choose from {', '.join(verbs)}.{guess(typed, verbs)}"


def missing_arguments(problem: Problem, names: str) -> str:
    """Arguments without a default that were not given, and what to give."""
    missing = [name.removeprefix("fit.") for name in names.split(", ")]
    flags = " and ".join(FLAG + name for name in missing)
    if set(missing) <= {"data", "model"}:
        return f"Not given: {flags}. Name an experiment, such as --config configs/digits/resnet20.yaml."
    return f"Not given: {flags}, which {'has' if len(missing) == 1 else 'have'} no default."


def not_a_choice(problem: Problem, quoted_choices: str) -> str:
    """A value that is none of those allowed, and those that are."""
    choices = quoted_choices.replace("'", "").split(", ")
    choices += ["true", "false"] if "Expected a <class 'bool'>" in problem.message else []
    meant = guess(problem.value, choices)
    return f"{problem.flag} is {problem.value}: it must be one of {', '.join(choices)}.{meant}"


def wrong_type(problem: Problem) -> str:
    """A value of another type, and the types that it may have; or else the first reason that jsonargparse gives."""
    reasons = [line.strip(" -") for line in problem.message.splitlines()[1:]]
    reasons = [reason for reason in reasons if reason and not reason.startswith(NO_REASON)]
    types = re.findall(r"^Expected an? <class '([^']+)'>", "\n".join(reasons), re.MULTILINE)
    if types:
        expected = dict.fromkeys(TYPE_NAMES.get(name, name) for name in types)
        return f"{problem.flag} is {problem.value}: it must be {' or '.join(expected)}."
    return reasons[0] if reasons else problem.message


# Pattern, and the sentence with {groups of the pattern}, or the function that builds it from the problem and the groups
SENTENCES: list[tuple[str, str | Callable[..., str]]] = [
    (f"{START}(.*?){END}", add_flag),
    (r"Importing '([^']+)' is not allowed", denied_import),
    (r"[Uu]nrecognized arguments: ([^-\s]\S*)", unknown_word),
    (r"[Uu]nrecognized arguments: (\S+)", unknown_flag),
    (r"(?:Option|Key) '([^']+)' is not", unknown_flag),
    (r"Group '([^']+)' does not accept option '([^']+)'", unknown_key),
    (r"not accept option '([^']+)'", unknown_flag),
    (r"Problem with given class_path '([^']+)':\s+(?:module|No module|unexpected|Class|Expected)", unknown_class),
    (r'expected "subcommand"', NO_VERB),
    (r"(?=.*Expected a dot import path string).*<class 'float'>", "{flag} is {value}: it must be a number."),
    (
        r"(?:Expected a dot import path string|has no attribute '\w+'. Got value): (?:Namespace.*?')?([^\s']+)",
        unknown_class,
    ),
    (
        r'Not of type timedelta.* but got "([^"]*)"',
        "{flag} is {}: it must be hours, minutes and seconds, such as 0:30:00.",
    ),
    (r"does not correspond to a subclass of (\w+)", "{flag} is {value}: it must be a {}."),
    (r"Expected a typing.Literal\[([^]]*)\]", not_a_choice),
    (r"Literal\[([^\n]*)\]. Got", not_a_choice),
    (r"arguments are required: paths(?:\n|$)", "predict needs images: give --data.paths '[photo.jpg, folder/]'."),
    (r"arguments are required: ([^\n]*)", missing_arguments),
    (r"invalid choice: '([^']+)' \(choose from ([^\n]*)\)", unknown_verb),
    (f"{UNION}|Parser key", wrong_type),
]


def guess(name: str, names: Sequence[str], before: str = "") -> str:
    """ " Did you mean ...?" with the nearest of `names`, and `before` in front of it; empty if none is near."""
    known = {n.lower(): n for n in names} | {n.lower().rpartition(".")[2]: n for n in names}
    typed = name.lower()
    near = get_close_matches(typed, known, n=1) or get_close_matches(typed.rpartition(".")[2], known, n=1)
    return f" Did you mean {before}{known[near[0]]}?" if near and known[near[0]] != name else ""
