"""BM25 from the library bm25s. Part of the extras "evaluation" and "demo".

bm25s imports JAX if it can and runs a computation at once, which makes JAX take three quarters of a GPU's memory.
Nothing here needs JAX, so it is hidden from bm25s.
"""

import builtins
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def _without_jax() -> Iterator[None]:
    """Makes imports of JAX fail in this thread only. Other threads may import it meanwhile."""
    thread, import_ = threading.get_ident(), builtins.__import__

    def guarded(name: str, *arguments: Any, **settings: Any) -> Any:
        if threading.get_ident() == thread and name.partition(".")[0] == "jax":
            raise ModuleNotFoundError("JAX is hidden from bm25s", name=name)
        return import_(name, *arguments, **settings)

    builtins.__import__ = guarded
    try:
        yield
    finally:
        builtins.__import__ = import_


with _without_jax():
    import bm25s


class BM25:
    """Okapi BM25 over lower-cased words, with the library's defaults (no stemming, English stop words removed).

    It never changes, so threads can share it.
    """

    def __init__(self, corpus: Sequence[str]) -> None:
        self._corpus_size = len(corpus)
        words = bm25s.tokenize(list(corpus), show_progress=False)
        self._index = None
        if any(words.ids):  # bm25s cannot index a corpus of only stop words and single letters
            self._index = bm25s.BM25()
            self._index.index(words, show_progress=False)

    def __call__(self, queries: Sequence[str]) -> Tensor:
        """Scores `(n, m)` fp32; 0 if a query and a document share no word."""
        scores = torch.zeros(len(queries), self._corpus_size)
        if self._index is not None:
            for row, words in enumerate(bm25s.tokenize(list(queries), return_ids=False, show_progress=False)):
                if words:
                    scores[row] = torch.from_numpy(self._index.get_scores(words))
        return scores
