"""Approximate search: inverted lists of 8-bit vectors, the best of which are scored again with all digits, by FAISS.

Chosen by measurement (docs/scale.md): built in seconds, fast, and un-normalised inner products do not mislead it as
they do graph indexes.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ..files import replace_file, write_tensors

PROBES = 16  # lists a query looks into; the square root of the corpus are there
REFINED = 10  # candidates per document wanted that are scored again
_TRAINED_ON = 100  # vectors per list
_FEWEST = 39  # vectors per list below which FAISS calls a clustering meaningless


class ApproximateIndex:
    """Documents by the list their vector falls into.

    Args:
        index: a FAISS index of inner products, refined, over inverted lists.
        row_ids: `(m,)` int64, what the documents are called in the store, in the index' order.
    """

    def __init__(self, index: Any, row_ids: Tensor) -> None:
        self._index, self._row_ids = index, row_ids.numpy()
        self._lists: int = faiss.extract_index_ivf(index).nlist

    @classmethod
    def build(cls, vectors: Tensor, row_ids: Tensor) -> "ApproximateIndex":
        """An index of `(m, k)` fp32 vectors; a million of them, `k = 256`, take seconds and 1.3 GB."""
        held = vectors.numpy()
        lists = max(1, min(int(len(held) ** 0.5), len(held) // _FEWEST))
        index = faiss.index_factory(held.shape[1], f"IVF{lists},SQ8,RFlat", faiss.METRIC_INNER_PRODUCT)
        index.train(np.ascontiguousarray(held[:: max(1, len(held) // (_TRAINED_ON * lists))]))
        index.add(held)
        return cls(index, row_ids)

    def search(
        self, queries: Tensor, top_k: int, probes: int = PROBES, allowed: Tensor | None = None
    ) -> tuple[list[list[float]], list[list[int]]]:
        """Scores, falling, and row ids of each query's best documents among those looked at.

        Args:
            queries: `(n, k)`.
            top_k: documents per query; fewer come back where the lists looked into hold fewer.
            probes: lists a query looks into. More find more, and take longer.
            allowed: row ids that may come back, `None` for all. All lists are looked into then, since the allowed
                documents may be anywhere.

        Raises:
            ValueError: `top_k` or `probes` is below 1, or the queries have another width.
        """
        for name, value in (("top_k", top_k), ("probes", probes)):
            if value < 1:
                raise ValueError(f"{name} is {value}; accepted: a whole number of at least 1")
        if queries.dim() != 2 or queries.shape[1] != self._index.d:
            raise ValueError(f"queries have shape {tuple(queries.shape)}; accepted: (queries, {self._index.d})")
        lists: dict[str, Any] = {"nprobe": min(probes, self._lists)}
        if allowed is not None:
            places = np.flatnonzero(np.isin(self._row_ids, allowed.numpy()))
            lists = {"nprobe": self._lists, "sel": faiss.IDSelectorBatch(places)}
        options: dict[str, Any] = {"k_factor": REFINED, "base_index_params": faiss.SearchParametersIVF(**lists)}
        parameters = faiss.IndexRefineSearchParameters(**options)
        asked = np.ascontiguousarray(queries.detach().float().cpu().numpy())
        scores, places = self._index.search(asked, min(top_k, len(self._row_ids)), params=parameters)
        found = [own >= 0 for own in places]  # FAISS fills up with -1
        return (
            [own[kept].tolist() for own, kept in zip(scores, found, strict=True)],
            [self._row_ids[own[kept]].tolist() for own, kept in zip(places, found, strict=True)],
        )

    def save(self, path: Path) -> None:
        """Writes `path`, and before it, so that it is there when all is, `path` with the ending `.safetensors`."""
        write_tensors(path.with_suffix(".safetensors"), {"row_ids": torch.from_numpy(self._row_ids)})
        replace_file(path, lambda temporary: faiss.write_index(self._index, str(temporary)))

    @classmethod
    def load(cls, path: Path) -> "ApproximateIndex":
        """Reads what `save` wrote."""
        return cls(faiss.read_index(str(path)), load_file(path.with_suffix(".safetensors"))["row_ids"])
