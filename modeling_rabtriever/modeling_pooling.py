"""What is read of a backbone's states: one vector per text, and a text behind another one."""

from collections.abc import Sequence

import torch
from torch import Tensor


def in_full_precision(tensor: Tensor) -> torch.autocast:
    """Products inside this context are computed in their tensors' own type, whatever autocast is on around it.

    Vectors and scores are fp32: rounded products tie the best candidates.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def pool_states(states: Tensor, attention_mask: Tensor, poolings: Sequence[str]) -> Tensor:
    """The tokens of each text as one vector: `(batch, length, d)`, `(batch, length)` -> `(batch, d * poolings)` fp32.

    Args:
        states: of one layer.
        attention_mask: 1 for the tokens that count.
        poolings: as in `RabtrieverConfig.feature_poolings`, joined in this order.
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
    """The same texts and their mask, with padding behind them, where every kind of backbone counts positions rightly.

    No mask means no padding.
    """
    if attention_mask is None:
        return input_ids, torch.ones_like(input_ids)
    order = attention_mask.bool().int().argsort(dim=1, descending=True, stable=True)
    return input_ids.gather(1, order), attention_mask.gather(1, order)


def behind(anchor: Sequence[int], input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same tokens put behind each text: prompts, their mask, and a mask of the texts' own tokens.

    The anchor stands right before a text's first token, so that padding stays outside, whatever its side.

    Args:
        anchor: `a` token ids.
        input_ids: `(batch, length)` int64.
        attention_mask: `(batch, length)`, 1 for real tokens.

    Returns:
        Three tensors `(batch, a + length)`.
    """
    shape = (len(input_ids), len(anchor))
    joined = torch.cat([input_ids.new_tensor(anchor).expand(shape), input_ids], dim=1)
    mask = torch.cat([attention_mask.new_ones(shape), attention_mask], dim=1)
    own = torch.cat([attention_mask.new_zeros(shape), attention_mask], dim=1)
    padding = attention_mask.bool().int().argmax(dim=1, keepdim=True)  # before the text
    place = torch.arange(joined.shape[1], device=joined.device).expand_as(joined)
    # Left padding stood behind the anchor and moves before it; what stands behind the padding stays where it is.
    source = torch.where(place < padding, place + len(anchor), place - padding)
    source = torch.where(place < padding + len(anchor), source, place)
    return joined.gather(1, source), mask.gather(1, source), own.gather(1, source)


def before(anchor: Sequence[int], input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The reverse of `behind`: the same tokens put right behind the last token of each text; masks and shapes alike."""
    flipped = behind(anchor[::-1], input_ids.flip(1), attention_mask.flip(1))
    prompts, mask, own = (part.flip(1) for part in flipped)
    return prompts, mask, own


def _mean(states: Tensor, attention_mask: Tensor) -> Tensor:
    weights = attention_mask.unsqueeze(-1).float()
    return (states.float() * weights).sum(1) / weights.sum(1).clamp(min=1)


def _first_token(states: Tensor, attention_mask: Tensor) -> Tensor:
    first = attention_mask.bool().int().argmax(-1)
    return states[torch.arange(len(states), device=states.device), first]


_POOLINGS = {"first": _first_token, "last": last_token, "mean": _mean}
