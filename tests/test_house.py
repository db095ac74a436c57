"""The shape of the house: floors, sizes, private names of libraries, nothing of one machine."""

import ast
import contextlib
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import HOME

FLOORS = {
    name: floor
    for floor, names in enumerate(
        [
            ["errors", "batch", "trainer_settings"],
            ["checkpointing", "random_draws"],
            ["lit_models", "datamodules"],
            ["callbacks"],
            ["cli"],
            ["main", "reports"],
            ["benchmarks", "studies"],
        ]
    )
    for name in names
}
# The underscore names of libraries that the project may use, four at most; the code says at each place why
PRIVATE_NAMES = {
    "_experiment": "CSVLogger keeps its writer there",
    "_check_log_dir_exists": "CSVLogger's writer would delete the metrics of a run that is resumed",
}


def sources():
    return [p for name in FLOORS for p in [HOME / f"{name}.py", *(HOME / name).rglob("*.py")] if p.is_file()]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def test_imports_run_downwards_only():
    assert len(sources()) > 15
    for path in sources():
        own = path.relative_to(HOME).parts[0].removesuffix(".py")
        for other in set(imports(path)) & set(FLOORS) - {own}:
            assert FLOORS[other] < FLOORS[own], f"{path} imports {other}"


def private_names(path: Path) -> set[str]:
    """The underscore names of libraries in a file: in imports, on objects, and inherited ones on `self`."""
    tree = ast.parse(path.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    inherited = set().union(*(inherited_names(path, node) for node in tree.body if isinstance(node, ast.ClassDef)))
    names = imported | inherited | {node.attr for node in attributes if ast.unparse(node.value) not in ("self", "cls")}
    return {name for name in names if re.match("_[a-zA-Z]", name)} - {"_asdict", "_replace"}  # of a namedtuple: public


def inherited_names(path: Path, node: ast.ClassDef) -> set[str]:
    """The names that a class shares with the source of its bases from libraries."""
    module = ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__")
    bases = getattr(importlib.import_module(module), node.name).__mro__
    foreign = [base for base in bases if base.__module__.split(".")[0] in ("lightning", "torch", "jsonargparse")]
    words: set[str] = set()
    for base in foreign:
        with contextlib.suppress(OSError):  # a class in C has no source
            words |= set(re.findall(r"\b_[a-zA-Z]\w*", inspect.getsource(base)))
    own = {child.name for child in node.body if isinstance(child, ast.FunctionDef)}
    return words & (own | {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)})


def test_at_most_four_underscore_names_of_libraries_are_used():
    used = {name: path for path in sources() for name in private_names(path)}
    assert used.keys() == PRIVATE_NAMES.keys(), used
    assert len(PRIVATE_NAMES) <= 4


def test_files_and_functions_are_short():
    sizes = []
    for path in sources():
        tree = ast.parse(path.read_text())
        tables = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
        lines = path.read_text().count("\n") - sum(node.end_lineno - node.lineno + 1 for node in tables)
        assert lines <= 300, f"{path} has {lines} lines besides tables"
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        sizes += [node.end_lineno - node.lineno + 1 for node in functions]
    sizes.sort()
    assert sizes[len(sizes) // 2] <= 7 and sizes[len(sizes) * 9 // 10] <= 22 and sizes[-1] <= 60


def test_no_question_about_a_path_raises():
    """`Path.exists` and its like raise OSError for a name that is too long; those of `os.path` do not."""
    for path in sources():
        questions = re.findall(r"([\w.)]+)\.(?:exists|is_file|is_dir)\(", path.read_text())
        assert set(questions) <= {"os.path", "entry"}, path


def test_there_is_no_utils():
    assert not [path for path in sources() if "utils" in path.stem or "helpers" in path.stem]


def test_the_lock_pins_with_hashes_and_names_no_index():
    lock = (HOME / "requirements.lock").read_text()
    pins = re.findall(r"^[a-z0-9-]+==", lock, flags=re.MULTILINE)
    assert len(pins) > 50 and lock.count("--hash=sha256:") > len(pins)
    assert not re.search(r"https?://|index-url|find-links", lock)
    for system in ("win32", "linux"):
        assert f"sys_platform == '{system}'" in lock


def test_nothing_names_one_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=HOME, capture_output=True, text=True, check=True).stdout.split()
    pattern = re.compile(r"(?<![\w.])/(home|root|tmp|work|mnt|opt)/\w|index-url")
    texts = [
        name for name in tracked if name.endswith((".py", ".yaml", ".md", ".toml")) and not name.startswith("tests/")
    ]
    assert len(texts) > 20
    for name in texts:
        assert not pattern.search((HOME / name).read_text()), name


def test_no_merge_has_left_its_marks():
    marks = "^(<<<<<<<|>>>>>>>) "
    found = subprocess.run(["git", "grep", "-lE", marks], cwd=HOME, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, "")  # nothing found, and no error


def test_importing_the_command_line_runs_nothing_and_loads_nothing_heavy():
    code = "import sys, cli.command_line; print([m for m in ('wandb', 'timm', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
