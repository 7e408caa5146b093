"""Candidates: who is in the list, who never is, and from which distribution the rest is drawn."""

import pytest
import torch

from modeling_rabtriever.distillation import candidates
from modeling_rabtriever.distillation.candidates import best_documents, draw_on_policy, positives_and_uniform


def test_lists_hold_the_positives_and_no_document_twice() -> None:
    relevant = [[3], [0, 9], [1, 2, 3, 4, 5, 6, 7]]
    lists = positives_and_uniform(relevant, corpus_size=10, count=6, seed=0)
    assert lists.shape == (3, 6) and lists.dtype == torch.long
    assert lists[0, 0] == 3 and set(lists[1, :2].tolist()) == {0, 9}
    assert set(lists[2, :3].tolist()) <= set(relevant[2])  # half the list at most is positive by right
    assert all(len(set(row)) == 6 for row in lists.tolist())
    assert torch.equal(lists, positives_and_uniform(relevant, 10, 6, seed=0))
    assert not torch.equal(lists, positives_and_uniform(relevant, 10, 6, seed=1))


def test_a_list_may_be_the_whole_corpus() -> None:
    lists = positives_and_uniform([[2], [0]], corpus_size=4, count=4, seed=0)
    assert [sorted(row) for row in lists.tolist()] == [[0, 1, 2, 3]] * 2


def test_uniform_candidates_are_uniform() -> None:
    lists = positives_and_uniform([[0]] * 4000, corpus_size=9, count=3, seed=0)
    shares = torch.bincount(lists[:, 1:].flatten(), minlength=9)[1:] / 8000
    torch.testing.assert_close(shares, torch.full((8,), 1 / 8), atol=0.02, rtol=0)


def test_on_policy_candidates_follow_the_students_distribution() -> None:
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0])
    best = best_documents(torch.ones(20_000, 1), scores[:, None], torch.zeros(20_000, 1, dtype=torch.long))
    drawn = draw_on_policy(*best, 1, _generator())
    shares = torch.bincount(drawn.flatten(), minlength=4) / 20_000
    policy = scores[1:].softmax(0)  # document 0 has been scored already
    torch.testing.assert_close(shares, torch.cat([torch.zeros(1), policy]), atol=0.015, rtol=0)


def test_draws_without_replacement_match_sequential_draws() -> None:
    """The second draw follows the distribution renormalised without the first (naive enumeration)."""
    weights = torch.tensor([0.1, 0.2, 0.7])
    rows = torch.arange(3).expand(20_000, -1)
    drawn = draw_on_policy(weights.log().expand(20_000, -1), rows, 2, _generator())
    found = torch.bincount(drawn.sort(1).values @ torch.tensor([3, 1]), minlength=9) / 20_000
    for a, b in ((0, 1), (0, 2), (1, 2)):
        p, q = weights[a].item(), weights[b].item()
        assert found[3 * a + b].item() == pytest.approx(p * q / (1 - p) + q * p / (1 - q), abs=0.015)


def test_the_best_documents_are_found_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "DOCUMENT_BLOCK", 7)
    monkeypatch.setattr(candidates, "DRAWN_FROM", 5)
    queries, documents = torch.randn(4, 3, generator=_generator()), torch.randn(30, 3, generator=_generator())
    scored = torch.tensor([[0, 6], [7, 8], [29, 1], [13, 14]])
    scores, rows = best_documents(queries, documents, scored)
    every = (queries @ documents.T).scatter(1, scored, -torch.inf)
    wanted = every.topk(5, dim=1)
    assert torch.equal(rows, wanted.indices)
    torch.testing.assert_close(scores, wanted.values)


def test_documents_that_have_a_score_are_never_drawn() -> None:
    scored = torch.tensor([[0, 1, 2], [7, 8, 9]])
    best = best_documents(torch.zeros(2, 1), torch.zeros(10, 1), scored)
    drawn = draw_on_policy(*best, 7, _generator())
    assert [sorted(row) for row in drawn.tolist()] == [[3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5, 6]]


def test_queries_without_labels_get_uniform_candidates() -> None:
    lists = positives_and_uniform([[2], *[[]] * 2000], 4, 1, seed=0)
    assert lists[0].tolist() == [2]
    assert all(abs(share - 0.25) < 0.05 for share in (lists[1:].flatten().bincount(minlength=4) / 2000).tolist())


def test_impossible_lists_are_refused() -> None:
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"{count} candidates of 4 documents; accepted: 1 to 4"):
            positives_and_uniform([[0]], 4, count, seed=0)
    best = best_documents(torch.zeros(1, 1), torch.zeros(4, 1), torch.tensor([[0, 1]]))
    with pytest.raises(ValueError, match="3 new candidates of 2 documents not scored yet; accepted: 0 to 2"):
        draw_on_policy(*best, 3, _generator())


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
