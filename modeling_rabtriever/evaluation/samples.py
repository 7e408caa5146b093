"""Fixed draws of queries and documents: what a reranker can score where a whole corpus would take too long."""

import random

from ..tasks.beir import Split
from .metrics import Relevant

SEED = 13


def corpus_sample(relevant: Relevant, corpus_size: int, queries: int, documents: int) -> tuple[list[int], list[int]]:
    """The same queries every time, and documents among which are all that are relevant for them.

    Args:
        relevant: judgements of the queries.
        corpus_size: number of documents in the corpus.
        queries: how many at most; fewer where their relevant documents alone would be more than `documents`.
        documents: how many at most, but for those relevant for a single query.

    Returns:
        Rows of queries and rows of documents, in the order of the data. A corpus no larger than `documents` is taken
        whole.
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
    """Judgements by the place of each document in `documents`, which holds all that are judged relevant."""
    place = {row: number for number, row in enumerate(documents)}
    return [{place[row]: grade for row, grade in judged.items()} for judged in relevant]


def fixed_sample(split: Split, count: int | None) -> Split:
    """The same `count` queries of a split every time, in their order; all of them without a count."""
    if count is None or count >= len(split):
        return split
    return split.take(sorted(random.Random(SEED).sample(range(len(split)), count)))
