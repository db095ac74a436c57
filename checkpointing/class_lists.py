"""The classes and functions that the config inside a checkpoint may name, for each place of a config."""

from collections.abc import Mapping
from dataclasses import dataclass

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

ALL: frozenset[str] = frozenset()  # of the classes in a module


@dataclass(frozen=True)
class Slot:
    """A place of a config that takes a class.

    Args:
        kind: what the class must be derived from.
        modules: where it must be defined (the modules inside them count too), and which names it may have: `ALL` or
            these.
        registered: whether a name without a dot is allowed, which Lightning looks up in a table of its own.
    """

    kind: type | tuple[type, ...]
    modules: Mapping[str, frozenset[str]]
    registered: bool = False


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# Without those that unpickle a file (LSUN), take a folder for results, make one whatever they are told (Caltech101), or
# extract an archive without a checksum
IMAGE_SETS = names(
    "CIFAR10 CIFAR100 CLEVRClassification Country211 DTD DatasetFolder EMNIST EuroSAT FER2013 "
    "FakeData FashionMNIST Flowers102 Food101 GTSRB INaturalist ImageFolder Imagenette KMNIST LFWPeople MNIST Omniglot "
    "OxfordIIITPet Places365 QMNIST RenderedSST2 SEMEION STL10 SUN397 SVHN StanfordCars USPS"
)
# Without those that call a function (LambdaCallback, ModelPruning) or write a file that they are told (SpikeDetection)
LIGHTNING_CALLBACKS = names(
    "DeviceStatsMonitor EMAWeightAveraging EarlyStopping GradientAccumulationScheduler LearningRateMonitor "
    "ModelCheckpoint ModelSummary RichModelSummary RichProgressBar StochasticWeightAveraging TQDMProgressBar Timer "
    "WeightAveraging"
)
LIGHTNING_LOGGERS = names("CSVLogger TensorBoardLogger WandbLogger")
# Arguments of W&B's logger; others start programs, upload code, or change the server
WANDB_ARGUMENTS = names(
    "save_dir name version offline dir id anonymous project log_model prefix checkpoint_name add_file_policy entity "
    "notes tags config config_exclude_keys config_include_keys allow_val_change group job_type reinit resume force"
)

NET = Slot(
    nn.Module,
    dict.fromkeys(("lit_models", "torch.nn.modules", "torchvision.models", "timm.models", "timm.layers"), ALL),
)
DATA_SET = Slot(
    Dataset,
    {
        "datamodules": ALL,
        "torchvision.datasets": IMAGE_SETS,
        "torch.utils.data.dataset": names("Subset ConcatDataset"),
    },
)
TRANSFORM = Slot(object, dict.fromkeys(("torchvision.transforms.transforms", "torchvision.transforms.v2"), ALL))
TRAINER_PART = Slot(
    (Strategy, LayerSync, Profiler),
    {
        "lightning.pytorch.strategies": names("DDPStrategy SingleDeviceStrategy"),
        "lightning.pytorch.plugins.layer_sync": names("TorchSyncBatchNorm"),
        "lightning.pytorch.profilers": names("AdvancedProfiler PassThroughProfiler SimpleProfiler"),
    },
    registered=True,
)
# The slots of each section by the name of the argument; "" is the section itself, "*" is any other argument
SLOTS: dict[str, dict[str, Slot]] = {
    "model": {
        "": Slot(LightningModule, {"lit_models": ALL}),
        "optimizer": Slot(Optimizer, dict.fromkeys(("torch.optim", "timm.optim"), ALL)),
        "lr_scheduler": Slot(
            LRScheduler,
            {"torch.optim.lr_scheduler": ALL, "lightning.pytorch.cli": names("ReduceLROnPlateau")},
        ),
        "*": NET,
    },
    "data": {
        "": Slot(LightningDataModule, {"datamodules": ALL}),
        **dict.fromkeys(("transform", "transforms", "target_transform"), TRANSFORM),
        **dict.fromkeys(("dataset", "datasets"), DATA_SET),
        "*": DATA_SET,
    },
    "trainer": {
        "callbacks": Slot(Callback, {"callbacks": ALL, "lightning.pytorch.callbacks": LIGHTNING_CALLBACKS}),
        "logger": Slot(Logger, {"callbacks": ALL, "lightning.pytorch.loggers": LIGHTNING_LOGGERS}),
        **dict.fromkeys(("accelerator", "strategy", "plugins", "profiler"), TRAINER_PART),
        "*": TRAINER_PART,
    },
}
# Arguments that are slots in one class, and those derived from it: elsewhere text there may be text
SLOTS_OF_CLASS = {"datamodules.torchvision_data.TorchvisionData": {"train": DATA_SET, "test": DATA_SET}}
# Classes that call any function, in a module of others that do not
FUNCTION_CALLERS = names("Lambda Lookahead")
# Arguments that are functions, and the functions that a checkpoint may name
FUNCTION_ARGUMENTS = names("loader is_valid_file collate_fn worker_init_fn sampler generator")
FUNCTIONS = {"torchvision.datasets.folder.default_loader", "torchvision.datasets.folder.pil_loader"}
# Text of the Trainer's section that may hold braces and colons: no part of it takes a class there
FREE_TEXT = {"filename", "project", "group", "job_type", "tags", "notes", "name"}
LISTED_MODULES = sorted({module for slots in SLOTS.values() for slot in slots.values() for module in slot.modules})
