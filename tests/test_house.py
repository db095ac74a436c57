"""The shape of the house: floors, names, nothing of one machine."""

import ast
import re
import subprocess
import sys

from tests.conftest import HOME

FLOORS = {
    name: floor
    for floor, names in enumerate(
        [
            ["errors", "batch"],
            ["checkpointing"],
            ["lit_models", "datamodules"],
            ["callbacks"],
            ["cli"],
            ["main", "reports"],
            ["benchmarks"],
        ]
    )
    for name in names
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
    pattern = re.compile(r"(?<![\w.])/(home|root|tmp)/\w|index-url")
    texts = [
        name for name in tracked if name.endswith((".py", ".yaml", ".md", ".toml")) and not name.startswith("tests/")
    ]
    assert len(texts) > 20
    for name in texts:
        assert not pattern.search((HOME / name).read_text()), name


def test_importing_main_runs_nothing_and_loads_nothing_heavy():
    code = "import sys, main; print([m for m in ('wandb', 'timm', 'sklearn', 'torchvision') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=True)
    assert "'wandb'" not in done.stdout and "'timm'" not in done.stdout and "'sklearn'" not in done.stdout
