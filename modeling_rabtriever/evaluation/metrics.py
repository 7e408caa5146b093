"""Metrics over rankings, with query-level values and bootstrap intervals.

A ranking is a list of corpus rows for one query, best first; a run has one ranking per query. Documents without a
relevance label are not relevant. Ties keep the order of the corpus.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap, permutation_test
from torch import Tensor

Run = list[list[int]]
Relevant = Sequence[Mapping[int, int]]

TABLE_METRICS = ("success@1", "success@3", "success@5", "mrr@10")
KINDS = ("recall", "success", "mrr", "ndcg", "map")
BOOTSTRAP_SAMPLES = 1000
SIGN_FLIPS = 500  # held in memory at once


def rank_documents(scores: Tensor, depth: int) -> Run:
    """The best `depth` documents of each query: `(n, m)` scores -> `n` lists of corpus rows.

    Documents that score minus infinity are not ranked, so a list may be shorter.

    Raises:
        ValueError: a score is NaN, the scores are no matrix, or `depth` is below 1.

    Examples:
        >>> import torch
        >>> from modeling_rabtriever.evaluation import rank_documents
        >>> rank_documents(torch.tensor([[0.1, 0.7, 0.3]]), depth=2)
        [[1, 2]]
    """
    if scores.dim() != 2 or depth < 1:
        raise ValueError(f"scores {tuple(scores.shape)}, depth {depth}; accepted: a matrix, and at least 1 document")
    if scores.isnan().any():
        raise ValueError("scores hold NaN; accepted: finite scores")
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :depth]
    ranked = scores.gather(1, best) > -math.inf
    return [own[kept].tolist() for own, kept in zip(best, ranked, strict=True)]


def query_metrics(
    run: Sequence[Sequence[Hashable]], relevant: Sequence[Mapping[Any, int]], metrics: Sequence[str] = TABLE_METRICS
) -> dict[str, np.ndarray]:
    """Values of `name@k` metrics for each query, defined as in trec_eval.

    `recall@k`: share of the relevant documents among the first `k`. `success@k`: 1 if one of the first `k` is relevant
    ("R@k" in tables; equal to recall if every query has one relevant document). `mrr@k`: 1 / rank of
    the first relevant document, 0 below rank `k`. `ndcg@k`: gain = grade, discount = log2(rank + 1), relative to
    the best possible order of the labelled documents. `map@k`: mean over the relevant documents of the precision at
    their ranks, 0 for those below rank `k`. A document without a label is not relevant.

    Args:
        run: for each query, the documents, best first.
        relevant: for each query, document -> grade; at least one grade above 0.
        metrics: such as `["ndcg@10", "recall@100"]`.

    Returns:
        Name -> `(n,)` float64.

    Raises:
        ValueError: a metric is unknown, there are no queries, rankings and labels differ in number, a ranking names a
            document twice, or a query has no relevant document.

    Examples:
        >>> from modeling_rabtriever.evaluation import query_metrics
        >>> run = [["d1", "d2"], ["d3", "d1"]]  # the documents of two queries, best first
        >>> relevant = [{"d1": 1}, {"d1": 1}]
        >>> query_metrics(run, relevant, ["mrr@10", "success@1"])
        {'mrr@10': array([1. , 0.5]), 'success@1': array([1., 0.])}
    """
    if len(run) != len(relevant) or not run:
        raise ValueError(
            f"{len(run)} rankings and {len(relevant)} labelled queries; accepted: as many of each, one or more"
        )
    parsed = {name: split_metric(name) for name in metrics}
    for row, (ranking, labels) in enumerate(zip(run, relevant, strict=True)):
        if len(set(ranking)) != len(ranking):
            raise ValueError(f"ranking {row} names a document twice; accepted: every document once")
        if not any(grade > 0 for grade in labels.values()):
            raise ValueError(f"query {row} has no relevant document; accepted: relevance labels with a grade above 0")
    gains = [
        [max(labels.get(document, 0), 0) for document in ranking] for ranking, labels in zip(run, relevant, strict=True)
    ]
    ideals = [sorted((grade for grade in labels.values() if grade > 0), reverse=True) for labels in relevant]
    return {
        name: np.array([_value(kind, gain[:k], ideal, k) for gain, ideal in zip(gains, ideals, strict=True)])
        for name, (kind, k) in parsed.items()
    }


def mean_metrics(run: Run, relevant: Relevant) -> dict[str, float]:
    """Means over queries of `query_metrics`.

    Examples:
        >>> from modeling_rabtriever.evaluation import mean_metrics
        >>> mean_metrics([[0, 1], [2, 0]], [{0: 1}, {0: 1}])["mrr@10"]
        0.75
    """
    return {name: float(values.mean()) for name, values in query_metrics(run, relevant).items()}


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of the mean over queries, by resampling queries: `(n,)` -> (low, high).

    Examples:
        >>> import numpy as np
        >>> from modeling_rabtriever.evaluation import bootstrap_interval
        >>> low, high = bootstrap_interval(np.array([1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0]))
        >>> assert 0 < low < 0.625 < high < 1
    """
    (means,) = _resampled_means(seed, values)
    return _middle(means)


def bootstrap_ratio_interval(numerator: np.ndarray, denominator: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95% interval of `mean(numerator) / mean(denominator)`, resampling queries in pairs: `(n,)` each -> (low, high).

    Resamples whose denominator is 0 are left out.

    Raises:
        ValueError: the denominator is 0 for every query.
    """
    if not denominator.any():
        raise ValueError(f"the denominator is 0 for all of {len(denominator)} queries; accepted: above 0 for some")
    top, bottom = _resampled_means(seed, numerator, denominator)
    positive = bottom > 0
    return _middle(top[positive] / bottom[positive])


def paired_test(first: np.ndarray, second: np.ndarray, samples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of a sign-flip test that two systems have the same mean on the same queries: `(n,)` each.

    The test is exact if there are at most `samples` ways to flip the signs of the differences.

    Raises:
        ValueError: the two differ in length, there are no queries, or a value is not finite.

    Examples:
        >>> import numpy as np
        >>> from modeling_rabtriever.evaluation import paired_test
        >>> paired_test(np.array([1.0, 1.0, 0.5, 1.0]), np.array([0.5, 0.0, 0.5, 0.5]))
        0.25
    """
    if first.shape != second.shape or not first.size:
        raise ValueError(f"{len(first)} and {len(second)} values; accepted: the same queries for both systems")
    if not np.isfinite(first - second).all():
        raise ValueError("a value is NaN or infinite; accepted: finite values")
    if first.size == 1:
        return 1.0  # either sign is as far from 0
    options = {"n_resamples": samples, "batch": SIGN_FLIPS, "rng": np.random.default_rng(seed)}
    found = permutation_test((first - second,), np.mean, permutation_type="samples", vectorized=True, **options)
    return float(found.pvalue)


def relevance_mask(shape: tuple[int, ...], relevant: Relevant) -> np.ndarray:
    """`(n, m)` bool: whether a document has a relevance label for a query."""
    mask = np.zeros(shape, dtype=bool)
    for row, labels in enumerate(relevant):
        mask[row, list(labels)] = True
    return mask


def split_metric(name: str) -> tuple[str, int]:
    """Splits a name such as `ndcg@10` into kind and depth.

    Raises:
        ValueError: there is no such metric.
    """
    kind, _, depth = name.partition("@")
    if kind not in KINDS or not depth.isdigit() or int(depth) < 1:
        raise ValueError(f"metric {name!r}; accepted: {', '.join(f'{kind}@k' for kind in KINDS)} with k of at least 1")
    return kind, int(depth)


def discounted(gains: Sequence[int]) -> float:
    """Discounted cumulative gain of grades in the order of a ranking."""
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _value(kind: str, gains: Sequence[int], ideal: Sequence[int], k: int) -> float:
    """One query's metric, from the grades of its first `k` documents and all its grades in descending order."""
    hits = [rank for rank, gain in enumerate(gains, start=1) if gain > 0]
    if kind == "success":
        return 1.0 if hits else 0.0
    if kind == "recall":
        return len(hits) / len(ideal)
    if kind == "mrr":
        return 1 / hits[0] if hits else 0.0
    if kind == "ndcg":
        return discounted(gains) / discounted(ideal[:k])
    return sum(found / rank for found, rank in enumerate(hits, start=1)) / len(ideal)  # map


def _resampled_means(seed: int, *values: np.ndarray) -> np.ndarray:
    """Means over resampled queries, the same queries for all: `v` times `(n,)` -> `(v, BOOTSTRAP_SAMPLES)`."""
    if len(values[0]) == 1:  # scipy does not resample a single value
        return np.array(values)

    def means(*drawn: np.ndarray, axis: int) -> list[np.ndarray]:
        return [one.mean(axis) for one in drawn]

    options = {"n_resamples": BOOTSTRAP_SAMPLES, "method": "percentile", "rng": np.random.default_rng(seed)}
    return bootstrap(values, means, paired=True, vectorized=True, **options).bootstrap_distribution


def _middle(resampled: np.ndarray) -> tuple[float, float]:
    """The bounds of the middle 95% of the resamples."""
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), float(high)
