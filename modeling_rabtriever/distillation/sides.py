"""The texts of one side, queries or documents, and what the predictor reads of them while a student trains."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import RabtrieverModel
from ..machine import mapped_on
from ..modeling_prompted import OTHER_TOKEN_BUDGET, batches_by_length
from ..trainers.processes import gather, is_main, on_each, own_part
from .teacher_states import cached_features


class FrozenSide:
    """Features that never change: computed once, kept on disk, whitened in the CPU's memory.

    Args:
        student: with a frozen encoder.
        side: `"query"` or `"document"`.
        texts: of that side.
        folder: of the cache.
        name: of these texts in it.
    """

    def __init__(self, student: RabtrieverModel, side: str, texts: Sequence[str], folder: Path, name: str) -> None:
        compute = {
            "query": student.query_features,
            "document": lambda own: student.document_features(own, progress=is_main()),
        }[side]
        self._student, self._side = student, side
        self._features = cached_features(folder, name, student, compute, texts)

    def __len__(self) -> int:
        return len(self._features)

    def sample(self, count: int) -> Tensor:
        """Features to fit something to, before whitening: all, whatever the count, since they are there."""
        return self._features

    def whiten(self) -> None:
        """Puts the student's whitening on the features, once it is fitted."""
        self._features = mapped_on(
            self._student.device, whitening(self._student, self._side), self._features, back=True
        )

    def features(self, rows: Tensor) -> Tensor:
        """What the predictor reads of some texts: `(...)` rows -> `(..., f)` on the student's device."""
        return self._features[rows].to(self._student.device)

    def mapped(self, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute` of the features of all texts, on the student's device."""
        return mapped_on(self._student.device, compute, self._features)


class MovingSide:
    """Texts that a training encoder reads anew each time.

    Args:
        student: whose encoder trains.
        side: `"query"` or `"document"`.
        texts: of that side.
    """

    def __init__(self, student: RabtrieverModel, side: str, texts: Sequence[str]) -> None:
        self._student, self._side = student, side
        processor = student.processor
        self._ids = {"query": processor.query_ids, "document": processor.document_ids}[side](texts)

    def __len__(self) -> int:
        return len(self._ids)

    def sample(self, count: int) -> Tensor:
        """Features of `count` texts at equal distances, before whitening and without a gradient."""
        step = max(len(self._ids) // count, 1)
        return self._student._map_prompts(self._pool, self._ids[::step][:count], None, progress=False).float().cpu()

    def whiten(self) -> None:
        """Nothing to do: the features are whitened as they are computed."""

    def features(self, rows: Tensor) -> Tensor:
        """What the predictor reads of some texts, with a gradient: `(n,)` rows -> `(n, f)` on the student's device."""
        sequences = [self._ids[row] for row in rows.tolist()]
        parts, order = [], []
        for group in batches_by_length([len(ids) for ids in sequences], OTHER_TOKEN_BUDGET):
            parts.append(self._read(**self._student.processor.pad([sequences[row] for row in group])))
            order += group
        read = torch.cat(parts)
        return read[torch.tensor(order, device=read.device).argsort()]

    def mapped(self, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute` of the features of all texts, on the student's device; the processes divide them."""
        own = own_part(self._ids)

        def read(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return compute(self._read(input_ids, attention_mask))

        def encoded() -> Tensor | None:
            if not own:
                return None
            return self._student._map_prompts(read, own, None, progress=is_main()).cpu()

        parts = [part for part in gather(on_each(encoded)) if part is not None]
        return torch.cat(parts).to(self._student.device)

    def _read(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        device = self._student.device
        pooled = self._pool(input_ids.to(device), attention_mask.to(device)).float()
        return whitening(self._student, self._side)(pooled)

    def _pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        pools = {"query": self._student.pool_query, "document": self._student.pool_document}
        return pools[self._side](input_ids, attention_mask)


def whitening(student: RabtrieverModel, side: str) -> Callable[[Tensor], Tensor]:
    """The student's map from pooled states of a side to what its predictor reads."""
    return {"query": student.predictor.whiten_query, "document": student.predictor.whiten_document}[side]
