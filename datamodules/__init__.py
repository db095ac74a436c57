"""Data modules: images in, batches on the device out."""

from datamodules.base import ImageData
from datamodules.cifar10 import CIFAR10
from datamodules.digits import Digits
from datamodules.imagenet import ImageNet
from datamodules.photos import Photos
from datamodules.synthetic import Synthetic
from datamodules.torchvision_data import TorchvisionData

__all__ = ["CIFAR10", "Digits", "ImageData", "ImageNet", "Photos", "Synthetic", "TorchvisionData"]
