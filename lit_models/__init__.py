"""The families: one LightningModule each."""

from lit_models.classifier import LitClassifier
from lit_models.resnet import LitResNet

__all__ = ["LitClassifier", "LitResNet"]
