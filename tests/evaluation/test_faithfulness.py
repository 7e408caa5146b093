"""Faithfulness to the teacher, against definitions written out."""

import itertools

import pytest
import torch

from modeling_rabtriever.evaluation.faithfulness import (
    best_rank,
    faithfulness_line,
    score_faithfulness,
    top_overlap,
)


def _scores(seed: int, n: int = 6, m: int = 12) -> torch.Tensor:
    return torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_student_equal_up_to_a_number_per_query_is_faithful() -> None:
    teacher = _scores(0)
    found = score_faithfulness(teacher, teacher + _scores(1)[:, :1], 12)
    assert found["kendall_tau"] == pytest.approx(1) and found["r2"] == pytest.approx(1)
    assert found["kl"] == pytest.approx(0, abs=1e-9)
    assert found["top_overlap"] == {"1": 1.0, "5": 1.0, "10": 1.0}
    assert found["gap_from_form"] == pytest.approx(0, abs=1e-9) == found["gap_from_training"]
    reversed_ = score_faithfulness(teacher, -teacher, 12)
    assert reversed_["kendall_tau"] == pytest.approx(-1) and reversed_["top_overlap"]["1"] == 0


def test_tau_and_kl_by_their_definitions() -> None:
    teacher, student = _scores(0), _scores(1)
    taus, kls = [], []
    for t, s in zip(teacher.tolist(), student.tolist(), strict=True):
        signs = [((t[i] - t[j]) * (s[i] - s[j]) > 0) for i, j in itertools.combinations(range(12), 2)]
        taus.append(2 * sum(signs) / len(signs) - 1)
        p, q = torch.tensor(s).softmax(0), torch.tensor(t).softmax(0)
        kls.append(float((p * (p / q).log()).sum()))
    found = score_faithfulness(teacher, student, 3)
    assert found["kendall_tau"] == pytest.approx(sum(taus) / 6)
    assert found["kl"] == pytest.approx(sum(kls) / 6, rel=1e-5)


def test_overlap_counts_shared_documents() -> None:
    teacher = torch.tensor([[3.0, 2, 1, 0], [0, 1, 2, 3]])
    student = torch.tensor([[3.0, 0, 2, 1], [3, 2, 1, 0]])
    assert top_overlap(teacher, student, 1) == 0.5
    assert top_overlap(teacher, student, 2) == 0.25


def test_the_gap_is_split_into_form_and_training() -> None:
    """A student that is the best fit of its rank owes everything to the form; a worse one the rest to training."""
    teacher = _scores(0, 8, 10)
    teacher = teacher - teacher.mean(1, keepdim=True)
    best = best_rank(teacher, 2)
    assert torch.linalg.matrix_rank(best) == 2
    found = score_faithfulness(teacher, best, 2)
    assert found["gap_from_form"] > 0.1 and found["gap_from_training"] == pytest.approx(0, abs=1e-9)
    other = score_faithfulness(teacher, 0.5 * best, 2)
    assert other["gap_from_form"] == pytest.approx(found["gap_from_form"]) and other["gap_from_training"] > 0.05
    assert other["gap_from_form"] + other["gap_from_training"] == pytest.approx(1 - other["r2"])
    for seed in range(20):  # nothing of rank 2 fits better
        trial = _scores(seed, 8, 2) @ _scores(seed + 50, 2, 10)
        assert (trial - teacher).square().sum() > (best - teacher).square().sum()


def test_the_line_of_a_report() -> None:
    line = faithfulness_line({"scores": score_faithfulness(_scores(0), _scores(1), 3)})
    assert "An inner product of 3 dimensions" in line and ", training " in line


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"teacher \(2, 3\) and student \(2, 4\); accepted"):
        score_faithfulness(torch.zeros(2, 3), torch.zeros(2, 4), 2)
    with pytest.raises(ValueError, match="NaN or infinity"):
        score_faithfulness(torch.full((2, 3), torch.nan), torch.zeros(2, 3), 2)
