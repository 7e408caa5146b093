"""Calibration against its definition."""

import pytest
import torch

from modeling_rabtriever.evaluation.calibration import expected_calibration_error, reliability
from modeling_rabtriever.evaluation.plots import reliability_diagram


def test_by_hand():
    probabilities = torch.tensor([[0.02, 0.04, 0.95], [0.97, 0.5, 0.03]])
    groups = reliability(probabilities.logit(), [{2: 1}, {1: 1}])
    assert [(g["count"], round(g["confidence"], 3), g["accuracy"]) for g in groups] == [
        (3, 0.03, 0.0),
        (1, 0.5, 1.0),
        (2, 0.96, 0.5),
    ]
    assert expected_calibration_error(groups) == pytest.approx((3 * 0.03 + 0.5 + 2 * 0.46) / 6)


def test_honest_probabilities_have_no_error():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand((2000, 20), generator=generator)
    relevant = [
        dict.fromkeys(row.nonzero()[:, 0].tolist(), 1)
        for row in torch.rand(probabilities.shape, generator=generator) < probabilities
    ]
    groups = reliability(probabilities.logit(), relevant)
    assert len(groups) == 15
    assert expected_calibration_error(groups) < 0.02


def test_certain_scores_fall_into_the_last_group():
    groups = reliability(torch.tensor([[100.0, -100.0]]), [{0: 1}])
    assert expected_calibration_error(groups) == pytest.approx(0)
    assert [group["count"] for group in groups] == [1, 1]


def test_unusable_scores_are_refused():
    with pytest.raises(ValueError, match="1 rows of scores for 2 queries"):
        reliability(torch.zeros(1, 2), [{0: 1}, {0: 1}])
    with pytest.raises(ValueError, match="without NaN"):
        reliability(torch.tensor([[float("nan")]]), [{0: 1}])


def test_plot(tmp_path):
    groups = reliability(torch.randn(20, 5), [{0: 1}] * 20)
    reliability_diagram(groups, expected_calibration_error(groups), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
