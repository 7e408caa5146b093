"""How a student's encoder trains: all its weights, adapters, or not at all."""

from collections.abc import Iterable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer

from ..errors import refusing
from .student import TrainingStudent

LORA_RANK = 32


def train_encoder(student: TrainingStudent, how: str) -> None:
    """Prepares the encoder for training: `"full"`, `"lora"` (rank `LORA_RANK`, all linear layers), or `"none"`.

    Trained weights are always fp32, because half precision rounds small steps away.

    Raises:
        ValueError: adapters fit none of the encoder's layers.
    """
    if how == "none":
        return
    student.backbone.float()
    if how == "full":
        student.backbone.requires_grad_(True)
        return
    settings = LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules="all-linear")
    kind = student.config.text_config.model_type
    with refusing(f"train_encoder is 'lora', which does not fit this encoder, {kind}", "full or none"):
        student.backbone = get_peft_model(student.backbone, settings).base_model.model


def parameter_groups(
    student: torch.nn.Module, decayed: Iterable[str], weight_decay: float, encoder_rate: float
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: encoder and predictor, each with and without weight decay.

    Args:
        student: its weights that require a gradient are grouped.
        decayed: names of weights with weight decay.
        weight_decay: for these weights.
        encoder_rate: the encoder's learning rate; the predictor has the optimizer's own.
    """
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    names = {*decayed}
    for name, weight in student.named_parameters():
        if weight.requires_grad:
            of_encoder, decays = name.startswith("backbone."), name in names
            rate = {"lr": encoder_rate} if of_encoder else {}
            empty = {"params": [], "weight_decay": weight_decay if decays else 0.0, **rate}
            groups.setdefault((of_encoder, decays), empty)["params"].append(weight)
    return list(groups.values())


@torch.no_grad()
def finish_encoder(student: TrainingStudent, how: str) -> None:
    """Undoes `train_encoder`: merges adapters into the weights and freezes the encoder again."""
    if how == "lora":
        for name, layer in list(student.backbone.named_modules()):
            if isinstance(layer, BaseTunerLayer):
                layer.merge()
                parent, _, own = name.rpartition(".")
                setattr(student.backbone.get_submodule(parent), own, layer.get_base_layer())
    student.backbone.requires_grad_(False)
