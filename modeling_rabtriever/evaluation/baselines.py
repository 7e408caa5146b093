"""Trivial baselines, to compare any retrieval number with.

Each is fitted once and called with queries; it returns `(n, m)` fp32 scores of every document in the corpus.
"""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ..bm25 import BM25
from ..errors import refusing
from .metrics import Relevant

__all__ = ["BM25", "LabelPrior", "TfidfLogisticRegression"]


class LabelPrior:
    """The same ranking for every query: documents by how often they are relevant in training."""

    def __init__(self, train_relevant: Relevant, corpus_size: int) -> None:
        rows = [row for relevant in train_relevant for row in relevant]
        self._counts = torch.bincount(torch.tensor(rows, dtype=torch.long), minlength=corpus_size).float()

    def __call__(self, queries: Sequence[str]) -> Tensor:
        """Counts `(n, m)`."""
        return self._counts.expand(len(queries), -1)


class TfidfLogisticRegression:
    """Multinomial logistic regression from TF-IDF of the query's words and word pairs to documents as classes.

    It makes sense only if the same documents are relevant to many queries. Documents that are never relevant in
    training score minus infinity. A query with several relevant documents counts once for each.

    Raises:
        ValueError: there is nothing to learn, because one document alone is relevant or no word is in two queries.
    """

    def __init__(self, train_queries: Sequence[str], train_relevant: Relevant, corpus_size: int) -> None:
        rows = [(text, row) for text, relevant in zip(train_queries, train_relevant, strict=True) for row in relevant]
        self._corpus_size = corpus_size
        self._vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2)
        classes = {row for _, row in rows}
        if len(classes) < 2:
            raise ValueError(f"relevant documents in training: {len(classes)}; accepted: at least 2")
        with refusing("no word is in two training queries", "queries that share words"):
            features = self._vectorizer.fit_transform([text for text, _ in rows])
        self._model = LogisticRegression(max_iter=1000).fit(features, [row for _, row in rows])

    def __call__(self, queries: Sequence[str]) -> Tensor:
        """Log-probabilities `(n, m)`."""
        scores = np.full((len(queries), self._corpus_size), -np.inf, dtype=np.float32)
        scores[:, self._model.classes_] = self._model.predict_log_proba(self._vectorizer.transform(list(queries)))
        return torch.tensor(scores)
