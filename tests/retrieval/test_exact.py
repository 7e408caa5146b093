"""Exact search against its definition: sort all inner products."""

import pytest
import torch
from torch import Tensor

from modeling_rabtriever.retrieval import ExactIndex, exact


def naive(vectors: Tensor, queries: Tensor, top_k: int, allowed: Tensor | None = None) -> list[list[int]]:
    found = []
    for query in queries.double():
        scores = [(-float(vector @ query), row) for row, vector in enumerate(vectors.double())]
        found.append([row for _, row in sorted(scores) if allowed is None or allowed[row]][:top_k])
    return found


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "SMALLEST_BLOCK", 16)
    monkeypatch.setattr(exact, "BLOCK_SCORES", 64)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("n", [1, 7])
def test_the_best_of_all_documents(precision: str, n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, queries = torch.randn(203, 12, generator=generator), torch.randn(n, 12, generator=generator)
    index = ExactIndex(vectors, precision)
    scores, rows = index.search(queries, 9)
    held = index.vectors.float()
    assert rows.tolist() == naive(held, queries, 9)
    torch.testing.assert_close(scores, (queries @ held.T).gather(1, rows))
    assert len(index) == 203


@pytest.mark.parametrize("size", [exact.CHUNK * 25, exact.CHUNK * 25 + 7, exact.CHUNK * 9 + 255, 40])
def test_the_best_of_a_block(size: int) -> None:
    scores = torch.randn(3, size, generator=torch.Generator().manual_seed(size)).half()  # with ties
    values, places = exact._best(scores, 12)
    expected = scores.float().topk(12).values
    torch.testing.assert_close(values.sort(descending=True).values, expected)
    assert torch.equal(scores.gather(1, places).float(), values)
    assert all(len(set(own)) == 12 for own in places.tolist())


def test_only_allowed_documents() -> None:
    generator = torch.Generator().manual_seed(1)
    vectors, queries = torch.randn(90, 5, generator=generator), torch.randn(3, 5, generator=generator)
    allowed = torch.rand(90, generator=generator) < 0.3
    _, rows = ExactIndex(vectors).search(queries, 6, allowed)
    assert rows.tolist() == naive(vectors, queries, 6, allowed)
    few = torch.zeros(90, dtype=torch.bool)
    assert ExactIndex(vectors).search(queries, 6, few)[1].shape == (3, 0)
    few[[3, 80]] = True
    assert sorted(ExactIndex(vectors).search(queries, 6, few)[1][0].tolist()) == [3, 80]


def test_ties_come_by_rising_row_whatever_the_block() -> None:
    vectors = torch.ones(100, 3)
    vectors[70] = 2
    _, rows = ExactIndex(vectors).search(torch.ones(2, 3), 100)
    assert rows[1].tolist() == [70, *range(70), *range(71, 100)]


def test_scores_below_zero_and_short_corpora() -> None:
    vectors = -torch.arange(1.0, 4).view(3, 1)
    scores, rows = ExactIndex(vectors, "bfloat16").search(torch.ones(1, 1), 10)
    assert rows.tolist() == [[0, 1, 2]] and scores.tolist() == [[-1.0, -2.0, -3.0]]


def test_half_precision_does_not_tie_the_best() -> None:
    # In bfloat16 all products round to 256; their fp32 scores differ.
    vectors = torch.full((20, 64), 2.0)
    vectors[:, 0] = torch.arange(20) / 64 + 2
    scores, rows = ExactIndex(vectors, "bfloat16").search(torch.full((1, 64), 2.0), 3)
    assert scores[0, 0] > scores[0, 2] and rows[0, 0] == 19


def test_unusable_input_is_refused() -> None:
    index = ExactIndex(torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"queries have shape \(1, 2\); accepted: \(queries, 3\)"):
        index.search(torch.ones(1, 2), 1)
    with pytest.raises(ValueError, match="top_k is 0; accepted"):
        index.search(torch.ones(1, 3), 0)
    with pytest.raises(ValueError, match="a query vector holds NaN"):
        index.search(torch.full((1, 3), torch.nan), 1)
    with pytest.raises(ValueError, match=r"allowed has shape \(3,\); accepted: \(4,\)"):
        index.search(torch.ones(1, 3), 1, torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="precision is 'int4'; accepted"):
        ExactIndex(torch.ones(4, 3), "int4")
    with pytest.raises(ValueError, match=r"vectors have shape \(4,\)"):
        ExactIndex(torch.ones(4))
    with pytest.raises(ValueError, match=r"hold NaN or infinity \(as float16\)"):
        ExactIndex(torch.full((2, 2), 1e6), "float16")
