import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class PlainData(pl.LightningDataModule):
    """A data module of the user's own: `num_classes` and loaders of (images, labels), nothing else."""

    num_classes = 3

    def loader(self, count: int) -> DataLoader:
        generator = torch.Generator().manual_seed(count)
        images = torch.randn(count, 3, 8, 8, generator=generator)
        return DataLoader(TensorDataset(images, torch.arange(count) % 3), batch_size=4)

    def train_dataloader(self) -> DataLoader:
        return self.loader(12)

    def val_dataloader(self) -> DataLoader:
        return self.loader(6)

    def test_dataloader(self) -> DataLoader:
        return self.loader(7)
