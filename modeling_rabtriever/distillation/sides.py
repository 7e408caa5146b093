"""Features of the queries or the documents during training, from a frozen or a training encoder."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .. import RabtrieverModel
from ..machine import mapped_on
from ..modeling_prompted import OTHER_TOKEN_BUDGET, batches_by_length
from ..trainers.processes import gather, is_main, on_each, own_part
from .features import cached_features, side_ids
from .token_ids import KEPT, TokenIdsOf


class FrozenSide:
    """Features of a frozen encoder: computed once, cached on disk, held in CPU memory.

    Args:
        student: with a frozen encoder.
        side: `"query"` or `"document"`.
        texts: of that side.
        folder: of the cache.
    """

    def __init__(self, student: RabtrieverModel, side: str, texts: Sequence[str], folder: Path) -> None:
        self._student = student
        self._features = cached_features(folder, student, side, texts)

    def __len__(self) -> int:
        return len(self._features)

    def sample(self, count: int) -> Tensor:
        """Features of all texts, whatever the count, because they are computed already."""
        return self._features

    def features(self, rows: Tensor) -> Tensor:
        """Features of some texts: `(...)` rows -> `(..., f)` on the student's device."""
        return self._features[rows].to(self._student.device)

    def mapped(self, compute: Callable[[Tensor], Tensor], rows: Tensor | None = None) -> Tensor:
        """`compute` of the features of all texts, or of some rows, on the student's device."""
        return mapped_on(self._student.device, compute, self._features if rows is None else self._features[rows])


class MovingSide:
    """Features of a training encoder, which computes them anew each time.

    Args:
        student: whose encoder trains.
        side: `"query"` or `"document"`.
        texts: of that side.
    """

    def __init__(self, student: RabtrieverModel, side: str, texts: Sequence[str]) -> None:
        self._student = student
        self._ids = TokenIdsOf(partial(side_ids, student.processor, side), texts)

    def __len__(self) -> int:
        return len(self._ids)

    def sample(self, count: int) -> Tensor:
        """Features of `count` evenly spaced texts, without a gradient, on the CPU."""
        size = len(self._ids)
        count = min(count, size)
        rows = [place * size // count for place in range(count)]
        return self._student._map_prompts(self._student.pool, self._ids.of(rows), None, progress=False).cpu()

    def features(self, rows: Tensor) -> Tensor:
        """Features of some texts, with a gradient: `(n,)` rows -> `(n, f)` on the student's device."""
        sequences = self._ids.of(rows.tolist())
        parts, order = [], []
        for group in batches_by_length([len(ids) for ids in sequences], OTHER_TOKEN_BUDGET):
            batch = self._student.processor.pad([sequences[row] for row in group]).to(self._student.device)
            parts.append(self._student.pool(**batch))
            order += group
        read = torch.cat(parts)
        return read[torch.tensor(order, device=read.device).argsort()]

    def mapped(self, compute: Callable[[Tensor], Tensor], rows: Tensor | None = None) -> Tensor:
        """`compute` of the features of all texts, or of some rows; on the student's device, shared by the processes."""
        own = own_part(range(len(self._ids)) if rows is None else rows.tolist())

        def read(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return compute(self._student.pool(input_ids, attention_mask))

        def encoded() -> Tensor | None:
            blocks = [own[start : start + KEPT] for start in range(0, len(own), KEPT)]
            parts = [self._student._map_prompts(read, self._ids.of(rows), None, is_main()).cpu() for rows in blocks]
            return torch.cat(parts) if parts else None

        parts = [part for part in gather(on_each(encoded)) if part is not None]
        return torch.cat(parts).to(self._student.device)
