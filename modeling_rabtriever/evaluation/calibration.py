"""Calibration of the teacher's probabilities."""

import numpy as np
from torch import Tensor

from .metrics import Relevant, relevance_mask

BINS = 15


def reliability(log_odds: Tensor, relevant: Relevant) -> list[dict[str, float]]:
    """Pairs in `BINS` groups of predicted probability, in equal steps from 0 to 1, without empty groups.

    Args:
        log_odds: `(n, m)` scores of every query against the whole corpus; their sigmoid is the probability.
        relevant: relevance labels of the `n` queries; documents without a label count as not relevant.

    Returns:
        Per group `count`, `confidence` (mean probability) and `accuracy` (share of relevant pairs).

    Raises:
        ValueError: scores and labels differ in their number of queries, or a score is NaN.
    """
    if len(log_odds) != len(relevant) or log_odds.isnan().any():
        raise ValueError(
            f"{len(log_odds)} rows of scores for {len(relevant)} queries; accepted: one row per query, without NaN"
        )
    probability = log_odds.double().sigmoid().numpy().ravel()
    truth = relevance_mask(log_odds.shape, relevant).ravel()
    group = np.minimum((probability * BINS).astype(int), BINS - 1)
    found = []
    for number in range(BINS):
        here = group == number
        if here.any():
            confidence, accuracy = probability[here].mean(), truth[here].mean()
            found.append({"count": int(here.sum()), "confidence": float(confidence), "accuracy": float(accuracy)})
    return found


def expected_calibration_error(groups: list[dict[str, float]]) -> float:
    """ECE (Guo et al. 2017, arXiv 1706.04599): mean over pairs of their group's |share relevant - mean probability|."""
    total = sum(group["count"] for group in groups)
    return sum(group["count"] * abs(group["accuracy"] - group["confidence"]) for group in groups) / total
