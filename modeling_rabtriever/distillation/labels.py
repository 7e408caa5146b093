"""Relevance labels during training: what is relevant in a batch, and each query's hard negatives."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from .candidates import best_documents, first_rows

HARD_DEPTH = 30  # a hard negative is one of this many best documents of a query
_QUERIES = 1024  # for which hard negatives are looked for at once


class Labels:
    """The relevant documents of the training queries. Documents are compared by their texts.

    Args:
        relevant: for each query, the relevant corpus rows; none for a query without labels.
        documents: the corpus.
    """

    def __init__(self, relevant: Sequence[Sequence[int]], documents: Sequence[str]) -> None:
        self._texts = first_rows(documents)  # (m,) a text's name is the first row that has it
        self._relevant = relevant
        self.queries = torch.tensor([row for row, own in enumerate(relevant) if len(own)], dtype=torch.long)
        self.documents = self._texts[[row for own in relevant for row in own]].unique()  # (l,) labelled texts
        self._labelled = torch.zeros(len(documents), dtype=torch.bool)  # by the name of a text
        self._labelled[self.documents] = True
        self.hard = torch.empty(len(relevant), 0, dtype=torch.long)  # (n, h) of them, best first; -1: none is left

    def relevant_in(self, rows: Tensor, batch: Tensor) -> Tensor:
        """`(n, m)` bool: documents of the batch with the text of a relevant document of the query.

        Args:
            rows: `(n,)`, the training queries.
            batch: `(m,)`, corpus rows.
        """
        texts = self._texts[batch]
        return torch.stack([torch.isin(texts, self._of(row)) for row in rows.tolist()])

    def labelled_in(self, batch: Tensor) -> Tensor:
        """`(m,)` bool: documents of the batch that are relevant to some training query."""
        return self._labelled[self._texts[batch]]

    def find_hard_negatives(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Each query's best `HARD_DEPTH` documents that are relevant to some other query, but not to it.

        Args:
            queries: vectors of `self.queries`.
            documents: vectors of `self.documents`.

        Returns:
            `(n, h)` corpus rows, for `self.hard`.
        """
        depth = min(HARD_DEPTH, len(self.documents))
        hard = torch.full((len(self._relevant), depth), -1)
        for rows, block in zip(self.queries.split(_QUERIES), queries.split(_QUERIES), strict=True):
            own = [self._of(row) for row in rows.tolist()]
            longest = max(len(texts) for texts in own)
            # The first one is repeated, so that all queries leave out equally many.
            relevant = torch.stack([torch.cat([texts, texts[:1].expand(longest - len(texts))]) for texts in own])
            scores, places = best_documents(block, documents, torch.searchsorted(self.documents, relevant))
            hard[rows] = self.documents[places].masked_fill(scores == -torch.inf, -1)[:, :depth]
        return hard

    def hard_negatives(self, rows: Tensor, seed: str) -> Tensor:
        """One random hard negative of each query that has any, corpus rows.

        Args:
            rows: `(n,)`, the training queries.
            seed: of the draw, another one in every step.
        """
        found = {row: [place for place in self.hard[row].tolist() if place >= 0] for row in rows.tolist()}
        drawn = [random.Random(f"{seed}-{row}").choice(own) for row, own in found.items() if own]
        return torch.tensor(drawn, dtype=torch.long)

    def _of(self, row: int) -> Tensor:
        return self._texts[list(self._relevant[row])]
