"""Distillation losses. Each is the mean over its batch, in fp32, and is pinned by a naive reference in the tests.

Notation: for a query, `s_c` are the student's and `t_c` the teacher's log-odds of candidate documents `c`; `h_hat` and
`h` are the predicted and the teacher's state at the answer position.
"""

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

    Examples:
        >>> import torch
        >>> from modeling_rabtriever.distillation.losses import hidden_state_mse
        >>> hidden_state_mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
        tensor(2.)
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

    Examples:
        >>> import torch
        >>> from modeling_rabtriever.distillation.losses import answer_reverse_kl
        >>> log_odds = torch.tensor([3.0, -1.0])
        >>> answer_reverse_kl(log_odds, log_odds), answer_reverse_kl(-log_odds, log_odds) > 1
        (tensor(0.), tensor(True))
    """
    student, teacher = student.float(), teacher.float()
    p = student.sigmoid()
    true_term = p * (F.logsigmoid(student) - F.logsigmoid(teacher))
    false_term = (1 - p) * (F.logsigmoid(-student) - F.logsigmoid(-teacher))
    return (true_term + false_term).mean()


def listwise_kl(student: Tensor, teacher: Tensor, temperature: float, weights: Tensor | None = None) -> Tensor:
    """`KL(pi_teacher || pi_student)` over each query's candidates, averaged over queries.

    `pi(c) = softmax_c(score_c / temperature)`: a ranker's distribution over documents. A constant added to all scores
    of a query changes nothing, so the student's inner product can replace its log-odds. Both distributions are
    restricted to the candidates: the value is the KL over the corpus only if every document is a candidate.

    Args:
        student: `(n, c)`, scores or log-odds.
        teacher: `(n, c)`, log-odds.
        temperature: above 0; higher values give the tail of the list more weight.
        weights: `(n,)`, a factor of each query's KL; 1 if omitted.

    Returns:
        A scalar, fp32, in nats.

    Examples:
        >>> import torch
        >>> from modeling_rabtriever.distillation.losses import listwise_kl
        >>> teacher = torch.tensor([[4.0, 0.0, -2.0]])  # a query with three candidates
        >>> assert listwise_kl(teacher + 7, teacher, temperature=2.0) < 1e-6  # only differences count
        >>> assert listwise_kl(teacher.flip(-1), teacher, temperature=2.0) > 1
    """
    log_p = (student.float() / temperature).log_softmax(-1)
    log_q = (teacher.float() / temperature).log_softmax(-1)
    divergences = (log_q.exp() * (log_q - log_p)).sum(-1)
    return (divergences if weights is None else weights * divergences).mean()


def label_cross_entropy(scores: Tensor, relevant: Tensor, temperature: float) -> Tensor:
    """The cross-entropy of relevance labels and the student's distribution over documents, averaged over queries.

    `-sum_c label_c log pi(c)`, where the label is shared equally by a query's relevant documents and
    `pi(c) = softmax_c(score_c / temperature)`. With one relevant document per query this is InfoNCE (arXiv 1807.03748).

    Args:
        scores: `(n, m)`, of the student; `-inf` leaves a document out.
        relevant: `(n, m)` bool; a query without a relevant document adds 0.
        temperature: above 0.

    Returns:
        A scalar, fp32, in nats.

    Examples:
        >>> import torch
        >>> from modeling_rabtriever.distillation.losses import label_cross_entropy
        >>> relevant = torch.tensor([[True, False]])
        >>> label_cross_entropy(torch.tensor([[0.0, 0.0]]), relevant, temperature=1.0)  # log(2): it cannot tell
        tensor(0.6931)
    """
    log_p = (scores.float() / temperature).masked_fill(~relevant.any(-1, keepdim=True), 0).log_softmax(-1)
    labels = relevant / relevant.sum(-1, keepdim=True).clamp_min(1)
    return -(labels * log_p.masked_fill(~relevant, 0)).sum(-1).mean()
