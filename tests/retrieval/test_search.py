"""Text in, documents out, with and without the teacher."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel, modeling_prefix_cache
from modeling_rabtriever.retrieval import Document, Searcher, VectorStore, encode_corpus
from modeling_rabtriever.served import ServedTeacher
from tests.conftest import DOCUMENTS, QUERIES
from tests.served.completion_server import CompletionServer


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


def test_a_teacher_behind_a_server_judges_alike(
    student: RabtrieverModel, reranker: GenerativeRerankerModel, store: VectorStore, server: CompletionServer
) -> None:
    served = Searcher(student, store, ServedTeacher(server.url, reranker.processor)).search(QUERIES, top_k=3)
    for hits, expected in zip(served, Searcher(student, store, reranker).search(QUERIES, top_k=3), strict=True):
        assert [hit.id for hit in hits] == [hit.id for hit in expected]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-4)


def test_a_store_of_another_model_is_refused(student: RabtrieverModel, store: VectorStore) -> None:
    with torch.no_grad():
        next(student.predictor.parameters()).mul_(2)
    with pytest.raises(ValueError, match="scores would mean nothing; accepted: the model that encoded the corpus"):
        Searcher(student, store)


def test_threads_share_models_and_store_while_another_writes(
    student: RabtrieverModel, reranker: GenerativeRerankerModel, store: VectorStore
) -> None:
    searcher = Searcher(student, store, reranker)
    queries = [f"{query} <T> {number}" for number in range(4) for query in QUERIES]
    alone = {query: searcher.search([query], 4, rerank_depth=4, where="id < '4'")[0] for query in queries}
    stop = threading.Event()

    def write() -> int:
        number = 0
        while not stop.is_set():
            number += 1
            documents = [Document(f"x{number}-{row}", f"another text {number} {row}") for row in range(3)]
            store.upsert(documents, student.encode_document([document.text for document in documents]))
        return number

    def ask(thread: int) -> list[str]:
        wrong = []
        for number in range(24):
            query = queries[(number * 5 + thread) % len(queries)]
            (hits,) = searcher.search([query], 4, rerank_depth=4, where="id < '4'")
            same = [hit.text for hit in hits] == [hit.text for hit in alone[query]]
            scores = [abs(hit.score - other.score) < 1e-4 for hit, other in zip(hits, alone[query], strict=True)]
            wrong += [] if same and all(scores) else [query]
        return wrong

    with ThreadPoolExecutor(5) as threads:
        writer = threads.submit(write)
        try:
            found = list(threads.map(ask, range(4)))
        finally:
            stop.set()
    assert found == [[]] * 4 and writer.result() > 0


def test_few_documents_are_read_at_once_by_the_teacher(
    student: RabtrieverModel, reranker: GenerativeRerankerModel, store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Searcher(student, store, reranker).search(QUERIES, 2, rerank_depth=4)
    monkeypatch.setattr(modeling_prefix_cache, "PREFIX_TOKENS", 12)
    held, read = [], reranker.read_prefixes
    monkeypatch.setattr(
        reranker, "read_prefixes", lambda ids, *a, **k: held.append(sum(map(len, ids))) or read(ids, *a, **k)
    )
    found = Searcher(student, store, reranker).search(QUERIES, 2, rerank_depth=4)
    assert [[hit.id for hit in hits] for hits in found] == [[hit.id for hit in hits] for hits in expected]
    longest = max(map(len, reranker.processor.document_ids(DOCUMENTS)))
    assert len(held) > 1 and max(held) <= max(12, longest)
