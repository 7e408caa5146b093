"""The teacher's listwise loss, and the check that a loss is finite.

The student's own losses are in `distillation.losses`.
"""

import torch
from torch import Tensor


def listwise_cross_entropy(scores: Tensor) -> Tensor:
    """Negative log-likelihood of the first candidate, the relevant one: `-log softmax_c(score_c)[0]`, over queries.

    The teacher's listwise objective: trains the order of a query's candidates, which is what the student distils.

    Args:
        scores: `(n, c)`, log-odds; column 0 is the relevant document. `-inf` leaves a candidate out.

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
            f"{name} is not finite ({listed}); accepted: finite losses. Lower the learning rate, or check the weights "
            "and the teacher's states for NaN"
        )
