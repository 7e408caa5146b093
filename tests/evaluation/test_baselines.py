"""The trivial baselines and the ranking systems, on a task small enough to know the answer."""

from pathlib import Path

import pytest
import torch

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.evaluation.baselines import BM25, LabelPrior, TfidfLogisticRegression
from modeling_rabtriever.evaluation.systems import baselines, rabtriever_system, reranker_system
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir


@pytest.fixture
def task(beir_folder: Path) -> RetrievalTask:
    return load_beir(beir_folder)


def test_label_prior_counts_training_labels() -> None:
    prior = LabelPrior([{1: 1}, {1: 1, 2: 1}, {0: 1}, {1: 2}], corpus_size=4)
    assert prior(["a", "b"]).tolist() == [[1, 3, 1, 0]] * 2


def test_bm25_finds_shared_words(task: RetrievalTask) -> None:
    scores = BM25(task.corpus)(task.split("test").queries)
    assert scores.shape == (24, 12)
    best = scores.argmax(1).tolist()
    assert [{row: 1} for row in best] == task.split("test").relevant
    assert BM25(task.corpus)(["nothing in common", "the"]).abs().sum() == 0


def test_logistic_regression_learns_labels_from_words(task: RetrievalTask) -> None:
    train, test = task.split("train"), task.split("test")
    scores = TfidfLogisticRegression(train.queries, train.relevant, corpus_size=14)(test.queries)
    assert [{row: 1} for row in scores.argmax(1).tolist()] == test.relevant
    assert (scores[:, 12:] == -torch.inf).all()  # never relevant in training


@pytest.mark.parametrize("kept_tokens", [0, 10_000])
def test_all_systems_score_the_whole_corpus(
    task: RetrievalTask,
    reranker: GenerativeRerankerModel,
    student: RabtrieverModel,
    kept_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modeling_rabtriever.evaluation.systems.KEPT_TOKENS", kept_tokens)
    queries = task.split("test").queries[:5]
    systems = [
        *baselines(task, "train"),
        reranker_system(reranker, task.corpus),
        rabtriever_system(student, task.corpus),
    ]
    scores = {system.name: system.score(queries) for system in systems}
    assert {name: tuple(matrix.shape) for name, matrix in scores.items()} == dict.fromkeys(scores, (5, 12))
    expected = torch.stack([reranker.predict([(query, text) for text in task.corpus]) for query in queries])
    torch.testing.assert_close(scores["teacher"], expected, atol=1e-5, rtol=0)
    ranked = student.rank(queries[0], task.corpus)
    assert [hit["corpus_id"] for hit in ranked] == scores["Rabtriever"][0].argsort(descending=True).tolist()
    assert all(system.milliseconds_per_query(queries) > 0 for system in systems)
    assert systems[0].milliseconds_per_query(queries[:1]) > 0
