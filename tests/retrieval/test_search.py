"""Text in, documents out, with and without the teacher."""

from pathlib import Path

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.retrieval import Document, Searcher, VectorStore, encode_corpus
from tests.conftest import DOCUMENTS, QUERIES


@pytest.fixture
def store(student: RabtrieverModel, tmp_path: Path) -> VectorStore:
    corpus = encode_corpus(student, [Document(str(row), text) for row, text in enumerate(DOCUMENTS)], tmp_path / "v")
    made = VectorStore.create(tmp_path / "s", corpus.model, corpus.embedding_dim)
    made.add_corpus(corpus)
    return made


def test_the_students_ranking(student: RabtrieverModel, store: VectorStore) -> None:
    found = Searcher(student, store).search(QUERIES, top_k=3)
    for query, hits in zip(QUERIES, found, strict=True):
        expected = student.rank(query, DOCUMENTS, top_k=3)
        assert [hit.text for hit in hits] == [row["text"] for row in expected]
        assert [hit.score for hit in hits] == pytest.approx([row["score"] for row in expected], abs=1e-4)


def test_the_teacher_judges_the_best_again(
    student: RabtrieverModel, reranker: GenerativeRerankerModel, store: VectorStore
) -> None:
    searcher = Searcher(student, store, reranker)
    for query, hits in zip(QUERIES, searcher.search(QUERIES, top_k=2, rerank_depth=4), strict=True):
        expected = reranker.rank(query, DOCUMENTS, top_k=2)
        assert [hit.text for hit in hits] == [row["text"] for row in expected]
        assert [hit.score for hit in hits] == pytest.approx([row["score"] for row in expected], abs=1e-4)
    # Depth 2 judges the student's two best, and no others.
    first = Searcher(student, store).search(QUERIES, top_k=2)
    judged = searcher.search(QUERIES, top_k=2, rerank_depth=2)
    assert [{hit.id for hit in hits} for hits in judged] == [{hit.id for hit in hits} for hits in first]
    assert searcher.search(QUERIES, top_k=1, where="id = 'none'") == [[], [], []]
    with pytest.raises(ValueError, match="rerank_depth is 3; accepted: at least top_k, 5"):
        searcher.search(QUERIES, top_k=5, rerank_depth=3)


def test_a_store_of_another_model_is_refused(student: RabtrieverModel, store: VectorStore) -> None:
    with torch.no_grad():
        next(student.predictor.parameters()).mul_(2)
    with pytest.raises(ValueError, match="scores would mean nothing. Encode the corpus with this model"):
        Searcher(student, store)
