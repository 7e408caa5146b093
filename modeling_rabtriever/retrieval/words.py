"""Search by words: LanceDB's full-text index (BM25) over the documents' texts, and its fusion with the student.

The index reads words as LanceDB does by default: split at spaces and punctuation, in lower case, without accents,
stemmed and without stop words as in English.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lancedb.index import FTS
from lancedb.query import MatchQuery

from .hits import Hit

RANK_OFFSET = 60  # of reciprocal rank fusion, as in the paper; larger values make first places count for less
WORDS_WEIGHT = 0.5  # share of the words in the fused score; the student has the rest
FUSED_DEPTH = 100  # documents of each ranking that are fused, or as many as asked for if that is more


def fused(student: Sequence[Hit], words: Sequence[Hit], weight: float = WORDS_WEIGHT) -> list[Hit]:
    """Two rankings of one query, joined by reciprocal rank fusion.

    A document's score is `(1 - weight) / (60 + its place in the student's ranking)` plus `weight / (60 + its place in
    that of the words)`; places count from 1, and a ranking without the document adds nothing. Reference: Cormack,
    Clarke and Buettcher, SIGIR 2009; there both have the same weight.

    Args:
        student: the student's best documents, best first.
        words: the best by words, best first.
        weight: share of the words, between 0 and 1.

    Returns:
        All documents of both with their fused scores, best first; equal scores in the student's order.

    Examples:
        >>> from modeling_rabtriever.retrieval import Hit
        >>> from modeling_rabtriever.retrieval.words import fused
        >>> [hit.id for hit in fused([Hit("a", 2.0, ""), Hit("b", 1.0, "")], [Hit("b", 7.0, ""), Hit("c", 5.0, "")])]
        ['b', 'a', 'c']
    """
    hits: dict[str, Hit] = {}  # in the student's order, then in that of the words
    scores: dict[str, float] = {}
    for ranking, share in ((student, 1 - weight), (words, weight)):
        for place, hit in enumerate(ranking, start=1):
            hits.setdefault(hit.id, hit)
            scores[hit.id] = scores.get(hit.id, 0.0) + share / (RANK_OFFSET + place)
    return sorted((replace(hit, score=scores[id_]) for id_, hit in hits.items()), key=lambda hit: -hit.score)


def words_weight(hybrid: bool | float) -> float | None:
    """The share of the words that a setting `hybrid` asks for: `True` for the default; `None` for no fusion.

    Raises:
        ValueError: it is neither true or false nor a number between 0 and 1.
    """
    if isinstance(hybrid, bool):
        return WORDS_WEIGHT if hybrid else None
    if not isinstance(hybrid, (int, float)) or not 0 < hybrid < 1:
        raise ValueError(f"hybrid is {hybrid!r}; accepted: true, false, or the words' share, between 0 and 1")
    return float(hybrid)


def make_word_index(table: Any) -> None:
    """Builds the index over column `text`, in place of an older one, unless that one covers all rows."""
    stats = [table.index_stats(name) for name in _word_indices(table)]
    if not any(found is not None and not found.num_unindexed_rows for found in stats):
        table.create_index("text", config=FTS(), replace=True)


def has_word_index(table: Any) -> bool:
    """Whether the version that is open has a full-text index of the texts."""
    return bool(_word_indices(table))


def _word_indices(table: Any) -> list[str]:
    return [index.name for index in table.list_indices() if index.index_type == "FTS" and index.columns == ["text"]]


def best_by_words(table: Any, query: str, top_k: int, where: str | None) -> tuple[list[float], list[int]]:
    """BM25 scores, falling, and row ids of the best documents that share a word with the query. Ties are in row order.

    Args:
        table: with a word index. Rows that came later than the index are scanned.
        query: any text; it has no syntax.
        top_k: how many documents.
        where: an SQL condition, already in brackets.
    """
    wanted: dict[str, Any] = {"query": query, "column": "text"}
    asked = table.search(MatchQuery(**wanted), query_type="fts").select(["id", "_score"]).with_row_id(True)
    if where is not None:
        asked = asked.where(where, prefilter=True)
    found = asked.limit(top_k).to_arrow()
    rows = sorted(zip((-found["_score"].to_numpy()).tolist(), found["_rowid"].to_pylist(), strict=True))
    return [-score for score, _ in rows], [row for _, row in rows]
