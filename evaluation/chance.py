"""What a random ranking scores, in closed form: the floor under every number."""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def random_metrics(
    relevant: Sequence[Mapping[int, int]], corpus_size: int, metrics: Sequence[str]
) -> dict[str, np.ndarray]:
    """Expected metrics of a uniformly random order of the corpus, query by query.

    With `m` documents, `r` of them relevant: a document at a given rank is relevant with probability `r / m`, none of
    the first `k` is with probability `C(m - r, k) / C(m, k)`, and given that one at a rank is relevant, each one above
    it is with probability `(r - 1) / (m - 1)`. The expectations of `evaluation.metrics.query_metrics` follow.

    Args:
        relevant: judgements, corpus row -> grade; at least one grade above 0 per query.
        corpus_size: `m`.
        metrics: names as `query_metrics` takes them.

    Returns:
        Name -> `(n,)` float64.
    """
    found: dict[str, np.ndarray] = {}
    for name in metrics:
        kind, _, depth = name.partition("@")
        grades = ([grade for grade in judged.values() if grade > 0] for judged in relevant)
        found[name] = np.array([_EXPECTED[kind](own, corpus_size, min(int(depth), corpus_size)) for own in grades])
    return found


def _no_hit(r: int, m: int, k: int) -> float:
    """Probability that none of the first `k` is relevant."""
    return math.comb(m - r, k) / math.comb(m, k)


def _recall(_: Sequence[int], m: int, k: int) -> float:
    return k / m


def _success(grades: Sequence[int], m: int, k: int) -> float:
    return 1 - _no_hit(len(grades), m, k)


def _reciprocal_rank(grades: Sequence[int], m: int, k: int) -> float:
    r = len(grades)
    return sum((_no_hit(r, m, rank - 1) - _no_hit(r, m, rank)) / rank for rank in range(1, k + 1))


def _ndcg(grades: Sequence[int], m: int, k: int) -> float:
    ideal = sorted(grades, reverse=True)[:k]
    best = sum(grade / math.log2(rank + 1) for rank, grade in enumerate(ideal, start=1))
    return sum(sum(grades) / m / math.log2(rank + 1) for rank in range(1, k + 1)) / best


def _average_precision(grades: Sequence[int], m: int, k: int) -> float:
    r = len(grades)
    above = (r - 1) / (m - 1) if m > 1 else 0.0
    return sum((1 + (rank - 1) * above) / rank for rank in range(1, k + 1)) / m


_EXPECTED = {
    "recall": _recall,
    "success": _success,
    "mrr": _reciprocal_rank,
    "ndcg": _ndcg,
    "map": _average_precision,
}
