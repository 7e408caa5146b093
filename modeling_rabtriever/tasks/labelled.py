"""The queries and relevance labels of a split, from its judgements and the ids that are there."""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from .id_rows import IdRows
from .qrels import Judgement
from .relevance import Relevance

Judgements = Callable[[], Iterator[Judgement]]
Rows = NDArray[np.int64]
ABSENT, WITHOUT = "judgements of absent documents or queries", "queries without a relevant document left"
_BLOCK = 65_536  # judgements looked up at once


def labelled(
    source: str, judgements: Judgements, queries: IdRows, documents: IdRows, left_out: dict[str, int] | None
) -> tuple[Rows, Relevance]:
    """Rows of the queries with a relevant document, in the order of their first one, and their labels.

    Args:
        source: name of the judgements, for messages.
        judgements: read once, and again to find the lines of a contradiction.
        queries: where each query lies.
        documents: where each document lies.
        left_out: counts judgements of absent documents or queries, which are left out; `None` refuses them.

    Raises:
        ValueError: a judgement names an absent id or contradicts another one, or no document is relevant.
    """
    query_rows, document_rows, grades, lost = _known(judgements, queries, documents, left_out)
    keys = query_rows * len(documents) + document_rows
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    if (other := np.flatnonzero(grades != grades[first][place])).size:
        pair = queries.ids[query_rows[other[0]]], documents.ids[document_rows[other[0]]]
        raise ValueError(_contradiction(judgements, *pair))
    kept = np.sort(first)
    kept = kept[grades[kept] > 0]
    if not kept.size:
        raise ValueError(f"{source} judges no document relevant; accepted: at least one score above 0")
    rows, first, place = np.unique(query_rows[kept], return_index=True, return_inverse=True)
    order = first.argsort()  # of the queries, by their first relevant document
    if left_out is not None:
        left_out[WITHOUT] += np.setdiff1d(lost, rows).size
    ends = np.concatenate([[0], np.bincount(place)[order].cumsum()])
    kept = kept[order.argsort()[place].argsort(stable=True)]
    return rows[order], Relevance(ends, document_rows[kept], grades[kept])


def _known(
    judgements: Judgements, queries: IdRows, documents: IdRows, left_out: dict[str, int] | None
) -> tuple[Rows, Rows, Rows, Rows]:
    """Query rows, corpus rows and grades of the judgements whose ids are there; queries that lost a relevant one."""
    parts, lost = [np.empty((3, 0), np.int64)], [np.empty(0, np.int64)]
    every = judgements()
    while block := list(islice(every, _BLOCK)):
        found = np.stack(
            [
                queries.find([judged.query_id for judged in block]),
                documents.find([judged.corpus_id for judged in block]),
                np.array([judged.grade for judged in block]),
            ]
        )
        absent = (found[:2] < 0).any(0)
        if absent.any() and left_out is None:
            place = int(absent.argmax())
            raise ValueError(_absent(block[place], bool(found[0, place] >= 0)))
        if left_out is not None:
            left_out[ABSENT] += int(absent.sum())
        lost.append(found[0, absent & (found[0] >= 0) & (found[2] > 0)])
        parts.append(found[:, ~absent])
    query_rows, document_rows, grades = np.concatenate(parts, axis=1)
    return query_rows, document_rows, grades, np.concatenate(lost)


def _contradiction(judgements: Judgements, query_id: str, corpus_id: str) -> str:
    """The message about the first two judgements of a pair that differ."""
    own = [judged for judged in judgements() if (judged.query_id, judged.corpus_id) == (query_id, corpus_id)]
    judged = next(other for other in own if other.grade != own[0].grade)
    return (
        f"{judged.place} gives query {query_id!r} and document {corpus_id!r} the score {judged.grade}, {own[0].place} "
        f"{own[0].grade}; accepted: one score per pair"
    )


def _absent(judged: Judgement, query_known: bool) -> str:
    if query_known:
        absent = f"document {judged.corpus_id!r}, which is not in the corpus"
    else:
        absent = f"query {judged.query_id!r}, which is not in the queries"
    return (
        f"{judged.place} names {absent}; accepted: ids that are there, or --skip_bad true, which leaves such "
        "judgements out and counts them"
    )
