"""A comparison as a report on W&B, made with the package wandb-workspaces."""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cli.failures import first_line
from cli.loggers import has_login, login_problem, refuse_workspace_settings
from errors import UserError

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report

METRICS = ("val/top1_error", "train/loss")  # drawn against the epochs, a figure for each


def publish(
    project: str,
    title: str,
    lead: str,
    markdown: str,
    groups: Mapping[str, Sequence[str]],
) -> str:
    """Publish a report on W&B, and return its address.

    Args:
        project: PROJECT, in the user's own account, or ENTITY/PROJECT.
        title: of the report.
        lead: its first sentence.
        markdown: its tables and text.
        groups: IDs of the W&B runs of each group, by the group's name.

    Raises:
        UserError: if the package is absent, nobody is logged in, the server does not answer, or it refuses the report.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError(
            "A report on W&B needs the package wandb-workspaces, which is not installed: type `.venv/bin/python -m pip "
            "install wandb-workspaces`, or leave --wandb-report out."
        )
    import wandb

    refuse_workspace_settings()
    if problem := "nobody is logged in on this machine (wandb login)" if not has_login() else login_problem():
        raise UserError(f"The report is not published on W&B: {problem}. --html and --markdown write it to a file.")
    entity, _, name = project.rpartition("/")
    try:
        entity = entity or str(wandb.Api().default_entity)
        report = make_report(entity, name, title, lead, markdown, groups)
        report.save()
    except (wandb.Error, OSError, ValueError) as error:
        raise UserError(
            f"W&B does not take a report in {project}: {first_line(error)}. Name a project that you may write to."
        ) from error
    return str(report.url)


def make_report(
    entity: str,
    project: str,
    title: str,
    lead: str,
    markdown: str,
    groups: Mapping[str, Sequence[str]],
) -> "Report":
    """The report, not yet published: lead, curves of all groups, and what differs between the runs; then the text."""
    import wandb_workspaces.reports.v2 as reports
    from wandb_workspaces.expr import Metric

    runs = [
        reports.Runset(entity=entity, project=project, name=name, filters=[Metric("ID").isin(list(ids))])
        for name, ids in groups.items()
    ]
    grid = reports.PanelGrid(runsets=runs, panels=[reports.RunComparer(diff_only="split")])
    grid.panels[:0] = [reports.LinePlot(title=name, x="epoch", y=[name], title_x="epoch") for name in METRICS]
    blocks = (reports.P(lead), grid, reports.MarkdownBlock(markdown))
    return reports.Report(entity=entity, project=project, title=title, blocks=[*blocks])
