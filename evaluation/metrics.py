"""Metrics over rankings, with query-level values and bootstrap intervals.

A ranking is the list of corpus rows of one query, best first. Unjudged documents are not relevant. Equal scores keep
the corpus order.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

Run = list[list[int]]
Relevant = Sequence[Mapping[int, int]]

CUTOFFS = (1, 3, 5)
BOOTSTRAP_SAMPLES = 1000


def rank_documents(scores: Tensor, depth: int) -> Run:
    """The best `depth` documents of each query: `(n, m)` scores -> `n` lists of corpus rows.

    Raises:
        ValueError: a score is NaN.
    """
    if scores.isnan().any():
        raise ValueError("scores hold NaN; accepted: finite scores (a broken model is not averaged over)")
    return scores.argsort(dim=1, descending=True, stable=True)[:, :depth].tolist()


def query_metrics(run: Run, relevant: Relevant) -> dict[str, np.ndarray]:
    """Per-query values.

    `success@k`: 1 if one of the first `k` documents is relevant (the "R@k" of the tables; where every query has one
    relevant document it is also the recall). `mrr@10`: 1 / rank of the first relevant document, 0 below rank 10.

    Returns:
        Name -> `(n,)` float64.

    Raises:
        ValueError: runs and judgements differ in number, or there are none.
    """
    if len(run) != len(relevant) or not run:
        raise ValueError(
            f"{len(run)} rankings and {len(relevant)} judged queries; accepted: as many of each, one or more"
        )
    first = np.array([_first_relevant(ranking, judged) for ranking, judged in zip(run, relevant, strict=True)])
    values = {f"success@{k}": (first <= k).astype(float) for k in CUTOFFS}
    return values | {"mrr@10": np.where(first <= 10, 1 / first, 0.0)}


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


def _first_relevant(ranking: Sequence[int], judged: Mapping[int, int]) -> float:
    return next((place for place, row in enumerate(ranking, start=1) if row in judged), np.inf)


def _resamples(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(count, size=(BOOTSTRAP_SAMPLES, count))
