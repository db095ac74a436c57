"""The batch that a recipe's learning rate is for, read from the layers of a config."""

from collections.abc import Iterable
from pathlib import Path

from jsonargparse import Namespace

from cli.config_files import Layer


def fill_reference_batch_size(callbacks: Iterable[Namespace], layers: list[Layer]) -> None:
    """Give `callbacks.DDP` the batch size of the experiment, where its config says none; a run's record then holds it.

    Args:
        callbacks: of the merged config, completed in place.
        layers: of it; the experiment is the first that is no overlay, or the config of the run that is resumed.
    """
    experiment = next((layer for layer in layers if Path(layer.name).parent.name != "overlays"), None)
    data = experiment.content.get("data") if experiment else None
    arguments = data.get("init_args") if isinstance(data, dict) else None
    size = arguments.get("batch_size") if isinstance(arguments, dict) else None
    for callback in callbacks:
        if callback.class_path == "callbacks.DDP" and callback.init_args.reference_batch_size is None:
            callback.init_args.reference_batch_size = size
