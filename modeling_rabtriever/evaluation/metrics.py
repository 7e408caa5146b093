"""Metrics over rankings, with query-level values and bootstrap intervals.

A ranking is the list of corpus rows of one query, best first. Unjudged documents are not relevant. Equal scores keep
the corpus order.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

Run = list[list[int]]
Relevant = Sequence[Mapping[int, int]]

TABLE_METRICS = ("success@1", "success@3", "success@5", "mrr@10")
BOOTSTRAP_SAMPLES = 1000


def rank_documents(scores: Tensor, depth: int) -> Run:
    """The best `depth` documents of each query: `(n, m)` scores -> `n` lists of corpus rows.

    A document that scores minus infinity is not ranked, so a list may be shorter.

    Raises:
        ValueError: a score is NaN.
    """
    if scores.isnan().any():
        raise ValueError("scores hold NaN; accepted: finite scores (a broken model is not averaged over)")
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :depth]
    ranked = scores.gather(1, best) > -math.inf
    return [own[kept].tolist() for own, kept in zip(best, ranked, strict=True)]


def query_metrics(
    run: Sequence[Sequence[Hashable]], relevant: Sequence[Mapping[Any, int]], metrics: Sequence[str] = TABLE_METRICS
) -> dict[str, np.ndarray]:
    """Per-query values of `name@k` metrics, defined as in trec_eval.

    `recall@k`: share of the relevant documents among the first `k`. `success@k`: 1 if one of the first `k` is relevant
    (the "R@k" of the tables; where every query has one relevant document it is also the recall). `mrr@k`: 1 / rank of
    the first relevant document, 0 below rank `k`. `ndcg@k`: gain = grade, discount = log2(rank + 1), over the best
    possible order of the judged documents. `map@k`: mean over the relevant documents of the precision at their ranks,
    0 for those below rank `k`. A document that is not judged is not relevant.

    Args:
        run: per query the documents, best first; ties are broken by whoever ranked them.
        relevant: per query document -> grade; at least one grade above 0.
        metrics: such as `["ndcg@10", "recall@100"]`.

    Returns:
        Name -> `(n,)` float64.

    Raises:
        ValueError: a metric is unknown, runs and judgements differ in number, there are none, a ranking names a
            document twice, or a query has no relevant document.
    """
    if len(run) != len(relevant) or not run:
        raise ValueError(
            f"{len(run)} rankings and {len(relevant)} judged queries; accepted: as many of each, one or more"
        )
    parsed = {name: _parse(name) for name in metrics}
    for row, (ranking, judged) in enumerate(zip(run, relevant, strict=True)):
        if len(set(ranking)) != len(ranking):
            raise ValueError(f"ranking {row} names a document twice; accepted: every document once")
        if not any(grade > 0 for grade in judged.values()):
            raise ValueError(f"query {row} has no relevant document; accepted: judgements with a grade above 0")
    gains = [
        [max(judged.get(document, 0), 0) for document in ranking] for ranking, judged in zip(run, relevant, strict=True)
    ]
    ideals = [sorted((grade for grade in judged.values() if grade > 0), reverse=True) for judged in relevant]
    return {
        name: np.array([metric(gain[:k], ideal, k) for gain, ideal in zip(gains, ideals, strict=True)], dtype=float)
        for name, (metric, k) in parsed.items()
    }


def mean_metrics(run: Run, relevant: Relevant) -> dict[str, float]:
    """Means over queries of `query_metrics`."""
    return {name: float(values.mean()) for name, values in query_metrics(run, relevant).items()}


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of the mean over queries, by resampling queries: `(n,)` -> (low, high)."""
    means = values[_resamples(len(values), seed)].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def bootstrap_ratio_interval(numerator: np.ndarray, denominator: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95% interval of `mean(numerator) / mean(denominator)`, resampling queries in pairs; resamples with a zero
    denominator are left out.
    """
    rows = _resamples(len(numerator), seed)
    top, bottom = numerator[rows].mean(1), denominator[rows].mean(1)
    ratios = top[bottom > 0] / bottom[bottom > 0]
    return float(np.quantile(ratios, 0.025)), float(np.quantile(ratios, 0.975))


def paired_test(first: np.ndarray, second: np.ndarray, samples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of a sign-flip test that two systems have the same mean on the same queries: `(n,)` each.

    Raises:
        ValueError: the two differ in length.
    """
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} and {len(second)} values; accepted: the same queries for both systems")
    difference = first - second
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(samples, len(difference)))
    extreme = np.abs(signs @ difference) >= abs(difference.sum()) - 1e-12
    return float((extreme.sum() + 1) / (samples + 1))


Gains = Sequence[int]  # grades of the first k documents, and of all relevant ones from the highest


def _recall(gains: Gains, ideal: Gains, _: int) -> float:
    return sum(gain > 0 for gain in gains) / len(ideal)


def _success(gains: Gains, _: Gains, __: int) -> float:
    return float(any(gains))


def _reciprocal_rank(gains: Gains, _: Gains, __: int) -> float:
    return next((1 / rank for rank, gain in enumerate(gains, start=1) if gain > 0), 0.0)


def _ndcg(gains: Gains, ideal: Gains, k: int) -> float:
    return _discounted(gains) / _discounted(ideal[:k])


def _discounted(gains: Gains) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _average_precision(gains: Gains, ideal: Gains, _: int) -> float:
    found, total = 0, 0.0
    for rank, gain in enumerate(gains, start=1):
        if gain > 0:
            found += 1
            total += found / rank
    return total / len(ideal)


_METRICS: dict[str, Callable[[Gains, Gains, int], float]] = {
    "recall": _recall,
    "success": _success,
    "mrr": _reciprocal_rank,
    "ndcg": _ndcg,
    "map": _average_precision,
}


def _parse(name: str) -> tuple[Callable[[Gains, Gains, int], float], int]:
    kind, _, depth = name.partition("@")
    if kind not in _METRICS or not depth.isdigit() or int(depth) < 1:
        raise ValueError(
            f"metric {name!r}; accepted: {', '.join(f'{kind}@k' for kind in _METRICS)} with k of at least 1"
        )
    return _METRICS[kind], int(depth)


def _resamples(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(count, size=(BOOTSTRAP_SAMPLES, count))
