"""What is read of a backbone's states: one vector per text."""

from collections.abc import Sequence

import torch
from torch import Tensor


def in_full_precision(tensor: Tensor) -> torch.autocast:
    """No autocast inside: vectors and scores are fp32, because rounded products tie the best candidates."""
    return torch.autocast(tensor.device.type, enabled=False)


def pool_states(states: Tensor, attention_mask: Tensor, poolings: Sequence[str]) -> Tensor:
    """The tokens of each text as one vector: `(batch, length, d)`, `(batch, length)` -> `(batch, d * poolings)` fp32.

    The mask is 1 for tokens that count; `poolings` are joined in their order.
    """
    return torch.cat([_POOLINGS[name](states, attention_mask).float() for name in poolings], dim=-1)


def last_token(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """The state of each row's last real token: `(batch, length, d)` -> `(batch, d)`. Padding may be on either side."""
    if attention_mask is None:
        return states[:, -1]
    mask = attention_mask.bool()
    if not mask.any(-1).all():
        raise ValueError("attention_mask has a row without a single token; accepted: at least one token in every row")
    last = mask.shape[-1] - 1 - mask.flip(-1).int().argmax(-1)
    return states[torch.arange(len(states), device=states.device), last]


def padded_right(input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same texts and mask (none: no padding), padded behind, where all backbones count positions rightly."""
    if attention_mask is None:
        return input_ids, torch.ones_like(input_ids)
    order = attention_mask.bool().int().argsort(dim=1, descending=True, stable=True)
    return input_ids.gather(1, order), attention_mask.gather(1, order)


def _mean(states: Tensor, attention_mask: Tensor) -> Tensor:
    weights = attention_mask.unsqueeze(-1).float()
    return (states.float() * weights).sum(1) / weights.sum(1).clamp(min=1)


def _first_token(states: Tensor, attention_mask: Tensor) -> Tensor:
    first = attention_mask.bool().int().argmax(-1)
    return states[torch.arange(len(states), device=states.device), first]


_POOLINGS = {"first": _first_token, "last": last_token, "mean": _mean}
