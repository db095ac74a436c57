"""Groups of runs that differ in their seed alone, and what differs between groups."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

from errors import printable
from reports.run import Run

ABSENT = "\N{EN DASH}"
LONGEST = 40  # characters of a value
DEEPEST = 30  # dicts and lists in each other
CLASS_PATH = re.compile(r"([A-Za-z_]\w*\.)+([A-Z]\w*)")
SECTIONS = ("model", "trainer", "data")  # of a config, the most telling first
DATA = "data.images"  # stands for the hash of the images, which is not in a config

# What a config says beside the recipe: where results go, what is logged and shown, and what only a test reads
NO_RECIPE = {
    "seed_everything",
    "runs",
    "run_name",
    "run_version",
    "ckpt_path",
    "weights_only",
    "facts",
    "trainer.logger",
    "trainer.default_root_dir",
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.enable_autolog_hparams",
    "trainer.model_registry",
    "trainer.profiler",
    "trainer.num_sanity_val_steps",
    "trainer.limit_test_batches",
    "trainer.limit_predict_batches",
    "data.num_workers",
    "data.protocol",
    "model.num_classes",  # of the data, filled in
    "model.images_per_forward",  # bounds the memory of an evaluation
}
# Callbacks that log, show or time a training, and change nothing in it
OBSERVERS = {"GradientFlow", "LearningRateMonitor", "Throughput", "WriteRunFacts"}
OBSERVERS |= {"DeviceStatsMonitor", "ModelSummary", "RichModelSummary", "RichProgressBar", "TQDMProgressBar"}


@dataclass
class Group:
    """Runs of one recipe.

    Args:
        label: the experiment, with what sets the group apart from others of the experiment.
        runs: that differ in their seeds.
        values: what differs between the groups that were made together, by dotted key; see `config_differences`.
    """

    label: str
    runs: list[Run]
    values: dict[str, str] = field(default_factory=dict)

    @property
    def experiment(self) -> str:
        """Of all its runs."""
        return self.runs[0].experiment

    @property
    def repeated_seeds(self) -> list[int]:
        """Seeds of more than one run, which are copies of each other and no independent ones."""
        counts = Counter(run.seed for run in self.runs if run.seed is not None)
        return sorted(seed for seed, number in counts.items() if number > 1)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups of runs, in the order of their first runs.

    Runs of a group have one experiment, the same images, and configs that are equal but for the seed and for what
    cannot change a result: loggers, folders of results, what is shown on the screen, callbacks that only observe,
    loader processes, and the protocol, which `test` alone uses. The folder of the data is left out where hashes tell
    that the images are the same. Everything else counts, also where it should make no difference: precision, number of
    devices, memory layout and compilation change a result in its last digits, and the batch of a process. An argument
    that is null counts as one that is not there, so that runs stay comparable when code gains an argument.

    A run without config is a group of its own.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(identify_recipe(run), []).append(run)
    groups = [Group(members[0].experiment, members) for members in found.values()]
    differences = config_differences(groups)
    for index, group in enumerate(groups):
        group.values = {key: values[index] for key, values in differences.items()}
    set_labels(groups)
    return groups


def identify_recipe(run: Run) -> str:
    """A text that is equal for runs of one group."""
    if not run.config:
        return run.location
    values = [[key, value] for key, value in sorted(flatten_recipe(run).items())]
    return json.dumps([run.experiment, values])


def flatten_recipe(run: Run) -> dict[str, Any]:
    """The values of a run's config that can change its result, by dotted key, and what identifies its images."""
    flat = {key: value for key, value in flatten(run.config) if value is not None and not is_no_recipe(key)}
    data = run.facts.data if run.facts else None
    hashes = [data.data_hash, data.val_hash, data.test_hash] if data else []
    if any(hashes):
        flat = {key: value for key, value in flat.items() if not (key.startswith("data.") and key.endswith(".root"))}
        flat[DATA] = hashlib.sha256(" ".join(map(str, hashes)).encode(errors="surrogateescape")).hexdigest()
    return flat


def is_no_recipe(key: str) -> bool:
    """Whether a dotted key of a config, or what it lies in, cannot change a result."""
    parts = key.split(".")
    is_observer = key.startswith("trainer.callbacks.") and parts[2] in OBSERVERS
    is_folder = key.startswith("trainer.callbacks.ModelCheckpoint") and parts[-1] == "dirpath"
    return is_observer or is_folder or any(".".join(parts[:length]) in NO_RECIPE for length in (1, 2))


def flatten(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The values of a config by dotted key, class paths under the key of their class; numbers are floats.

    Args:
        value: of the config, or the whole.
        key: of the value.
        depth: of the value in the config.
    """
    if depth > DEEPEST:
        yield key, "..."
    elif isinstance(value, Mapping) and "class_path" in value:
        yield key, "yes" if key.startswith("trainer.callbacks.") else str(value["class_path"])
        rest = {name: each for name, each in value.items() if name not in ("class_path", "init_args")}
        arguments = value.get("init_args")
        yield from flatten(rest | (dict(arguments) if isinstance(arguments, Mapping) else {}), key, depth + 1)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from flatten(each, f"{key}.{name}" if key else str(name), depth + 1)
    elif isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
        counts: Counter[str] = Counter()
        for each in value:
            name = name_item(each)
            counts[name] += 1
            yield from flatten(each, f"{key}.{name}" + f"[{counts[name]}]" * (counts[name] > 1), depth + 1)
    elif isinstance(value, list | tuple):
        yield key, [normalize(each) for each in value]
    else:
        yield key, normalize(value)


def name_item(item: Any) -> str:
    """The name of an item of a list, such as StepLRDecay, or ModelCheckpoint:best by its file."""
    if not isinstance(item, Mapping) or "class_path" not in item:
        return "item"
    name = str(item["class_path"]).rpartition(".")[2]
    arguments = item.get("init_args")
    file = arguments.get("filename") if isinstance(arguments, Mapping) else None
    return f"{name}:{file}" if isinstance(file, str) else name


def normalize(value: Any) -> Any:
    """A single value such that equal ones of YAML and of W&B's JSON, which writes 0.0 as 0, are equal."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if is_number and abs(value) < 2**53:
        return float(value)
    return value if isinstance(value, float | bool | None) else str(value)


def config_differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """What differs between groups: by dotted key a short text for each group, the most telling first.

    The keys of arguments leave out `init_args`, as flags do: model.optimizer.lr. The images are compared by their
    hashes, under the key data.images. The arguments of a class that not all groups have stand behind the class where
    the groups that have it agree on them. Groups without config have no say in what differs.
    """
    flat = [flatten_recipe(group.runs[0]) for group in groups]
    known = [each for group, each in zip(groups, flat, strict=True) if group.runs[0].config]
    keys = dict.fromkeys(key for each in known for key in each)
    differing = {key: None for key in keys if any(each.get(key) != known[0].get(key) for each in known)}
    owners = {key: owner for key in differing if (owner := find_owner(key, differing, known))}
    arguments = {owner: [key for key in owners if owners[key] == owner] for owner in owners.values()}
    shown = sorted(differing.keys() - owners, key=rank)
    differences = {key: [format_class(each, key, arguments.get(key, ())) for each in flat] for key in shown}
    return {key: [text[:6] for text in values] if key == DATA else values for key, values in differences.items()}


def find_owner(key: str, differing: Collection[str], recipes: Sequence[Mapping[str, Any]]) -> str | None:
    """The key of the class that an argument stands behind: of an argument that differs because that class does.

    Such as a length of a schedule that not all recipes have. None for others.
    """
    parts = key.split(".")
    above = (".".join(parts[:length]) for length in range(1, len(parts)))
    owner = next((each for each in above if each in differing), None)
    values = [each[key] for each in recipes if key in each]
    return owner if key != DATA and all(value == values[0] for value in values) else None


def format_class(recipe: Mapping[str, Any], key: str, arguments: Sequence[str]) -> str:
    """A value as `format_value`, with arguments in brackets: OneCycleLR (max_lr=0.4), or decay=0.999 for a callback."""
    in_brackets = ", ".join(
        f"{name.removeprefix(f'{key}.')}={format_value(recipe[name])}" for name in arguments if name in recipe
    )
    value = format_value(recipe.get(key))
    return shorten_text(value if not in_brackets else in_brackets if value == "yes" else f"{value} ({in_brackets})")


def rank(key: str) -> tuple[int, int, str]:
    """For sorting: model, trainer, data, then the rest; a class before its arguments, callbacks after other keys."""
    section = key.split(".")[0]
    position = SECTIONS.index(section) if section in SECTIONS else len(SECTIONS)
    return position, key.startswith("trainer.callbacks."), key


def format_value(value: Any) -> str:
    """A value of a config in at most `LONGEST` characters; `ABSENT` for none."""
    if value is None:
        return ABSENT
    if isinstance(value, list):
        text = f"[{', '.join(map(format_value, value))}]"
    elif isinstance(value, float):
        text = f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        match = CLASS_PATH.fullmatch(str(value))
        text = match[2] if match else str(value)
    return shorten_text(printable(text))


def shorten_text(text: str) -> str:
    """A text in at most `LONGEST` characters: its beginning and its end."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[3 - LONGEST // 2 :]}"


def set_labels(groups: Sequence[Group]) -> None:
    """Give groups labels that are all different."""
    for experiment in dict.fromkeys(group.experiment for group in groups):
        rivals = [group for group in groups if group.experiment == experiment and group.runs[0].config]
        if len(rivals) > 1:
            differences = config_differences(rivals)
            for index, chosen in enumerate(choose_words(differences, len(rivals))):
                rivals[index].label = " ".join([experiment, *chosen])
    for group in groups:
        if not group.runs[0].config:
            group.label = group.runs[0].name
    taken: set[str] = set()
    for group in groups:
        numbered = (f"{group.label} ({number})" for number in count(2))
        group.label = next(each for each in chain([group.label], numbered) if each not in taken)
        taken.add(group.label)


def choose_words(differences: Mapping[str, Sequence[str]], groups: int) -> list[list[str]]:
    """For each group the shortest words that tell it from the others, such as norm=group.

    The key that tells most groups apart is taken first, then the one that tells most of the rest, until all differ.
    """
    chosen: list[str] = []

    def classes(keys: Sequence[str]) -> int:
        return len({tuple(differences[key][index] for key in keys) for index in range(groups)})

    while classes(chosen) < groups:
        best = max(
            differences,
            key=lambda key: (classes([*chosen, key]), "yes" in differences[key], -words_length(key, differences[key])),
            default=None,
        )
        if best is None or classes([*chosen, best]) == classes(chosen):
            break  # they differ in the middle of long texts
        chosen.append(best)
    chosen.sort(key=rank)
    return [[f"{short_key(key)}={describe(key, differences[key][index])}" for key in chosen] for index in range(groups)]


def words_length(key: str, values: Sequence[str]) -> int:
    """How long the words of a key and its values are, in all labels."""
    return len(values) * len(short_key(key)) + sum(map(len, values))


def short_key(key: str) -> str:
    """The last part of a dotted key."""
    return "data" if key == DATA else key.split(".")[-1]


def describe(key: str, value: str) -> str:
    """A value in a label, where an argument that is null, or not there, is none."""
    return value if value != ABSENT else "unknown" if key == DATA else "none"
