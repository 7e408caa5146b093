"""Every loss against a naive reference written from its definition, and its gradient against finite differences."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modeling_rabtriever.distillation.losses import (
    answer_reverse_kl,
    hidden_state_mse,
    label_cross_entropy,
    listwise_kl,
)
from modeling_rabtriever.reranking.losses import check_finite, listwise_cross_entropy


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hidden_state_mse() -> None:
    predicted, target = _numbers(2, 3, 4), _numbers(2, 3, 4, seed=1)
    squares = [(p - t) ** 2 for p, t in zip(predicted.flatten().tolist(), target.flatten().tolist(), strict=True)]
    assert hidden_state_mse(predicted, target).item() == pytest.approx(sum(squares) / len(squares), rel=1e-6)


def test_answer_reverse_kl() -> None:
    student, teacher = _numbers(7), _numbers(7, seed=1)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-s)), 1 / (1 + math.exp(-t))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert answer_reverse_kl(student, teacher).item() == pytest.approx(total / 7, rel=1e-5)


def test_answer_reverse_kl_is_the_kl_over_both_answer_tokens() -> None:
    """With logits of two tokens instead of their difference: the same value."""
    student, teacher = _numbers(5, 2), _numbers(5, 2, seed=1)
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    expected = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    found = answer_reverse_kl(student[:, 0] - student[:, 1], teacher[:, 0] - teacher[:, 1])
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_answer_reverse_kl_stays_finite_for_certain_teachers() -> None:
    assert torch.isfinite(answer_reverse_kl(torch.tensor([80.0, -80.0]), torch.tensor([-90.0, 90.0])))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_listwise_kl(temperature: float) -> None:
    student, teacher = _numbers(3, 5), _numbers(3, 5, seed=1)
    total = 0.0
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        s_sum = sum(math.exp(s / temperature) for s in s_row)
        t_sum = sum(math.exp(t / temperature) for t in t_row)
        for s, t in zip(s_row, t_row, strict=True):
            p, q = math.exp(s / temperature) / s_sum, math.exp(t / temperature) / t_sum
            total += q * math.log(q / p)
    assert listwise_kl(student, teacher, temperature).item() == pytest.approx(total / 3, rel=1e-5)


def test_listwise_kl_ignores_a_number_per_query() -> None:
    student, teacher = _numbers(3, 5), _numbers(3, 5, seed=1)
    moved = listwise_kl(student + _numbers(3, 1, seed=2), teacher + _numbers(3, 1, seed=3), 2.0)
    assert moved.item() == pytest.approx(listwise_kl(student, teacher, 2.0).item(), rel=1e-5)
    assert listwise_kl(teacher + 5, teacher, 2.0).item() == pytest.approx(0, abs=1e-6)


def test_weights_of_queries() -> None:
    student, teacher = _numbers(3, 5), _numbers(3, 5, seed=1)
    alone = [listwise_kl(student[row : row + 1], teacher[row : row + 1], 1.7).item() for row in range(3)]
    found = listwise_kl(student, teacher, 1.7, weights=torch.tensor([1.0, 0.0, 0.4]))
    assert found.item() == pytest.approx((alone[0] + 0.4 * alone[2]) / 3, rel=1e-5)


def test_label_cross_entropy() -> None:
    """Two relevant documents share a query's label; a query without any adds 0, even if no document is left."""
    scores, temperature = _numbers(4, 5), 1.3
    scores[0, 1] = scores[1, 4] = -math.inf
    scores[3] = -math.inf
    relevant = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    total = 0.0
    for row, labelled in zip(scores.tolist(), relevant.tolist(), strict=True):
        whole = sum(math.exp(score / temperature) for score in row)
        for score, label in zip(row, labelled, strict=True):
            total -= math.log(math.exp(score / temperature) / whole) / sum(labelled) if label else 0
    assert label_cross_entropy(scores, relevant, temperature).item() == pytest.approx(total / 4, rel=1e-5)


def test_one_label_per_query_is_infonce() -> None:
    scores, first = _numbers(3, 6), torch.eye(6)[:1].bool().expand(3, -1)
    expected = listwise_cross_entropy(scores).item()
    assert label_cross_entropy(scores, first, 1.0).item() == pytest.approx(expected, rel=1e-5)


def test_listwise_cross_entropy() -> None:
    scores = _numbers(4, 6)
    total = sum(-math.log(math.exp(row[0]) / sum(math.exp(s) for s in row)) for row in scores.tolist())
    assert listwise_cross_entropy(scores).item() == pytest.approx(total / 4, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "arguments"),
    [
        (hidden_state_mse, (_numbers(2, 3), _numbers(2, 3, seed=1))),
        (answer_reverse_kl, (_numbers(4), _numbers(4, seed=1))),
        (lambda s, t: listwise_kl(s, t, 2.0), (_numbers(2, 4), _numbers(2, 4, seed=1))),
        (
            lambda s, none: label_cross_entropy(s.masked_fill(none > 3, -math.inf), none.abs() < 1, 2.0),
            (_numbers(3, 4), torch.tensor([[0.0, 2, 4, 0], [2, 4, 2, 2], [4, 4, 4, 4]], dtype=torch.float64)),
        ),
        (lambda s, _: listwise_cross_entropy(s), (_numbers(2, 4), _numbers(1))),
    ],
)
def test_gradients_match_finite_differences(
    loss: Callable[..., Tensor], arguments: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The losses compute in fp32; finite differences need float64, so the conversion is lifted here.
    monkeypatch.setattr(Tensor, "float", lambda self: self)
    student, teacher = arguments
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student.clone().requires_grad_())


def test_losses_of_half_precision_inputs_are_fp32() -> None:
    half = _numbers(2, 3).to(torch.bfloat16)
    for loss in (hidden_state_mse(half, half), answer_reverse_kl(half, half), listwise_kl(half, half, 1.0)):
        assert loss.dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_training(value: float) -> None:
    with pytest.raises(ValueError, match=r"the loss is not finite \(mse=1, kl=(nan|inf)\); accepted"):
        check_finite("the loss", mse=torch.tensor(1.0), kl=torch.tensor(value))
    check_finite("the loss", mse=torch.tensor(1.0))
