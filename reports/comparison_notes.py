"""Sentences on what a reader of a comparison's table could overlook."""

from collections.abc import Iterator, Sequence

from reports.comparison import SHORT, UNFINISHED, Findings
from reports.run import Run
from reports.verdict import name_some

CUT_SHORT = (*UNFINISHED, "stopped", "diverged")  # states of a training that did not come to its end


def notes(findings: Findings) -> list[str]:
    """All sentences, in their order."""
    return [*notes_on_images(findings), *notes_on_versions(findings), *notes_on_groups(findings)]


def notes_on_images(findings: Findings) -> Iterator[str]:
    """On what the errors are of: which images, and which checkpoints."""
    basis, entries = findings.basis, [entry for entry in findings.entries if entry.results]
    hashes = {entry.sample.data_hash for entry in entries}
    if len(hashes - {None}) > 1:
        yield (
            f"These runs have {len(hashes - {None})} different sets of {basis.verb} images: errors are compared within "
            "a set only, and the others stand side by side without a verdict."
        )
    unknown = [entry.label for entry in entries if entry.sample.data_hash is None]
    if unknown and len(entries) > 1:
        yield f"The images of these errors are unknown: {name_some(unknown)}. They are compared with no others."
    if basis.verb == "validate" and not entries:
        yield "No run has an error to compare: none was tested, and none has ended with a validation."
    elif basis.verb == "validate":
        yield (
            "No run was tested: these are validation errors at the end of the training. `python main.py test "
            "--ckpt_path RUN` tests a run."
        )
    checkpoints = {result.checkpoint for entry in entries for _, result in entry.results}
    if basis.verb == "test" and len(checkpoints) > 1:
        yield f"Different checkpoints were tested ({', '.join(sorted(checkpoints))}): see the table of runs."


def notes_on_versions(findings: Findings) -> Iterator[str]:
    """On runs that were trained by different versions of the code."""
    runs = [run for entry in findings.entries for run, _ in entry.results]
    sessions = [session for run in runs if run.facts for session in run.facts.sessions]
    versions = list(dict.fromkeys(session.code_version for session in sessions))
    if len(versions) > 1:
        shown = name_some([version[:SHORT] + "-dirty" * version.endswith("-dirty") for version in versions])
        yield f"{len(versions)} versions of the code trained these runs ({shown}): see Environment."


def notes_on_groups(findings: Findings) -> Iterator[str]:
    """On runs that count for less than the others of their group, or for more."""
    for entry in findings.entries:
        counted = [run for run, _ in entry.results]
        if short := [run for run in counted if run.state in CUT_SHORT]:
            yield f"{entry.label}: tested or validated though the training did not come to its end: {name_runs(short)}."
        excluded = [run for run in entry.group.runs if run not in counted and run.state != "diverged"]
        if counted and excluded:
            yield f"{entry.label}: not in the mean, because they have no {describe(findings)}: {name_runs(excluded)}."
        if entry.group.repeated_seeds:
            seeds = ", ".join(map(str, entry.group.repeated_seeds))
            yield f"{entry.label}: several runs have the seed {seeds}; they are no independent ones."


def describe(findings: Findings) -> str:
    """The result that is compared, such as "test error with center"."""
    basis = findings.basis
    return basis.name if basis.verb == "validate" else f"{basis.name} with {basis.protocol}"


def name_runs(runs: Sequence[Run]) -> str:
    """Some of the runs with their states."""
    return name_some([f"{run.version} ({run.state})" for run in runs])
