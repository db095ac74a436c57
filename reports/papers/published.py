"""The errors that the papers print."""

from dataclasses import dataclass
from pathlib import Path

from reports.papers.rows import read_rows


@dataclass(frozen=True)
class PublishedRow:
    """A row of a paper's table.

    Args:
        paper: its short name.
        arxiv: its number.
        nets: names of `Architecture`s, one for each model.
        protocol: how they were tested, see `datamodules.views`.
        error: top-1 / top-5 in percent, as printed; "-" where the paper prints none.
        table: where it is printed.
        shorter_side: range of the training images' shorter side, S in VGG's tables; None where the paper has one way of
            training.
        note: what else one should know about the row.
    """

    paper: str
    arxiv: str
    nets: list[str]
    protocol: str
    error: str
    table: str = ""
    shorter_side: tuple[int, int] | None = None
    note: str = ""

    @property
    def errors(self) -> tuple[float | None, float | None]:
        """Top-1 and top-5 as numbers."""
        top1, top5 = (None if printed == "-" else float(printed) for printed in self.error.split(" / "))
        return top1, top5

    @property
    def source(self) -> str:
        """Paper, table, training scale and note in one line."""
        side = self.shorter_side and f"S = {'-'.join(map(str, dict.fromkeys(self.shorter_side)))}"
        return ", ".join(part for part in (self.paper, self.table, side, self.note) if part)


PUBLISHED = read_rows(Path(__file__).with_name("errors.yaml"), PublishedRow)
