"""Three rankings of the same documents with their times, and the terms of a student's score."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..bm25 import BM25
from ..modeling_generative_reranker import GenerativeRerankerModel
from ..modeling_prompted import ranking
from ..modeling_rabtriever import RabtrieverModel
from .documents import check_text

TOP_K = 8
TERMS = 5  # products that an explanation lists


@dataclass(frozen=True)
class Term:
    """One dimension's part of a score: `query * document`.

    Args:
        dimension: its place in the vectors, from 0.
        query: the query vector's number there.
        document: the document vector's number there.
    """

    dimension: int
    query: float
    document: float

    @property
    def product(self) -> float:
        """What is added to the score."""
        return self.query * self.document


@dataclass(frozen=True)
class Explanation:
    """A score as a sum: the largest products one by one, and all others as one number.

    Args:
        terms: the largest by absolute value, largest first.
        others: number of the other dimensions.
        rest: the sum of their products.
        score: the inner product: `sum(term.product for term in terms) + rest`.
    """

    terms: tuple[Term, ...]
    others: int
    rest: float
    score: float


@dataclass(frozen=True)
class RankedText:
    """A document in a ranking.

    Args:
        row: its place among the documents, from 0.
        text: of the document.
        score: for this query; every ranker has its own scale.
        explanation: the terms of the score, if a student gave it.
    """

    row: int
    text: str
    score: float
    explanation: Explanation | None = None


@dataclass(frozen=True)
class RankedList:
    """The best documents of one ranker.

    Args:
        hits: best first; equal scores keep the order of the documents.
        milliseconds: from the query's text to the scores of all documents, in order.
        places: every document's place, from 1, by row; empty unless the ranker is the teacher.
    """

    hits: tuple[RankedText, ...]
    milliseconds: float
    places: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class IndexedTexts:
    """Documents ready for search. `Ranker.index` makes them. They never change, so sessions can share them.

    Args:
        texts: the documents.
        vectors: `(m, k)` fp32, the student's.
        words: BM25 over the same documents.
    """

    texts: tuple[str, ...]
    vectors: Tensor
    words: BM25

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.texts)


class Ranker:
    """Ranks documents by BM25, by a student and, if there is one, by a teacher.

    Raises:
        ValueError: `student` is not a `RabtrieverModel`, or `teacher` not a `GenerativeRerankerModel`.
    """

    def __init__(self, student: RabtrieverModel, teacher: GenerativeRerankerModel | None = None) -> None:
        self.student, self.teacher = checked_student(student), checked_teacher(teacher)

    def index(self, texts: Sequence[str], known: IndexedTexts | None = None) -> IndexedTexts:
        """Encodes documents, except those that `known` has, and indexes their words.

        Raises:
            ValueError: no documents, or a blank one.
        """
        vectors = {} if known is None else dict(zip(known.texts, known.vectors, strict=True))
        new = [text for text in dict.fromkeys(texts) if text not in vectors]
        if new or not texts:
            vectors |= zip(new, self.student.encode_document(new).cpu(), strict=True)
        return IndexedTexts(tuple(texts), torch.stack([vectors[text] for text in texts]), BM25(texts))

    def rank_bm25(self, query: str, indexed: IndexedTexts) -> RankedList:
        """Documents that share a word with the query, by Okapi BM25 (the library's defaults).

        Raises:
            ValueError: the query is blank or too long.
        """
        query = checked_query(query)
        begin = time.perf_counter()
        found = ranking(indexed.words([query])[0], indexed.texts, None)
        taken = _milliseconds_since(begin)
        shared = [hit for hit in found[:TOP_K] if hit["score"] > 0]
        return RankedList(tuple(RankedText(hit["corpus_id"], hit["text"], hit["score"]) for hit in shared), taken)

    def rank_student(self, query: str, indexed: IndexedTexts) -> RankedList:
        """All documents by inner product; each hit with its explanation, which is not part of the time.

        Raises:
            ValueError: the query is blank or too long, or a score is NaN.
        """
        query = checked_query(query)
        begin = time.perf_counter()
        query_embeds = self.student.encode_query([query]).cpu()
        scores = self.student.similarity(query_embeds, indexed.vectors)[0]
        found = ranking(scores, indexed.texts, TOP_K)
        taken = _milliseconds_since(begin)
        hits = []
        for hit in found:
            explanation = explain(query_embeds[0], indexed.vectors[hit["corpus_id"]])
            hits.append(RankedText(hit["corpus_id"], hit["text"], hit["score"], explanation))
        return RankedList(tuple(hits), taken)

    def rank_teacher(self, query: str, indexed: IndexedTexts) -> RankedList:
        """All documents by log-odds of "relevant"; the teacher reads every pair.

        Raises:
            ValueError: there is no teacher, the query is blank or too long, or a score is NaN.
        """
        if self.teacher is None:
            raise ValueError("there is no teacher; accepted: Ranker(student, teacher)")
        query = checked_query(query)
        begin = time.perf_counter()
        found = self.teacher.rank(query, indexed.texts)
        taken = _milliseconds_since(begin)
        hits = tuple(RankedText(hit["corpus_id"], hit["text"], hit["score"]) for hit in found[:TOP_K])
        return RankedList(hits, taken, {hit["corpus_id"]: place for place, hit in enumerate(found, start=1)})


def explain(query_embeds: Tensor, document_embeds: Tensor) -> Explanation:
    """Splits the inner product of two vectors `(k,)` into its `TERMS` largest products and the sum of the others.

    Raises:
        ValueError: the two are not vectors of the same width.
    """
    if query_embeds.dim() != 1 or query_embeds.shape != document_embeds.shape:
        raise ValueError(
            f"query_embeds {tuple(query_embeds.shape)} and document_embeds {tuple(document_embeds.shape)} do not fit; "
            "accepted: (k,) and (k,)"
        )
    query, document = query_embeds.double(), document_embeds.double()
    products = query * document
    order = products.abs().argsort(descending=True, stable=True).tolist()
    named = tuple(Term(row, float(query[row]), float(document[row])) for row in order[:TERMS])
    return Explanation(named, len(order) - len(named), float(products[order[TERMS:]].sum()), float(products.sum()))


def checked_student(student: RabtrieverModel) -> RabtrieverModel:
    """The student, or a ValueError if it is another model."""
    if not isinstance(student, RabtrieverModel):
        raise ValueError(f"the student is a {type(student).__name__}; accepted: a RabtrieverModel")
    return student


def checked_teacher(teacher: GenerativeRerankerModel | None) -> GenerativeRerankerModel | None:
    """The teacher, if there is one, or a ValueError if it is another model."""
    if teacher is not None and not isinstance(teacher, GenerativeRerankerModel):
        raise ValueError(f"the teacher is a {type(teacher).__name__}; accepted: a GenerativeRerankerModel")
    return teacher


def checked_query(query: str) -> str:
    """The query without whitespace at its edges.

    Raises:
        ValueError: it is blank, too long, or holds half a character.
    """
    query = query.strip()
    if not query:
        raise ValueError("the query is blank; accepted: a text")
    check_text("the query", query)
    return query


def _milliseconds_since(begin: float) -> float:
    return 1000 * (time.perf_counter() - begin)
