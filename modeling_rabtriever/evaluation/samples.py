"""Fixed samples of queries and documents, for rerankers that cannot score a whole corpus."""

import random

from ..tasks.beir import Split
from .metrics import Relevant

SEED = 13


def corpus_sample(relevant: Relevant, corpus_size: int, queries: int, documents: int) -> tuple[list[int], list[int]]:
    """A fixed sample of queries, and documents that include all relevant ones.

    Args:
        relevant: relevance labels of the queries.
        corpus_size: number of documents in the corpus.
        queries: how many at most; fewer if their relevant documents alone would exceed `documents`.
        documents: how many at most, unless a single query has more relevant ones.

    Returns:
        Rows of queries and rows of documents, in the order of the data. A corpus of at most `documents` documents is
        used whole.
    """
    rng = random.Random(SEED)
    needed: set[int] = set()
    rows: list[int] = []
    for row in rng.sample(range(len(relevant)), min(queries, len(relevant))):
        if rows and len(needed | relevant[row].keys()) > documents:
            break
        rows.append(row)
        needed |= relevant[row].keys()
    drawn = rng.sample(range(corpus_size), min(corpus_size, documents))
    others = [row for row in drawn if row not in needed]
    return sorted(rows), sorted([*needed, *others[: max(documents - len(needed), 0)]])


def among(relevant: Relevant, documents: list[int]) -> list[dict[int, int]]:
    """Relevance labels by the place of each document in `documents`, which holds all labelled documents."""
    place = {row: number for number, row in enumerate(documents)}
    return [{place[row]: grade for row, grade in labels.items()} for labels in relevant]


def fixed_sample(split: Split, count: int | None) -> Split:
    """A fixed sample of `count` queries of a split, in their order; `None` means all queries."""
    if count is None or count >= len(split):
        return split
    return split.take(sorted(random.Random(SEED).sample(range(len(split)), count)))
