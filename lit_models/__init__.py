"""The families: one LightningModule each.

An architecture of your own needs no line here: its class_path is then lit_models.<file>.<class>. With a line here and
in `__all__` it is lit_models.<class>, like the others.
"""

from lit_models.classifier import LitClassifier
from lit_models.densenet import LitDenseNet
from lit_models.googlenet import LitGoogLeNet
from lit_models.grid_reduction import LitGridReduction
from lit_models.inception import LitInceptionResNetV1, LitInceptionResNetV2, LitInceptionV3, LitInceptionV4
from lit_models.kernel_stacks import LitKernelStacks
from lit_models.nasbench201 import LitNASBench201
from lit_models.nasnet import LitNASNet
from lit_models.resnet import LitResNet
from lit_models.shake_shake import LitShakeShake
from lit_models.vgg import LitVGG

__all__ = [
    "LitClassifier",
    "LitDenseNet",
    "LitGoogLeNet",
    "LitGridReduction",
    "LitInceptionResNetV1",
    "LitInceptionResNetV2",
    "LitInceptionV3",
    "LitInceptionV4",
    "LitKernelStacks",
    "LitNASBench201",
    "LitNASNet",
    "LitResNet",
    "LitShakeShake",
    "LitVGG",
]
