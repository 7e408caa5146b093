"""What depends on the machine and not on the recipe."""

import os
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import TrainingArguments

_ROWS = 65_536  # at once, of a matrix that need not fit the accelerator


def fit_to_machine(config: TrainingArguments) -> None:
    """Fills what a recipe leaves open: bf16 where the GPU has it, pinned memory where there is a GPU.

    Call it first in `__post_init__`: `TrainingArguments` checks the values there.
    """
    if on_cpus_together():
        config.use_cpu = True
    if config.ddp_find_unused_parameters is None:
        config.ddp_find_unused_parameters = False  # every trained weight is used, some of them outside `forward`
    if config.bf16 is None and not config.fp16:
        config.bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if not torch.cuda.is_available():
        config.dataloader_pin_memory = False  # else torch warns at every loader


def on_cpus_together() -> bool:
    """Whether a launcher started this process on a machine without accelerator.

    Unless it is told, accelerate takes such processes for strangers, each with a run of its own.
    """
    return "LOCAL_RANK" in os.environ and fastest_device().type == "cpu"


def fastest_device() -> torch.device:
    """The accelerator of this machine, or its CPU: where a model runs that no trainer places."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if found is None else found


@torch.no_grad()
def mapped_on(device: torch.device, compute: Callable[[Tensor], Tensor], rows: Tensor, back: bool = False) -> Tensor:
    """`compute` of rows that lie in the CPU's memory, on `device`, a block at a time.

    Args:
        device: where.
        compute: `(b, ...)` rows -> `(b, ...)`, each row on its own.
        rows: `(n, ...)`.
        back: whether the result lies in the CPU's memory too, instead of on `device`.
    """
    parts = (compute(block.to(device)) for block in rows.split(_ROWS))
    return torch.cat([part.cpu() if back else part for part in parts])
