"""The random baseline in closed form, against every order of a small corpus."""

import itertools

import numpy as np
import pytest

from modeling_rabtriever.evaluation.chance import random_metrics
from modeling_rabtriever.evaluation.metrics import query_metrics

METRICS = (
    "success@1",
    "success@3",
    "recall@2",
    "mrr@4",
    "ndcg@3",
    "map@4",
    "map@5",
    "mrr@10",
    "ndcg@10",
    "success@100",
)


@pytest.mark.parametrize("judged", [{0: 1}, {1: 2, 3: 1}, {0: 3, 2: 1, 4: 1}, {0: 1, 1: 1, 2: 1, 3: 1, 4: 1}])
def test_mean_over_all_orders(judged: dict[int, int]) -> None:
    orders = [list(order) for order in itertools.permutations(range(5))]
    every = query_metrics(orders, [judged] * len(orders), METRICS)
    expected = random_metrics([judged], 5, METRICS)
    for name in METRICS:
        assert expected[name][0] == pytest.approx(every[name].mean(), abs=1e-12), name


@pytest.mark.parametrize("pool", [[0, 2], [1, 3, 4], [2], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("judged", [{0: 1}, {1: 2, 3: 1}, {0: 3, 2: 1, 4: 1}, {0: 1, 1: 1, 2: 1, 3: 1, 4: 1}])
def test_mean_over_all_orders_of_candidates(judged: dict[int, int], pool: list[int]) -> None:
    orders = [list(order) for order in itertools.permutations(pool)]
    every = query_metrics(orders, [judged] * len(orders), METRICS)
    expected = random_metrics([judged], 5, METRICS, [pool])
    for name in METRICS:
        assert expected[name][0] == pytest.approx(every[name].mean(), abs=1e-12), name


def test_one_value_per_query() -> None:
    found = random_metrics([{0: 1}, {0: 1, 1: 1}, {2: 1, 1: 0}], 10, ["success@1"])["success@1"]
    np.testing.assert_allclose(found, [0.1, 0.2, 0.1])
