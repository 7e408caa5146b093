"""Relevance labels during training: hard negatives against a naive search, and the draw among them."""

import pytest
import torch

from modeling_rabtriever.distillation import labels as module
from modeling_rabtriever.distillation.labels import Labels

TEXTS = [f"text {row}" for row in range(40)]


def _labels(relevant: list[list[int]], documents: list[str] = TEXTS) -> tuple[Labels, torch.Tensor, torch.Tensor]:
    """Labels with the hard negatives of random vectors, and these vectors: of all queries and of all documents."""
    generator = torch.Generator().manual_seed(0)
    queries, vectors = (torch.randn(len(rows), 4, generator=generator) for rows in (relevant, documents))
    labels = Labels(relevant, documents)
    labels.hard = labels.find_hard_negatives(queries[labels.queries], vectors[labels.documents])
    return labels, queries, vectors


@pytest.mark.parametrize("block", [2, 1024])
def test_hard_negatives_are_the_best_documents_of_other_queries(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUERIES", block)
    monkeypatch.setattr(module, "HARD_DEPTH", 4)
    relevant = [[3], [7, 30, 5], [], [9, 3], [12], [31, 32, 33]]
    labels, queries, vectors = _labels(relevant)
    labelled = sorted({row for rows in relevant for row in rows})
    for row, own in enumerate(relevant):
        others = [document for document in labelled if document not in own] if own else []
        naive = sorted(others, key=lambda document: -float(queries[row] @ vectors[document]))[:4]
        assert labels.hard[row].tolist() == naive + [-1] * (4 - len(naive))


def test_a_copy_of_a_relevant_document_is_no_hard_negative() -> None:
    labels, _, _ = _labels([[0], [1], [3]], ["same", "other", "last", "same"])
    assert labels.hard.tolist() == [[1, -1], [0, -1], [1, -1]]
    assert labels.hard_negatives(torch.tensor([2, 1]), "step 1").tolist() == [1, 0]


def test_queries_without_another_labelled_document_have_no_hard_negative() -> None:
    labels, _, _ = _labels([[4], [4], []])
    assert labels.hard.tolist() == [[-1], [-1], [-1]]
    assert labels.hard_negatives(torch.tensor([0, 1, 2]), "step 1").tolist() == []


def test_hard_negatives_are_drawn_evenly_and_again_for_the_same_step() -> None:
    labels, _, _ = _labels([[row] for row in range(4)])
    rows = torch.tensor([2])
    drawn = [labels.hard_negatives(rows, f"step {step}").item() for step in range(3000)]
    assert drawn[:50] == [labels.hard_negatives(rows, f"step {step}").item() for step in range(50)]
    shares = torch.bincount(torch.tensor(drawn), minlength=4) / 3000
    torch.testing.assert_close(shares, torch.tensor([1, 1, 0, 1]) / 3, atol=0.03, rtol=0)
