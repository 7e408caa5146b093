"""Expected metrics of a random ranking, in closed form."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .metrics import discounted, split_metric


def random_metrics(
    relevant: Sequence[Mapping[int, int]],
    corpus_size: int,
    metrics: Sequence[str],
    candidates: Sequence[Sequence[int]] | None = None,
) -> dict[str, np.ndarray]:
    """Expected metrics of a uniformly random order of the ranked documents, for each query.

    With `m` documents, `r` of them relevant: a document at a given rank is relevant with probability `r / m`, none of
    the first `k` is with probability `C(m - r, k) / C(m, k)`, and given that one at a rank is relevant, each one above
    it is with probability `(r - 1) / (m - 1)`. The expectations of `evaluation.metrics.query_metrics` follow.

    Args:
        relevant: relevance labels, corpus row -> grade; at least one grade above 0 per query.
        corpus_size: number of ranked documents if there are no candidates.
        metrics: names as `query_metrics` takes them.
        candidates: for each query, the corpus rows that are ranked, each once; relevant documents that are not among
            them count as missed. Default: the corpus.

    Returns:
        Name -> `(n,)` float64.

    Raises:
        ValueError: a metric is unknown.
    """
    queries = []
    for row, labels in enumerate(relevant):
        every = {document: grade for document, grade in labels.items() if grade > 0}
        pool = None if candidates is None else set(candidates[row])
        ranked = [grade for document, grade in every.items() if pool is None or document in pool]
        queries.append((ranked, list(every.values()), corpus_size if pool is None else len(pool)))
    found: dict[str, np.ndarray] = {}
    for name in metrics:
        kind, depth = split_metric(name)
        found[name] = np.array([_expected(kind, *query, depth) for query in queries])
    return found


def _expected(kind: str, ranked: Sequence[int], every: Sequence[int], m: int, depth: int) -> float:
    """One query's metric, from the grades of its ranked relevant documents (of `m`) and of all its relevant ones."""
    r, ranks = len(ranked), range(1, min(depth, m) + 1)
    if kind == "success":
        return 1 - _no_hit(r, m, len(ranks))
    if kind == "recall":
        return r / m * len(ranks) / len(every)
    if kind == "mrr":
        return sum((_no_hit(r, m, rank - 1) - _no_hit(r, m, rank)) / rank for rank in ranks)
    if kind == "ndcg":
        best = discounted(sorted(every, reverse=True)[:depth])
        return sum(sum(ranked) / m / math.log2(rank + 1) for rank in ranks) / best
    above = (r - 1) / (m - 1) if m > 1 else 0.0  # map
    return r / m * sum((1 + (rank - 1) * above) / rank for rank in ranks) / len(every)


def _no_hit(r: int, m: int, k: int) -> float:
    """Probability that none of the first `k` is relevant."""
    return math.comb(m - r, k) / math.comb(m, k)
