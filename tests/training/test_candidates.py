"""Candidates: who is in the list, who never is, and from which distribution the rest is drawn."""

import pytest
import torch

from training.candidates import positives_and_uniform, sample_from_student


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
    temperature = 1.5
    drawn = sample_from_student(
        scores.expand(20_000, -1), torch.zeros(20_000, 1, dtype=torch.long), 1, 1.0, temperature, _generator()
    )
    shares = torch.bincount(drawn.flatten(), minlength=4) / 20_000
    policy = (scores[1:] / temperature).softmax(0)  # document 0 has been asked already
    torch.testing.assert_close(shares, torch.cat([torch.zeros(1), policy]), atol=0.015, rtol=0)


def test_draws_without_replacement_match_sequential_draws() -> None:
    """The second draw follows the distribution renormalised without the first (naive enumeration)."""
    weights = torch.tensor([0.1, 0.2, 0.7])
    drawn = sample_from_student(
        weights.log().expand(20_000, -1), torch.empty(20_000, 0, dtype=torch.long), 2, 1.0, 1.0, _generator()
    )
    found = torch.bincount(drawn.sort(1).values @ torch.tensor([3, 1]), minlength=9) / 20_000
    for a, b in ((0, 1), (0, 2), (1, 2)):
        p, q = weights[a].item(), weights[b].item()
        assert found[3 * a + b].item() == pytest.approx(p * q / (1 - p) + q * p / (1 - q), abs=0.015)


def test_share_of_on_policy_candidates() -> None:
    scores = torch.zeros(500, 100)
    scores[:, :2] = 50.0  # the student would only ever draw these two
    drawn = sample_from_student(scores, torch.empty(500, 0, dtype=torch.long), 4, 0.5, 1.0, _generator())
    assert (drawn[:, :2] < 2).all() and (drawn[:, 2:] >= 2).all()
    assert all(len(set(row)) == 4 for row in drawn.tolist())


def test_asked_documents_are_never_drawn_again() -> None:
    asked = torch.tensor([[0, 1, 2], [7, 8, 9]])
    for fraction in (0.0, 1.0):
        drawn = sample_from_student(torch.zeros(2, 10), asked, 7, fraction, 1.0, _generator())
        assert [sorted(row) for row in drawn.tolist()] == [[3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5, 6]]


def test_impossible_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="5 candidates per query of a corpus of 4; accepted: 1 to 4"):
        positives_and_uniform([[0]], 4, 5, seed=0)
    with pytest.raises(ValueError, match="query 1 has no relevant document"):
        positives_and_uniform([[0], []], 4, 2, seed=0)
    with pytest.raises(ValueError, match="3 new candidates of 2 documents not asked yet"):
        sample_from_student(torch.zeros(1, 4), torch.tensor([[0, 1]]), 3, 1.0, 1.0, _generator())


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
