"""Metrics against their definitions, intervals, and refusals."""

import numpy as np
import pytest
import torch

from modeling_rabtriever.evaluation.metrics import (
    bootstrap_interval,
    bootstrap_ratio_interval,
    mean_metrics,
    paired_test,
    query_metrics,
    rank_documents,
)

RELEVANT = [{2: 1}, {0: 2, 4: 1}, {3: 1}]
RUN = [[2, 0, 1], [1, 3, 4], [0, 1, 2]]


def test_query_metrics_by_hand() -> None:
    values = query_metrics(RUN, RELEVANT)
    assert values["success@1"].tolist() == [1, 0, 0]
    assert values["success@3"].tolist() == [1, 1, 0]
    assert values["success@5"].tolist() == [1, 1, 0]
    assert values["mrr@10"].tolist() == [1, 1 / 3, 0]
    assert mean_metrics(RUN, RELEVANT)["mrr@10"] == pytest.approx(4 / 9)


def test_mrr_ends_at_rank_ten() -> None:
    run = [list(range(20))]
    assert query_metrics(run, [{9: 1}])["mrr@10"].tolist() == [0.1]
    assert query_metrics(run, [{10: 1}])["mrr@10"].tolist() == [0]


def test_ranking_sorts_by_score_and_keeps_corpus_order_on_ties() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.9], [0.0, 0.0, 0.0, 0.0], [-torch.inf, 1.0, 2.0, -torch.inf]])
    assert rank_documents(scores, 3) == [[1, 3, 2], [0, 1, 2], [2, 1]]


def test_broken_input_is_refused() -> None:
    with pytest.raises(ValueError, match="scores hold NaN"):
        rank_documents(torch.tensor([[float("nan"), 1.0]]), 2)
    with pytest.raises(ValueError, match="3 rankings and 2 labelled queries"):
        query_metrics(RUN, RELEVANT[:2])
    with pytest.raises(ValueError, match="0 rankings"):
        query_metrics([], [])


def test_scores_that_are_no_matrix_and_no_depth_are_refused() -> None:
    for scores, depth in ((torch.ones(3), 1), (torch.ones(1, 3), 0), (torch.ones(1, 3), -1)):
        with pytest.raises(ValueError, match="accepted: a matrix, and at least 1 document"):
            rank_documents(scores, depth)


def test_a_paired_test_of_one_query_shows_nothing_and_nan_is_refused() -> None:
    assert paired_test(np.array([1.0]), np.array([0.0])) == 1
    assert paired_test(np.array([1.0, 0.5]), np.array([1.0, 0.5])) == 1
    with pytest.raises(ValueError, match="a value is NaN or infinite; accepted: finite values"):
        paired_test(np.array([1.0, np.nan]), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="0 and 0 values; accepted"):
        paired_test(np.array([]), np.array([]))


def test_bootstrap_interval_covers_the_mean() -> None:
    """Over many samples of a known coin, about 95% of the intervals hold its mean."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        low, high = bootstrap_interval((rng.random(150) < 0.3).astype(float), seed)
        held += low <= 0.3 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_bootstrap_is_seeded() -> None:
    values = np.arange(30) % 2.0
    assert bootstrap_interval(values, 3) == bootstrap_interval(values, 3) != bootstrap_interval(values, 4)


def test_ratio_interval_is_paired() -> None:
    """A student that is right exactly where its teacher is keeps all of it, without any spread."""
    teacher = (np.arange(100) % 3 == 0).astype(float)
    assert bootstrap_ratio_interval(teacher, teacher) == (1.0, 1.0)
    low, high = bootstrap_ratio_interval(teacher * (np.arange(100) % 2), teacher)
    assert low < 0.5 < high
    with pytest.raises(ValueError, match="the denominator is 0 for all of 100 queries; accepted: above 0 for some"):
        bootstrap_ratio_interval(teacher, 0 * teacher)
