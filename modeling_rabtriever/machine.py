"""What depends on the machine and not on the recipe."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

_ROWS = 65_536  # per block of a matrix that may not fit on the accelerator


def on_cpus_together() -> bool:
    """Whether a launcher started this process on a machine without an accelerator.

    By default, accelerate treats each of these processes as a run of its own.
    """
    return "LOCAL_RANK" in os.environ and fastest_device().type == "cpu"


def fastest_device() -> torch.device:
    """The machine's accelerator, or its CPU. A model that no trainer places runs here."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if found is None else found


@torch.no_grad()
def mapped_on(device: torch.device, compute: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Applies `compute` on `device` to rows in CPU memory, one block at a time.

    Args:
        device: where to compute.
        compute: `(b, ...)` rows -> `(b, ...)`, each row by itself.
        rows: `(n, ...)`.
    """
    return torch.cat([compute(block.to(device)) for block in rows.split(_ROWS)])
