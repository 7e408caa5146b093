"""Whether the teacher's probabilities mean what they say."""

import numpy as np
from torch import Tensor

from .metrics import Relevant

BINS = 15


def reliability(log_odds: Tensor, relevant: Relevant, bins: int = BINS) -> list[dict[str, float]]:
    """Pairs grouped by predicted probability, in equal steps from 0 to 1; empty groups are left out.

    Args:
        log_odds: `(n, m)` scores of every query against the whole corpus; their sigmoid is the probability.
        relevant: judgements of the `n` queries; unjudged documents count as not relevant.
        bins: number of groups.

    Returns:
        Per group `count`, `confidence` (mean probability) and `accuracy` (share of relevant pairs).

    Raises:
        ValueError: queries and judgements differ in number, or a score is NaN.
    """
    if len(log_odds) != len(relevant) or log_odds.isnan().any():
        raise ValueError(f"{len(log_odds)} rows of scores for {len(relevant)} queries; accepted: as many, without NaN")
    probability = log_odds.double().sigmoid().numpy().ravel()
    truth = np.zeros(log_odds.shape)
    for row, judged in enumerate(relevant):
        truth[row, list(judged)] = 1
    group = np.minimum((probability * bins).astype(int), bins - 1)
    found = []
    for number in range(bins):
        here = group == number
        if here.any():
            confidence, accuracy = probability[here].mean(), truth.ravel()[here].mean()
            found.append({"count": int(here.sum()), "confidence": float(confidence), "accuracy": float(accuracy)})
    return found


def expected_calibration_error(groups: list[dict[str, float]]) -> float:
    """ECE (Guo et al. 2017, arXiv 1706.04599): mean over pairs of their group's |share relevant - mean probability|."""
    total = sum(group["count"] for group in groups)
    return sum(group["count"] * abs(group["accuracy"] - group["confidence"]) for group in groups) / total
