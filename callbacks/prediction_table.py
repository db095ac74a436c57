"""The predictions for a user's images, as a table in the terminal and a file."""

import csv
import os
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from callbacks.prediction_writer import sort_by_index
from callbacks.result_writer import gather
from checkpointing.atomic import atomic_write
from checkpointing.run_dir import unused_name
from datamodules.photos import Photos
from errors import UserError, pluralize, printable
from trainer_settings import settings

FILE = Path("predictions.csv")
ROWS_SHOWN = 40
LONGEST_LINE = 10_000


class PredictionTable(pl.Callback):
    """Prints the most probable class of each image; writes the top five to predictions.csv in the working directory.

    An older predictions.csv is kept as predictions-1.csv, predictions-2.csv and so on.
    """

    def __init__(self) -> None:
        self.batches: list[dict[str, Tensor]] = []

    def on_predict_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.batches.append({name: value.cpu() for name, value in outputs.items()})

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        images = sort_by_index(gather(trainer, self.batches))
        if not trainer.is_global_zero:
            return
        data = settings(trainer).datamodule
        assert isinstance(data, Photos)
        top = images["probabilities"].topk(min(5, len(data.class_names)))
        columns = (images["indices"].tolist(), top.indices.tolist(), top.values.tolist())
        rows = [
            (str(data.files[index]), [(data.class_names[c], p) for c, p in zip(classes, values, strict=True)])
            for index, classes, values in zip(*columns, strict=True)
        ]
        if not rows:
            given = pluralize(len(data.files), "file")
            raise UserError(f"There is nothing to predict on: of {given} none could be read as an image.")
        try:
            write_table(rows, FILE)
        except OSError as error:
            print_table(rows, len(rows))
            raise UserError(
                f"{FILE} could not be written into {Path.cwd()} ({error.strerror}): the table above is complete; or "
                "type the command in a folder that can be written to."
            ) from error
        print_table(rows, ROWS_SHOWN)
        unreadable = len(data.files) - len(rows)
        missing = f", {pluralize(unreadable, 'unreadable file')} skipped" if unreadable else ""
        print(f"Wrote {FILE}: {pluralize(len(rows), 'image')}{missing}.")


Row = tuple[str, list[tuple[str, float]]]


def write_table(rows: list[Row], path: Path) -> None:
    """Write the table; an older file of that name is renamed.

    Names are UTF-8; bytes of a file name that are not stay unchanged.
    """
    topk = len(rows[0][1])
    with atomic_write(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", *(f"{column}_{k + 1}" for k in range(topk) for column in ("class", "probability"))])
        for name, top in rows:
            writer.writerow([name, *(cell for c, p in top for cell in (c, f"{p:.6f}"))])
        if os.path.exists(path):
            old = unused_name(path)
            path.rename(old)
            print(f"The older {path} is now {old}.")


def print_table(rows: list[Row], count: int) -> None:
    """Print the first `count` rows to the terminal, names in full."""
    from rich.console import Console
    from rich.table import Table

    table = Table("image", "class", "probability", "next", box=None)
    table.columns[0].overflow = table.columns[1].overflow = "fold"
    table.columns[2].justify = "right"
    for name, top in rows[:count]:
        second = f"{top[1][0]} {top[1][1]:.1%}" if len(top) > 1 else ""
        table.add_row(printable(name), printable(top[0][0]), f"{top[0][1]:.1%}", printable(second))
    width = None if sys.stdout.isatty() else LONGEST_LINE  # in a file or a pipe lines are as long as they need to be
    Console(width=width, markup=False, emoji=False).print(table)
    if len(rows) > count:
        print(f"... and {len(rows) - count} more")
