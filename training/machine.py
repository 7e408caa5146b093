"""Settings that depend on the machine and not on the recipe."""

import torch
from transformers import TrainingArguments


def fit_to_machine(config: TrainingArguments) -> None:
    """Fills what a recipe leaves open: bf16 where the GPU has it, pinned memory where there is a GPU.

    Call it first in `__post_init__`: `TrainingArguments` checks the values there.
    """
    if config.bf16 is None and not config.fp16:
        config.bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    config.dataloader_pin_memory &= torch.cuda.is_available()  # else torch warns at every loader
