"""Every loss against a naive reference written from its definition, and its gradient against finite differences."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modeling_rabtriever.distillation.losses import (
    answer_forward_kl,
    answer_reverse_kl,
    hidden_state_mse,
    listwise_kl,
    listwise_reverse_kl,
    vocabulary_reverse_kl,
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


def test_answer_forward_kl() -> None:
    student, teacher = _numbers(7), _numbers(7, seed=1)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-s)), 1 / (1 + math.exp(-t))
        total += q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    assert answer_forward_kl(student, teacher).item() == pytest.approx(total / 7, rel=1e-5)


def test_vocabulary_reverse_kl_is_trls_generalized_jsd_at_beta_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gkd import GKDTrainer

    student, teacher = _numbers(2, 3, 11).float(), _numbers(2, 3, 11, seed=1).float()
    expected = GKDTrainer.generalized_jsd_loss(student, teacher, beta=1.0, reduction="sum") / 6  # mean over positions
    assert vocabulary_reverse_kl(student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)
    total = 0.0
    for s_row, t_row in zip(student.reshape(6, 11).tolist(), teacher.reshape(6, 11).tolist(), strict=True):
        s_sum, t_sum = sum(map(math.exp, s_row)), sum(map(math.exp, t_row))
        total += sum(
            math.exp(s) / s_sum * (s - math.log(s_sum) - t + math.log(t_sum)) for s, t in zip(s_row, t_row, strict=True)
        )
    assert vocabulary_reverse_kl(student, teacher).item() == pytest.approx(total / 6, rel=1e-4)


def test_answer_reverse_kl_stays_finite_for_certain_teachers() -> None:
    assert torch.isfinite(answer_reverse_kl(torch.tensor([80.0, -80.0]), torch.tensor([-90.0, 90.0])))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_listwise_reverse_kl(temperature: float) -> None:
    student, teacher = _numbers(3, 5), _numbers(3, 5, seed=1)
    total = 0.0
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        s_sum = sum(math.exp(s / temperature) for s in s_row)
        t_sum = sum(math.exp(t / temperature) for t in t_row)
        for s, t in zip(s_row, t_row, strict=True):
            p, q = math.exp(s / temperature) / s_sum, math.exp(t / temperature) / t_sum
            total += p * math.log(p / q)
    assert listwise_reverse_kl(student, teacher, temperature).item() == pytest.approx(total / 3, rel=1e-5)


def test_listwise_reverse_kl_ignores_a_number_per_query() -> None:
    student, teacher = _numbers(3, 5), _numbers(3, 5, seed=1)
    moved = listwise_reverse_kl(student + _numbers(3, 1, seed=2), teacher + _numbers(3, 1, seed=3), 2.0)
    assert moved.item() == pytest.approx(listwise_reverse_kl(student, teacher, 2.0).item(), rel=1e-5)
    assert listwise_reverse_kl(teacher + 5, teacher, 2.0).item() == pytest.approx(0, abs=1e-6)


def test_listwise_cross_entropy() -> None:
    scores = _numbers(4, 6)
    total = sum(-math.log(math.exp(row[0]) / sum(math.exp(s) for s in row)) for row in scores.tolist())
    assert listwise_cross_entropy(scores).item() == pytest.approx(total / 4, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "arguments"),
    [
        (hidden_state_mse, (_numbers(2, 3), _numbers(2, 3, seed=1))),
        (answer_reverse_kl, (_numbers(4), _numbers(4, seed=1))),
        (lambda s, t: listwise_reverse_kl(s, t, 2.0), (_numbers(2, 4), _numbers(2, 4, seed=1))),
        (answer_forward_kl, (_numbers(4), _numbers(4, seed=1))),
        (vocabulary_reverse_kl, (_numbers(2, 5), _numbers(2, 5, seed=1))),
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
    for loss in (hidden_state_mse(half, half), answer_reverse_kl(half, half), listwise_reverse_kl(half, half, 1.0)):
        assert loss.dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_training(value: float) -> None:
    with pytest.raises(ValueError, match=r"the loss is not finite \(mse=1, kl=(nan|inf)\); accepted"):
        check_finite("the loss", mse=torch.tensor(1.0), kl=torch.tensor(value))
    check_finite("the loss", mse=torch.tensor(1.0))


@pytest.mark.parametrize("others", [None, 3])
def test_listwise_forms(others: int | None) -> None:
    """Naive sums over each list; documents of other queries have no share of the teacher's distribution."""
    student, teacher, temperature = _numbers(4, 5), _numbers(4, 5, seed=1), 1.7
    more = None if others is None else _numbers(4, others, seed=2)
    if more is not None:
        more[0, 1] = -math.inf
    sums = {"reverse": 0.0, "forward": 0.0}
    for row in range(4):
        own = [score / temperature for score in student[row].tolist()]
        every = [*own, *([] if more is None else [score / temperature for score in more[row].tolist()])]
        scale = math.log(sum(map(math.exp, every)))
        log_p = [score - scale for score in own]
        asked = [score / temperature for score in teacher[row].tolist()]
        log_q = [score - math.log(sum(map(math.exp, asked))) for score in asked]
        sums["forward"] += sum(math.exp(q) * (q - p) for p, q in zip(log_p, log_q, strict=True)) / 4
        sums["reverse"] += sum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True)) / 4
    forward = listwise_kl(student, teacher, temperature, "forward", more)
    assert forward.item() == pytest.approx(sums["forward"], rel=1e-5)
    if more is None:
        reverse = listwise_kl(student, teacher, temperature, "reverse")
        assert reverse.item() == pytest.approx(sums["reverse"], rel=1e-5)
        assert reverse.item() == pytest.approx(listwise_reverse_kl(student, teacher, temperature).item(), rel=1e-6)
        both = listwise_kl(student, teacher, temperature, "symmetric")
        assert both.item() == pytest.approx(sum(sums.values()) / 2, rel=1e-5)


@pytest.mark.parametrize("others", [None, 3])
def test_labels_share_the_forward_target(others: int | None) -> None:
    student, teacher, temperature = _numbers(2, 4).float(), _numbers(2, 4, seed=1).float(), 1.3
    more = None if others is None else _numbers(2, others, seed=2).float()
    labels = torch.tensor([[0.3, 0.0, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0]])
    total = 0.0
    for row in range(2):
        every = [*student[row].tolist(), *([] if more is None else more[row].tolist())]
        scale = math.log(sum(math.exp(score / temperature) for score in every))
        asked = [math.exp(score / temperature) for score in teacher[row].tolist()]
        for place in range(4):
            share = labels[row, place].item()
            q = (1 - labels[row].sum().item()) * asked[place] / sum(asked) + share
            total += q * (math.log(q) - student[row, place].item() / temperature + scale)
    found = listwise_kl(student, teacher, temperature, "forward", more, labels)
    assert found.item() == pytest.approx(total / 2, rel=1e-4)
    alone = listwise_kl(student, teacher, 1.0, "forward", labels=torch.eye(2, 4)[[0, 0]])
    assert alone.item() == pytest.approx(listwise_cross_entropy(student).item(), rel=1e-5)


def test_other_documents_have_no_place_in_a_reverse_kl() -> None:
    with pytest.raises(ValueError, match="form is 'reverse'; accepted: .*; with others or labels: forward"):
        listwise_kl(_numbers(2, 3), _numbers(2, 3), 1.0, "reverse", _numbers(2, 2))
    with pytest.raises(ValueError, match="form is 'symmetric'; accepted"):
        listwise_kl(_numbers(2, 3), _numbers(2, 3), 1.0, "symmetric", labels=torch.eye(2, 3))
    with pytest.raises(ValueError, match="form is 'sideways'"):
        listwise_kl(_numbers(2, 3), _numbers(2, 3), 1.0, "sideways")
