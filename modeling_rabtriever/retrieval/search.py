"""Search by text: the student retrieves documents, and a teacher may rerank the best of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..identity import encoder_fingerprint
from ..modeling_generative_reranker import GenerativeRerankerModel
from ..modeling_rabtriever import RabtrieverModel
from .hits import Hit
from .store import VectorStore
from .words import FUSED_DEPTH, fused, words_weight

if TYPE_CHECKING:
    from ..served import ServedTeacher


class Searcher:
    """A student, a store of its vectors, and perhaps a teacher.

    Args:
        model: the student.
        store: vectors of this student.
        reranker: a teacher, here or behind a server, that reranks the best `rerank_depth` documents of each query.
        hybrid: whether to join the student's ranking with one by words (BM25) by reciprocal rank fusion. A number
            between 0 and 1 is the words' share; `True` means `WORDS_WEIGHT`. Scores are then those of the fusion.

    Raises:
        ValueError: the store holds vectors of another model or prompt, `hybrid` is out of range, or the store has no
            index of words.

    Examples:
        >>> from modeling_rabtriever import RabtrieverModel, example
        >>> from modeling_rabtriever.retrieval import Document, Searcher, VectorStore, encode_corpus
        >>> student = RabtrieverModel.from_pretrained(example("household"))
        >>> texts = ["bring the lantern to the kitchen", "bring the sponge to the kitchen"]
        >>> documents = [Document(f"d{row}", text) for row, text in enumerate(texts)]
        >>> vectors = encode_corpus(student, documents, "runs/vectors")
        >>> searcher = Searcher(student, VectorStore.of_corpus("runs/store", vectors))
        >>> (hits,) = searcher.search(["In the kitchen: I spilled my drink."], top_k=1)
        >>> hits[0].id, hits[0].text
        ('d1', 'bring the sponge to the kitchen')
    """

    def __init__(
        self,
        model: RabtrieverModel,
        store: VectorStore,
        reranker: "GenerativeRerankerModel | ServedTeacher | None" = None,
        hybrid: bool | float = False,
    ) -> None:
        store.check_model(encoder_fingerprint(model))
        self.model, self.store, self.reranker = model, store, reranker
        self._words_weight = words_weight(hybrid)
        if self._words_weight is not None:
            store.search_words([], 1)  # refuses a store without an index of words

    def search(
        self,
        queries: Sequence[str],
        top_k: int = 10,
        where: str | None = None,
        rerank_depth: int = 50,
        approximate: bool = False,
    ) -> list[list[Hit]]:
        """The best documents of each query, best first.

        Args:
            queries: texts.
            top_k: documents per query.
            where: an SQL condition on metadata, see `VectorStore.search`.
            rerank_depth: how many of the best documents the teacher reranks, if there is a teacher. Scores
                are then its log-odds.
            approximate: whether to search the approximate index instead of all documents.

        Raises:
            ValueError: a query is blank, a setting is out of range, or the condition cannot be read.
        """
        if self.reranker is not None and rerank_depth < top_k:
            raise ValueError(f"rerank_depth is {rerank_depth}; accepted: at least top_k, {top_k}")
        depth = top_k if self.reranker is None else rerank_depth
        first = depth if self._words_weight is None else max(depth, FUSED_DEPTH)
        found = self.store.search(self.model.encode_query(queries), first, where, approximate)
        if self._words_weight is not None:
            by_words = self.store.search_words(queries, first, where)
            pairs = zip(found, by_words, strict=True)
            found = [fused(student, words, self._words_weight)[:depth] for student, words in pairs]
        return found if self.reranker is None else self._reranked(self.reranker, queries, found, top_k)

    @staticmethod
    def _reranked(
        reranker: "GenerativeRerankerModel | ServedTeacher",
        queries: Sequence[str],
        found: list[list[Hit]],
        top_k: int,
    ) -> list[list[Hit]]:
        texts = {text: row for row, text in enumerate(dict.fromkeys(hit.text for hits in found for hit in hits))}
        if not texts:
            return found
        # The teacher reads a document that several queries found only once.
        pairs = [(query, texts[hit.text]) for query, hits in enumerate(found) for hit in hits]
        scores = iter(reranker.score_pairs(queries, list(texts), pairs).tolist())
        rescored = [[replace(hit, score=next(scores)) for hit in hits] for hits in found]
        return [sorted(hits, key=lambda hit: -hit.score)[:top_k] for hits in rescored]
