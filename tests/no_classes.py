import lightning.pytorch as pl


class NoClasses(pl.LightningDataModule):
    """A data module that forgot contract 3."""
