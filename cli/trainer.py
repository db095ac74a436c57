"""Lightning's Trainer, and what `precision: auto` means on this machine."""

from typing import Any, Literal

import lightning.pytorch as pl
import torch


class Trainer(pl.Trainer):
    """Lightning's Trainer, whose `precision` may also be "auto": bf16-mixed where the hardware has it.

    Args:
        precision: see Lightning, or auto. The config of the run records what auto came to.
        **kwargs: see Lightning.
    """

    def __init__(self, precision: Literal["auto"] | int | str | None = None, **kwargs: Any) -> None:
        super().__init__(precision=resolve_precision(precision), **kwargs)


def resolve_precision(precision: Any) -> Any:
    """What "auto" comes to on this machine: bf16-mixed where the hardware computes in bfloat16, else fp32."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if cpu_has_bf16() else "32-true"


def cpu_has_bf16() -> bool:
    """Whether the processor computes in bfloat16; where torch is too old to be asked, it is taken not to."""
    return hasattr(torch.cpu, "get_capabilities") and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
