"""The commands of a study as lines of a shell, each for a run and its tests; they may run in any order, or at once."""

import shlex
from collections.abc import Iterable

from cli.messages import HOME
from studies.commands import Recipe, shown
from studies.runner import Runner
from studies.runs import Busy, RunFolder, find_run_folder


def shell_lines(runner: Runner) -> list[str]:
    """A line for each run, seed by seed: `fit`, where it has not finished, and the tests of all arms that share it.

    A study that trains nothing has none.
    """
    runner.check()
    if runner.study.count_at:
        return []
    commands: dict[tuple[str, int], list[str]] = {}
    for number in range(runner.seeds):
        for recipe in runner.recipes:
            for seed in recipe.run_seeds(number):
                folder = find_folder(runner, recipe, seed)
                line = commands.setdefault((recipe.run_name, seed), fit_commands(runner, recipe, seed, folder))
                checkpoint = folder.path / "checkpoints" / f"{recipe.arm.checkpoint}.ckpt"
                test = shell_line([*recipe.test_words(checkpoint), *runner.flags_for(runner.resolve_fit(recipe))])
                if test not in line:
                    line.append(test)
    return [" && ".join(line) for line in commands.values()]


def find_folder(runner: Runner, recipe: Recipe, seed: int) -> RunFolder:
    """The folder of a run; that of one which another process trains counts as one to begin."""
    experiment = runner.runs / recipe.run_name
    try:
        return find_run_folder(experiment, seed, runner.resolve_fit(recipe, seed))
    except Busy:
        return RunFolder(experiment / f"version_{seed}")


def fit_commands(runner: Runner, recipe: Recipe, seed: int, folder: RunFolder) -> list[str]:
    """The command that trains or resumes a run; none where it has ended."""
    flags = runner.flags_for(runner.resolve_fit(recipe))
    if folder.has_ended:
        return []
    if folder.outcome is None:
        return [shell_line(recipe.fit_words(seed, folder.version, runner.runs, flags))]
    return [shell_line(["fit", f"--ckpt_path={folder.path}", *flags])]


def shell_line(words: Iterable[str]) -> str:
    """A command of main.py as it is typed."""
    return shlex.join(["python", str(shown(HOME / "main.py")), *words])


def commands_of(runner: Runner, recipe: Recipe) -> list[str]:
    """The commands of the first run of an arm, as if none were begun."""
    flags = runner.flags_for(runner.resolve_fit(recipe))
    checkpoint = runner.runs / recipe.run_name / "version_0" / "checkpoints" / f"{recipe.arm.checkpoint}.ckpt"
    fit = recipe.fit_words(0, 0, runner.runs, flags)
    return [shell_line(fit), shell_line([*recipe.test_words(checkpoint), *flags])]
