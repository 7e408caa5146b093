"""What a random ranking scores, in closed form: the floor under every number."""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def random_metrics(
    relevant: Sequence[Mapping[int, int]],
    corpus_size: int,
    metrics: Sequence[str],
    candidates: Sequence[Sequence[int]] | None = None,
) -> dict[str, np.ndarray]:
    """Expected metrics of a uniformly random order of what is ranked, query by query.

    With `m` documents, `r` of them relevant: a document at a given rank is relevant with probability `r / m`, none of
    the first `k` is with probability `C(m - r, k) / C(m, k)`, and given that one at a rank is relevant, each one above
    it is with probability `(r - 1) / (m - 1)`. The expectations of `evaluation.metrics.query_metrics` follow.

    Args:
        relevant: judgements, corpus row -> grade; at least one grade above 0 per query.
        corpus_size: how many documents are ranked where there are no candidates.
        metrics: names as `query_metrics` takes them.
        candidates: per query the corpus rows that are ranked, each once; relevant documents that are not among them
            count as missed. Default: the corpus.

    Returns:
        Name -> `(n,)` float64.
    """
    queries = []
    for row, judged in enumerate(relevant):
        every = {document: grade for document, grade in judged.items() if grade > 0}
        pool = None if candidates is None else set(candidates[row])
        ranked = [grade for document, grade in every.items() if pool is None or document in pool]
        queries.append((ranked, list(every.values()), corpus_size if pool is None else len(pool)))
    found: dict[str, np.ndarray] = {}
    for name in metrics:
        kind, _, depth = name.partition("@")
        found[name] = np.array([_EXPECTED[kind](*query, min(int(depth), query[-1]), int(depth)) for query in queries])
    return found


def _no_hit(r: int, m: int, k: int) -> float:
    """Probability that none of the first `k` is relevant."""
    return math.comb(m - r, k) / math.comb(m, k)


# Each: grades of the relevant documents that are ranked, grades of all, m, ranks that are filled, ranks that count.
def _recall(ranked: Sequence[int], every: Sequence[int], m: int, k: int, _: int) -> float:
    return len(ranked) / m * k / len(every)


def _success(ranked: Sequence[int], _: Sequence[int], m: int, k: int, __: int) -> float:
    return 1 - _no_hit(len(ranked), m, k)


def _reciprocal_rank(ranked: Sequence[int], _: Sequence[int], m: int, k: int, __: int) -> float:
    r = len(ranked)
    return sum((_no_hit(r, m, rank - 1) - _no_hit(r, m, rank)) / rank for rank in range(1, k + 1))


def _ndcg(ranked: Sequence[int], every: Sequence[int], m: int, k: int, depth: int) -> float:
    ideal = sorted(every, reverse=True)[:depth]
    best = sum(grade / math.log2(rank + 1) for rank, grade in enumerate(ideal, start=1))
    return sum(sum(ranked) / m / math.log2(rank + 1) for rank in range(1, k + 1)) / best


def _average_precision(ranked: Sequence[int], every: Sequence[int], m: int, k: int, _: int) -> float:
    r = len(ranked)
    above = (r - 1) / (m - 1) if m > 1 else 0.0
    return r / m * sum((1 + (rank - 1) * above) / rank for rank in range(1, k + 1)) / len(every)


_EXPECTED = {
    "recall": _recall,
    "success": _success,
    "mrr": _reciprocal_rank,
    "ndcg": _ndcg,
    "map": _average_precision,
}
