"""The teacher's losses, and the check that a loss is finite.

The student's losses are in `distillation.losses`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import GenerativeRerankerModel


def listwise_cross_entropy(scores: Tensor) -> Tensor:
    """Negative log-likelihood of the first candidate, the relevant one: `-log softmax_c(score_c)[0]`, over queries.

    The teacher's listwise objective. It trains the order of a query's candidates, which the student then learns.

    Args:
        scores: `(n, c)`, log-odds; column 0 is the relevant document. `-inf` leaves a candidate out.

    Returns:
        A scalar, fp32, in nats.

    Examples:
        >>> import torch
        >>> from modeling_rabtriever.reranking.losses import listwise_cross_entropy
        >>> listwise_cross_entropy(torch.tensor([[0.0, 0.0, -torch.inf]]))  # log(2): two candidates, and it cannot tell
        tensor(0.6931)
    """
    return -scores.float().log_softmax(-1)[:, 0].mean()


def document_lm_loss(
    reranker: GenerativeRerankerModel, states: Tensor, input_ids: Tensor, in_document: Tensor
) -> Tensor:
    """Mean cross-entropy of every document token except the first, given the tokens before it.

    Without this loss, only attention reads the state of a document's last token, so training does not make that state
    represent the document. But the student sees nothing else of the document.

    Args:
        reranker: the teacher.
        states: `(pairs, length, d)`, final states.
        input_ids: `(pairs, length)`.
        in_document: `(pairs, length)` bool, the tokens of the documents with their template.

    Returns:
        A scalar, fp32, in nats.
    """
    predicted = in_document[:, 1:]
    logits = reranker.get_output_embeddings()(states[:, :-1][predicted])
    return F.cross_entropy(logits.float(), input_ids[:, 1:][predicted])


def check_finite(name: str, **values: Tensor) -> None:
    """Stops training at a NaN or infinite loss, before it reaches the weights.

    Raises:
        ValueError: a value is not finite; the message gives all values.
    """
    if not all(torch.isfinite(value).all() for value in values.values()):
        listed = ", ".join(f"{key}={value.item():g}" for key, value in values.items())
        raise ValueError(
            f"{name} is not finite ({listed}); accepted: finite losses. Lower the learning rate, or check the weights "
            "and the teacher's states for NaN"
        )
