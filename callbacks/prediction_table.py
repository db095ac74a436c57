"""The predictions on a user's photos, as a table in the terminal and a file."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BasePredictionWriter

from callbacks.predictions import gather
from checkpointing.run_dir import free_name
from errors import UserError, pluralize

FILE = Path("predictions.csv")
ROWS_SHOWN = 40


class PhotoTable(BasePredictionWriter):
    """Print the likeliest class of each photo, and write the likeliest five to predictions.csv where the command runs.

    An older predictions.csv is kept as predictions-1.csv, predictions-2.csv and so on.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        batches = gather(trainer, [{name: value.cpu() for name, value in batch.items()} for batch in predictions])
        if not trainer.is_global_zero:
            return
        places = torch.cat([batch["indices"] for batch in batches])
        probabilities, order = torch.cat([batch["probabilities"] for batch in batches]), places.argsort()
        photos = trainer.datamodule  # type: ignore[attr-defined]
        top = probabilities[order].topk(min(5, probabilities.shape[1]))
        rows = [
            (str(photos.files[place]), [(photos.class_names[c], p) for c, p in zip(classes, values, strict=True)])
            for place, classes, values in zip(
                places[order].tolist(), top.indices.tolist(), top.values.tolist(), strict=True
            )
        ]
        if not rows:
            given = pluralize(len(photos.files), "file")
            raise UserError(f"There is nothing to predict on: of {given} none could be read as an image.")
        write(rows, FILE)
        show(rows)
        left_out = len(photos.files) - len(rows)
        missing = f", {pluralize(left_out, 'unreadable file')} left out" if left_out else ""
        print(f"Wrote {FILE}: {pluralize(len(rows), 'photo')}{missing}.")


Row = tuple[str, list[tuple[str, float]]]


def write(rows: list[Row], path: Path) -> None:
    """Write the table, after setting an older one of the same name aside."""
    if path.exists():
        old = free_name(path)
        path.rename(old)
        print(f"The older {path} is now {old}.")
    guesses = len(rows[0][1])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", *(f"{what}_{k + 1}" for k in range(guesses) for what in ("class", "probability"))])
        for name, top in rows:
            writer.writerow([name, *(cell for c, p in top for cell in (c, f"{p:.6f}"))])


def show(rows: list[Row]) -> None:
    """Print the first rows to the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table("photo", "class", "probability", "next", box=None)
    justify: Literal["right"] = "right"
    table.columns[2].justify = justify
    for name, top in rows[:ROWS_SHOWN]:
        second = f"{top[1][0]} {top[1][1]:.1%}" if len(top) > 1 else ""
        table.add_row(name, top[0][0], f"{top[0][1]:.1%}", second)
    Console().print(table)
    if len(rows) > ROWS_SHOWN:
        print(f"... and {len(rows) - ROWS_SHOWN} more")
