"""Distillation losses. Each is the mean over its batch, in fp32, and is pinned by a naive reference in the tests.

Notation: for a query, `s_c` are the student's and `t_c` the teacher's log-odds of candidate documents `c`; `h_hat` and
`h` are the predicted and the teacher's state at the answer position.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def hidden_state_mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the predicted state: `mean((h_hat - h)^2)` over pairs and dimensions.

    The first term of arXiv 2604.23336, Eq. 13.

    Args:
        predicted: `(..., d)`, `h_hat`.
        target: `(..., d)`, `h`; any float dtype.

    Returns:
        A scalar, fp32.
    """
    return F.mse_loss(predicted.float(), target.float())


def answer_reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """`KL(P_student || P_teacher)` of the answer, over the two tokens {T, F}, averaged over pairs.

    The second term of arXiv 2604.23336, Eq. 13. With `p = sigmoid(s)` and `q = sigmoid(t)`:
    `p log(p / q) + (1 - p) log((1 - p) / (1 - q))`.

    Args:
        student: `(...)`, log-odds `s`.
        teacher: `(...)`, log-odds `t`.

    Returns:
        A scalar, fp32, in nats.
    """
    student, teacher = student.float(), teacher.float()
    p = student.sigmoid()
    true_term = p * (F.logsigmoid(student) - F.logsigmoid(teacher))
    false_term = (1 - p) * (F.logsigmoid(-student) - F.logsigmoid(-teacher))
    return (true_term + false_term).mean()


def listwise_reverse_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`KL(pi_student || pi_teacher)` over each query's candidates, averaged over queries.

    `pi(c) = softmax_c(score_c / temperature)`: the distribution a ranker puts over documents. A number added to all
    scores of a query changes nothing, so the student's inner product may be used in place of its log-odds. Both
    distributions are restricted to the candidates: the value is the KL over the corpus only if all of the corpus is a
    candidate.

    Args:
        student: `(n, c)`, scores or log-odds.
        teacher: `(n, c)`, log-odds.
        temperature: above 0; higher values weigh the tail of the list more.

    Returns:
        A scalar, fp32, in nats.
    """
    log_p = (student.float() / temperature).log_softmax(-1)
    log_q = (teacher.float() / temperature).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def listwise_cross_entropy(scores: Tensor) -> Tensor:
    """Negative log-likelihood of the first candidate, the relevant one: `-log softmax_c(score_c)[0]`, over queries.

    The teacher's listwise objective: trains the order of a query's candidates, which is what the student distils.

    Args:
        scores: `(n, c)`, log-odds; column 0 is the relevant document.

    Returns:
        A scalar, fp32, in nats.
    """
    return -scores.float().log_softmax(-1)[:, 0].mean()


def check_finite(name: str, **values: Tensor) -> None:
    """Stops training on a NaN or infinite loss, before it reaches the weights.

    Raises:
        ValueError: a value is not finite; the message gives all of them.
    """
    if not all(torch.isfinite(value).all() for value in values.values()):
        listed = ", ".join(f"{key}={value.item():g}" for key, value in values.items())
        raise ValueError(
            f"{name} is not finite ({listed}). Accepted: finite losses. Lower the learning rate, or check the weights "
            "and the teacher's states for NaN"
        )
