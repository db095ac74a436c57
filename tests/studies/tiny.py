"""A study of tiny nets on synthetic images, whose runs take a second each."""

from pathlib import Path

from studies.results import Row, read_rows

STUDY = """
claim: A net learns.
notes: "1 Nets"
paper: none
base: configs/digits/resnet20.yaml
settings:
  data: datamodules.Synthetic
  data.classes: 6
  data.size: 16
  data.train_size: 32
  data.val_size: 8
  data.test_size: 11
  data.batch_size: 8
  trainer.precision: 32-true
  trainer.log_every_n_steps: 1
arms:
%s
measures: [test/top1_error, train/loss@2, "curve:val/loss", parameters]
supported_if: [{of: test/top1_error, lower: residual, than: 0.9}]
budgets:
  5min: {seeds: %d, trainer.max_epochs: 2, trainer.callbacks.milestones: [1]}
"""
ARMS = """
  plain: {model.shortcut: none}
  residual: {}
  ten crops: {test.data.protocol: ten_crop}
  both: {members: 2}
"""


def write_study(folder: Path, arms: str = ARMS, seeds: int = 1) -> str:
    """The path of the study's file in a folder."""
    path = folder / "tiny.yaml"
    path.write_text(STUDY % (arms, seeds))
    return str(path)


def stored(results: Path) -> dict[tuple[str, int], Row]:
    """The stored rows by arm and seed."""
    return {(row.arm, row.seed): row for row in read_rows(results / "tiny-5min.json")}
